//! How deep a statement's tree gets is bounded before there is one: everything that walks, copies or drops a tree of
//! ten thousand levels needs ten thousand levels of stack, and planning needs time that grows with their square.
//!
//! Long chains of OR, AND and UNION are usual, as programs write them. They mean the same however they are grouped, so
//! parentheses make flat trees of them. What is deep for another reason is refused.

use datafusion::sql::sqlparser::{
    keywords::Keyword,
    tokenizer::{Token, TokenWithSpan},
};

use crate::{Error, ErrorKind, Result};

/// Levels of operators that a statement may have.
const MAX_DEPTH: usize = 500;
/// Queries that UNION may chain: planning them takes time that grows with their square.
const MAX_UNIONS: usize = 4_000;
/// Operands that are chained without parentheses. A chain of more becomes a tree with so many at each node.
const CHAIN: usize = 32;

/// The same statement with its long chains grouped.
///
/// # Errors
/// `TooComplex` if operators are nested, or chained in an order that matters, too deeply, or if parentheses and CASE are
/// nested deeper than `most_nested`, which the parser would not follow.
pub(super) fn bounded(tokens: Vec<TokenWithSpan>, most_nested: usize) -> Result<Vec<TokenWithSpan>> {
    let mut reader = Reader { frames: vec![Frame::default()], groups: Vec::new(), deepest: 0, nested: 0 };
    for (at, token) in tokens.iter().enumerate() {
        reader.read(at, &token.token);
    }
    while !reader.frames.is_empty() {
        reader.close();
    }
    if reader.nested > most_nested {
        return Err(too_nested(most_nested));
    }
    if reader.deepest > MAX_DEPTH {
        let message = format!(
            "the statement nests or chains more than {MAX_DEPTH} operators; write it with fewer, with IN for many equal \
             comparisons, or as several statements"
        );
        return Err(Error::new(ErrorKind::TooComplex, message));
    }
    Ok(grouped(tokens, reader.groups))
}

/// The error for a statement that is nested deeper than the parser follows.
pub(super) fn too_nested(most: usize) -> Error {
    let message = format!(
        "the statement is nested more than {most} levels deep; write it with fewer, or with WITH queries or views \
         (datafusion.sql_parser.recursion_limit)"
    );
    Error::new(ErrorKind::TooComplex, message)
}

/// Parentheses to be added: before which token, and how many open or close there.
type Groups = Vec<(usize, Parenthesis)>;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Parenthesis {
    Close,
    Open,
}

/// Reads tokens from left to right.
struct Reader {
    /// What is open at this point, outermost first: parentheses, brackets, CASE.
    frames: Vec<Frame>,
    groups: Groups,
    deepest: usize,
    /// The most that were open at a time.
    nested: usize,
}

/// The expressions between two parentheses.
#[derive(Default)]
struct Frame {
    /// Where the operators of the present chains are.
    ors: Vec<usize>,
    ands: Vec<usize>,
    unions: Vec<Union>,
    /// Other operators of the present operand.
    operators: usize,
    /// The next AND belongs to a BETWEEN.
    between: bool,
}

struct Union {
    at: usize,
    /// The first token of the query behind it.
    behind: usize,
    all: bool,
}

impl Reader {
    fn read(&mut self, at: usize, token: &Token) {
        self.nested = self.nested.max(self.frames.len() - 1);
        match token {
            Token::LParen | Token::LBracket | Token::LBrace => self.frames.push(Frame::default()),
            Token::RParen | Token::RBracket | Token::RBrace => self.close_inner(),
            Token::Comma | Token::SemiColon => self.end_expression(),
            Token::Word(word) if word.quote_style.is_none() => self.keyword(at, word.keyword),
            Token::Whitespace(_) | Token::EOF | Token::Period | Token::Number(..) | Token::SingleQuotedString(_) => {}
            Token::Word(_) | Token::Placeholder(_) => {}
            // Whatever else stands between operands.
            _ => self.operator(),
        }
    }

