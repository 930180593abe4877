//! Which statement goes where.

use datafusion::{
    error::{DataFusionError, Result},
    execution::SessionState,
    logical_expr::{Analyze, Explain, LogicalPlan, PlanType, Prepare, Statement as PlanStatement, ToStringifiedPlan},
    prelude::SessionContext,
    sql::{
        parser::{CopyToSource, ExplainStatement, Statement},
        sqlparser::ast::{ObjectType, Statement as SqlStatement},
    },
};
use std::sync::Arc;

use super::{
    Parsed, call, conflict, create_table, create_view, default_values, drop_several, index, joined,
    normalize::normalize, parse::parse_template, refuse, size, transaction,
};
use crate::{
    Error,
    adapter::{SessionHandle, bounds, interrupt},
};

/// One session's SQL.
#[derive(Clone, Copy)]
pub(crate) struct Front<'a> {
    pub(crate) context: &'a SessionContext,
    pub(crate) session: &'a SessionHandle,
}

impl Front<'_> {
    /// Carries out transaction control and definitions; returns the plan of anything else, not executed.
    pub(crate) async fn run(self, parsed: Parsed) -> Result<Option<LogicalPlan>> {
        if let Statement::Statement(statement) = &parsed.statement {
            if let Some(done) = transaction::run(self.session, statement).await {
                return done.map(|()| None);
            }
            self.session.check_usable()?;
            refuse::refuse_unsupported(statement)?;
            if let Some(definition) = definition(statement) {
                self.session.outside_transaction(definition)?;
            }
        }
        self.session.check_usable()?;
        let state = self.context.state();
        match parsed.statement {
            Statement::Statement(statement) => match *statement {
                SqlStatement::CreateTable(create) => {
                    if let Some(query) = &create.query {
                        size::check(&state, &SqlStatement::Query(query.clone())).await?;
                    }
                    create_table::run(self, &state, create, parsed.shards).await?;
                    Ok(None)
                }
                SqlStatement::CreateIndex(create) => {
                    index::create(self, &state, &create)?;
                    Ok(None)
                }
                SqlStatement::Drop { object_type: ObjectType::Index, names, table, if_exists, .. } => {
                    interrupt::begin_commit()?;
                    index::drop(self, &state, &names, table.as_ref(), if_exists)?;
                    Ok(None)
                }
                SqlStatement::CreateView(create) => create_view::run(self, &state, create).await,
                several if drop_several::is_meant(&several) => {
                    interrupt::begin_commit()?;
                    drop_several::run(self, &state, several).await?;
                    Ok(None)
                }
                other => plan(&state, Statement::Statement(Box::new(other))).await.map(Some),
            },
            other => plan(&state, other).await.map(Some),
        }
    }
}

/// What a statement that changes the catalog is called.
fn definition(statement: &SqlStatement) -> Option<&'static str> {
    Some(match statement {
        SqlStatement::CreateTable(_) => "CREATE TABLE",
        SqlStatement::CreateIndex(_) => "CREATE INDEX",
        SqlStatement::CreateView(_) => "CREATE VIEW",
        SqlStatement::CreateSchema { .. } => "CREATE SCHEMA",
        SqlStatement::CreateDatabase { .. } => "CREATE DATABASE",
        SqlStatement::Drop { .. } => "DROP",
        _ => return None,
    })
}

/// The plan of a statement; nothing is carried out.
pub(crate) async fn plan(state: &SessionState, statement: Statement) -> Result<LogicalPlan> {
    interrupt::check()?;
    let plan = match statement {
        Statement::Statement(statement) => plan_sql(state, *statement).await,
        Statement::Explain(explain) => plan_explain(state, explain).await,
        Statement::CopyTo(copy) => {
            if let CopyToSource::Query(query) = &copy.source {
                size::check(state, &SqlStatement::Query(query.clone())).await?;
            }
            state.statement_to_plan(Statement::CopyTo(copy)).await
        }
        other => state.statement_to_plan(other).await,
    }?;
    bounds::check(&plan)?;
    Ok(plan)
}

