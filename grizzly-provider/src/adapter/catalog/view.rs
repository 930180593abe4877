//! Views: the database keeps their SQL text; it is planned when somebody reads them.

use std::{
    mem,
    sync::{Arc, LazyLock},
};

use datafusion::{
    catalog::{CatalogProviderList, MemoryCatalogProviderList},
    common::DFSchema,
    datasource::ViewTable,
    error::Result as DataFusionResult,
    execution::{SessionState, SessionStateBuilder},
    logical_expr::{DdlStatement, EmptyRelation, LogicalPlan},
    prelude::SessionConfig,
};

use super::GrizzlyCatalog;
use crate::{Error, adapter::time_travel::TimeTravelPlanner};

/// Views may read views, but not endlessly: a view that is replaced by one that reads itself would.
const MAX_DEPTH: usize = 32;

/// The catalog's name within a view's planning.
const CATALOG: &str = "grizzly";

/// Every built-in function. A view cannot use functions that exist in one session only.
static STATE: LazyLock<SessionState> = LazyLock::new(|| SessionStateBuilder::new().with_default_features().build());

/// Plans the view `name` of `schema`; tables without a schema in its text are that schema's.
pub(super) async fn plan(
    catalog: &GrizzlyCatalog,
    schema: &str,
    name: &str,
    text: &str,
) -> DataFusionResult<ViewTable> {
    if catalog.view_depth >= MAX_DEPTH {
        let message = format!("view {schema}.{name} is nested too deeply; does it read itself?");
        return Err(Error::invalid(message).into());
    }
    let catalogs = Arc::new(MemoryCatalogProviderList::new());
    catalogs.register_catalog(CATALOG.to_owned(), Arc::new(catalog.nested()));
    let config = SessionConfig::new()
        .with_create_default_catalog_and_schema(false)
        .with_default_catalog_and_schema(CATALOG, schema);
    let state = SessionStateBuilder::new_from_existing(STATE.clone())
        .with_config(config)
        .with_catalog_list(catalogs)
        .with_relation_planners(vec![Arc::new(TimeTravelPlanner)])
        .build();
    // The depth of the recursion view -> plan -> view is bounded above; its future must be of bounded size too.
    let plan = Box::pin(state.create_logical_plan(text)).await;
    let plan = plan.map_err(|error| error.context(format!("view {schema}.{name} cannot be planned any more")))?;
    let query = match plan {
        LogicalPlan::Ddl(DdlStatement::CreateView(mut create)) => mem::take(Arc::make_mut(&mut create.input)),
        query => query,
    };
    Ok(ViewTable::new(query, Some(text.to_owned())))
}

/// What is left of a view once it is dropped: its text.
pub(super) fn dropped(text: String) -> ViewTable {
    let nothing = EmptyRelation { produce_one_row: false, schema: Arc::new(DFSchema::empty()) };
    ViewTable::new(LogicalPlan::EmptyRelation(nothing), Some(text))
}
