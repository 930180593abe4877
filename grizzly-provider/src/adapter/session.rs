//! Sessions: DataFusion sessions with Grizzly's catalog, rules and planner, and [`GrizzlySession`], the SQL front on
//! top of one.

use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use datafusion::{
    catalog::MemoryCatalogProviderList,
    common::ParamValues,
    dataframe::DataFrame,
    error::{DataFusionError, Result},
    execution::{SessionState, SessionStateBuilder, memory_pool::MemoryLimit},
    logical_expr::{LogicalPlan, LogicalPlanBuilder},
    optimizer::{AnalyzerRule, OptimizerRule},
    prelude::SessionContext,
    sql::parser::Statement,
};
use futures::future::BoxFuture;

use super::{
    GrizzlyCatalog, GrizzlyOptions, SessionHandle, TimeTravelPlanner,
    activity::{self, CountedSession, Sessions},
    bounded::{BoundedPlans, bounded, bounded_aggregate, most_at_once, string_concat},
    bounds::Bounds,
    busy::unhurried,
    dml::{DmlRule, SubqueriesBelowSink},
    error::is_outdated,
    interrupt,
    misleading_keys::MisleadingKeys,
    plan_cache::{Conditions, PlanCache, ShapeCache, TemplateCache, keepable},
    planner::GrizzlyQueryPlanner,
    result_cache,
    scan::{DynamicFilterNames, KeptRows},
    sql::{Front, Parsed, parse, plan_statement},
    unhurried_joins::UnhurriedJoins,
};
use crate::{Error, Grizzly, access::Csn};

/// Name of the catalog that shows the database's tables.
pub(crate) const CATALOG: &str = "grizzly";
const SCHEMA: &str = "public";

/// How often a statement is planned again whose tables are replaced between planning and execution.
pub const REPLANS: usize = 32;

/// A text of so many bytes is parsed in no time.
const SHORT: usize = 4096;

/// Makes a DataFusion session one that knows a database.
pub trait GrizzlySessionExt {
    /// Shows the database's tables as the default catalog `grizzly`, and installs what makes writing statements,
    /// `FOR SYSTEM_TIME AS OF` and transactions work through `SessionContext::sql`.
    ///
    /// Call it after `with_config`, `with_runtime_env`, `with_query_planner` and whatever adds functions: it adds to what they set. Each session built this way
    /// has transactions of its own; do not build two sessions from clones of one `SessionState`.
    #[must_use]
    fn with_grizzly(self, db: &Grizzly) -> Self;
}

impl GrizzlySessionExt for SessionStateBuilder {
    fn with_grizzly(mut self, db: &Grizzly) -> Self {
        let mut config = self
            .config()
            .take()
            .unwrap_or_default()
            .with_create_default_catalog_and_schema(false)
            .with_default_catalog_and_schema(CATALOG, SCHEMA)
            .with_information_schema(true)
            .with_extension(Arc::new(SessionHandle::new(db)));
        if config.options().extensions.get::<GrizzlyOptions>().is_none() {
            config = config.with_option_extension(GrizzlyOptions::default());
        }
        let catalogs = self.catalog_list().get_or_insert_with(|| Arc::new(MemoryCatalogProviderList::new()));
        let catalog = GrizzlyCatalog::new(db);
        if let Err(error) = activity::register(&catalog, db).and_then(|()| result_cache::register(&catalog, db)) {
            tracing::warn!(%error, "tables about the database cannot be shown");
        }
        catalogs.register_catalog(CATALOG.to_owned(), Arc::new(catalog));
        // First, while plans have the shape the SQL planner gives them.
        let analyzer = &mut self.analyzer().get_or_insert_default().rules;
        analyzer.splice(0..0, [Arc::new(Bounds) as Arc<dyn AnalyzerRule + Send + Sync>, Arc::new(DmlRule)]);
        // PREPARE optimizes without analyzing. Keys are hidden before any rule that asks for them.
        let optimizer = &mut self.optimizer().get_or_insert_default().rules;
        let first: [Arc<dyn OptimizerRule + Send + Sync>; 3] =
            [Arc::new(Bounds), Arc::new(DmlRule), Arc::new(MisleadingKeys)];
        optimizer.splice(0..0, first);
        self.relation_planners().get_or_insert_default().insert(0, Arc::new(TimeTravelPlanner));
        let physical = &mut self.physical_optimizers().get_or_insert_default().rules;
        // Without DataFusion's rule there are no dynamic filters, and where ours stands does not matter.
        let place = physical.iter().position(|rule| rule.name() == DynamicFilterNames::BEFORE);
        physical.insert(place.unwrap_or(physical.len()), Arc::new(DynamicFilterNames));
        physical.insert(0, Arc::new(Bounds));
        let memory = self.runtime_env().as_ref().map(|runtime| runtime.memory_pool.memory_limit());
        let most = most_at_once(&memory.unwrap_or(MemoryLimit::Unknown));
        let scalars = self.scalar_functions().get_or_insert_default();
        scalars.push(string_concat());
        for function in scalars {
            *function = bounded(function, most);
        }
        for function in self.aggregate_functions().iter_mut().flatten() {
            *function = bounded_aggregate(function, most);
        }
        let planner = GrizzlyQueryPlanner::around(self.query_planner().take(), BoundedPlans::new(most));
        self.with_config(config)
            .with_query_planner(Arc::new(planner))
            .with_physical_optimizer_rule(Arc::new(KeptRows))
            .with_physical_optimizer_rule(Arc::new(SubqueriesBelowSink))
            .with_physical_optimizer_rule(Arc::new(UnhurriedJoins))
    }
}

