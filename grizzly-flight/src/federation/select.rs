//! One SELECT that a remote will run, as it grows from the tables upwards.
//!
//! Inputs are called `q1`, `q2`… in the order of FROM, and columns are found by their position, so that tables and
//! columns of equal names, and names that differ only in case, never meet.

use super::expression::quoted_name;

/// A query on one remote.
#[derive(Debug, Clone)]
pub(super) struct Select {
    from: Vec<Source>,
    /// All must hold.
    filter: Vec<String>,
    pub(super) columns: Vec<Column>,
    /// `Some` if it aggregates; empty for one group of all rows.
    group: Option<Vec<String>>,
    order: Vec<String>,
    skip: usize,
    limit: Option<usize>,
}

/// What is read.
#[derive(Debug, Clone)]
struct Source {
    /// The kind of join with all sources before it, and its condition; `None` for the first.
    join: Option<(JoinKind, String)>,
    item: Item,
}

#[derive(Debug, Clone)]
enum Item {
    /// A table's quoted name.
    Table(String),
    Query(Box<Select>),
    /// All rows of all of them.
    Union(Vec<Select>),
}

/// A column of the result.
#[derive(Debug, Clone)]
pub(super) enum Column {
    /// A column of the source with this number.
    Plain { source: usize, name: String },
    /// An expression.
    Computed(String),
}

/// A join that keeps both sides' columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum JoinKind {
    Inner,
    Left,
    Right,
    Full,
}

impl Column {
    /// As it is called within the query.
    fn sql(&self) -> String {
        match self {
            Self::Plain { source, name } => format!("\"q{}\".{}", source + 1, quoted_name(name)),
            Self::Computed(sql) => sql.clone(),
        }
    }

    fn is_plain(&self) -> bool {
        matches!(self, Self::Plain { .. })
    }
}

impl Select {
    /// All rows of a table; `name` is quoted, the columns' names are not.
    pub(super) fn table(name: String, columns: impl IntoIterator<Item = String>) -> Self {
        Self::of(Item::Table(name), columns)
    }

    /// All rows of all inputs, which have the same number of columns.
    pub(super) fn union(inputs: Vec<Self>) -> Self {
        let width = inputs.first().map_or(0, |first| first.columns.len());
        let inputs = inputs.into_iter().map(|input| if input.is_limited() { input.nested() } else { input });
        Self::of(Item::Union(inputs.collect()), (0..width).map(position))
    }

    fn of(item: Item, columns: impl IntoIterator<Item = String>) -> Self {
        let columns = columns.into_iter().map(|name| Column::Plain { source: 0, name }).collect();
        let from = vec![Source { join: None, item }];
        Self { from, filter: vec![], columns, group: None, order: vec![], skip: 0, limit: None }
    }

    /// The same rows as the input of another query.
    pub(super) fn nested(self) -> Self {
        let names = self.names();
        Self::of(Item::Query(Box::new(self)), names)
    }

    /// What the columns are called within the query, for expressions over them.
    pub(super) fn texts(&self) -> Vec<String> {
        self.columns.iter().map(Column::sql).collect()
    }

    /// Whether conditions, groups and an order may still be added.
    pub(super) fn is_rows(&self) -> bool {
        self.group.is_none() && !self.is_limited()
    }

    /// Whether all columns are those of the sources.
    pub(super) fn is_plain(&self) -> bool {
        self.columns.iter().all(Column::is_plain)
    }

    /// How many rows it returns at most, if it says so.
    pub(super) fn limit(&self) -> Option<usize> {
        self.limit
    }

    fn is_limited(&self) -> bool {
        !self.order.is_empty() || self.skip > 0 || self.limit.is_some()
    }

    /// Itself if it is still rows, else nested.
    pub(super) fn rows(self) -> Self {
        if self.is_rows() { self } else { self.nested() }
    }

    /// Adds a condition over its [`texts`](Self::texts); it must be [rows](Self::is_rows).
    pub(super) fn filtered(mut self, condition: String) -> Self {
        self.filter.push(condition);
        self
    }

    /// The same rows with other columns.
    pub(super) fn with_columns(mut self, columns: Vec<Column>) -> Self {
        self.columns = columns;
        self
    }

    /// One row for each group; it must be [rows](Self::is_rows).
    pub(super) fn grouped(mut self, group: Vec<String>, columns: Vec<Column>) -> Self {
        self.group = Some(group);
        self.columns = columns;
        self
    }

