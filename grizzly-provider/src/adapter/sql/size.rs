//! How large a statement becomes when it is planned. The planner writes a WITH query and a view out wherever it is named, so
//! thirty WITH queries of which each names the one before twice are a plan of a billion operators. It is refused before
//! there is one: making that plan would take all memory. So would copies: wherever a WITH query is named, DataFusion 55 copies
//! its plan, with a part for each column of each operator (`optimize_subquery_sort`), so a chain of them takes the square of
//! its length.

use std::{collections::HashMap, ops::ControlFlow};

use datafusion::{
    common::TableReference,
    error::{DataFusionError, Result},
    execution::SessionState,
    sql::{
        parser::Statement,
        sqlparser::ast::{
            Expr, GroupByExpr, ObjectName, Query, Select, SelectItem, Statement as SqlStatement, Visit, Visitor,
        },
    },
};

use super::names::{identifier, reference};
use crate::adapter::bounds;

/// An error of kind `TooComplex` if the plan of `statement` would have too many operators.
pub(super) async fn check(state: &SessionState, statement: &SqlStatement) -> Result<()> {
    // No view is larger than a plan may be.
    if Size::new(state, HashMap::new()).relations(statement)? > 1 {
        let tables = tables(state, statement).await?;
        Size::new(state, tables).relations(statement)?;
    }
    Ok(())
}

/// The tables and views that `statement` names.
async fn tables(state: &SessionState, statement: &SqlStatement) -> Result<HashMap<TableReference, Relation>> {
    let mut tables = HashMap::new();
    for reference in state.resolve_table_references(&Statement::Statement(Box::new(statement.clone())))? {
        // Names of WITH queries and tables that are missing are not ours to judge.
        let Ok(schema) = state.schema_for_ref(reference.clone()) else { continue };
        let Ok(Some(table)) = schema.table(reference.table()).await else { continue };
        let operators = table.get_logical_plan().map_or(Ok(1), |plan| bounds::operators(&plan))?;
        tables.insert(reference, Relation { operators, columns: table.schema().fields().len() });
    }
    Ok(tables)
}

/// What a name stands for.
#[derive(Debug, Clone, Copy, Default)]
struct Relation {
    operators: usize,
    columns: usize,
}

/// Adds up what a statement names.
struct Size<'a> {
    state: &'a SessionState,
    tables: HashMap<TableReference, Relation>,
    /// The queries around the present place, outermost first; the first is the statement itself.
    around: Vec<Scope>,
    relations: usize,
    /// Columns of operators of all copies of WITH queries.
    copied: usize,
    refused: Option<DataFusionError>,
}

/// One query as far as it was visited.
#[derive(Default)]
struct Scope {
    operators: usize,
    /// Those of what it reads.
    columns: usize,
    /// Expressions that it selects, and whether it selects all columns.
    selected: usize,
    selects_all: bool,
    /// What its WITH names, in reverse, as far as it was not visited yet: those queries come first and in order.
    unvisited: Vec<String>,
    with: HashMap<String, Relation>,
}

impl Scope {
    /// The query, as far as names stand for it. Of a UNION the columns of all parts are added up.
    fn relation(&self) -> Relation {
        let all = if self.selects_all { self.columns } else { 0 };
        Relation { operators: self.operators, columns: self.selected.saturating_add(all) }
    }
}

impl<'a> Size<'a> {
    fn new(state: &'a SessionState, tables: HashMap<TableReference, Relation>) -> Self {
        Self { state, tables, around: vec![Scope::default()], relations: 0, copied: 0, refused: None }
    }

    /// How many relations a statement names; an error if they stand for too many operators.
    fn relations(mut self, statement: &SqlStatement) -> Result<usize> {
        let _ = statement.visit(&mut self);
        self.refused.map_or(Ok(self.relations), Err)
    }

