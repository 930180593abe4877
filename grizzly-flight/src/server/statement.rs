//! What kind of statement a text is, and therefore how often and when it may run.

use std::{ops::ControlFlow, sync::Arc};

use arrow::datatypes::{Schema, SchemaRef};
use datafusion::{
    common::tree_node::TreeNodeRecursion,
    logical_expr::LogicalPlan,
    sql::sqlparser::{
        dialect::DuckDbDialect,
        tokenizer::{Token, Tokenizer},
    },
};
use grizzly_provider::adapter::is_call;
use tonic::Status;

use super::{
    attended::{TimeLimit, attended},
    sessions::Session,
    stream::CancelSwitch,
};
use crate::error::{invalid, query_status};

/// A statement as far as it is understood without running it.
#[derive(Debug, Clone)]
pub(crate) struct Understood {
    /// The text, with `?` parameters numbered.
    pub(crate) sql: String,
    pub(crate) kind: Kind,
    /// The columns of its result.
    pub(crate) schema: SchemaRef,
}

impl Understood {
    /// Whether it names a statement that was prepared in SQL, and that may mean another by now.
    pub(crate) fn is_execute(&self) -> bool {
        first_word(&self.sql).is_some_and(|word| word.eq_ignore_ascii_case(EXECUTE))
    }
}

/// How a statement runs.
#[derive(Debug, Clone)]
pub(crate) enum Kind {
    /// It reads: it runs while its result is fetched, again if fetched again.
    Read(Arc<LogicalPlan>),
    /// It writes: it runs once, and the result is one small batch.
    Write(Arc<LogicalPlan>),
    /// DDL, transaction control, settings: it runs once, from its text; there is no result.
    Control,
}

const EXECUTE: &str = "EXECUTE";

/// First words of statements that are carried out by the session itself.
const CONTROL: [&str; 21] = [
    "ABORT",
    "ALTER",
    "ANALYZE",
    "BEGIN",
    "CHECKPOINT",
    "COMMENT",
    "COMMIT",
    "CREATE",
    "DEALLOCATE",
    "DROP",
    "END",
    "GRANT",
    "PREPARE",
    "RELEASE",
    "RESET",
    "REVOKE",
    "ROLLBACK",
    "SAVEPOINT",
    "SET",
    "START",
    "VACUUM",
];

/// Whether a control statement defines something, as opposed to transactions and settings.
pub(crate) fn is_definition(sql: &str) -> bool {
    let word = first_word(sql).unwrap_or_default().to_ascii_uppercase();
    matches!(word.as_str(), "ALTER" | "COMMENT" | "CREATE" | "DROP")
}

/// Finds out what `sql` is, and plans it if it reads or writes rows.
pub(crate) async fn understand(session: &Arc<Session>, time: TimeLimit, sql: &str) -> Result<Understood, Status> {
    let (planning, sql) = (Arc::clone(session), sql.to_owned());
    // There is no handle yet by which it could be cancelled; a client that goes away drops this.
    let nobody = CancelSwitch::new();
    attended(session, &nobody, time.deadline(), async move { plan(&planning, &sql).await }).await
}

async fn plan(session: &Session, sql: &str) -> Result<Understood, Status> {
    let grizzly = session.open()?;
    let sql = number_parameters(sql)?;
    let word = first_word(&sql).ok_or_else(|| invalid("the statement is empty"))?.to_ascii_uppercase();
    if CONTROL.contains(&word.as_str()) {
        return Ok(Understood { sql, kind: Kind::Control, schema: Arc::new(Schema::empty()) });
    }
    session.forward.refresh(grizzly).await?;
    let plan = if word == EXECUTE {
        // Replaces the name by the plan it stands for; that plan runs later, like any other.
        grizzly.sql(&sql).await.map(|frame| Arc::new(frame.logical_plan().clone()))
    } else {
        grizzly.plan(&sql).await
    }
    .map_err(|error| query_status(&error))?;
    let schema = Arc::new(plan.schema().as_arrow().clone());
    let kind = kind_of(plan)?;
    Ok(Understood { sql, kind, schema })
}