    fn keyword(&mut self, at: usize, keyword: Keyword) {
        let Some(frame) = self.frames.last_mut() else { return };
        match keyword {
            Keyword::OR => {
                self.end_ands();
                self.end_operand();
                if let Some(frame) = self.frames.last_mut() {
                    frame.ors.push(at);
                }
                self.measure();
            }
            Keyword::AND if frame.between => frame.between = false,
            Keyword::AND => {
                frame.ands.push(at);
                self.end_operand();
                self.measure();
            }
            Keyword::BETWEEN => {
                frame.between = true;
                self.operator();
            }
            Keyword::LIKE | Keyword::ILIKE | Keyword::IS | Keyword::IN | Keyword::NOT | Keyword::SIMILAR => {
                self.operator();
            }
            Keyword::CASE => self.frames.push(Frame::default()),
            Keyword::END => self.close_inner(),
            Keyword::UNION => {
                self.end_expression();
                if let Some(frame) = self.frames.last_mut() {
                    frame.unions.push(Union { at, behind: at + 1, all: false });
                }
            }
            Keyword::ALL | Keyword::DISTINCT => {
                // UNION ALL and UNION DISTINCT, but not SELECT ALL.
                if let Some(union) = frame.unions.last_mut().filter(|union| at - union.at <= 2) {
                    (union.behind, union.all) = (at + 1, keyword == Keyword::ALL);
                }
            }
            Keyword::EXCEPT | Keyword::INTERSECT | Keyword::MINUS => {
                self.end_expression();
                self.end_unions();
            }
            Keyword::SELECT
            | Keyword::FROM
            | Keyword::WHERE
            | Keyword::GROUP
            | Keyword::HAVING
            | Keyword::QUALIFY
            | Keyword::WINDOW
            | Keyword::ORDER
            | Keyword::LIMIT
            | Keyword::OFFSET
            | Keyword::FETCH
            | Keyword::ON
            | Keyword::USING
            | Keyword::JOIN
            | Keyword::SET
            | Keyword::VALUES
            | Keyword::WHEN
            | Keyword::THEN
            | Keyword::ELSE
            | Keyword::AS
            | Keyword::RETURNING
            | Keyword::INSERT
            | Keyword::UPDATE
            | Keyword::DELETE
            | Keyword::MERGE
            | Keyword::DO
            | Keyword::WITH => self.end_expression(),
            _ => {}
        }
    }

    fn operator(&mut self) {
        if let Some(frame) = self.frames.last_mut() {
            frame.operators += 1;
        }
        self.measure();
    }

    /// How deep the tree is here, at most.
    fn measure(&mut self) {
        let chained = |count: usize| if count > CHAIN { 3 * CHAIN } else { count };
        let depth = |frame: &Frame| {
            frame.operators + chained(frame.ors.len()) + chained(frame.ands.len()) + chained(frame.unions.len()) + 1
        };
        self.deepest = self.deepest.max(self.frames.iter().map(depth).sum());
    }

    fn end_operand(&mut self) {
        if let Some(frame) = self.frames.last_mut() {
            frame.operators = 0;
        }
    }

    fn end_ands(&mut self) {
        if let Some(frame) = self.frames.last_mut() {
            let ands = std::mem::take(&mut frame.ands);
            group(&ands.iter().map(|at| (*at, *at + 1)).collect::<Vec<_>>(), &mut self.groups);
        }
    }

    fn end_expression(&mut self) {
        self.end_ands();
        self.end_operand();
        if let Some(frame) = self.frames.last_mut() {
            frame.between = false;
            let ors = std::mem::take(&mut frame.ors);
            group(&ors.iter().map(|at| (*at, *at + 1)).collect::<Vec<_>>(), &mut self.groups);
        }
    }

    /// Only unions of one kind may be grouped anew.
    fn end_unions(&mut self) {
        if let Some(frame) = self.frames.last_mut() {
            let unions = std::mem::take(&mut frame.unions);
            if unions.len() > MAX_UNIONS {
                self.deepest = self.deepest.max(unions.len());
            }
            if unions.iter().all(|union| union.all == unions[0].all) {
                group(&unions.iter().map(|union| (union.at, union.behind)).collect::<Vec<_>>(), &mut self.groups);
            } else if unions.len() > CHAIN {
                self.deepest = self.deepest.max(unions.len());
            }
        }
    }

    fn close_inner(&mut self) {
        // One too many is the parser's to report.
        if self.frames.len() > 1 {
            self.close();
        }
    }

    fn close(&mut self) {
        self.end_expression();
        self.end_unions();
        self.frames.pop();
    }
}

/// Groups the operands between the first and the last operator of a chain; each operator is given with the first token
/// behind it. Where the operands before and behind them begin and end is not known, so those stay as they are.
fn group(operators: &[(usize, usize)], groups: &mut Groups) {
    let inner = operators.len().saturating_sub(1);
    if operators.len() <= CHAIN {
        return;
    }
    // Operand `n` stands between operators `n` and `n + 1`.
    let mut size = inner.div_ceil(CHAIN);
    while size > 1 {
        for first in (0..inner).step_by(size) {
            let last = (first + size).min(inner);
            if last - first > 1 {
                groups.push((operators[first].1, Parenthesis::Open));
                groups.push((operators[last].0, Parenthesis::Close));
            }
        }
        size = if size > CHAIN { size.div_ceil(CHAIN) } else { 1 };
    }
}

