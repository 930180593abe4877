//! Which sub-plans one remote can run, and the query that asks it to.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::{
    common::{DFSchema, JoinType, NullEquality},
    datasource::DefaultTableSource,
    error::Result,
    logical_expr::{
        Aggregate, Expr, ExprSchemable, FetchType, Filter, Join, Limit, LogicalPlan, Projection, SkipType, Sort,
        TableScan, TableSource, Union,
    },
};

use super::{
    RemoteDatabase, RemoteTable,
    dialect::Comparison,
    expression::Writer,
    select::{Column, JoinKind, Select},
    table::unqualified,
};

/// A sub-plan that a remote can run. The columns of its query are those of the sub-plan, in order.
#[derive(Debug, Clone)]
pub(super) struct Candidate {
    pub(super) remote: Arc<dyn RemoteDatabase>,
    pub(super) select: Select,
    /// Whether it is more than tables with conditions and chosen columns, which a scan asks for anyway.
    pub(super) worth: bool,
    /// Whether whoever reads it may count on the order of its rows, which a scan does not promise.
    pub(super) ordered: bool,
}

impl Candidate {
    fn with(self, change: impl FnOnce(Select) -> Select) -> Self {
        Self { select: change(self.select), ..self }
    }

    fn worth(self) -> Self {
        Self { worth: true, ordered: false, ..self }
    }

    fn writer<'a>(&'a self, schema: &'a DFSchema, texts: &'a [String]) -> Writer<'a> {
        Writer { dialect: self.remote.dialect(), schema, columns: texts }
    }
}

/// The remote table behind a table of a plan.
pub(super) fn remote_table(source: &Arc<dyn TableSource>) -> Option<&RemoteTable> {
    source.downcast_ref::<DefaultTableSource>()?.table_provider.downcast_ref::<RemoteTable>()
}

/// `plan` as one query of one remote; `None` if it is not, or not surely with the same answer.
pub(super) fn candidate(plan: &LogicalPlan) -> Option<Candidate> {
    match plan {
        LogicalPlan::TableScan(scan) => table_scan(scan),
        LogicalPlan::SubqueryAlias(alias) => candidate(&alias.input),
        LogicalPlan::Projection(projection) => project(projection),
        LogicalPlan::Filter(filter) => self::filter(filter),
        LogicalPlan::Join(join) => self::join(join),
        LogicalPlan::Aggregate(aggregate) => self::aggregate(aggregate),
        LogicalPlan::Sort(sort) => top(sort),
        LogicalPlan::Limit(limit) => self::limit(limit),
        LogicalPlan::Union(union) => self::union(union),
        _ => None,
    }
}

fn table_scan(scan: &TableScan) -> Option<Candidate> {
    let table = remote_table(&scan.source)?;
    let mut select = table.select_where(&scan.filters).ok()?;
    if let Some(projection) = &scan.projection {
        let columns: Option<Vec<Column>> = projection.iter().map(|at| select.columns.get(*at).cloned()).collect();
        select = select.with_columns(columns?);
    }
    // `fetch` is a hint: the limit itself stands above.
    Some(Candidate { remote: Arc::clone(table.remote()), select, worth: false, ordered: false })
}

fn project(projection: &Projection) -> Option<Candidate> {
    let input = candidate(&projection.input).filter(|input| !input.ordered)?;
    let picks = |expr: &Expr| matches!(expr.clone().unalias_nested().data, Expr::Column(_));
    // What is computed is computed once: not within every expression that uses it.
    let input = if projection.expr.iter().all(picks) || input.select.is_plain() && input.select.is_rows() {
        input
    } else {
        input.with(Select::nested)
    };
    let texts = input.select.texts();
    let schema = projection.input.schema();
    let writer = input.writer(schema, &texts);
    let mut columns = Vec::with_capacity(projection.expr.len());
    for expr in &projection.expr {
        columns.push(match &expr.clone().unalias_nested().data {
            Expr::Column(column) => input.select.columns.get(schema.index_of_column(column).ok()?)?.clone(),
            computed => Column::Computed(writer.computed(computed)?),
        });
    }
    Some(input.with(|select| select.with_columns(columns)))
}

