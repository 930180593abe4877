//! Plans with placeholders: optimized once, then filled with values as often as they are executed.
//!
//! Only what values can change is optimized again: constants are folded, and conditions move down to the scans. Where
//! they can change nothing ([`Lookup`]), nothing is.

use std::{collections::HashMap, ptr, sync::Arc};

use arrow::datatypes::{DataType, FieldRef};
use datafusion::{
    common::{ParamValues, ScalarValue, metadata::ScalarAndMetadata, tree_node::TreeNodeRecursion},
    error::Result,
    execution::SessionState,
    logical_expr::LogicalPlan,
    optimizer::{
        Optimizer, OptimizerContext, optimize_projections::OptimizeProjections, push_down_filter::PushDownFilter,
        simplify_expressions::SimplifyExpressions,
    },
    prelude::SessionContext,
};
use quick_cache::sync::Cache;

use super::{CachedPlan, Conditions, SessionHandle, keepable::keepable, lookup::Lookup, opens_kept_plans};
use crate::adapter::dml::table_id;

const TEMPLATES: usize = 256;

/// The optimized plans a session keeps for plans with placeholders.
pub(crate) struct TemplateCache {
    /// By the address of the plan, which says where to look, but not yet that it is the same plan. `None` if the
    /// session's planner could not open a kept plan.
    templates: Option<Cache<usize, Arc<Template>>>,
    optimizer: Optimizer,
}

pub(super) struct Template {
    plan: LogicalPlan,
    /// The ids of the tables in it: plans of two tables of the same name compare as equal.
    tables: Vec<u64>,
    conditions: Conditions,
    /// `None` if the plan must be planned anew each time.
    optimized: Option<Optimized>,
}

struct Optimized {
    plan: LogicalPlan,
    /// The same, if it is no more than that.
    lookup: Option<Lookup>,
    parameters: HashMap<String, Option<FieldRef>>,
}

impl TemplateCache {
    /// A cache for sessions with this state.
    pub(crate) fn for_state(state: &SessionState) -> Self {
        let optimizer = Optimizer::with_rules(vec![
            Arc::new(SimplifyExpressions::new()),
            Arc::new(PushDownFilter::new()),
            Arc::new(OptimizeProjections::new()),
        ]);
        Self { templates: opens_kept_plans(state).then(|| Cache::new(TEMPLATES)), optimizer }
    }

    /// What to execute for `plan` with these values; `None` if that must be planned from the start.
    pub(crate) fn fill(
        &self,
        plan: &LogicalPlan,
        values: &ParamValues,
        handle: &SessionHandle,
        context: &SessionContext,
    ) -> Result<Option<LogicalPlan>> {
        let Some(templates) = &self.templates else { return Ok(None) };
        let template = match self.known(plan, handle, context) {
            Some(template) => template,
            None => {
                // A plan of a table that is gone is given with no other template than its own, and is planned again.
                let template = Arc::new(Template::of(plan, Conditions::now(handle, context), context)?);
                templates.insert(ptr::from_ref(plan) as usize, Arc::clone(&template));
                template
            }
        };
        self.fill_template(&template, values)
    }

    /// What to execute for `plan` with these values if it is known to be no more than a lookup: that takes no time.
    pub(crate) fn look_up(
        &self,
        plan: &LogicalPlan,
        values: &ParamValues,
        handle: &SessionHandle,
        context: &SessionContext,
    ) -> Result<Option<LogicalPlan>> {
        self.known(plan, handle, context).map_or(Ok(None), |template| template.look_up(values))
    }

    /// What is kept for `plan` and holds.
    fn known(&self, plan: &LogicalPlan, handle: &SessionHandle, context: &SessionContext) -> Option<Arc<Template>> {
        let template = self.templates.as_ref()?.get(&(ptr::from_ref(plan) as usize))?;
        (template.holds(handle, context) && template.is_of(plan)).then_some(template)
    }

    /// The same for a plan that is known to be in force.
    pub(super) fn fill_template(&self, template: &Template, values: &ParamValues) -> Result<Option<LogicalPlan>> {
        let Some(optimized) = &template.optimized else { return Ok(None) };
        let Some(values) = optimized.fitting(values)? else { return Ok(None) };
        if optimized.parameters.is_empty() {
            return Ok(Some(CachedPlan::around(optimized.plan.clone())));
        }
        if let Some(lookup) = &optimized.lookup
            && let Some(scan) = lookup.fill(&values)?
        {
            return Ok(Some(CachedPlan::around(scan)));
        }
        let filled = optimized.plan.clone().replace_params_with_values(&values)?;
        let settings = Arc::clone(&template.conditions.settings);
        let config = OptimizerContext::new_with_config_options(settings).with_max_passes(1);
        Ok(Some(CachedPlan::around(self.optimizer.optimize(filled, &config, |_, _| {})?)))
    }
}

