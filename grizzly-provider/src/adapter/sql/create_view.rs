//! CREATE VIEW, as one change of the catalog. DataFusion would drop a view that is replaced and make another: who reads
//! between the two, or starts again after a power failure there, has none.

use std::collections::HashSet;

use datafusion::{
    common::DFSchema,
    error::Result,
    execution::SessionState,
    logical_expr::{DdlStatement, LogicalPlan},
    sql::{
        parser::Statement,
        sqlparser::ast::{CreateView, Statement as SqlStatement},
    },
};

use super::{
    Front,
    front::{plan, unexpected},
    names::own_name,
    refuse::{refuse, refuse_if},
};
use crate::{
    Error, ErrorKind,
    access::IfExists,
    adapter::{busy::busy, interrupt, live_table::refuse_system_schema},
};

/// Carries out CREATE VIEW; the plan of one that is another catalog's.
pub(super) async fn run(front: Front<'_>, state: &SessionState, mut create: CreateView) -> Result<Option<LogicalPlan>> {
    let existing = match (create.or_replace, create.if_not_exists) {
        (true, true) => return Ok(refuse("CREATE OR REPLACE VIEW IF NOT EXISTS")?),
        (true, false) => IfExists::Replace,
        (false, true) => IfExists::Keep,
        (false, false) => IfExists::Fail,
    };
    refuse_if(create.temporary, "CREATE TEMPORARY VIEW")?;
    // The planner knows it not.
    create.if_not_exists = false;
    let statement = SqlStatement::CreateView(create);
    let planned = plan(state, Statement::Statement(Box::new(statement))).await?;
    let LogicalPlan::Ddl(DdlStatement::CreateView(view)) = &planned else { return Err(unexpected(&planned)) };
    let Some((schema, name)) = own_name(state.config_options(), &view.name) else {
        refuse_if(existing == IfExists::Keep, "CREATE VIEW IF NOT EXISTS in another catalog")?;
        return Ok(Some(planned));
    };
    refuse_system_schema(&schema, &name)?;
    let qualified = format!("{schema}.{name}");
    let db = front.session.db();
    let is_view = db.snapshot().views(&schema).iter().any(|(view, _)| *view == name);
    let is_taken = state.schema_for_ref(view.name.clone()).is_ok_and(|schema| schema.table_exist(&name));
    if is_taken && !is_view && existing != IfExists::Keep {
        let message = format!("{qualified} exists already, and is no view");
        return Err(Error::new(ErrorKind::AlreadyExists, message).into());
    }
    // Its types must fit before it is kept.
    let analyzed = state.analyzer().execute_and_check((*view.input).clone(), state.config_options(), |_, _| {})?;
    check_columns(&qualified, analyzed.schema())?;
    let text = view.definition.as_ref().ok_or_else(|| Error::internal("a view has no text"))?;
    interrupt::begin_commit()?;
    busy(|| db.create_view(&qualified, text, existing))?;
    Ok(None)
}

/// Who reads a view names its columns, so they have different names.
fn check_columns(view: &str, schema: &DFSchema) -> Result<()> {
    let mut names = HashSet::new();
    match schema.fields().iter().find(|field| !names.insert(field.name())) {
        Some(field) => {
            let message = format!("two columns of view {view} are called '{}': give one another name", field.name());
            Err(Error::invalid(message).into())
        }
        None => Ok(()),
    }
}
