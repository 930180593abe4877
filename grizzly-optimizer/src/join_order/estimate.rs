//! How many rows a logical plan yields and how its columns are distributed, from the statistics of its tables. Works
//! for any table that has statistics, not only Grizzly's.

use datafusion::{
    catalog::default_table_source::source_as_provider,
    common::{Column, ColumnStatistics, ScalarValue, stats::Precision},
    logical_expr::{
        Aggregate, Distinct, Expr, FetchType, Filter, Join, JoinType, Limit, LogicalPlan, Projection, SubqueryAlias,
        TableScan,
    },
};

use super::selectivity::{conjunction, number, selectivity};

/// The share of rows that a semi or anti join keeps when nothing is known.
const HALF: f64 = 0.5;

/// What is known of a column.
#[derive(Debug, Clone, Default)]
pub(super) struct ColumnEstimate {
    /// Distinct values.
    pub(super) distinct: Option<f64>,
    /// Least and greatest value, as numbers in the same order.
    pub(super) bounds: Option<(f64, f64)>,
    /// The share of NULLs.
    pub(super) nulls: Option<f64>,
}

/// What is known of a plan's output.
#[derive(Debug, Clone)]
pub(super) struct Estimate {
    pub(super) rows: f64,
    /// Rows before any filter: as many as keys of a table have values.
    pub(super) stored_rows: f64,
    /// One per column of the schema.
    pub(super) columns: Vec<ColumnEstimate>,
}

impl Estimate {
    fn kept(mut self, share: f64) -> Self {
        self.rows *= share;
        self
    }

    fn at_most(mut self, rows: Option<usize>) -> Self {
        self.rows = rows.map_or(self.rows, |rows| self.rows.min(rows as f64));
        self
    }

    /// The distinct values of a column, no more than there are rows.
    fn distinct(&self, position: usize) -> f64 {
        let distinct = self.columns.get(position).and_then(|column| column.distinct);
        distinct.unwrap_or(self.rows).min(self.rows).max(1.0)
    }
}

/// The estimate of a plan; `None` if a table has no statistics or a node is not known.
pub(super) fn of(plan: &LogicalPlan) -> Option<Estimate> {
    match plan {
        LogicalPlan::TableScan(scan) => of_scan(scan),
        LogicalPlan::Filter(Filter { predicate, input, .. }) => Some(filtered(of(input)?, input, [predicate])),
        LogicalPlan::Projection(projection) => of_projection(projection),
        LogicalPlan::SubqueryAlias(SubqueryAlias { input, .. }) => of(input),
        LogicalPlan::Aggregate(aggregate) => of_aggregate(aggregate),
        LogicalPlan::Distinct(Distinct::All(input)) => of(input),
        LogicalPlan::Join(join) => of_join(join),
        LogicalPlan::Limit(limit) => of_limit(limit),
        LogicalPlan::Sort(sort) => Some(of(&sort.input)?.at_most(sort.fetch)),
        LogicalPlan::Repartition(repartition) => of(&repartition.input),
        _ => None,
    }
}

/// The share of `left`'s rows that a semi join keeps, about.
pub(super) fn semi_join_share(left: &LogicalPlan, join: &Join) -> Option<f64> {
    Some(share_with_match(&of(left)?, left, &of(&join.right)?, join))
}

fn of_scan(scan: &TableScan) -> Option<Estimate> {
    let statistics = source_as_provider(&scan.source).ok()?.statistics()?;
    let rows = *statistics.num_rows.get_value()? as f64;
    let width = statistics.column_statistics.len();
    let table: Vec<_> = statistics.column_statistics.iter().map(|column| of_column(column, rows)).collect();
    let names = scan.source.schema();
    // Filters name columns that the projection may leave out.
    let by_name = |column: &Column| table.get(names.index_of(&column.name).ok()?).cloned();
    let share: f64 = conjunction(scan.filters.iter(), &by_name);
    let projection = scan.projection.clone().unwrap_or_else(|| (0..width).collect());
    let columns = projection.into_iter().map(|column| table.get(column).cloned().unwrap_or_default()).collect();
    Some(Estimate { rows, stored_rows: rows, columns }.kept(share).at_most(scan.fetch))
}

fn of_column(statistics: &ColumnStatistics, rows: f64) -> ColumnEstimate {
    let bound = |value: &Precision<ScalarValue>| value.get_value().and_then(number);
    ColumnEstimate {
        distinct: statistics.distinct_count.get_value().map(|distinct| *distinct as f64),
        bounds: bound(&statistics.min_value).zip(bound(&statistics.max_value)),
        nulls: statistics.null_count.get_value().map(|nulls| *nulls as f64 / rows.max(1.0)),
    }
}

