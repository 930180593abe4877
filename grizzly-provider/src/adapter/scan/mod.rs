//! The leaf of every plan that reads a Grizzly table. It carries plain data, what to read and how to find it, and takes
//! filters, projections, limits and the dynamic filters of joins and TopK through DataFusion's own hooks. Nothing is
//! read, and no snapshot chosen, before it is executed.

mod access_choice;
mod ambiguous;
mod display;
mod dynamic;
mod kept;
mod run;
mod stream;
mod wire;

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::{
    common::{
        Statistics,
        config::ConfigOptions,
        tree_node::{TreeNode, TreeNodeRecursion},
    },
    datasource::TableProvider,
    error::Result as DataFusionResult,
    execution::{SendableRecordBatchStream, TaskContext, memory_pool::MemoryLimit},
    logical_expr::Expr,
    physical_expr::{DynamicFilterTracking, EquivalenceProperties},
    physical_plan::{
        ExecutionPlan, Partitioning, PhysicalExpr, PlanProperties,
        coop::cooperative,
        execution_plan::{Boundedness, EmissionType, SchedulingType},
        filter_pushdown::{ChildPushdownResult, FilterPushdownPhase, FilterPushdownPropagation, PushedDown},
        metrics::{ExecutionPlanMetricsSet, MetricsSet},
        projection::{ProjectionExec, all_alias_free_columns, new_projections_for_columns},
        statistics::StatisticsArgs,
    },
};

pub use access_choice::AccessChoice;
use ambiguous::AmbiguousNames;
pub(crate) use ambiguous::DynamicFilterNames;
use dynamic::{CurrentFilter, DynamicFilter};
pub(crate) use kept::KeptRows;
use run::Runs;
use stream::{Cut, ScanStream};

use super::{
    estimate,
    predicate::{self, Conversion, convert_logical, convert_physical},
    table::GrizzlyTable,
};
use crate::{
    Result, TableSnapshot,
    access::{AccessPath, ScanRequest},
};

/// In how many streams a new scan may read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Streams {
    /// At most so many.
    pub(crate) most: usize,
    /// Up to so many rows one is enough.
    pub(crate) rows_each: u64,
}

impl Streams {
    /// About what one morsel holds.
    pub(crate) const ROWS_EACH: u64 = 65_536;

    fn over(self, rows: u64) -> usize {
        let useful = usize::try_from(rows.div_ceil(self.rows_each.max(1))).unwrap_or(usize::MAX);
        self.most.clamp(1, useful.max(1))
    }
}

/// Binds the snapshot of the statement that runs `plan` under `context`, and makes sure that the tables it reads are still
/// those that it was planned for. An error for which [`is_outdated`](super::is_outdated) is true if one was replaced
/// meanwhile.
///
/// ```
/// # async fn run(frame: datafusion::dataframe::DataFrame) -> datafusion::error::Result<()> {
/// use grizzly_provider::adapter::bind_tables;
///
/// let context = std::sync::Arc::new(frame.task_ctx());
/// let plan = frame.create_physical_plan().await?;
/// bind_tables(&plan, &context)?;
/// let rows = datafusion::physical_plan::collect(plan, context).await?;
/// # Ok(())
/// # }
/// ```
pub fn bind_tables(plan: &Arc<dyn ExecutionPlan>, context: &Arc<TaskContext>) -> DataFusionResult<()> {
    plan.apply(|node| {
        if let Some(scan) = node.downcast_ref::<GrizzlyScanExec>() {
            scan.table().bind(context)?;
        }
        Ok(TreeNodeRecursion::Continue)
    })
    .map(drop)
}

/// Reads a table. The optimizer may give it another access path ([`GrizzlyScanExec::with_access`]) or fewer shards.
#[derive(Debug)]
pub struct GrizzlyScanExec {
    table: Arc<GrizzlyTable>,
    request: ScanRequest,
    fetch: Option<usize>,
    /// Filters whose content is known only while the query runs; columns are mapped to the table's.
    dynamic: Vec<DynamicFilter>,
    /// Names by which dynamic filters may go astray; `None` as long as that is unknown.
    ambiguous: Option<AmbiguousNames>,
    choice: Option<AccessChoice>,
    /// Whoever reads its rows keeps them.
    is_kept: bool,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
    runs: Runs,
}