fn grouped(tokens: Vec<TokenWithSpan>, mut groups: Groups) -> Vec<TokenWithSpan> {
    if groups.is_empty() {
        return tokens;
    }
    groups.sort_unstable();
    let mut groups = groups.into_iter().peekable();
    let mut all = Vec::with_capacity(tokens.len() + groups.len());
    for (at, token) in tokens.into_iter().enumerate() {
        while let Some((_, parenthesis)) = groups.next_if(|(before, _)| *before == at) {
            let added = match parenthesis {
                Parenthesis::Close => Token::RParen,
                Parenthesis::Open => Token::LParen,
            };
            all.push(TokenWithSpan { token: added, span: token.span });
        }
        all.push(token);
    }
    all
}

#[cfg(test)]
mod tests {
    use datafusion::sql::sqlparser::tokenizer::Tokenizer;

    use super::*;
    use crate::adapter::sql::GrizzlyDialect;

    fn text(sql: &str) -> Result<String> {
        let tokens = Tokenizer::new(&GrizzlyDialect, sql).tokenize_with_location().expect("it has tokens");
        Ok(bounded(tokens, 50)?.iter().map(|token| token.token.to_string()).collect())
    }

    fn chain(operand: &str, operator: &str, count: usize) -> String {
        vec![operand; count].join(operator)
    }

    #[test]
    fn ordinary_statements_stay_as_they_are() {
        for sql in [
            "SELECT a FROM t WHERE a BETWEEN 1 AND 2 AND b = 3 OR NOT c",
            "SELECT CASE WHEN a OR b THEN 1 ELSE 2 END, 'OR' FROM t -- AND",
        ] {
            assert_eq!(text(sql).expect("it is small"), sql);
        }
        let chain = format!("SELECT {}", chain("a", " OR ", CHAIN));
        assert_eq!(text(&chain).expect("it is small"), chain);
    }

    #[test]
    fn long_chains_are_grouped_and_nothing_else_moves() {
        for (operand, operator) in [
            ("a = 1", " OR "),
            ("a = 1 AND b BETWEEN 2 AND 3", " OR "),
            ("(a OR b)", " AND "),
            ("x BETWEEN 1 AND 2", " AND "),
            ("CASE WHEN a AND b THEN c ELSE d END", " AND "),
            ("SELECT 1 WHERE a OR b", " UNION ALL "),
            ("SELECT DISTINCT 1", " UNION "),
        ] {
            for count in [4 * CHAIN, 1_000, 4_000] {
                let sql = format!("SELECT * FROM t WHERE {}", chain(operand, operator, count));
                let grouped = text(&sql).expect("chains of these may be long");
                let (mut depth, mut deepest) = (0_i32, 0);
                for byte in grouped.bytes() {
                    depth += i32::from(byte == b'(') - i32::from(byte == b')');
                    deepest = deepest.max(depth);
                    assert!(depth >= 0);
                }
                assert_eq!(depth, 0);
                assert!((1..=5).contains(&deepest), "{operand} {count}: {deepest}");
                let without = |sql: &str| sql.replace(['(', ')'], "");
                assert_eq!(without(&grouped), without(&sql));
            }
        }
    }

    #[test]
    fn what_cannot_be_grouped_is_refused_by_name() {
        for sql in [
            format!("SELECT {}", chain("1", " + ", 1_000)),
            chain("SELECT 1", " UNION ALL ", 10_000),
            format!("SELECT {}", chain("a", " || ", 100_000)),
            format!("SELECT {}1", "- ".repeat(2_000)),
            format!("SELECT {}", chain("SELECT 1", " UNION SELECT 2 UNION ALL ", 1_000)),
            format!("SELECT {} true", "NOT ".repeat(2_000)),
            format!("SELECT {}1{}", "(".repeat(100), ")".repeat(100)),
            format!("SELECT {}1{}", "CASE WHEN a THEN 1 ELSE ".repeat(100), " END".repeat(100)),
        ] {
            let refused = text(&sql).expect_err("it is deep");
            assert_eq!(refused.kind(), ErrorKind::TooComplex);
        }
    }
}