/// One user's session: SQL, transactions and prepared statements. At most one transaction is open at a time.
///
/// Its methods return boxed futures, so that they are compiled here, once. A crate that awaits an `async fn` compiles
/// all that it awaits in turn, which is most of DataFusion's planner.
pub struct GrizzlySession {
    context: SessionContext,
    handle: Arc<SessionHandle>,
    /// Boxed, as a session is moved about.
    plans: Box<PlanCache>,
    shapes: ShapeCache,
    templates: TemplateCache,
    _counted: CountedSession,
}

impl std::fmt::Debug for GrizzlySession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GrizzlySession").field("handle", &self.handle).finish_non_exhaustive()
    }
}

impl GrizzlySession {
    /// A session on `db` with DataFusion's default features.
    pub fn new(db: &Grizzly) -> Self {
        let state = SessionStateBuilder::new().with_default_features().with_grizzly(db).build();
        Self::around(state, db)
    }

    /// A session on top of `state`, which [`GrizzlySessionExt::with_grizzly`] must have prepared; otherwise an error
    /// of kind `Invalid`. It gets transactions of its own, whatever else is made of the same state.
    pub fn with_state(state: SessionState) -> crate::Result<Self> {
        let handle = state.config().get_extension::<SessionHandle>();
        let handle = handle.ok_or_else(|| Error::invalid("the session state was built without with_grizzly"))?;
        Ok(Self::around(state, handle.db()))
    }

    fn around(mut state: SessionState, db: &Grizzly) -> Self {
        let handle = Arc::new(SessionHandle::with_results(db));
        state.config_mut().set_extension(Arc::clone(&handle));
        let (plans, shapes) = (Box::new(PlanCache::for_state(&state)), ShapeCache::for_state(&state));
        let templates = TemplateCache::for_state(&state);
        let context = SessionContext::new_with_state(state);
        Self { context, handle, plans, shapes, templates, _counted: Sessions::one_more(db) }
    }

    /// The DataFusion session below.
    pub fn context(&self) -> &SessionContext {
        &self.context
    }

    /// The session's database and open transaction.
    pub fn handle(&self) -> &Arc<SessionHandle> {
        &self.handle
    }

    /// Runs one statement. Definitions and transaction control are carried out when this returns; queries, and
    /// statements that write, when the `DataFrame` is executed.
    ///
    /// A statement that fails aborts the open transaction.
    pub fn sql<'a>(&'a self, sql: &'a str) -> BoxFuture<'a, Result<DataFrame>> {
        Box::pin(async move {
            if let Some(plan) = self.plans.get(sql, &self.handle, &self.context) {
                self.handle.check_usable()?;
                return Ok(DataFrame::new(self.context.state(), plan));
            }
            let planned = self.replanned(|| Box::pin(self.sql_uncached(sql))).await;
            self.abort_if_failed(planned)
        })
    }

    async fn sql_uncached(&self, sql: &str) -> Result<DataFrame> {
        let statement = only(self.parse_unhurried(sql).await?)?;
        if let Some(lookup) = self.look_up(&statement, sql)? {
            return Ok(DataFrame::new(self.context.state(), lookup));
        }
        unhurried(self.run(statement, Some(sql))).await
    }

