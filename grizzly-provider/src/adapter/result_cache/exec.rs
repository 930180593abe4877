//! The root of a plan whose result may be kept: it answers from the cache, or else computes and keeps.

use std::{fmt, sync::Arc};

use datafusion::{
    catalog::Session,
    common::{internal_err, tree_node::TreeNodeRecursion},
    error::Result,
    execution::{SendableRecordBatchStream, TaskContext},
    logical_expr::LogicalPlan,
    physical_plan::{
        ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, PhysicalExpr, PlanProperties,
        ReplaceChildrenOptions, coop::cooperative,
    },
};

use super::{
    ResultCache, SessionResults,
    eligible::{rows_looked_at, tables_read},
    keeping::{Keeping, Replay},
    question::Question,
};
use crate::{
    access::Csn,
    adapter::{GrizzlyOptions, GrizzlyTable, SessionHandle, one_stream::in_one_stream},
};

/// Answers a query with its kept result while the tables it reads have not changed since.
#[derive(Debug, Clone)]
pub(crate) struct ResultCacheExec {
    cache: Arc<ResultCache>,
    question: Arc<Question>,
    /// The tables of the question, in its order.
    tables: Arc<[GrizzlyTable]>,
    /// The plan, in one stream.
    input: Arc<dyn ExecutionPlan>,
}

impl ResultCacheExec {
    /// Whether the session has a cache and wants it.
    pub(super) fn is_on(session: &dyn Session, handle: &SessionHandle) -> bool {
        let options = session.config_options().extensions.get::<GrizzlyOptions>();
        handle.results().is_some() && options.is_none_or(|options| options.result_cache && options.plan_cache)
    }

    /// `physical`, which computes the optimized `plan`, below such a node where that is possible and worth it.
    /// `plan` must mean the same at any time: the optimizer has not put the time or the like into it.
    pub(crate) fn above(
        physical: Arc<dyn ExecutionPlan>,
        plan: &Arc<LogicalPlan>,
        session: &dyn Session,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let found = Self::try_new(&physical, plan, session)?;
        Ok(found.map_or(physical, |node| Arc::new(node)))
    }

    pub(super) fn try_new(
        physical: &Arc<dyn ExecutionPlan>,
        plan: &Arc<LogicalPlan>,
        session: &dyn Session,
    ) -> Result<Option<Self>> {
        let Some(handle) = session.config().get_extension::<SessionHandle>() else { return Ok(None) };
        let Some(results) = handle.results().filter(|_| Self::is_on(session, &handle)) else { return Ok(None) };
        let options = session.config_options().extensions.get::<GrizzlyOptions>();
        let least = options.map_or(GrizzlyOptions::default().result_cache_rows, |options| options.result_cache_rows);
        // First what rules out most, lookups above all.
        if least > 0 && rows_looked_at(physical.as_ref())? < least {
            return Ok(None);
        }
        let Some(tables) = tables_read(plan, handle.db())? else { return Ok(None) };
        Ok(Some(Self::new(results, physical, plan, tables, session)))
    }

    fn new(
        results: &SessionResults,
        physical: &Arc<dyn ExecutionPlan>,
        plan: &Arc<LogicalPlan>,
        tables: Vec<GrizzlyTable>,
        session: &dyn Session,
    ) -> Self {
        let ids = tables.iter().map(GrizzlyTable::id).collect();
        let question = Question::new(plan, results.number_of(session.config().options()), ids);
        let (cache, question) = (Arc::clone(&results.cache), Arc::new(question));
        // Which row is in which of several streams differs from run to run.
        Self { cache, question, tables: tables.into(), input: in_one_stream(Arc::clone(physical)) }
    }

    /// The last change of each table as the statement reads it; `None` if it reads what has no such number.
    fn changes(&self, context: &Arc<TaskContext>) -> Result<Option<Vec<Csn>>> {
        let changes = self.tables.iter().map(|table| Ok(table.bind(context)?.last_change()));
        changes.collect()
    }

    /// The names of its tables, each once.
    fn names(&self) -> String {
        let mut names: Vec<&str> = self.tables.iter().map(GrizzlyTable::name).collect();
        names.sort_unstable();
        names.dedup();
        names.join(", ")
    }
}

impl DisplayAs for ResultCacheExec {
    fn fmt_as(&self, _format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ResultCacheExec: tables=[{}]", self.names())
    }
}

impl ExecutionPlan for ResultCacheExec {
    fn name(&self) -> &'static str {
        "ResultCacheExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.input.properties()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false]
    }

    fn apply_expressions(
        &self,
        _f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        _options: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let Ok([input]) = <[_; 1]>::try_from(children) else {
            return internal_err!("ResultCacheExec has exactly one child");
        };
        Ok(Arc::new(Self { input: in_one_stream(input), ..Self::clone(&self) }))
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        if partition != 0 {
            return internal_err!("ResultCacheExec has one stream, not {}", partition + 1);
        }
        let Some(changes) = self.changes(&context)? else { return self.input.execute(0, context) };
        if let Some(batches) = self.cache.find(&self.question, &changes, &self.schema()) {
            // It is always ready: without a pause now and then it would keep a thread from whoever else waits for one.
            return Ok(Box::pin(cooperative(Replay::new(batches, self.schema()))));
        }
        let input = self.input.execute(0, context)?;
        Ok(Box::pin(Keeping::new(&self.cache, input, Arc::clone(&self.question), changes, self.names())))
    }
}
