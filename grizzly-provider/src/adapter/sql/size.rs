//! How large a statement becomes when it is planned. The planner writes a WITH query and a view out wherever it is named, so
//! thirty WITH queries of which each names the one before twice are a plan of a billion operators. It is refused before
//! there is one: making that plan would take all memory.

use std::{collections::HashMap, ops::ControlFlow};

use datafusion::{
    common::TableReference,
    error::{DataFusionError, Result},
    execution::SessionState,
    sql::{
        parser::Statement,
        sqlparser::ast::{ObjectName, Query, Statement as SqlStatement, Visit, Visitor},
    },
};

use super::names::{identifier, reference};
use crate::adapter::bounds;

/// An error of kind `TooComplex` if the plan of `statement` would have too many operators.
pub(super) async fn check(state: &SessionState, statement: &SqlStatement) -> Result<()> {
    // No view is larger than a plan may be.
    if Size::new(state, HashMap::new()).relations(statement)? > 1 {
        let views = views(state, statement).await?;
        if !views.is_empty() {
            Size::new(state, views).relations(statement)?;
        }
    }
    Ok(())
}

/// The views that `statement` names, and how many operators each has.
async fn views(state: &SessionState, statement: &SqlStatement) -> Result<HashMap<TableReference, usize>> {
    let mut views = HashMap::new();
    for reference in state.resolve_table_references(&Statement::Statement(Box::new(statement.clone())))? {
        // Names of WITH queries and tables that are missing are not ours to judge.
        let Ok(schema) = state.schema_for_ref(reference.clone()) else { continue };
        let Ok(Some(table)) = schema.table(reference.table()).await else { continue };
        if let Some(plan) = table.get_logical_plan() {
            views.insert(reference, bounds::operators(&plan)?);
        }
    }
    Ok(views)
}

/// Adds up what a statement names.
struct Size<'a> {
    state: &'a SessionState,
    views: HashMap<TableReference, usize>,
    /// The queries around the present place, outermost first; the first is the statement itself.
    around: Vec<Scope>,
    relations: usize,
    refused: Option<DataFusionError>,
}

/// One query as far as it was visited.
#[derive(Default)]
struct Scope {
    operators: usize,
    /// What its WITH names, in reverse, as far as it was not visited yet: those queries come first and in order.
    unvisited: Vec<String>,
    with: HashMap<String, usize>,
}

impl<'a> Size<'a> {
    fn new(state: &'a SessionState, views: HashMap<TableReference, usize>) -> Self {
        Self { state, views, around: vec![Scope::default()], relations: 0, refused: None }
    }

    /// How many relations a statement names; an error if they stand for too many operators.
    fn relations(mut self, statement: &SqlStatement) -> Result<usize> {
        let _ = statement.visit(&mut self);
        self.refused.map_or(Ok(self.relations), Err)
    }

    /// What a name stands for, in operators.
    fn named(&self, name: &ObjectName) -> usize {
        if let [part] = name.0.as_slice()
            && let Some(part) = part.as_ident()
        {
            let part = identifier(self.state, part);
            let found = self.around.iter().rev().find_map(|scope| scope.with.get(&part));
            if let Some(operators) = found {
                return *operators;
            }
        }
        let view = reference(self.state, name).ok().and_then(|name| self.views.get(&name).copied());
        view.unwrap_or(1)
    }

    fn add(&mut self, operators: usize) -> ControlFlow<()> {
        let Some(scope) = self.around.last_mut() else { return ControlFlow::Break(()) };
        scope.operators = scope.operators.saturating_add(operators);
        match bounds::check_operators(scope.operators) {
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
                outer.with.insert(name, ended.operators);
                ControlFlow::Continue(())
            }
            None => self.add(ended.operators),
        }
    }

    fn pre_visit_relation(&mut self, relation: &ObjectName) -> ControlFlow<()> {
        self.relations += 1;
        self.add(self.named(relation))
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