    /// Runs the statements in `sql`, separated by semicolons, and returns the rows of the last one. Outside a
    /// transaction each commits by itself; after the first that fails, the rest is not run.
    pub fn execute<'a>(&'a self, sql: &'a str) -> BoxFuture<'a, Result<Vec<RecordBatch>>> {
        Box::pin(async move {
            if let Some(plan) = self.plans.get(sql, &self.handle, &self.context) {
                self.handle.check_usable()?;
                let may_replan = !self.in_transaction();
                let rows = collect(DataFrame::new(self.context.state(), plan)).await;
                if !(may_replan && rows.as_ref().is_err_and(is_outdated)) {
                    return self.abort_if_failed(rows);
                }
            }
            let rows = self.execute_uncached(sql).await;
            self.abort_if_failed(rows)
        })
    }

    async fn execute_uncached(&self, sql: &str) -> Result<Vec<RecordBatch>> {
        let statements = self.parse_unhurried(sql).await?;
        if let [only] = statements.as_slice()
            && let Some(lookup) = self.look_up(only, sql)?
        {
            let may_replan = !self.in_transaction();
            let rows = DataFrame::new(self.context.state(), lookup).collect().await;
            if !(may_replan && rows.as_ref().is_err_and(is_outdated)) {
                return rows;
            }
        }
        let text = (statements.len() == 1).then_some(sql);
        let mut rows = Vec::new();
        for (at, statement) in statements.into_iter().enumerate() {
            let may_repeat = !matches!(statement.statement, Statement::CopyTo(_));
            let mut parsed = Some(statement);
            let mut attempt = || self.run_to_its_end(parsed.take(), sql, at, text);
            // What COPY has written stays.
            rows = if may_repeat { self.replanned(attempt).await? } else { attempt().await? };
        }
        Ok(rows)
    }

    /// Runs the statement that stands `at` this place in `sql`, which may have been parsed already.
    fn run_to_its_end<'a>(
        &'a self,
        parsed: Option<Parsed>,
        sql: &'a str,
        at: usize,
        text: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Vec<RecordBatch>>> {
        Box::pin(async move {
            let statement = match parsed {
                Some(parsed) => parsed,
                None => {
                    let missing = || Error::internal(format!("the text has no statement {at} any more"));
                    self.parse_unhurried(sql).await?.into_iter().nth(at).ok_or_else(missing)?
                }
            };
            collect(unhurried(self.run(statement, text)).await?).await
        })
    }

