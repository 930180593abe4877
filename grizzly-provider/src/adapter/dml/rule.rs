//! The rewrite of DELETE, UPDATE, MERGE and TRUNCATE.
//!
//! Installed as the first analyzer rule, where plans still have the shape the SQL planner gives them, and as the
//! first optimizer rule, because `PREPARE` optimizes without analyzing. A rewritten plan holds no statement the rule
//! would touch, so running it again changes nothing.

use std::sync::Arc;

use datafusion::{
    common::{
        DFSchema, TableReference,
        tree_node::{Transformed, TreeNode},
    },
    config::ConfigOptions,
    error::{DataFusionError, Result},
    logical_expr::{
        DmlStatement, Expr, Filter, LogicalPlan, Projection, Statement, SubqueryAlias, Values, WriteOp, expr::Alias,
    },
    optimizer::{AnalyzerRule, ApplyOrder, OptimizerConfig, OptimizerRule},
};

use super::{
    merge::{Repeats, merge},
    sink::{Action, write_plan},
    target::{Target, check_writable, grizzly_table, row_id, scan_with_row_id},
};
use crate::{Error, adapter::GrizzlyTable};

/// Rewrites statements that write to Grizzly tables.
#[derive(Debug, Default)]
pub(crate) struct DmlRule;

impl AnalyzerRule for DmlRule {
    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        Ok(rewrite(plan)?.data)
    }

    fn name(&self) -> &str {
        "grizzly_dml"
    }
}

impl OptimizerRule for DmlRule {
    fn name(&self) -> &str {
        "grizzly_dml"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        None
    }

    fn rewrite(&self, plan: LogicalPlan, _config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        rewrite(plan)
    }
}

/// Statements that write stand at the root, or right below EXPLAIN and PREPARE.
fn rewrite(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    match plan {
        LogicalPlan::Dml(dml) => rewrite_statement(dml),
        LogicalPlan::Explain(_) | LogicalPlan::Analyze(_) | LogicalPlan::Statement(Statement::Prepare(_)) => {
            plan.map_children(rewrite)
        }
        plan => Ok(Transformed::no(plan)),
    }
}

fn rewrite_statement(dml: DmlStatement) -> Result<Transformed<LogicalPlan>> {
    let Some(table) = grizzly_table(&dml.target) else {
        return Ok(Transformed::no(LogicalPlan::Dml(dml)));
    };
    check_writable(table)?;
    let rewritten = match &dml.op {
        WriteOp::Delete => delete(&dml, table)?,
        WriteOp::Update => update(&dml, table)?,
        WriteOp::Truncate => truncate(&dml, table)?,
        WriteOp::MergeInto(op) => merge(&dml.table_name, table, (*dml.input).clone(), op, Repeats::Refused)?,
        // INSERT already has an input worth its name: `insert_into` gets it.
        WriteOp::Insert(_) => return insert(dml),
        _ => return Ok(Transformed::no(LogicalPlan::Dml(dml))),
    };
    Ok(Transformed::yes(rewritten))
}

fn insert(dml: DmlStatement) -> Result<Transformed<LogicalPlan>> {
    let input = with_nullable_values(&dml.input)?;
    Ok(input.update_data(|input| LogicalPlan::Dml(DmlStatement { input: Arc::new(input), ..dml })))
}

/// The planner declares columns of VALUES as NOT NULL where the table's are, and then fails on a NULL without saying
/// where. The sink does better, if NULLs get there.
pub(crate) fn with_nullable_values(input: &LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let strict = |plan: &LogicalPlan| matches!(plan, LogicalPlan::Values(values) if values.schema.fields().iter().any(|field| !field.is_nullable()));
    if !input.exists(|plan| Ok(strict(plan)))? {
        return Ok(Transformed::no(input.clone()));
    }
    input.clone().transform_up(|plan| match plan {
        LogicalPlan::Values(values) => Ok(Transformed::yes(LogicalPlan::Values(nullable(values)?))),
        plan => Ok(Transformed::yes(plan.recompute_schema()?)),
    })
}