impl Template {
    /// Of a plan that was made under `conditions`.
    pub(super) fn of(plan: &LogicalPlan, conditions: Conditions, context: &SessionContext) -> Result<Self> {
        let optimized = if conditions.allow_keeping() && keepable(plan)? {
            let optimized = context.state().optimize(plan)?;
            let parameters = optimized.get_parameter_fields()?;
            let given = plan.get_parameter_names()?;
            // A parameter that is optimized away must still be given.
            let complete = given.len() == parameters.len();
            let lookup = Lookup::of(&optimized)?;
            complete.then_some(Optimized { plan: optimized, lookup, parameters })
        } else {
            None
        };
        Ok(Self { plan: plan.clone(), tables: tables(plan)?, conditions, optimized })
    }

    /// What to execute with these values if that is no more than a lookup.
    pub(super) fn look_up(&self, values: &ParamValues) -> Result<Option<LogicalPlan>> {
        let Some(optimized) = &self.optimized else { return Ok(None) };
        let Some(lookup) = &optimized.lookup else { return Ok(None) };
        let Some(values) = optimized.fitting(values)? else { return Ok(None) };
        Ok(lookup.fill(&values)?.map(CachedPlan::around))
    }

    /// Whether nothing is joined: then what the values are does not matter before an access path is chosen.
    pub(super) fn reads_one_table(&self) -> bool {
        self.tables.len() == 1
    }

    /// Whether the catalog and the settings are as they were.
    pub(super) fn holds(&self, handle: &SessionHandle, context: &SessionContext) -> bool {
        self.conditions.hold(handle, context)
    }

    fn is_of(&self, plan: &LogicalPlan) -> bool {
        self.plan == *plan && tables(plan).is_ok_and(|tables| tables == self.tables)
    }
}

impl Optimized {
    /// The values as the plan expects them; `None` if one of them does not fit without changing what it means, or is
    /// NULL, which an optimized plan may have ruled out.
    fn fitting(&self, values: &ParamValues) -> Result<Option<ParamValues>> {
        let mut fitting = HashMap::with_capacity(self.parameters.len());
        for (id, field) in &self.parameters {
            let (value, metadata) = values.get_placeholders_with_values(id)?.into_inner();
            let Some(value) = field.as_ref().and_then(|field| fit(value, field.data_type())) else { return Ok(None) };
            fitting.insert(id.trim_start_matches('$').to_owned(), ScalarAndMetadata::new(value, metadata));
        }
        Ok(Some(match values {
            ParamValues::Map(_) => ParamValues::Map(fitting),
            ParamValues::List(given) => ParamValues::List(in_order(given, fitting)),
        }))
    }
}

/// The fitting values in the places of those given.
fn in_order(given: &[ScalarAndMetadata], mut fitting: HashMap<String, ScalarAndMetadata>) -> Vec<ScalarAndMetadata> {
    let place = |(at, given): (usize, &ScalarAndMetadata)| {
        fitting.remove(&(at + 1).to_string()).unwrap_or_else(|| given.clone())
    };
    given.iter().enumerate().map(place).collect()
}

/// `value` as a `data_type`, if that is but another width of the same.
fn fit(value: ScalarValue, data_type: &DataType) -> Option<ScalarValue> {
    if value.is_null() {
        return None;
    }
    let from = value.data_type();
    if from == *data_type {
        return Some(value);
    }
    let same_family = from.is_integer() && data_type.is_integer() || from.is_string() && data_type.is_string();
    let cast = value.cast_to(data_type).ok().filter(|_| same_family)?;
    (!cast.is_null()).then_some(cast)
}

/// The ids of all tables in a plan, in its order, those written to included.
fn tables(plan: &LogicalPlan) -> Result<Vec<u64>> {
    let mut tables = Vec::new();
    plan.apply_with_subqueries(|node| {
        let source = match node {
            LogicalPlan::TableScan(scan) => &scan.source,
            LogicalPlan::Dml(dml) => &dml.target,
            _ => return Ok(TreeNodeRecursion::Continue),
        };
        tables.push(table_id(source).unwrap_or_default());
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(tables)
}