fn kind_of(plan: Arc<LogicalPlan>) -> Result<Kind, Status> {
    if matches!(plan.as_ref(), LogicalPlan::Ddl(_) | LogicalPlan::Statement(_)) {
        return Ok(Kind::Control);
    }
    let mut writes = false;
    plan.apply_with_subqueries(|node| {
        writes |= matches!(node, LogicalPlan::Dml(_) | LogicalPlan::Copy(_) | LogicalPlan::Ddl(_)) || is_call(node);
        Ok(if writes { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })
    .map_err(|error| query_status(&error))?;
    Ok(if writes { Kind::Write(plan) } else { Kind::Read(plan) })
}

/// The first word, past white space, comments and opening parentheses.
pub(super) fn first_word(sql: &str) -> Option<&str> {
    let mut rest = sql;
    loop {
        rest = rest.trim_start_matches(|c: char| c.is_whitespace() || c == '(' || c == ';');
        let skipped = if let Some(comment) = rest.strip_prefix("--") {
            comment.split_once('\n').map_or("", |(_, after)| after)
        } else if rest.starts_with("/*") {
            after_block_comment(rest)
        } else {
            break;
        };
        rest = skipped;
    }
    let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len());
    (end > 0).then(|| &rest[..end])
}

/// What follows the block comment at the start of `sql`; comments nest.
fn after_block_comment(sql: &str) -> &str {
    let mut depth = 0_usize;
    let bytes = sql.as_bytes();
    let mut at = 0;
    let found = loop {
        match bytes.get(at..at + 2) {
            Some(b"/*") => (depth, at) = (depth + 1, at + 2),
            Some(b"*/") => (depth, at) = (depth - 1, at + 2),
            Some(_) => at += 1,
            None => break ControlFlow::Break(()),
        }
        if depth == 0 {
            break ControlFlow::Continue(at);
        }
    };
    match found {
        ControlFlow::Continue(at) => &sql[at..],
        ControlFlow::Break(()) => "",
    }
}

/// `?` parameters as `$1`, `$2`…: drivers write the former, the planner knows the latter.
fn number_parameters(sql: &str) -> Result<String, Status> {
    if !sql.contains('?') {
        return Ok(sql.to_owned());
    }
    // This dialect has no operators that begin with a question mark.
    let tokens = Tokenizer::new(&DuckDbDialect {}, sql)
        .tokenize_with_location()
        .map_err(|error| invalid(format!("the statement cannot be read: {error}")))?;
    let lines = line_starts(sql);
    let mut numbered = String::with_capacity(sql.len() + 16);
    let mut copied = 0;
    let mut parameters = 0;
    let mut known = Known { line: 0, column: 0, at: 0 };
    for token in tokens {
        if !matches!(&token.token, Token::Placeholder(text) if text == "?") {
            continue;
        }
        let start = token.span.start;
        let Some(at) = known.go_on(sql, &lines, start.line, start.column) else { continue };
        parameters += 1;
        numbered.push_str(&sql[copied..at]);
        numbered.push_str(&format!("${parameters}"));
        copied = at + 1;
    }
    numbered.push_str(&sql[copied..]);
    Ok(numbered)
}

fn line_starts(sql: &str) -> Vec<usize> {
    std::iter::once(0).chain(sql.match_indices('\n').map(|(at, _)| at + 1)).collect()
}

/// A place in a statement: line and column, both counted from 1, columns in characters, and the byte there. The next place
/// is looked for from here: a line may have very many.
struct Known {
    line: u64,
    column: u64,
    at: usize,
}

impl Known {
    /// Byte position of a line and column.
    fn go_on(&mut self, sql: &str, lines: &[usize], line: u64, column: u64) -> Option<usize> {
        let start = *lines.get(usize::try_from(line).ok()?.checked_sub(1)?)?;
        let (from, begin) = match self.line == line && self.column <= column {
            true => (self.column, self.at),
            false => (1, start),
        };
        let steps = usize::try_from(column.checked_sub(from)?).ok()?;
        let (offset, _) = sql[begin..].char_indices().nth(steps)?;
        *self = Self { line, column, at: begin + offset };
        Some(self.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_word_is_found_behind_comments() {
        for sql in ["select 1", "  -- why\n select 1", "/* a /* b */ c */ select 1", "((select 1))", ";select"] {
            assert_eq!(first_word(sql), Some("select"), "{sql}");
        }
        for sql in ["", "  ", "-- nothing", "/* open", "()"] {
            assert_eq!(first_word(sql), None, "{sql}");
        }
    }

    #[test]
    fn question_marks_become_numbers_except_in_strings_names_and_comments() {
        let cases = [
            ("select ?", "select $1"),
            ("select a from t\nwhere é = ? and b in (?,?)", "select a from t\nwhere é = $1 and b in ($2,$3)"),
            ("select '?', \"?\" /* ? */ from t -- ?\nwhere a=?", "select '?', \"?\" /* ? */ from t -- ?\nwhere a=$1"),
            ("insert into t values(?,?)", "insert into t values($1,$2)"),
            ("select $1", "select $1"),
            ("select é, ?, é, ?\n, ?, é?", "select é, $1, é, $2\n, $3, é$4"),
        ];
        for (sql, expected) in cases {
            assert_eq!(number_parameters(sql).expect("tokenizes"), expected);
        }
        // One line of very many takes time for each once.
        let many = format!("select {}?", "?,".repeat(200_000));
        assert!(number_parameters(&many).is_ok_and(|sql| sql.ends_with(",$200001")));
    }
}