fn filtered<'a>(input: Estimate, plan: &LogicalPlan, filters: impl IntoIterator<Item = &'a Expr>) -> Estimate {
    let column = |column: &Column| input.columns.get(plan.schema().maybe_index_of_column(column)?).cloned();
    let share = conjunction(filters, &column);
    input.kept(share)
}

fn of_projection(projection: &Projection) -> Option<Estimate> {
    let input = of(&projection.input)?;
    let columns = projection.expr.iter().map(|expr| expression(expr, &input, &projection.input)).collect();
    Some(Estimate { columns, ..input })
}

/// A column under whatever name; nothing is known of what is computed.
fn expression(expr: &Expr, input: &Estimate, plan: &LogicalPlan) -> ColumnEstimate {
    match expr {
        Expr::Alias(alias) => expression(&alias.expr, input, plan),
        Expr::Column(column) => {
            let position = plan.schema().maybe_index_of_column(column);
            position.and_then(|position| input.columns.get(position)).cloned().unwrap_or_default()
        }
        _ => ColumnEstimate::default(),
    }
}

fn of_aggregate(aggregate: &Aggregate) -> Option<Estimate> {
    let input = of(&aggregate.input)?;
    let groups = aggregate.group_expr.iter().map(|expr| expression(expr, &input, &aggregate.input));
    let mut columns: Vec<_> = groups.collect();
    let combinations: f64 = columns.iter().map(|column| column.distinct.unwrap_or(input.rows)).product();
    let rows = combinations.min(input.rows).max(1.0);
    columns.resize(aggregate.schema.fields().len(), ColumnEstimate::default());
    Some(Estimate { rows, stored_rows: rows, columns })
}

fn of_limit(limit: &Limit) -> Option<Estimate> {
    let fetch = match limit.get_fetch_type() {
        Ok(FetchType::Literal(fetch)) => fetch,
        _ => None,
    };
    Some(of(&limit.input)?.at_most(fetch))
}

fn of_join(join: &Join) -> Option<Estimate> {
    let (left, right) = (of(&join.left)?, of(&join.right)?);
    match join.join_type {
        JoinType::LeftSemi => {
            let share = share_with_match(&left, &join.left, &right, join);
            Some(left.kept(share))
        }
        JoinType::LeftAnti => Some(left.kept(HALF)),
        JoinType::RightSemi | JoinType::RightAnti => Some(right.kept(HALF)),
        JoinType::Inner | JoinType::Left | JoinType::Right | JoinType::Full => Some(combined(join, left, right)),
        JoinType::LeftMark | JoinType::RightMark => None,
    }
}

fn share_with_match(left: &Estimate, left_plan: &LogicalPlan, right: &Estimate, join: &Join) -> f64 {
    let share = join.on.iter().map(|(l, r)| {
        let (Expr::Column(l), Expr::Column(r)) = (l, r) else { return HALF };
        let (l, r) = (left_plan.schema().maybe_index_of_column(l), join.right.schema().maybe_index_of_column(r));
        l.zip(r).map_or(HALF, |(l, r)| (right.distinct(r) / left.distinct(l)).min(1.0))
    });
    let extra = if join.filter.is_some() { HALF } else { 1.0 };
    share.fold(1.0, f64::min) * extra
}

fn combined(join: &Join, left: Estimate, right: Estimate) -> Estimate {
    let matches = join.on.iter().map(|(l, r)| {
        let (Expr::Column(l), Expr::Column(r)) = (l, r) else { return 1.0 / left.rows.max(right.rows).max(1.0) };
        let (l, r) = (join.left.schema().maybe_index_of_column(l), join.right.schema().maybe_index_of_column(r));
        let distinct = l.zip(r).map(|(l, r)| left.distinct(l).max(right.distinct(r)));
        1.0 / distinct.unwrap_or_else(|| left.rows.max(right.rows).max(1.0))
    });
    // Equalities of one pair of inputs are seldom independent: the most selective one counts.
    let share = matches.fold(1.0, f64::min);
    let (left_rows, right_rows) = (left.rows, right.rows);
    let columns: Vec<_> = left.columns.into_iter().chain(right.columns).collect();
    let column = |column: &Column| columns.get(join.schema.maybe_index_of_column(column)?).cloned();
    let filter = join.filter.as_ref().map_or(1.0, |filter| selectivity(filter, &column));
    let inner = (left_rows * right_rows * share * filter).max(1.0);
    let rows = match join.join_type {
        JoinType::Left => inner.max(left_rows),
        JoinType::Right => inner.max(right_rows),
        JoinType::Full => inner.max(left_rows).max(right_rows),
        _ => inner,
    };
    Estimate { rows, stored_rows: rows, columns }
}