async fn plan_sql(state: &SessionState, mut statement: SqlStatement) -> Result<LogicalPlan> {
    refuse::refuse_unsupported(&statement)?;
    size::check(state, &statement).await?;
    normalize(state, &mut statement)?;
    default_values::fill_in(state, &mut statement).await?;
    match statement {
        SqlStatement::Call(call) => call::plan(state, &call),
        SqlStatement::Insert(insert) if insert.on.is_some() => conflict::plan(state, insert).await,
        SqlStatement::Update(update) if update.from.is_some() => joined::plan_update(state, update).await,
        SqlStatement::Delete(delete) if delete.using.is_some() => joined::plan_delete(state, delete).await,
        SqlStatement::Delete(delete) if joined::has_alias(&delete) => joined::plan_aliased_delete(state, delete).await,
        SqlStatement::Prepare { name, data_types, statement } => {
            let input = Box::pin(plan_sql(state, *statement.clone())).await?;
            let whole = SqlStatement::Prepare { name, data_types, statement };
            plan_prepare(state, whole, input).await
        }
        other => state.statement_to_plan(Statement::Statement(Box::new(other))).await,
    }
}

/// The planner sees a statement it knows; what it would have prepared is then exchanged for `input`, unless it can
/// plan the statement by itself and so take the declared parameter types into account.
async fn plan_prepare(state: &SessionState, prepare: SqlStatement, input: LogicalPlan) -> Result<LogicalPlan> {
    let SqlStatement::Prepare { name, data_types, statement } = prepare else {
        return Err(Error::internal("only PREPARE prepares").into());
    };
    let whole = SqlStatement::Prepare { name: name.clone(), data_types: data_types.clone(), statement };
    if let Ok(plan) = state.statement_to_plan(Statement::Statement(Box::new(whole))).await {
        return Ok(plan);
    }
    let stand_in = Box::new(stand_in()?);
    let whole = SqlStatement::Prepare { name, data_types, statement: stand_in };
    match state.statement_to_plan(Statement::Statement(Box::new(whole))).await? {
        LogicalPlan::Statement(PlanStatement::Prepare(prepare)) => {
            let prepare = Prepare { input: Arc::new(input), ..prepare };
            Ok(LogicalPlan::Statement(PlanStatement::Prepare(prepare)))
        }
        other => Err(unexpected(&other)),
    }
}

/// EXPLAIN of what the planner would make of the statement alone.
async fn plan_explain(state: &SessionState, explain: ExplainStatement) -> Result<LogicalPlan> {
    let plan = Box::pin(plan(state, *explain.statement)).await?;
    let stand_in = Box::new(Statement::Statement(Box::new(stand_in()?)));
    let explain = Statement::Explain(ExplainStatement { statement: stand_in, ..explain });
    match state.statement_to_plan(explain).await? {
        LogicalPlan::Explain(explain) => {
            let stringified_plans = vec![plan.to_stringified(PlanType::InitialLogicalPlan)];
            Ok(LogicalPlan::Explain(Explain { plan: Arc::new(plan), stringified_plans, ..explain }))
        }
        LogicalPlan::Analyze(analyze) => Ok(LogicalPlan::Analyze(Analyze { input: Arc::new(plan), ..analyze })),
        other => Err(unexpected(&other)),
    }
}

/// A statement that any planner can plan.
fn stand_in() -> Result<SqlStatement> {
    match parse_template("SELECT 1")? {
        Statement::Statement(statement) => Ok(*statement),
        other => Err(Error::internal(format!("{other} is no query")).into()),
    }
}

pub(super) fn unexpected(plan: &LogicalPlan) -> DataFusionError {
    Error::internal(format!("the planner made an unexpected {}", plan.display())).into()
}