fn filter(filter: &Filter) -> Option<Candidate> {
    let input = candidate(&filter.input)?.with(Select::rows);
    let texts = input.select.texts();
    let condition = input.writer(filter.input.schema(), &texts).write(&filter.predicate)?;
    Some(input.with(|select| select.filtered(condition)).worth())
}

fn join(join: &Join) -> Option<Candidate> {
    let (left, right) = (candidate(&join.left)?, candidate(&join.right)?);
    let one_remote = left.remote.identity() == right.remote.identity();
    // A product of two tables is larger than both.
    let has_condition = !join.on.is_empty() || join.filter.is_some();
    // NOT IN with its NULLs stays here.
    (one_remote && has_condition && !join.null_aware).then_some(())?;
    let remote = Arc::clone(&left.remote);
    let schema = join.left.schema().join(join.right.schema()).ok()?;
    let on = |texts: &[String]| join_condition(&remote, join, &schema, texts);
    let select = match join.join_type {
        JoinType::Inner => outer(left.select, JoinKind::Inner, right.select, on)?,
        JoinType::Left => outer(left.select, JoinKind::Left, right.select, on)?,
        JoinType::Right => outer(left.select, JoinKind::Right, right.select, on)?,
        JoinType::Full if remote.dialect().full_joins => outer(left.select, JoinKind::Full, right.select, on)?,
        JoinType::LeftSemi => left.select.rows().matched(right.select, false, on)?,
        JoinType::LeftAnti => left.select.rows().matched(right.select, true, on)?,
        _ => return None,
    };
    Some(Candidate { remote, select, worth: true, ordered: false })
}

fn outer(left: Select, kind: JoinKind, right: Select, on: impl FnOnce(&[String]) -> Option<String>) -> Option<Select> {
    left.into_left(kind).joined(kind, right, on)
}

/// The condition of a join over the columns of both sides.
fn join_condition(
    remote: &Arc<dyn RemoteDatabase>,
    join: &Join,
    schema: &DFSchema,
    texts: &[String],
) -> Option<String> {
    let width = join.left.schema().fields().len();
    let (left_texts, right_texts) = texts.split_at_checked(width)?;
    let dialect = remote.dialect();
    let left = Writer { dialect, schema: join.left.schema(), columns: left_texts };
    let right = Writer { dialect, schema: join.right.schema(), columns: right_texts };
    let operator = match join.null_equality {
        NullEquality::NullEqualsNothing => "=",
        NullEquality::NullEqualsNull => "IS NOT DISTINCT FROM",
    };
    let mut conditions = Vec::new();
    for (from_left, from_right) in &join.on {
        left.compares(from_left, Comparison::Equal)?;
        right.compares(from_right, Comparison::Equal)?;
        let types = (from_left.get_type(left.schema).ok()?, from_right.get_type(right.schema).ok()?);
        // Hash joins and other joins see -0.0 and NaN differently, and the remote may choose another one.
        (joinable(&types.0, &types.1) && !types.0.is_floating()).then_some(())?;
        conditions.push(format!("({} {operator} {})", left.write(from_left)?, right.write(from_right)?));
    }
    if let Some(filter) = &join.filter {
        conditions.push(Writer { dialect, schema, columns: texts }.write(filter)?);
    }
    Some(conditions.join(" AND "))
}

fn joinable(left: &DataType, right: &DataType) -> bool {
    left == right || left.is_integer() && right.is_integer() || left.is_string() && right.is_string()
}

fn aggregate(aggregate: &Aggregate) -> Option<Candidate> {
    let input = candidate(&aggregate.input)?.with(Select::rows);
    let schema = aggregate.input.schema();
    let texts = input.select.texts();
    let writer = input.writer(schema, &texts);
    let mut groups = Vec::with_capacity(aggregate.group_expr.len());
    for expr in &aggregate.group_expr {
        writer.compares(expr, Comparison::Equal)?;
        groups.push(writer.typed(expr)?);
    }
    let picks = |expr: &Expr| matches!(expr, Expr::Column(_));
    let (input, groups) = if input.select.is_plain() && aggregate.group_expr.iter().all(picks) {
        (input, groups)
    } else {
        with_groups_first(input, groups)
    };
    let texts = input.select.texts();
    // Groups that are computed stand before the input's own columns now.
    let own = texts.get(texts.len().checked_sub(schema.fields().len())?..)?;
    let writer = input.writer(schema, own);
    let mut columns: Vec<Column> = match input.select.columns.get(..texts.len() - own.len())? {
        [] => groups.iter().map(|group| plain_column(&input.select, group)).collect::<Option<_>>()?,
        computed => computed.to_vec(),
    };
    for expr in &aggregate.aggr_expr {
        columns.push(Column::Computed(writer.aggregate(expr)?));
    }
    Some(input.with(|select| select.grouped(groups, columns)).worth())
}

