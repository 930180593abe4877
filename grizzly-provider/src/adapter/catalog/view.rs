//! Views: the database keeps their SQL text; it is planned when somebody reads them.

use std::{
    mem,
    sync::{Arc, LazyLock},
};

use arrow::datatypes::{Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::{
    catalog::{CatalogProviderList, MemoryCatalogProviderList, Session, TableProvider},
    common::DFSchema,
    datasource::{TableType, ViewTable, source_as_provider},
    error::{DataFusionError, Result as DataFusionResult},
    execution::{SessionState, SessionStateBuilder},
    logical_expr::{DdlStatement, EmptyRelation, Expr, LogicalPlan, planner::RelationPlannerContext},
    physical_plan::ExecutionPlan,
    prelude::SessionConfig,
    sql::sqlparser::ast::TableFactor,
};

use super::GrizzlyCatalog;
use crate::{
    Error, ErrorKind, Result,
    adapter::{
        error::{grizzly_error, sqlstate},
        sql::{parse, plan_statement},
        time_travel::TimeTravelPlanner,
    },
};

/// Views may read views, but not endlessly.
const MAX_DEPTH: usize = 32;

/// The catalog's name within a view's planning.
const CATALOG: &str = "grizzly";

/// Every built-in function. A view cannot use functions that exist in one session only.
static STATE: LazyLock<SessionState> = LazyLock::new(|| SessionStateBuilder::new().with_default_features().build());

/// Plans the view `name` of `schema`; tables without a schema in its text are that schema's. The error, if it cannot
/// be planned, names the view and the reason.
pub(super) async fn plan(catalog: &GrizzlyCatalog, schema: &str, name: &str, text: &str) -> Result<ViewTable> {
    let view = format!("view {schema}.{name}");
    if catalog.within.iter().any(|(outer_schema, outer)| outer_schema == schema && outer == name) {
        return Err(Error::invalid(format!("{view} reads itself")));
    }
    if catalog.within.len() >= MAX_DEPTH {
        return Err(Error::invalid(format!("{view} is nested too deeply: below {MAX_DEPTH} others")));
    }
    // The depth of the recursion view -> plan -> view is bounded above; its future must be of bounded size too.
    let plan = Box::pin(plan_text(catalog.within(schema, name), schema, text)).await;
    let query = match plan.map_err(|error| unreadable(&view, &error))? {
        LogicalPlan::Ddl(DdlStatement::CreateView(mut create)) => mem::take(Arc::make_mut(&mut create.input)),
        query => query,
    };
    Ok(ViewTable::new(query, Some(text.to_owned())))
}

async fn plan_text(catalog: GrizzlyCatalog, schema: &str, text: &str) -> DataFusionResult<LogicalPlan> {
    let catalogs = Arc::new(MemoryCatalogProviderList::new());
    catalogs.register_catalog(CATALOG.to_owned(), Arc::new(catalog));
    let config = SessionConfig::new()
        .with_create_default_catalog_and_schema(false)
        .with_default_catalog_and_schema(CATALOG, schema);
    let state = SessionStateBuilder::new_from_existing(STATE.clone())
        .with_config(config)
        .with_catalog_list(catalogs)
        .with_relation_planners(vec![Arc::new(TimeTravelPlanner)])
        .build();
    let limit = state.config_options().sql_parser.recursion_limit.get();
    match parse(text, limit)?.pop() {
        Some(parsed) => plan_statement(&state, parsed.statement).await,
        None => Err(Error::invalid("it has no text").into()),
    }
}

fn unreadable(view: &str, error: &DataFusionError) -> Error {
    let (kind, reason) = match grizzly_error(error) {
        Some(error) => (error.kind(), error.message().to_owned()),
        None if sqlstate(error) == ErrorKind::NotFound.sqlstate() => (ErrorKind::NotFound, root_message(error)),
        None => (ErrorKind::Invalid, root_message(error)),
    };
    Error::new(kind, format!("{view} cannot be read: {reason}"))
}

fn root_message(error: &DataFusionError) -> String {
    error.find_root().message().into_owned()
}

/// A view whose text cannot be planned: a table of its is gone, say, or it reads itself. It is there to be dropped and
/// replaced; whoever reads it gets the error.
#[derive(Debug)]
pub(super) struct BrokenView {
    kind: ErrorKind,
    message: String,
    text: String,
}

impl BrokenView {
    pub(super) fn new(error: Error, text: &str) -> Self {
        Self { kind: error.kind(), message: error.message().to_owned(), text: text.to_owned() }
    }

    fn error(&self) -> Error {
        Error::new(self.kind, self.message.clone())
    }
}

#[async_trait]
impl TableProvider for BrokenView {
    /// Nobody knows its columns.
    fn schema(&self) -> SchemaRef {
        Arc::new(Schema::empty())
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    fn get_table_definition(&self) -> Option<&str> {
        Some(&self.text)
    }

    async fn scan(
        &self,
        _: &dyn Session,
        _: Option<&Vec<usize>>,
        _: &[Expr],
        _: Option<usize>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        Err(self.error().into())
    }
}

/// An error if `relation` is a view that cannot be read. Planning would miss its columns before it reached the scan,
/// and say that instead of the reason.
pub(crate) fn refuse_broken(relation: &TableFactor, context: &dyn RelationPlannerContext) -> DataFusionResult<()> {
    let TableFactor::Table { name, args: None, .. } = relation else {
        return Ok(());
    };
    let reference = context.object_name_to_table_reference(name.clone())?;
    // What is not found is a common table expression, or found missing by the planner itself.
    let Ok(source) = context.context_provider().get_table_source(reference) else {
        return Ok(());
    };
    let provider = source_as_provider(&source).ok();
    match provider.as_ref().and_then(|provider| provider.downcast_ref::<BrokenView>()) {
        Some(broken) => Err(broken.error().into()),
        None => Ok(()),
    }
}

/// What is left of a view once it is dropped: its text.
pub(super) fn dropped(text: String) -> ViewTable {
    let nothing = EmptyRelation { produce_one_row: false, schema: Arc::new(DFSchema::empty()) };
    ViewTable::new(LogicalPlan::EmptyRelation(nothing), Some(text))
}