impl GrizzlyScanExec {
    /// Reads the rows of `table` that meet all `filters`, at most `limit`. Filters that cannot be converted are left
    /// out, so the caller evaluates those itself.
    pub(crate) fn try_new(
        table: Arc<GrizzlyTable>,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
        streams: Streams,
    ) -> Result<Self> {
        let schema = table.schema();
        let mut request = ScanRequest {
            projection: projection.cloned().unwrap_or_else(|| (0..schema.fields().len()).collect()),
            all_versions: table.reads_all_versions(),
            ..ScanRequest::default()
        };
        let mut fetch = limit;
        for filter in filters {
            match convert_logical(filter, &schema) {
                Conversion::Exact(more) => request.predicate = Some(predicate::and(request.predicate.take(), more)),
                Conversion::Superset(more) => {
                    request.predicate = Some(predicate::and(request.predicate.take(), more));
                    fetch = None;
                }
                Conversion::No => fetch = None,
            }
        }
        let rows = table.planning_snapshot()?.row_count();
        let properties = properties(&table, &request, streams.over(rows))?;
        Ok(Self::assemble(table, request, fetch, properties))
    }

    fn assemble(
        table: Arc<GrizzlyTable>,
        request: ScanRequest,
        fetch: Option<usize>,
        properties: Arc<PlanProperties>,
    ) -> Self {
        Self {
            table,
            request,
            fetch,
            dynamic: Vec::new(),
            ambiguous: None,
            choice: None,
            is_kept: false,
            properties,
            metrics: ExecutionPlanMetricsSet::new(),
            runs: Runs::default(),
        }
    }

    /// The same scan of another request, over as many partitions as `partitions`.
    fn with_request(&self, request: ScanRequest, partitions: usize) -> Result<Self> {
        let properties = properties(&self.table, &request, partitions)?;
        Ok(Self { request, properties, ..self.fresh() })
    }

    /// The same scan, never run.
    fn fresh(&self) -> Self {
        let (table, request) = (Arc::clone(&self.table), self.request.clone());
        Self {
            dynamic: self.dynamic.clone(),
            ambiguous: self.ambiguous.clone(),
            choice: self.choice.clone(),
            is_kept: self.is_kept,
            ..Self::assemble(table, request, self.fetch, Arc::clone(&self.properties))
        }
    }

    /// The same scan for somebody who keeps its rows.
    fn kept(&self) -> Self {
        Self { is_kept: true, ..self.fresh() }
    }

    /// What it reads, as the engine will be asked.
    pub fn request(&self) -> &ScanRequest {
        &self.request
    }

    /// The table it reads.
    pub fn table(&self) -> &Arc<GrizzlyTable> {
        &self.table
    }

    /// The table as planning should see it: its present state, or the state a time-travel scan reads. Execution
    /// chooses its own snapshot.
    pub fn planning_snapshot(&self) -> Result<TableSnapshot> {
        self.table.planning_snapshot()
    }

    /// The same scan, finding its rows as `choice` says. An index scan runs as one partition. If the index is gone when
    /// it runs, it looks at all rows.
    pub fn with_access(&self, choice: AccessChoice) -> Result<Self> {
        let index_id = match &choice.path {
            AccessPath::FullScan => None,
            AccessPath::Index { index, .. } => self.planning_snapshot()?.index_id(index),
        };
        let access = if index_id.is_some() { choice.path.clone() } else { AccessPath::FullScan };
        let partitions = match access {
            AccessPath::FullScan => self.properties.output_partitioning().partition_count(),
            AccessPath::Index { .. } => 1,
        };
        let request = ScanRequest { access, index_id, ..self.request.clone() };
        let mut scan = self.with_request(request, partitions)?;
        scan.choice = Some(choice);
        Ok(scan)
    }