/// The input with its groups computed below, as columns before its own; a number or a text in GROUP BY would mean
/// something else.
fn with_groups_first(input: Candidate, groups: Vec<String>) -> (Candidate, Vec<String>) {
    let count = groups.len();
    let mut columns: Vec<Column> = groups.into_iter().map(Column::Computed).collect();
    columns.extend(input.select.columns.iter().cloned());
    let input = input.with(|select| select.with_columns(columns).nested());
    let groups = input.select.texts().into_iter().take(count).collect();
    (input, groups)
}

/// The column of `select` that is called so within it.
fn plain_column(select: &Select, text: &String) -> Option<Column> {
    let at = select.texts().iter().position(|other| other == text)?;
    select.columns.get(at).cloned()
}

fn top(sort: &Sort) -> Option<Candidate> {
    let fetch = sort.fetch?;
    let input = candidate(&sort.input)?;
    // Asked for already: what comes back is sorted again here.
    (input.select.limit().is_none_or(|limit| limit > fetch)).then_some(())?;
    let input = input.with(Select::rows);
    let input = if input.select.is_plain() { input } else { input.with(Select::nested) };
    let texts = input.select.texts();
    let writer = input.writer(sort.input.schema(), &texts);
    let mut order = Vec::with_capacity(sort.expr.len());
    for key in &sort.expr {
        writer.compares(&key.expr, Comparison::Ordered)?;
        // A number would mean the column of that number.
        (!matches!(key.expr, Expr::Literal(..))).then_some(())?;
        let direction = if key.asc { "ASC" } else { "DESC" };
        let nulls = if key.nulls_first { "FIRST" } else { "LAST" };
        order.push(format!("{} {direction} NULLS {nulls}", writer.write(&key.expr)?));
    }
    let input = input.with(|select| select.top(order, fetch));
    Some(Candidate { worth: true, ordered: true, ..input })
}

fn limit(limit: &Limit) -> Option<Candidate> {
    let input = candidate(&limit.input).filter(|input| !input.ordered)?;
    let (Ok(SkipType::Literal(skip)), Ok(FetchType::Literal(Some(fetch)))) =
        (limit.get_skip_type(), limit.get_fetch_type())
    else {
        return None;
    };
    Some(input.with(|select| select.limited(skip, fetch)))
}

fn union(union: &Union) -> Option<Candidate> {
    let inputs: Option<Vec<Candidate>> = union.inputs.iter().map(|input| candidate(input)).collect();
    let inputs = inputs?;
    let remote = Arc::clone(&inputs.first()?.remote);
    let types = |plan: &LogicalPlan| -> Vec<DataType> {
        plan.schema().fields().iter().map(|field| field.data_type().clone()).collect()
    };
    let expected: Vec<DataType> = union.schema.fields().iter().map(|field| field.data_type().clone()).collect();
    let alike = inputs.iter().all(|input| input.remote.identity() == remote.identity())
        && union.inputs.iter().all(|input| types(input) == expected)
        && !expected.is_empty();
    alike.then_some(())?;
    let select = Select::union(inputs.into_iter().map(|input| input.select).collect());
    Some(Candidate { remote, select, worth: true, ordered: false })
}

/// Whether any table of the plan, subqueries included, is a remote's.
pub(super) fn reads_remote(plan: &LogicalPlan) -> Result<bool> {
    use datafusion::common::tree_node::TreeNodeRecursion;
    let mut found = false;
    plan.apply_with_subqueries(|node| {
        found |= matches!(node, LogicalPlan::TableScan(scan) if remote_table(&scan.source).is_some());
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(found)
}

/// The conditions as one, without the table's name before the columns.
pub(super) fn conjunction(filters: &[Expr]) -> Result<Option<Expr>> {
    let Some(all) = filters.iter().cloned().reduce(Expr::and) else { return Ok(None) };
    unqualified(all).map(Some)
}