    /// What `attempt` yields; it is made again, and plans anew, while a table is replaced between planning and execution.
    async fn replanned<'a, T: Send>(&self, mut attempt: impl FnMut() -> BoxFuture<'a, Result<T>> + Send) -> Result<T> {
        // In a transaction it would be the same table again, and one that has ended meanwhile must not be left out.
        let attempts = if self.in_transaction() { 0 } else { REPLANS };
        let mut result = attempt().await;
        for _ in 0..attempts {
            if !result.as_ref().is_err_and(is_outdated) {
                break;
            }
            result = attempt().await;
        }
        result
    }

    /// The plan of one query or writing statement, which may hold placeholders (`$1`), for
    /// [`GrizzlySession::execute_plan`]. Nothing is executed, and no snapshot is bound. A text with placeholders that
    /// comes again gets the same plan, as long as the tables and settings it depends on are the same; another function
    /// registered under the name of an immutable one is not noticed.
    pub fn plan<'a>(&'a self, sql: &'a str) -> BoxFuture<'a, Result<Arc<LogicalPlan>>> {
        Box::pin(async move {
            let attempt = || {
                let planned = self.plans.prepared(sql, &self.handle, &self.context, async {
                    plan_statement(&self.context.state(), only(self.parse(sql)?)?.statement).await
                });
                Box::pin(unhurried(planned)) as BoxFuture<'_, _>
            };
            let planned = self.replanned(attempt).await;
            self.abort_if_failed(planned)
        })
    }

    /// Whether `plan` means the same whenever it is executed, so that a session keeps what planning finds out: it reads
    /// and writes nothing but tables of the database as they are now, by functions that depend on nothing else.
    pub fn may_keep(&self, plan: &LogicalPlan) -> bool {
        keepable(plan).unwrap_or(false)
    }

    /// Runs a plan of [`GrizzlySession::plan`] with values for its placeholders, as often as wanted. What planning
    /// finds out is kept for the next time; it is found again by the plan's address, so keep the plan where it is.
    pub async fn execute_plan(&self, plan: &LogicalPlan, params: impl Into<ParamValues>) -> Result<DataFrame> {
        self.execute_with(plan, params.into()).await
    }

    fn execute_with<'a>(&'a self, plan: &'a LogicalPlan, params: ParamValues) -> BoxFuture<'a, Result<DataFrame>> {
        Box::pin(async move {
            let looked_up = self.handle.check_usable().map_err(DataFusionError::from);
            let looked_up = looked_up.and_then(|()| self.templates.look_up(plan, &params, &self.handle, &self.context));
            if let Some(lookup) = self.abort_if_failed(looked_up)? {
                return Ok(DataFrame::new(self.context.state(), lookup));
            }
            let executed = async {
                if let Some(plan) = self.templates.fill(plan, &params, &self.handle, &self.context)? {
                    return Ok(DataFrame::new(self.context.state(), plan));
                }
                let plan = plan.clone().with_param_values(params)?;
                self.context.execute_logical_plan(plan).await
            };
            self.abort_if_failed(unhurried(executed).await)
        })
    }

    /// Starts a transaction. An error of kind `TransactionState` if one is open.
    pub async fn begin(&self) -> crate::Result<()> {
        self.handle.begin(false).await
    }

    /// Commits the open transaction; it ends, whatever the outcome. An error of kind `Conflict` names table and key
    /// if another transaction committed first.
    pub async fn commit(&self) -> crate::Result<Csn> {
        self.handle.commit().await
    }

    /// Rolls the open transaction back.
    pub async fn rollback(&self) -> crate::Result<()> {
        self.handle.rollback().await
    }

    /// Whether a transaction is open.
    pub fn in_transaction(&self) -> bool {
        self.handle.in_transaction()
    }

    fn parse(&self, sql: &str) -> Result<Vec<Parsed>> {
        let state = self.context.state_ref();
        let limit = state.read().config_options().sql_parser.recursion_limit.get();
        parse(sql, limit)
    }

    /// Parses; a short text on this thread, which takes less time than another one would to go on with the rest.
    async fn parse_unhurried(&self, sql: &str) -> Result<Vec<Parsed>> {
        if sql.len() <= SHORT { self.parse(sql) } else { unhurried(async { self.parse(sql) }).await }
    }

    /// What to execute for a statement that is known to be no more than a lookup; `sql` is its text.
    fn look_up(&self, statement: &Parsed, sql: &str) -> Result<Option<LogicalPlan>> {
        // What an aborted transaction refuses, and what ends it, is told apart elsewhere.
        if sql.len() > SHORT || self.handle.is_aborted() {
            return Ok(None);
        }
        self.shapes.look_up(&statement.statement, &self.handle, &self.context)
    }

    /// Runs one statement; `text` is its SQL if its plan may be kept.
    async fn run(&self, statement: Parsed, text: Option<&str>) -> Result<DataFrame> {
        // What an aborted transaction refuses, and what ends it, is told apart below.
        if text.is_some() && !self.handle.is_aborted() {
            let filled = self.shapes.plan(&statement.statement, &self.templates, &self.handle, &self.context);
            // Boxed: planning within planning would take twice the stack.
            let filled = Box::pin(filled).await?;
            if let Some(plan) = filled {
                return Ok(DataFrame::new(self.context.state(), plan));
            }
        }
        let front = Front { context: &self.context, session: &self.handle };
        let conditions = Conditions::now(&self.handle, &self.context);
        let Some(plan) = front.run(statement).await? else {
            let nothing = LogicalPlanBuilder::empty(false).build()?;
            return Ok(DataFrame::new(self.context.state(), nothing));
        };
        if let Some(text) = text
            && let Some(plan) = self.plans.keep(text, &plan, conditions, &self.context)?
        {
            return Ok(DataFrame::new(self.context.state(), plan));
        }
        if matches!(plan, LogicalPlan::Ddl(_)) {
            interrupt::begin_commit()?;
        }
        self.context.execute_logical_plan(plan).await
    }

    fn abort_if_failed<T>(&self, result: Result<T>) -> Result<T> {
        if result.is_err() {
            self.handle.abort();
        }
        result
    }
}

/// The one statement of a text that may have no more.
fn only(mut statements: Vec<Parsed>) -> Result<Parsed> {
    match (statements.pop(), statements.is_empty()) {
        (Some(statement), true) => Ok(statement),
        _ => Err(Error::invalid("one statement is expected here, not none and not several").into()),
    }
}

/// Runs to the end; planning is not hurried, execution yields by itself.
async fn collect(frame: DataFrame) -> Result<Vec<RecordBatch>> {
    let context = Arc::new(frame.task_ctx());
    let plan = unhurried(frame.create_physical_plan()).await?;
    datafusion::physical_plan::collect(plan, context).await
}