    /// The first rows in an order; it must be [rows](Self::is_rows).
    pub(super) fn top(mut self, order: Vec<String>, limit: usize) -> Self {
        self.order = order;
        self.limit = Some(limit);
        self
    }

    /// Some rows only.
    pub(super) fn limited(self, skip: usize, limit: usize) -> Self {
        let mut select = if self.is_limited() { self.nested() } else { self };
        select.skip = skip;
        select.limit = Some(limit);
        select
    }

    /// As the left side of a join. Conditions may stay in WHERE if the join keeps each left row as it is, and computed
    /// columns if it never replaces one by NULLs.
    pub(super) fn into_left(self, kind: JoinKind) -> Self {
        let open = self.is_rows()
            && match kind {
                JoinKind::Inner | JoinKind::Left => true,
                JoinKind::Right | JoinKind::Full => self.filter.is_empty() && self.is_plain(),
            };
        if open { self } else { self.nested() }
    }

    /// As the right side of a join: its item, and what its columns are called in it.
    fn into_right(self) -> (Item, Vec<String>) {
        let bare = self.from.len() == 1 && self.filter.is_empty() && self.is_rows() && self.is_plain();
        if !bare {
            let names = self.names();
            return (Item::Query(Box::new(self)), names);
        }
        let names = self.columns.into_iter().map(|column| match column {
            Column::Plain { name, .. } | Column::Computed(name) => name,
        });
        let names = names.collect();
        let item = self.from.into_iter().next().map_or_else(|| Item::Union(vec![]), |source| source.item);
        (item, names)
    }

    /// Joined with `right`, on a condition that `on` makes of the texts of all columns; `self` was made by
    /// [`into_left`](Self::into_left).
    pub(super) fn joined(
        mut self,
        kind: JoinKind,
        right: Self,
        on: impl FnOnce(&[String]) -> Option<String>,
    ) -> Option<Self> {
        let source = self.from.len();
        let (item, names) = right.into_right();
        self.columns.extend(names.into_iter().map(|name| Column::Plain { source, name }));
        let condition = on(&self.texts())?;
        self.from.push(Source { join: Some((kind, condition)), item });
        Some(self)
    }

    /// Only the rows with, or without, a match in `other`, on a condition that `on` makes of the texts of its own and
    /// the other's columns; it must be [rows](Self::is_rows).
    pub(super) fn matched(
        mut self,
        other: Self,
        without: bool,
        on: impl FnOnce(&[String]) -> Option<String>,
    ) -> Option<Self> {
        let (item, names) = other.into_right();
        let mut texts = self.texts();
        texts.extend(names.iter().map(|name| format!("\"e\".{}", quoted_name(name))));
        let not = if without { "NOT " } else { "" };
        let condition = on(&texts)?;
        self.filter.push(format!("{not}EXISTS (SELECT 1 FROM {} AS \"e\" WHERE {condition})", item.sql()));
        Some(self)
    }

    /// What the columns of the result are called: as in their table where that is plain and unique.
    pub(super) fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = Vec::with_capacity(self.columns.len());
        for (at, column) in self.columns.iter().enumerate() {
            let name = match column {
                Column::Plain { name, .. } if is_plain_name(name) && !has_ignoring_case(&names, name) => name.clone(),
                _ => position(at),
            };
            names.push(name);
        }
        names
    }

    /// The query's text.
    pub(super) fn sql(&self) -> String {
        self.sql_with_names(self.names())
    }

    fn sql_with_names(&self, names: Vec<String>) -> String {
        let columns = self.columns.iter().zip(names).map(|(column, name)| match column {
            Column::Plain { name: own, .. } if *own == name => column.sql(),
            column => format!("{} AS {}", column.sql(), quoted_name(&name)),
        });
        let mut columns = columns.collect::<Vec<_>>().join(", ");
        if columns.is_empty() {
            // SQL knows no empty select list; rows are counted by a constant.
            columns = "1 AS \"c0\"".to_owned();
        }
        let from: String = self.from.iter().enumerate().map(|(at, source)| source.sql(at)).collect();
        let mut sql = format!("SELECT {columns} FROM {from}");
        if !self.filter.is_empty() {
            sql.push_str(&format!(" WHERE {}", self.filter.join(" AND ")));
        }
        match &self.group {
            Some(group) if !group.is_empty() => sql.push_str(&format!(" GROUP BY {}", group.join(", "))),
            _ => {}
        }
        if !self.order.is_empty() {
            sql.push_str(&format!(" ORDER BY {}", self.order.join(", ")));
        }
        if let Some(limit) = self.limit {
            sql.push_str(&format!(" LIMIT {limit}"));
        }
        if self.skip > 0 {
            sql.push_str(&format!(" OFFSET {}", self.skip));
        }
        sql
    }
}