    /// The choice made with [`GrizzlyScanExec::with_access`], if any.
    pub fn access_choice(&self) -> Option<&AccessChoice> {
        self.choice.as_ref()
    }

    /// The same scan, of these shards only; they must hold every row its predicate is true for.
    pub fn with_shards(&self, shards: Arc<[u32]>) -> Result<Self> {
        let request = ScanRequest { shards: Some(shards), ..self.request.clone() };
        self.with_request(request, self.properties.output_partitioning().partition_count())
    }

    /// The same scan in `partitions` streams, at least one.
    pub fn with_partitions(&self, partitions: usize) -> Result<Self> {
        self.with_request(self.request.clone(), partitions.max(1))
    }

    /// Whether a join or a TopK further up narrows this scan while it runs.
    pub fn has_dynamic_filters(&self) -> bool {
        !self.dynamic.is_empty()
    }

    /// About how many rows it returns, by the optimizer's choice or else by the statistics.
    pub fn estimated_rows(&self) -> Result<u64> {
        let rows = match &self.choice {
            Some(choice) => choice.estimated_rows,
            None => {
                let statistics = self.planning_snapshot()?.statistics();
                estimate::estimated_rows(&statistics, self.request.predicate.as_ref())
            }
        };
        Ok(self.fetch.map_or(rows, |fetch| rows.min(fetch as u64)))
    }

    /// About how many rows it must look at, in all streams together.
    pub fn rows_looked_at(&self) -> Result<u64> {
        match self.request.access {
            AccessPath::FullScan => {
                let (predicate, shards) = (self.request.predicate.as_ref(), self.request.shards.as_deref());
                Ok(self.planning_snapshot()?.estimate_scan_rows(predicate, shards))
            }
            AccessPath::Index { .. } => self.estimated_rows(),
        }
    }

    /// Takes over one filter from above, or as much of it as the engine can do.
    fn push_down(&self, filter: Arc<dyn PhysicalExpr>, next: &mut Pushed) -> PushedDown {
        let columns = &self.request.projection;
        if DynamicFilterTracking::classify(&filter).contains_dynamic_filter() {
            if self.ambiguous.as_ref().is_some_and(|names| names.allow(&filter)) {
                next.dynamic.push(DynamicFilter::new(filter, columns));
            }
            return PushedDown::No;
        }
        let conversion = convert_physical(filter.as_ref(), columns, &self.table.schema());
        let (pushed, more) = match conversion {
            Conversion::Exact(more) => (PushedDown::Yes, more),
            Conversion::Superset(more) => (PushedDown::No, more),
            Conversion::No => return PushedDown::No,
        };
        next.request.predicate = Some(predicate::and(next.request.predicate.take(), more));
        next.changed = true;
        pushed
    }
}

/// What a scan becomes while filters are pushed into it.
struct Pushed {
    request: ScanRequest,
    dynamic: Vec<DynamicFilter>,
    changed: bool,
}

fn properties(table: &GrizzlyTable, request: &ScanRequest, partitions: usize) -> Result<Arc<PlanProperties>> {
    let schema: SchemaRef = table.schema().project(&request.projection)?.into();
    let mut equivalences = EquivalenceProperties::new(schema);
    if let Some(constraints) = table.constraints().and_then(|all| all.project(&request.projection)) {
        equivalences.set_constraints(constraints);
    }
    let partitioning = Partitioning::UnknownPartitioning(partitions);
    let properties = PlanProperties::new(equivalences, partitioning, EmissionType::Incremental, Boundedness::Bounded);
    Ok(Arc::new(properties.with_scheduling_type(SchedulingType::Cooperative)))
}

