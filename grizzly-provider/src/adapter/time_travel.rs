//! `t FOR SYSTEM_TIME AS OF x`: reads a table as it was. `x` is a commit number or a point in time. Without this planner
//! DataFusion would ignore the clause and return present data. Views that cannot be read are refused here, too.

use std::{fmt, sync::Arc};

use arrow::{
    datatypes::{DataType, TimeUnit},
    temporal_conversions::timestamp_us_to_datetime,
};
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
    sql::sqlparser::ast::{TableFactor, TableVersion},
};

use super::{catalog::refuse_broken, table::GrizzlyTable};
use crate::{
    Error, Grizzly, Result,
    access::{AsOf, Csn},
};

/// When a statement reads a table, if not at the present.
#[derive(Debug, Clone)]
pub enum PointInTime {
    /// Always the same.
    Fixed(AsOf),
    /// A time that follows from when the statement starts, as in `AS OF now() - INTERVAL '1 hour'`.
    Relative(Arc<RelativeTime>),
}

/// An expression that says when, once it is known when the statement starts.
pub struct RelativeTime {
    expr: Expr,
    text: String,
    read: Reading,
}

/// What a value says: a commit, a time, or either.
type Reading = fn(&ScalarValue) -> Result<AsOf>;

impl PointInTime {
    /// The point in time for a statement that starts at `now`, in microseconds since 1970.
    pub(crate) fn at(&self, now: i64) -> Result<AsOf> {
        match self {
            Self::Fixed(at) => Ok(*at),
            Self::Relative(relative) => (relative.read)(&evaluate(&relative.expr, now, &relative.text)?),
        }
    }
}

impl fmt::Debug for RelativeTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RelativeTime").field(&self.text).finish()
    }
}

impl fmt::Display for PointInTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(AsOf::Csn(csn)) => write!(f, "csn {csn}"),
            Self::Fixed(AsOf::TimestampMicros(micros)) => write!(f, "{micros} us"),
            Self::Relative(relative) => f.write_str(&relative.text),
        }
    }
}

/// The present, in microseconds since 1970: see [`Grizzly::present`].
pub(crate) fn present(db: &Grizzly) -> i64 {
    i64::try_from(db.present().0).unwrap_or(i64::MAX)
}

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
        let past = provider_as_source(Arc::new(table.at(at)));
        let plan = LogicalPlanBuilder::scan(reference, past, None)?.build()?;
        Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, alias))))
    }
}

fn point_in_time(version: TableVersion, context: &mut dyn RelationPlannerContext) -> DataFusionResult<PointInTime> {
    let (expr, read): (_, Reading) = match version {
        TableVersion::ForSystemTimeAsOf(expr) => (expr, any_point),
        TableVersion::VersionAsOf(expr) => (expr, commit),
        TableVersion::TimestampAsOf(expr) => (expr, time),
        other => return Err(Error::unsupported(format!("{other}: use FOR SYSTEM_TIME AS OF")).into()),
    };
    let text = expr.to_string();
    let expr = context.sql_to_expr(expr, &DFSchema::empty())?;
    let (early, late) = (evaluate(&expr, 0, &text)?, evaluate(&expr, MANY_YEARS, &text)?);
    let at = read(&early)?;
    Ok(match early == late {
        true => PointInTime::Fixed(at),
        false => PointInTime::Relative(Arc::new(RelativeTime { expr, text, read })),
    })
}

/// Far enough from 1970 for every expression with the present in it to differ.
const MANY_YEARS: i64 = 40 * 365 * 24 * 60 * 60 * 1_000_000 + 1;

/// The value of an expression without columns in a statement that starts at `now`, in microseconds since 1970.
fn evaluate(expr: &Expr, now: i64, text: &str) -> Result<ScalarValue> {
    let schema = DFSchema::empty();
    let now = timestamp_us_to_datetime(now).map(|now| now.and_utc());
    let simplifier = ExprSimplifier::new(SimplifyContext::builder().with_query_execution_start_time(now).build());
    let simplified = simplifier.coerce(expr.clone(), &schema).and_then(|expr| simplifier.simplify(expr));
    let wrong = || Error::invalid(format!("AS OF {text}: a constant commit number or time is needed"));
    match simplified.map_err(|error| wrong().with_source(error))? {
        Expr::Literal(value, _) if !value.is_null() => Ok(value),
        _ => Err(wrong()),
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
