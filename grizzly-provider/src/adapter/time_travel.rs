//! `t FOR SYSTEM_TIME AS OF x`: reads a table as it was. `x` is a commit number or a point in time. Without this planner
//! DataFusion would ignore the clause and return present data. Views that cannot be read are refused here, too.

use std::sync::Arc;

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::{
    common::{DFSchema, ScalarValue},
    datasource::{provider_as_source, source_as_provider},
    error::Result as DataFusionResult,
    logical_expr::{
        Expr, LogicalPlanBuilder,
        planner::{PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning},
        simplify::SimplifyContext,
    },
    optimizer::simplify_expressions::ExprSimplifier,
    sql::sqlparser::ast::{self, TableFactor, TableVersion},
};

use super::{catalog::refuse_broken, table::GrizzlyTable};
use crate::{
    Error, Result,
    access::{AsOf, Csn},
};

/// Plans tables with a point in time, and says why a view cannot be read.
#[derive(Debug, Clone, Copy, Default)]
pub struct TimeTravelPlanner;

impl RelationPlanner for TimeTravelPlanner {
    fn plan_relation(
        &self,
        relation: TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> DataFusionResult<RelationPlanning> {
        refuse_broken(&relation, context)?;
        let TableFactor::Table { name, alias, version: Some(version), .. } = relation else {
            return Ok(RelationPlanning::Original(Box::new(relation)));
        };
        let reference = context.object_name_to_table_reference(name)?;
        let at = point_in_time(version, context)?;
        let source = context.context_provider().get_table_source(reference.clone())?;
        let provider = source_as_provider(&source)?;
        let Some(table) = provider.downcast_ref::<GrizzlyTable>() else {
            let message =
                format!("{reference} has no history: only Grizzly's tables can be read AS OF a point in time");
            return Err(Error::unsupported(message).into());
        };
        let past = provider_as_source(Arc::new(table.as_of(at)));
        let plan = LogicalPlanBuilder::scan(reference, past, None)?.build()?;
        Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, alias))))
    }
}

fn point_in_time(version: TableVersion, context: &mut dyn RelationPlannerContext) -> DataFusionResult<AsOf> {
    match version {
        TableVersion::ForSystemTimeAsOf(expr) => Ok(any_point(&constant(expr, context)?)?),
        TableVersion::VersionAsOf(expr) => Ok(commit(&constant(expr, context)?)?),
        TableVersion::TimestampAsOf(expr) => Ok(time(&constant(expr, context)?)?),
        other => Err(Error::unsupported(format!("{other}: use FOR SYSTEM_TIME AS OF")).into()),
    }
}

/// The value of an expression without columns, `now()` included.
fn constant(expr: ast::Expr, context: &mut dyn RelationPlannerContext) -> DataFusionResult<ScalarValue> {
    let text = expr.to_string();
    let schema = DFSchema::empty();
    let expr = context.sql_to_expr(expr, &schema)?;
    let info = SimplifyContext::builder().with_current_time().build();
    let simplifier = ExprSimplifier::new(info);
    match simplifier.simplify(simplifier.coerce(expr, &schema)?)? {
        Expr::Literal(value, _) if !value.is_null() => Ok(value),
        _ => Err(Error::invalid(format!("AS OF {text}: a constant commit number or time is needed")).into()),
    }
}

fn any_point(value: &ScalarValue) -> Result<AsOf> {
    if value.data_type().is_integer() { commit(value) } else { time(value) }
}

fn commit(value: &ScalarValue) -> Result<AsOf> {
    match value.cast_to(&DataType::UInt64) {
        Ok(ScalarValue::UInt64(Some(csn))) => Ok(AsOf::Csn(Csn(csn))),
        _ => Err(Error::invalid(format!("AS OF {value}: not a commit number"))),
    }
}

fn time(value: &ScalarValue) -> Result<AsOf> {
    let micros = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    match value.cast_to(&micros) {
        Ok(ScalarValue::TimestampMicrosecond(Some(micros), _)) => Ok(AsOf::TimestampMicros(micros)),
        _ => Err(Error::invalid(format!("AS OF {value}: not a point in time"))),
    }
}
