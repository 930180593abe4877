//! A group of inner joins as a graph: inputs, and conditions between them.

use std::sync::Arc;

use datafusion::{
    arrow::datatypes::DataType,
    common::{Column, NullEquality, tree_node::TreeNode},
    logical_expr::{Expr, Filter, Join, JoinType, LogicalPlan, Projection, utils::split_conjunction},
};

use super::estimate;

/// Inputs of one group, at most; sets of them are bits.
const MAX_INPUTS: usize = 32;
/// A semi join moves down if it keeps at most this share of the rows,
const SELECTIVE: f64 = 0.3;
/// or this share where it looks at no more rows below than above: what it drops is joined with nothing then.
const USEFUL: f64 = 0.5;

/// A set of inputs: one bit each.
pub(super) type Set = u64;

/// Which inputs are joined in which order.
#[derive(Debug, Clone)]
pub(super) enum Shape {
    /// One input.
    Input(usize),
    /// A join of two.
    Join(Arc<Shape>, Arc<Shape>),
}

/// A column of an input.
#[derive(Debug, Clone)]
pub(super) struct Member {
    pub(super) input: usize,
    /// Position in the input's schema.
    pub(super) position: usize,
    pub(super) column: Column,
}

/// Columns that are all equal. Wherever two sets of inputs are joined, one equality per class is enough.
pub(super) type Class = Vec<Member>;

/// An equality of expressions.
#[derive(Debug, Clone)]
pub(super) struct Edge {
    pub(super) left: (Expr, Set),
    pub(super) right: (Expr, Set),
}

/// The joins at the top of a plan.
#[derive(Debug)]
pub(super) struct Graph {
    pub(super) inputs: Vec<LogicalPlan>,
    pub(super) classes: Vec<Class>,
    pub(super) edges: Vec<Edge>,
    /// Every other condition, and the inputs it is about: at least two.
    pub(super) filters: Vec<(Expr, Set)>,
    pub(super) shape: Shape,
    pub(super) semi_joins_moved: bool,
}

/// Joins whose conditions have not been assigned to inputs yet.
#[derive(Debug, Default)]
struct Flat {
    inputs: Vec<LogicalPlan>,
    equalities: Vec<(Expr, Expr)>,
    filters: Vec<Expr>,
    semi_joins_moved: bool,
}

impl Graph {
    /// The group of joins at the top of `plan`; `None` if nothing can or need be reordered.
    pub(super) fn try_new(plan: &LogicalPlan) -> Option<Self> {
        let mut flat = Flat::default();
        let shape = flat.take(plan)?;
        let wanted = if flat.semi_joins_moved { 2 } else { 3 };
        if !(wanted..=MAX_INPUTS).contains(&flat.inputs.len()) || !flat.has_distinct_columns() {
            return None;
        }
        let mut graph = Self {
            inputs: vec![],
            classes: vec![],
            edges: vec![],
            filters: vec![],
            shape,
            semi_joins_moved: flat.semi_joins_moved,
        };
        for (left, right) in &flat.equalities {
            graph.add_equality(&flat, left, right)?;
        }
        for filter in &flat.filters {
            graph.add_filter(&flat, filter)?;
        }
        graph.inputs = flat.inputs;
        graph.equate_within_inputs()?;
        Some(graph)
    }

    /// Columns of one input that are equal because both equal one of another: said where the input is read, since a
    /// join says it of one member per side only.
    fn equate_within_inputs(&mut self) -> Option<()> {
        for class in &mut self.classes {
            class.sort_by_key(|member| member.input);
            for pair in class.windows(2).filter(|pair| pair[0].input == pair[1].input) {
                let input = &mut self.inputs[pair[0].input];
                let equal = Expr::Column(pair[0].column.clone()).eq(Expr::Column(pair[1].column.clone()));
                *input = LogicalPlan::Filter(Filter::try_new(equal, Arc::new(input.clone())).ok()?);
            }
            class.dedup_by_key(|member| member.input);
        }
        Some(())
    }

