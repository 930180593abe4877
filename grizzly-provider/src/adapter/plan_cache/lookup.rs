//! The plan of most lookups, `SELECT … FROM t WHERE c = $1`: optimizing it with values in it would always yield the same
//! scan, so that is done before there are any.

use std::collections::HashSet;

use arrow::datatypes::DataType;
use datafusion::{
    common::{Column, ParamValues},
    error::Result,
    logical_expr::{
        BinaryExpr, Expr, LogicalPlan, Operator, TableProviderFilterPushDown, TableScan, TableScanBuilder,
        expr::Placeholder, utils::split_conjunction,
    },
};

/// A scan that compares columns with placeholders.
pub(super) struct Lookup(LogicalPlan);

impl Lookup {
    /// `None` if `plan`, which has been optimized, is more than some columns of a table where other columns, or the
    /// same, compare with placeholders, each column with one: what two values say of a column can be said shorter once
    /// they are known.
    pub(super) fn of(plan: &LogicalPlan) -> Result<Option<Self>> {
        let (columns, below) = match plan {
            LogicalPlan::Projection(projection) => (Some(&projection.expr), projection.input.as_ref()),
            _ => (None, plan),
        };
        let LogicalPlan::Filter(filter) = below else { return Ok(None) };
        let LogicalPlan::TableScan(scan) = filter.input.as_ref() else { return Ok(None) };
        let conditions = split_conjunction(&filter.predicate);
        let mut compared: HashSet<&Column> = scan.filters.iter().flat_map(Expr::column_refs).collect();
        if scan.fetch.is_some()
            || !conditions.iter().all(|condition| column_of(condition).is_some_and(|c| compared.insert(c)))
        {
            return Ok(None);
        }
        let projection = match columns.map(|columns| numbers(columns, scan)) {
            Some(None) => return Ok(None),
            Some(chosen) => chosen,
            None => scan.projection.clone(),
        };
        let filters = scan.filters.iter().chain(conditions).cloned().collect();
        let scan = TableScanBuilder::from(scan.clone()).with_projection(projection).with_filters(filters).build()?;
        let same = scan.projected_schema.logically_equivalent_names_and_types(plan.schema());
        Ok(same.then(|| Self(LogicalPlan::TableScan(scan))))
    }

    /// The scan with these values, which have the types of their placeholders; `None` if the table leaves conditions to
    /// others.
    pub(super) fn fill(&self, values: &ParamValues) -> Result<Option<LogicalPlan>> {
        let filled = self.0.clone().replace_params_with_values(values)?;
        let LogicalPlan::TableScan(scan) = &filled else { return Ok(None) };
        let filters: Vec<&Expr> = scan.filters.iter().collect();
        let support = scan.source.supports_filters_pushdown(&filters)?;
        let exact = support.iter().filter(|support| **support == TableProviderFilterPushDown::Exact);
        Ok((exact.count() == filters.len()).then_some(filled))
    }
}

/// The column that is compared with a placeholder; a truth value would be a condition by itself.
fn column_of(condition: &Expr) -> Option<&Column> {
    use Operator::{Eq, Gt, GtEq, Lt, LtEq};
    let Expr::BinaryExpr(BinaryExpr { left, op: Eq | Lt | LtEq | Gt | GtEq, right }) = condition else { return None };
    match (left.as_ref(), right.as_ref()) {
        (Expr::Column(column), Expr::Placeholder(Placeholder { field: Some(field), .. })) => {
            (*field.data_type() != DataType::Boolean).then_some(column)
        }
        _ => None,
    }
}

/// The numbers of these columns in the table of `scan`; `None` if one is not a plain column of it, or if they are not in
/// the table's order.
fn numbers(columns: &[Expr], scan: &TableScan) -> Option<Vec<usize>> {
    let number = |column: &Expr| {
        let Expr::Column(column) = column else { return None };
        let place = scan.projected_schema.maybe_index_of_column(column)?;
        scan.projection.as_ref().map_or(Some(place), |projection| projection.get(place).copied())
    };
    let numbers = columns.iter().map(number).collect::<Option<Vec<_>>>()?;
    numbers.is_sorted_by(|a, b| a < b).then_some(numbers)
}
