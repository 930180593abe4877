//! Decides which queries of a session run on several nodes, and shows in EXPLAIN how they would.

use std::{fmt::Write, sync::Arc};

use async_trait::async_trait;
use datafusion::{
    catalog::Session,
    common::{
        display::{PlanType, StringifiedPlan},
        tree_node::{TreeNode, TreeNodeRecursion},
    },
    error::Result,
    execution::{TaskContext, context::QueryPlanner},
    logical_expr::{Explain, LogicalPlan},
    physical_plan::{ExecutionPlan, displayable, explain::ExplainExec},
    physical_planner::{DefaultPhysicalPlanner, PhysicalPlanner},
    prelude::SessionConfig,
};
use datafusion_distributed::{DistributedExec, NetworkBoundaryExt, display_plan_ascii};
use grizzly_provider::adapter::GrizzlyOptions;

use super::{channel::public_url, distribute::Division, exec::ClusterExec, node::Cluster, suitable};

/// Plans with another planner, and puts what is worth it on several nodes.
#[derive(Debug)]
pub(super) struct ClusterPlanner {
    cluster: Cluster,
    inner: Option<Arc<dyn QueryPlanner + Send + Sync>>,
}

impl ClusterPlanner {
    /// Asks `inner`, or DataFusion's default planner.
    pub(super) fn around(inner: Option<Arc<dyn QueryPlanner + Send + Sync>>, cluster: &Cluster) -> Self {
        Self { cluster: cluster.clone(), inner }
    }

    async fn for_one_node(&self, plan: &LogicalPlan, session: &dyn Session) -> Result<Arc<dyn ExecutionPlan>> {
        match &self.inner {
            Some(inner) => inner.create_physical_plan(plan, session).await,
            None => DefaultPhysicalPlanner::default().create_physical_plan(plan, session).await,
        }
    }

    /// The plan on several nodes, if that is possible and worth it.
    fn for_many(&self, plan: &Arc<dyn ExecutionPlan>, config: &SessionConfig) -> Result<Option<ClusterExec>> {
        if self.cluster.live().len() < 2 {
            return Ok(None);
        }
        let Some(work) = suitable::work(plan)? else { return Ok(None) };
        let least = config.options().extensions.get::<GrizzlyOptions>().map(|options| options.distribute_rows);
        let least = least.unwrap_or_else(|| GrizzlyOptions::default().distribute_rows);
        let worth = work.rows >= least.max(1);
        Ok(worth.then(|| ClusterExec::new(&self.cluster, Arc::clone(plan), work, least)))
    }

    /// The explanation of one node, with the final plan replaced by what would run on several.
    async fn explain(
        &self,
        explain: &Explain,
        here: &ExplainExec,
        session: &dyn Session,
    ) -> Result<Option<ExplainExec>> {
        let plan = self.for_one_node(&explain.plan, session).await?;
        let Some(many) = self.for_many(&plan, session.config())? else { return Ok(None) };
        let Some(text) = self.describe(&many, session.config()).await? else { return Ok(None) };
        let plans = here.stringified_plans().iter().map(|plan| match plan.plan_type {
            PlanType::FinalPhysicalPlan => StringifiedPlan::new(PlanType::FinalPhysicalPlan, text.clone()),
            _ => plan.clone(),
        });
        Ok(Some(ExplainExec::new(here.schema(), plans.collect(), here.verbose())))
    }

    /// Stages, tasks and nodes; `None` if the plan has nothing that could be divided.
    async fn describe(&self, many: &ClusterExec, config: &SessionConfig) -> Result<Option<String>> {
        let (nodes, csn) = (self.cluster.live(), self.cluster.db().snapshot().csn());
        let context = TaskContext::default().with_session_config(config.clone());
        let Some(divided) = many.divide(nodes.clone(), csn, &context).await? else { return Ok(None) };
        let (true, Some(division)) = (divided.plan.is::<DistributedExec>(), many.division(nodes)) else {
            return Ok(None);
        };
        let mut text = format!("{}\n", displayable(many).one_line().to_string().trim_end());
        text.push_str(&display_plan_ascii(divided.plan.as_ref(), false));
        for line in stages(&divided.plan, &division)? {
            text.push_str(&line);
        }
        Ok(Some(text))
    }
}

/// A line for each stage: where its tasks run.
fn stages(plan: &Arc<dyn ExecutionPlan>, division: &Division) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    plan.apply(|node| {
        if let Some(stage) = node.as_network_boundary().map(|boundary| boundary.input_stage())
            && let Some(urls) = stage.local_plan().and_then(|plan| division.route(plan, stage.task_count()))
        {
            let mut line = format!("Stage {} runs on", stage.num());
            for (task, url) in urls.iter().enumerate() {
                // Writing into a string cannot fail.
                let _ = write!(line, " t{task}={}", public_url(url));
            }
            lines.push((stage.num(), format!("{line}\n")));
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    lines.sort();
    Ok(lines.into_iter().map(|(_, line)| line).collect())
}

#[async_trait]
impl QueryPlanner for ClusterPlanner {
    async fn create_physical_plan(&self, plan: &LogicalPlan, session: &dyn Session) -> Result<Arc<dyn ExecutionPlan>> {
        let here = self.for_one_node(plan, session).await?;
        if let (LogicalPlan::Explain(explain), Some(text)) = (plan, here.downcast_ref::<ExplainExec>()) {
            let many = self.explain(explain, text, session).await?;
            return Ok(many.map_or(here, |many| Arc::new(many) as _));
        }
        let many = self.for_many(&here, session.config())?;
        Ok(many.map_or(here, |many| Arc::new(many) as _))
    }
}