impl Source {
    fn sql(&self, at: usize) -> String {
        let item = format!("{} AS \"q{}\"", self.item.sql(), at + 1);
        let Some((kind, condition)) = &self.join else { return item };
        let kind = match kind {
            JoinKind::Inner => "JOIN",
            JoinKind::Left => "LEFT JOIN",
            JoinKind::Right => "RIGHT JOIN",
            JoinKind::Full => "FULL JOIN",
        };
        format!(" {kind} {item} ON {condition}")
    }
}

impl Item {
    fn sql(&self) -> String {
        match self {
            Self::Table(name) => name.clone(),
            Self::Query(query) => format!("({})", query.sql()),
            Self::Union(inputs) => {
                let inputs = inputs.iter().map(|input| {
                    let names = (0..input.columns.len()).map(position).collect();
                    input.sql_with_names(names)
                });
                format!("({})", inputs.collect::<Vec<_>>().join(" UNION ALL "))
            }
        }
    }
}

/// The name of a column that has no better one.
fn position(at: usize) -> String {
    format!("c{at}")
}

/// Whether a column may keep this name: short, and not one that [`position`] gives.
fn is_plain_name(name: &str) -> bool {
    let simple = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    let given = name.strip_prefix(['c', 'C']).is_some_and(|rest| rest.chars().all(|c| c.is_ascii_digit()));
    simple && !given && !name.is_empty() && name.len() <= 40
}

fn has_ignoring_case(names: &[String], name: &str) -> bool {
    names.iter().any(|other| other.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(name: &str, columns: &[&str]) -> Select {
        Select::table(quoted_name(name), columns.iter().map(|column| (*column).to_owned()))
    }

    #[test]
    fn tables_join_side_by_side_and_their_columns_keep_apart() {
        let left = table("t", &["id", "Name"]).filtered("(\"q1\".\"id\" > 1)".to_owned());
        let joined = left.into_left(JoinKind::Inner).joined(JoinKind::Inner, table("u", &["id", "name"]), |texts| {
            Some(format!("({} = {})", texts[0], texts[2]))
        });
        let sql = joined.expect("a condition").sql();
        assert_eq!(
            sql,
            "SELECT \"q1\".\"id\", \"q1\".\"Name\", \"q2\".\"id\" AS \"c2\", \"q2\".\"name\" AS \"c3\" FROM \"t\" AS \
             \"q1\" JOIN \"u\" AS \"q2\" ON (\"q1\".\"id\" = \"q2\".\"id\") WHERE (\"q1\".\"id\" > 1)"
        );
    }

    #[test]
    fn conditions_of_a_side_that_may_become_null_stay_with_it() {
        let filtered = || table("t", &["a"]).filtered("(\"q1\".\"a\" > 1)".to_owned());
        for kind in [JoinKind::Right, JoinKind::Full] {
            assert!(filtered().into_left(kind).filter.is_empty());
        }
        let joined = table("s", &["b"]).joined(JoinKind::Left, filtered(), |_| Some("TRUE".to_owned()));
        let sql = joined.expect("a condition").sql();
        assert!(sql.contains("LEFT JOIN (SELECT \"q1\".\"a\" FROM \"t\" AS \"q1\" WHERE"), "{sql}");
    }

    #[test]
    fn no_columns_is_a_constant_and_a_limit_is_not_filtered() {
        let limited = table("t", &[]).limited(0, 3);
        assert_eq!(limited.sql(), "SELECT 1 AS \"c0\" FROM \"t\" AS \"q1\" LIMIT 3");
        let sql = limited.rows().filtered("TRUE".to_owned()).sql();
        assert!(sql.contains("LIMIT 3) AS \"q1\" WHERE TRUE"), "{sql}");
        let both = Select::union(vec![table("t", &["a"]), table("t", &["a"]).limited(0, 1)]).sql();
        assert!(both.contains("SELECT \"q1\".\"a\" AS \"c0\" FROM \"t\" AS \"q1\" UNION ALL SELECT"), "{both}");
    }
}