impl ExecutionPlan for GrizzlyScanExec {
    fn name(&self) -> &'static str {
        "GrizzlyScanExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![]
    }

    fn with_new_children(
        self: Arc<Self>,
        _children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> DataFusionResult<TreeNodeRecursion>,
    ) -> DataFusionResult<TreeNodeRecursion> {
        // A join builds its filter only if it finds somebody here who uses it.
        for filter in &self.dynamic {
            if f(filter.expr())? == TreeNodeRecursion::Stop {
                return Ok(TreeNodeRecursion::Stop);
            }
        }
        Ok(TreeNodeRecursion::Continue)
    }

    fn reset_state(self: Arc<Self>) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        Ok(Arc::new(self.fresh()))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> DataFusionResult<SendableRecordBatchStream> {
        let run = self.runs.join(partition, &context, self)?;
        // Without a bound on memory nobody asks what counts for how much.
        let pool = Some(context.memory_pool()).filter(|pool| matches!(pool.memory_limit(), MemoryLimit::Finite(_)));
        let cut = Cut { rows: context.session_config().batch_size().max(1), own: self.is_kept && pool.is_some() };
        let filter = CurrentFilter::new(&self.dynamic, self.table.schema());
        let stream = ScanStream::new(run, partition, self.schema(), filter, cut, pool, &self.metrics);
        Ok(Box::pin(cooperative(stream)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn statistics_from_inputs(
        &self,
        _inputs: &[Arc<Statistics>],
        args: &StatisticsArgs,
    ) -> DataFusionResult<Arc<Statistics>> {
        let table = self.planning_snapshot()?.statistics();
        let mut rows = self.estimated_rows()?;
        if args.partition().is_some() {
            rows = rows.div_ceil(self.properties.output_partitioning().partition_count() as u64);
        }
        let schema = self.table.schema();
        Ok(Arc::new(estimate::statistics(&table, &schema, &self.request.projection, rows)))
    }

    fn with_fetch(&self, limit: Option<usize>) -> Option<Arc<dyn ExecutionPlan>> {
        let mut scan = self.fresh();
        scan.fetch = limit;
        Some(Arc::new(scan))
    }

    fn fetch(&self) -> Option<usize> {
        self.fetch
    }

    fn try_swapping_with_projection(
        &self,
        projection: &ProjectionExec,
    ) -> DataFusionResult<Option<Arc<dyn ExecutionPlan>>> {
        if !all_alias_free_columns(projection.expr()) {
            return Ok(None);
        }
        let columns = new_projections_for_columns(projection.expr(), &self.request.projection);
        let request = ScanRequest { projection: columns, ..self.request.clone() };
        let scan = self.with_request(request, self.properties.output_partitioning().partition_count())?;
        Ok(Some(Arc::new(scan)))
    }

    fn handle_child_pushdown_result(
        &self,
        phase: FilterPushdownPhase,
        result: ChildPushdownResult,
        _config: &ConfigOptions,
    ) -> DataFusionResult<FilterPushdownPropagation<Arc<dyn ExecutionPlan>>> {
        // A filter above a limit must not choose among the rows that the limit lets through. And where a join was
        // swapped and two of its columns have one name, DataFusion 55.2 may hand the filter of one to the other's
        // table; what the query itself says has come through the logical plan, where names are qualified.
        if self.fetch.is_some() || phase == FilterPushdownPhase::Pre {
            return Ok(FilterPushdownPropagation::all_unsupported(result));
        }
        let known = self.dynamic.len();
        let mut next = Pushed { request: self.request.clone(), dynamic: self.dynamic.clone(), changed: false };
        let filters = result.parent_filters.into_iter();
        let filters = filters.map(|pushed| self.push_down(pushed.filter, &mut next)).collect();
        let propagation = FilterPushdownPropagation::with_parent_pushdown_result(filters);
        if !next.changed && next.dynamic.len() == known {
            return Ok(propagation);
        }
        let mut scan = self.with_request(next.request, self.properties.output_partitioning().partition_count())?;
        scan.dynamic = next.dynamic;
        Ok(propagation.with_updated_node(Arc::new(scan)))
    }
}