fn nullable(values: Values) -> Result<Values> {
    let fields = values
        .schema
        .iter()
        .map(|(qualifier, field)| (qualifier.cloned(), Arc::new(field.as_ref().clone().with_nullable(true))));
    let schema = DFSchema::new_with_metadata(fields.collect(), values.schema.metadata().clone())?;
    Ok(Values { schema: Arc::new(schema), ..values })
}

fn truncate(dml: &DmlStatement, table: &GrizzlyTable) -> Result<LogicalPlan> {
    let scan = scan_with_row_id(&dml.table_name, table)?;
    let row_id = Expr::Column(row_id(&dml.table_name, table));
    let input = LogicalPlan::Projection(Projection::try_new(vec![row_id], Arc::new(scan))?);
    write_plan(&dml.table_name, Target::of(table), Action::Delete, input)
}

fn delete(dml: &DmlStatement, table: &GrizzlyTable) -> Result<LogicalPlan> {
    let (scan, qualifier) = rows_to_write(&dml.input, table, "DELETE")?;
    let row_id = Expr::Column(row_id(&qualifier, table));
    let input = LogicalPlan::Projection(Projection::try_new(vec![row_id], Arc::new(scan))?);
    write_plan(&dml.table_name, Target::of(table), Action::Delete, input)
}

fn update(dml: &DmlStatement, table: &GrizzlyTable) -> Result<LogicalPlan> {
    let LogicalPlan::Projection(values) = dml.input.as_ref() else {
        return Err(unexpected("UPDATE", &dml.input));
    };
    let (scan, qualifier) = rows_to_write(&values.input, table, "UPDATE")?;
    let assigned = values.expr.iter().enumerate().filter(|(_, value)| !keeps_column(value)).map(|(at, _)| at).collect();
    let mut columns = vec![Expr::Column(row_id(&qualifier, table))];
    columns.extend(values.expr.iter().cloned());
    let input = LogicalPlan::Projection(Projection::try_new(columns, Arc::new(scan))?);
    write_plan(&dml.table_name, Target::of(table), Action::Update { assigned }, input)
}

/// Whether the new value of a column is the old one. The planner writes `t.a AS a` for columns without assignment.
fn keeps_column(value: &Expr) -> bool {
    match value {
        Expr::Alias(Alias { expr, name, .. }) => matches!(expr.as_ref(), Expr::Column(column) if column.name == *name),
        Expr::Column(_) => true,
        _ => false,
    }
}

/// The same rows with their ids, and the name their columns are qualified with. Only the chain the SQL planner
/// builds is accepted: anything else might mean other rows than those of the table.
fn rows_to_write(plan: &LogicalPlan, table: &GrizzlyTable, statement: &str) -> Result<(LogicalPlan, TableReference)> {
    match plan {
        LogicalPlan::TableScan(scan) => {
            let same = grizzly_table(&scan.source).is_some_and(|scanned| scanned.id() == table.id());
            if !same || !scan.filters.is_empty() || scan.fetch.is_some() || scan.projection.is_some() {
                return Err(unexpected(statement, plan));
            }
            Ok((scan_with_row_id(&scan.table_name, table)?, scan.table_name.clone()))
        }
        LogicalPlan::SubqueryAlias(alias) => {
            let (input, _) = rows_to_write(&alias.input, table, statement)?;
            let aliased = SubqueryAlias::try_new(Arc::new(input), alias.alias.clone())?;
            Ok((LogicalPlan::SubqueryAlias(aliased), alias.alias.clone()))
        }
        LogicalPlan::Filter(filter) => {
            let (input, qualifier) = rows_to_write(&filter.input, table, statement)?;
            let filter = Filter::try_new(filter.predicate.clone(), Arc::new(input))?;
            Ok((LogicalPlan::Filter(filter), qualifier))
        }
        LogicalPlan::Limit(_) => {
            let message = format!("{statement} … LIMIT is not supported: which rows it means is not defined");
            Err(Error::unsupported(message).into())
        }
        other => Err(unexpected(statement, other)),
    }
}

fn unexpected(statement: &str, plan: &LogicalPlan) -> DataFusionError {
    let message = format!("{statement} over {} is not supported", plan.display());
    Error::unsupported(message).into()
}