    fn add_equality(&mut self, flat: &Flat, left: &Expr, right: &Expr) -> Option<()> {
        if let (Expr::Column(l), Expr::Column(r)) = (left, right) {
            let (l, r) = (flat.member(l)?, flat.member(r)?);
            if l.input != r.input && flat.type_of(&l) == flat.type_of(&r) {
                self.unite(l, r);
                return Some(());
            }
        }
        let (left_set, right_set) = (flat.inputs_of(left)?, flat.inputs_of(right)?);
        if left_set & right_set == 0 {
            self.edges.push(Edge { left: (left.clone(), left_set), right: (right.clone(), right_set) });
            return Some(());
        }
        self.add_filter(flat, &left.clone().eq(right.clone()))
    }

    /// Makes two columns members of one class.
    fn unite(&mut self, left: Member, right: Member) {
        let same = |a: &Member, b: &Member| (a.input, a.position) == (b.input, b.position);
        let mut class = vec![];
        for member in [left, right] {
            let found = self.classes.iter().position(|class| class.iter().any(|other| same(other, &member)));
            match found {
                Some(at) => class.extend(self.classes.swap_remove(at)),
                None if class.iter().any(|other| same(other, &member)) => {}
                None => class.push(member),
            }
        }
        self.classes.push(class);
    }

    fn add_filter(&mut self, flat: &Flat, filter: &Expr) -> Option<()> {
        let set = flat.inputs_of(filter)?;
        if set.count_ones() < 2 {
            return None;
        }
        self.filters.push((filter.clone(), set));
        Some(())
    }
}

impl Flat {
    /// Takes the joins at the top of `plan` apart. `None` if a condition must stay where it is.
    fn take(&mut self, plan: &LogicalPlan) -> Option<Shape> {
        match plan {
            LogicalPlan::Join(join) if is_plain_inner(join) => {
                let shape = Shape::Join(Arc::new(self.take(&join.left)?), Arc::new(self.take(&join.right)?));
                self.equalities.extend(join.on.iter().cloned());
                self.add_filters(join.filter.iter())?;
                Some(shape)
            }
            LogicalPlan::Join(join) if join.join_type == JoinType::LeftSemi => match self.take_semi_join(join) {
                Some(shape) => Some(shape),
                None => Some(self.take_input(plan)),
            },
            LogicalPlan::Filter(Filter { input, predicate, .. }) if is_transparent(plan) => {
                let shape = self.take(input)?;
                self.add_filters([predicate])?;
                Some(shape)
            }
            LogicalPlan::Projection(Projection { input, .. }) if is_transparent(plan) => self.take(input),
            input => Some(self.take_input(input)),
        }
    }

    fn take_input(&mut self, plan: &LogicalPlan) -> Shape {
        self.inputs.push(plan.clone());
        Shape::Input(self.inputs.len() - 1)
    }

