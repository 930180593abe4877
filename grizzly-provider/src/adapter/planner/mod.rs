//! The query planner of a session: statements DataFusion plans but cannot run become operators that act when executed;
//! everything else goes to the planner that was there before.

mod lone_scan;

use std::{borrow::Cow, fmt, sync::Arc};

use arrow::datatypes::{Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::{
    catalog::Session,
    common::tree_node::{Transformed, TreeNode, TreeNodeRecursion},
    error::Result,
    execution::{SendableRecordBatchStream, TaskContext, context::QueryPlanner},
    logical_expr::{DdlStatement, Explain, LogicalPlan, Statement, TransactionAccessMode, TransactionConclusion},
    physical_expr::{EquivalenceProperties, PhysicalExpr},
    physical_plan::{
        DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties,
        execution_plan::{Boundedness, EmissionType},
        explain::ExplainExec,
        stream::RecordBatchStreamAdapter,
    },
    physical_planner::{DefaultPhysicalPlanner, PhysicalPlanner},
};

use super::{
    SessionHandle,
    bounded::BoundedPlans,
    join_fallback::JoinFallbackExec,
    plan_cache::CachedPlan,
    result_cache::{self, ResultCacheExec},
    sql::index_to_create,
};
use crate::{
    Error,
    access::IndexDefinition,
    adapter::{busy::busy, interrupt::Watched},
};

/// Plans what Grizzly adds, and asks another planner for the rest.
#[derive(Debug)]
pub(crate) struct GrizzlyQueryPlanner {
    inner: Option<Arc<dyn QueryPlanner + Send + Sync>>,
    functions: BoundedPlans,
}

impl GrizzlyQueryPlanner {
    /// Asks `inner`, or DataFusion's default planner; functions are bounded as `functions` says.
    pub(crate) fn around(inner: Option<Arc<dyn QueryPlanner + Send + Sync>>, functions: BoundedPlans) -> Self {
        Self { inner, functions }
    }

    async fn plan_with_inner(&self, plan: &LogicalPlan, session: &dyn Session) -> Result<Arc<dyn ExecutionPlan>> {
        let plan = self.functions.bound(plan)?;
        let plan = plan.as_ref();
        match &self.inner {
            Some(inner) => inner.create_physical_plan(plan, session).await,
            None => {
                let physical = DefaultPhysicalPlanner::default().create_physical_plan(plan, session).await?;
                JoinFallbackExec::above(physical, plan, session)
            }
        }
    }

    /// A plan that means the same whenever it is executed: its result may be kept, too.
    async fn plan_kept(&self, plan: &Arc<LogicalPlan>, session: &dyn Session) -> Result<Arc<dyn ExecutionPlan>> {
        let lone = if self.inner.is_none() { lone_scan::plan(plan, session).await? } else { None };
        let physical = match lone {
            Some(scan) => scan,
            None => self.plan_with_inner(plan, session).await?,
        };
        ResultCacheExec::above(physical, plan, session)
    }

    async fn plan_explain(
        &self,
        plan: &LogicalPlan,
        explain: &Explain,
        session: &dyn Session,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let here = self.plan_with_inner(unpacked(plan)?.as_ref(), session).await?;
        if !result_cache::may_be_kept(explain, session) {
            return Ok(here);
        }
        let query = Arc::new(unpacked(&explain.plan)?.into_owned());
        let physical = self.plan_with_inner(&query, session).await?;
        let Some(text) = here.downcast_ref::<ExplainExec>() else { return Ok(here) };
        let explained = result_cache::explain(text, &query, &physical, session)?;
        Ok(explained.map_or(here, |explained| Arc::new(explained) as _))
    }
}

#[async_trait]
impl QueryPlanner for GrizzlyQueryPlanner {
    async fn create_physical_plan(&self, plan: &LogicalPlan, session: &dyn Session) -> Result<Arc<dyn ExecutionPlan>> {
        if let Some(action) = SessionAction::of(plan, session)? {
            return Ok(Arc::new(SessionExec::new(action)));
        }
        let handle = session.config().get_extension::<SessionHandle>();
        if let Some(handle) = &handle {
            handle.check_usable()?;
        }
        let planned = match (CachedPlan::inside(plan), plan) {
            (Some(kept), _) => self.plan_kept(kept, session).await,
            (None, LogicalPlan::Explain(explain)) => self.plan_explain(plan, explain, session).await,
            (None, _) => self.plan_with_inner(unpacked(plan)?.as_ref(), session).await,
        };
        if let (Err(_), Some(handle)) = (&planned, &handle) {
            handle.abort();
        }
        planned
    }
}

/// `plan` with kept plans opened up; they are opaque to optimizer rules, as they have been through them.
fn unpacked(plan: &LogicalPlan) -> Result<Cow<'_, LogicalPlan>> {
    if !plan.exists(|node| Ok(CachedPlan::inside(node).is_some()))? {
        return Ok(Cow::Borrowed(plan));
    }
    let open = plan.clone().transform_down(|node| {
        Ok(match CachedPlan::inside(&node) {
            Some(plan) => Transformed::new(plan.as_ref().clone(), true, TreeNodeRecursion::Jump),
            None => Transformed::no(node),
        })
    })?;
    Ok(Cow::Owned(open.data))
}