    /// What a name stands for, and whether that is a WITH query.
    fn named(&self, name: &ObjectName) -> (Relation, bool) {
        if let [part] = name.0.as_slice()
            && let Some(part) = part.as_ident()
        {
            let part = identifier(self.state, part);
            let found = self.around.iter().rev().find_map(|scope| scope.with.get(&part));
            if let Some(query) = found {
                return (*query, true);
            }
        }
        let table = reference(self.state, name).ok().and_then(|name| self.tables.get(&name).copied());
        (table.unwrap_or(Relation { operators: 1, columns: 0 }), false)
    }

    fn add(&mut self, read: Relation) -> ControlFlow<()> {
        let Some(scope) = self.around.last_mut() else { return ControlFlow::Break(()) };
        scope.operators = scope.operators.saturating_add(read.operators);
        scope.columns = scope.columns.saturating_add(read.columns);
        let checked = bounds::check_operators(scope.operators);
        self.unless_refused(checked)
    }

    fn unless_refused(&mut self, checked: Result<()>) -> ControlFlow<()> {
        match checked {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                self.refused = Some(error);
                ControlFlow::Break(())
            }
        }
    }
}

impl Visitor for Size<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        let names = query.with.iter().flat_map(|with| with.cte_tables.iter().rev());
        let unvisited = names.map(|with| identifier(self.state, &with.alias.name)).collect();
        self.around.push(Scope { operators: 1, unvisited, ..Scope::default() });
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _query: &Query) -> ControlFlow<()> {
        let Some(ended) = self.around.pop() else { return ControlFlow::Break(()) };
        let Some(outer) = self.around.last_mut() else { return ControlFlow::Break(()) };
        match outer.unvisited.pop() {
            Some(name) => {
                outer.with.insert(name, ended.relation());
                ControlFlow::Continue(())
            }
            None => self.add(ended.relation()),
        }
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<()> {
        if let Some(scope) = self.around.last_mut() {
            let all = |item: &&SelectItem| matches!(item, SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..));
            let wildcards = select.projection.iter().filter(all).count();
            scope.selected = scope.selected.saturating_add(select.projection.len() - wildcards);
            scope.selects_all |= wildcards > 0;
        }
        let GroupByExpr::Expressions(elements, _) = &select.group_by else { return ControlFlow::Continue(()) };
        let checked = bounds::check_grouping_sets(elements.iter().map(|element| match element {
            Expr::Cube(columns) => bounds::cube(columns.len()),
            Expr::Rollup(columns) => columns.len() + 1,
            Expr::GroupingSets(sets) => sets.len(),
            _ => 1,
        }));
        self.unless_refused(checked)
    }

    fn pre_visit_relation(&mut self, relation: &ObjectName) -> ControlFlow<()> {
        self.relations += 1;
        let (named, is_copied) = self.named(relation);
        if is_copied {
            self.copied = self.copied.saturating_add(named.operators.saturating_mul(named.columns.max(1)));
            self.unless_refused(bounds::check_copied(self.copied))?;
        }
        self.add(named)
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use datafusion::prelude::SessionContext;

    use super::*;
    use crate::ErrorKind;
    use crate::adapter::{grizzly_error, sql::parse};

    /// `count` WITH queries, each of which names the one before twice.
    fn doubling(count: usize) -> String {
        let mut sql = "WITH c0 AS (SELECT 1 AS x)".to_owned();
        for n in 1..count {
            write!(sql, ", C{n} AS (SELECT a.x FROM c{before} a, \"c{before}\" b)", before = n - 1).expect("it fits");
        }
        format!("{sql} SELECT count(*) FROM c{}", count - 1)
    }

    async fn checked(context: &SessionContext, sql: &str) -> Option<ErrorKind> {
        let parsed = parse(sql, 50).expect("it parses").pop().expect("one statement");
        let Statement::Statement(statement) = parsed.statement else { return None };
        let refused = check(&context.state(), &statement).await.err()?;
        grizzly_error(&refused).map(crate::Error::kind)
    }

    #[tokio::test]
    async fn with_queries_that_double_are_refused_before_they_are_planned() {
        let context = SessionContext::new();
        assert_eq!(checked(&context, &doubling(10)).await, None);
        for sql in [doubling(30), doubling(500), format!("CREATE VIEW v AS {}", doubling(30))] {
            assert_eq!(checked(&context, &sql).await, Some(ErrorKind::TooComplex));
        }
    }

    /// `count` WITH queries over `columns` columns, each of all columns of the one before.
    fn chain(count: usize, columns: usize) -> String {
        let first: Vec<_> = (0..columns).map(|n| format!("{n} AS c{n}")).collect();
        let mut sql = format!("WITH w0 AS (SELECT {})", first.join(", "));
        for n in 1..count {
            write!(sql, ", w{n} AS (SELECT * FROM w{before})", before = n - 1).expect("it fits");
        }
        format!("{sql} SELECT count(*) FROM w{}", count - 1)
    }

    #[tokio::test]
    async fn copies_of_with_queries_are_counted_by_their_columns() {
        let context = SessionContext::new();
        for (count, columns, refused) in [(100, 300, false), (600, 300, true), (1000, 3, false), (2, 5000, false)] {
            let expected = refused.then_some(ErrorKind::TooComplex);
            assert_eq!(checked(&context, &chain(count, columns)).await, expected, "{count} of {columns}");
        }
        let wide: Vec<_> = (0..300).map(|n| format!("{n} AS c{n}")).collect();
        let wide = format!("CREATE TABLE wide AS SELECT {}", wide.join(", "));
        context.sql(&wide).await.expect("it is planned").collect().await.expect("it is made");
        let of_table = |count: usize| chain(count, 1).replace("SELECT 0 AS c0", "SELECT * FROM wide");
        assert_eq!(checked(&context, &of_table(100)).await, None);
        assert_eq!(checked(&context, &of_table(600)).await, Some(ErrorKind::TooComplex));
    }

    #[tokio::test]
    async fn grouping_sets_are_counted() {
        let context = SessionContext::new();
        let columns = |count: usize| (0..count).map(|n| format!("c{n}")).collect::<Vec<_>>().join(", ");
        let grouped = |by: String| format!("SELECT count(*) FROM t GROUP BY {by}");
        for (by, refused) in [
            (format!("CUBE ({})", columns(12)), false),
            (format!("CUBE ({})", columns(13)), true),
            (format!("CUBE ({})", columns(70)), true),
            (format!("CUBE ({0}), CUBE ({0})", columns(6)), false),
            (format!("CUBE ({0}), CUBE ({0}), ROLLUP (c9)", columns(6)), true),
            (format!("ROLLUP ({})", columns(1000)), false),
            (columns(1000), false),
        ] {
            let expected = refused.then_some(ErrorKind::TooComplex);
            assert_eq!(checked(&context, &grouped(by.clone())).await, expected, "{by}");
        }
    }

    #[tokio::test]
    async fn a_name_means_the_innermost_query_of_that_name() {
        let context = SessionContext::new();
        let inner = doubling(12);
        let sql = format!("WITH c11 AS (SELECT 1 AS x) SELECT * FROM ({inner}) s, c11 t, c11 u");
        assert_eq!(checked(&context, &sql).await, None);
    }

    #[tokio::test]
    async fn views_count_as_often_as_they_are_named() {
        let context = SessionContext::new();
        context.sql(&format!("CREATE VIEW v AS {}", doubling(12))).await.expect("it may be large");
        let twice = |count: usize| format!("SELECT count(*) FROM {}", vec!["v"; count].join(" NATURAL JOIN "));
        assert_eq!(checked(&context, &twice(2)).await, None);
        assert_eq!(checked(&context, &twice(40)).await, Some(ErrorKind::TooComplex));
        let with = format!("WITH w AS ({}) SELECT * FROM w UNION ALL SELECT * FROM w", twice(7));
        assert_eq!(checked(&context, &with).await, Some(ErrorKind::TooComplex));
    }
}