    fn add_filters<'a>(&mut self, filters: impl IntoIterator<Item = &'a Expr>) -> Option<()> {
        for conjunct in filters.into_iter().flat_map(split_conjunction) {
            // Evaluated once per combination of rows it sees: how many those are must not change.
            if conjunct.is_volatile() || has_subquery(conjunct) {
                return None;
            }
            self.filters.push(conjunct.clone());
        }
        Some(())
    }

    /// Moves a semi join that keeps few rows to the one input of its left side that it is about.
    fn take_semi_join(&mut self, join: &Join) -> Option<Shape> {
        let mut left = Self::default();
        let shape = left.take(&join.left)?;
        if left.inputs.len() < 2 || join.null_aware {
            return None;
        }
        let right_columns = join.right.schema();
        let mut about: Set = 0;
        for (key, _) in &join.on {
            about |= left.inputs_of(key)?;
        }
        for column in join.filter.iter().flat_map(Expr::column_refs) {
            about |= if right_columns.has_column(column) { 0 } else { left.set_of(column)? };
        }
        if about.count_ones() != 1 || join.filter.iter().any(|filter| filter.is_volatile() || has_subquery(filter)) {
            return None;
        }
        let input = &mut left.inputs[about.trailing_zeros() as usize];
        let share = estimate::semi_join_share(input, join)?;
        let looks_at_fewer = || Some(estimate::of(input)?.rows <= estimate::of(&join.left)?.rows);
        if share > SELECTIVE && (share > USEFUL || looks_at_fewer() != Some(true)) {
            return None;
        }
        let moved = Join::try_new(
            Arc::new(input.clone()),
            Arc::clone(&join.right),
            join.on.clone(),
            join.filter.clone(),
            JoinType::LeftSemi,
            join.join_constraint,
            join.null_equality,
            false,
        );
        *input = LogicalPlan::Join(moved.ok()?);
        left.semi_joins_moved = true;
        Some(self.append(left, &shape))
    }

    fn append(&mut self, other: Self, shape: &Shape) -> Shape {
        let shape = shape.shifted(self.inputs.len());
        self.inputs.extend(other.inputs);
        self.equalities.extend(other.equalities);
        self.filters.extend(other.filters);
        self.semi_joins_moved |= other.semi_joins_moved;
        shape
    }

    /// Whether no name means columns of two inputs, as it may once projections between joins are gone.
    fn has_distinct_columns(&self) -> bool {
        self.inputs.iter().enumerate().all(|(at, input)| {
            let columns = input.schema().columns();
            let others = self.inputs.iter().skip(at + 1);
            others.map(LogicalPlan::schema).all(|other| columns.iter().all(|column| !other.has_column(column)))
        })
    }

    fn member(&self, column: &Column) -> Option<Member> {
        let mut found = self.inputs.iter().enumerate().filter_map(|(input, plan)| {
            let position = plan.schema().maybe_index_of_column(column)?;
            Some(Member { input, position, column: column.clone() })
        });
        let member = found.next()?;
        found.next().is_none().then_some(member)
    }

    fn type_of(&self, member: &Member) -> &DataType {
        self.inputs[member.input].schema().field(member.position).data_type()
    }

    fn set_of(&self, column: &Column) -> Option<Set> {
        self.member(column).map(|member| 1 << member.input)
    }

    /// The inputs whose columns an expression names.
    fn inputs_of(&self, expr: &Expr) -> Option<Set> {
        expr.column_refs().into_iter().try_fold(0, |set, column| Some(set | self.set_of(column)?))
    }
}

impl Shape {
    fn shifted(&self, by: usize) -> Self {
        match self {
            Self::Input(input) => Self::Input(input + by),
            Self::Join(left, right) => Self::Join(Arc::new(left.shifted(by)), Arc::new(right.shifted(by))),
        }
    }

    /// The inputs it joins.
    pub(super) fn set(&self) -> Set {
        match self {
            Self::Input(input) => 1 << input,
            Self::Join(left, right) => left.set() | right.set(),
        }
    }
}

fn is_plain_inner(join: &Join) -> bool {
    join.join_type == JoinType::Inner && join.null_equality == NullEquality::NullEqualsNothing && !join.null_aware
}

/// Whether a group of joins goes on below this node: an inner join, or a filter or a choice of columns above one.
pub(super) fn is_transparent(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Join(join) => is_plain_inner(join),
        LogicalPlan::Filter(filter) => is_transparent(&filter.input),
        LogicalPlan::Projection(projection) => {
            projection.expr.iter().all(|expr| matches!(expr, Expr::Column(_))) && is_transparent(&projection.input)
        }
        _ => false,
    }
}

fn has_subquery(expr: &Expr) -> bool {
    let subquery = |expr: &Expr| {
        let kinds = matches!(expr, Expr::ScalarSubquery(_) | Expr::InSubquery(_) | Expr::Exists(_));
        Ok(kinds || matches!(expr, Expr::SetComparison(_) | Expr::OuterReferenceColumn(..)))
    };
    // The closure never fails, so neither does the search.
    expr.exists(subquery).unwrap_or(true)
}