/// What a session does besides reading and writing rows.
#[derive(Debug, Clone)]
enum SessionAction {
    Begin { read_only: bool },
    Commit { chain: bool },
    Rollback { chain: bool },
    CreateIndex { table: String, index: IndexDefinition, if_not_exists: bool },
}

impl SessionAction {
    /// The action that `plan` asks for, if it asks for one.
    fn of(plan: &LogicalPlan, session: &dyn Session) -> Result<Option<Self>> {
        Ok(Some(match plan {
            LogicalPlan::Statement(Statement::TransactionStart(start)) => {
                Self::Begin { read_only: start.access_mode == TransactionAccessMode::ReadOnly }
            }
            LogicalPlan::Statement(Statement::TransactionEnd(end)) => match end.conclusion {
                TransactionConclusion::Commit => Self::Commit { chain: end.chain },
                TransactionConclusion::Rollback => Self::Rollback { chain: end.chain },
            },
            LogicalPlan::Ddl(DdlStatement::CreateIndex(create)) => {
                let (table, index) = index_to_create(session.config_options(), create)?;
                Self::CreateIndex { table, index, if_not_exists: create.if_not_exists }
            }
            _ => return Ok(None),
        }))
    }

    async fn run(self, session: &SessionHandle) -> crate::Result<()> {
        let chain = match self {
            Self::Begin { read_only } => return session.begin(read_only).await,
            Self::CreateIndex { table, index, if_not_exists } => {
                session.outside_transaction("CREATE INDEX")?;
                busy(|| session.db().create_index_with(&table, index, if_not_exists, &Watched))?;
                return Ok(());
            }
            Self::Commit { chain } => {
                session.commit().await?;
                chain
            }
            Self::Rollback { chain } => {
                session.rollback().await?;
                chain
            }
        };
        if chain { session.begin(false).await } else { Ok(()) }
    }
}

/// Carries out a [`SessionAction`] when executed; yields no rows.
#[derive(Debug)]
struct SessionExec {
    action: SessionAction,
    properties: Arc<PlanProperties>,
}

impl SessionExec {
    fn new(action: SessionAction) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(no_columns()),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Final,
            Boundedness::Bounded,
        );
        Self { action, properties: Arc::new(properties) }
    }
}

impl DisplayAs for SessionExec {
    fn fmt_as(&self, _format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GrizzlySessionExec: {:?}", self.action)
    }
}

impl ExecutionPlan for SessionExec {
    fn name(&self) -> &'static str {
        "GrizzlySessionExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        _f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(self: Arc<Self>, _children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn execute(&self, _partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let session = context.session_config().get_extension::<SessionHandle>();
        let session = session.ok_or_else(|| Error::invalid("the session was built without with_grizzly"))?;
        let action = self.action.clone();
        let done = async move {
            action.run(&session).await?;
            Ok(futures::stream::empty())
        };
        let stream = futures::TryFutureExt::try_flatten_stream(done);
        Ok(Box::pin(RecordBatchStreamAdapter::new(no_columns(), stream)))
    }
}

fn no_columns() -> SchemaRef {
    Arc::new(Schema::empty())
}
