//! How many rows a set of inputs has when joined, and what joining costs.

use datafusion::logical_expr::LogicalPlan;

use super::{
    estimate::{self, Estimate},
    graph::{Graph, Set, Shape},
    selectivity::selectivity,
};

/// What a joined set of inputs costs and yields.
#[derive(Debug, Clone, Copy)]
pub(super) struct Size {
    pub(super) cost: f64,
    pub(super) rows: f64,
}

/// A column of a class, with its number of distinct values.
#[derive(Debug)]
struct KnownMember {
    input: usize,
    distinct: f64,
}

/// The estimates of one graph.
#[derive(Debug)]
pub(super) struct Model {
    inputs: Vec<Estimate>,
    classes: Vec<Vec<KnownMember>>,
    edges: Vec<(Set, Set)>,
    /// Other conditions: their inputs, and the share of rows they keep.
    filters: Vec<(Set, f64)>,
}

impl Model {
    /// `None` if an input's size is unknown.
    pub(super) fn try_new(graph: &Graph) -> Option<Self> {
        let inputs = graph.inputs.iter().map(estimate::of).collect::<Option<Vec<_>>>()?;
        let classes = graph.classes.iter().map(|class| {
            let known = class.iter().map(|member| {
                let input = &inputs[member.input];
                let distinct = input.columns.get(member.position).and_then(|column| column.distinct);
                KnownMember {
                    input: member.input,
                    distinct: distinct.unwrap_or(input.rows).clamp(1.0, input.rows.max(1.0)),
                }
            });
            known.collect()
        });
        let classes = classes.collect();
        let edges = graph.edges.iter().map(|edge| (edge.left.1, edge.right.1)).collect();
        let filters = graph.filters.iter().map(|(filter, set)| {
            let column = |column: &_| {
                let found = graph.inputs.iter().zip(&inputs).find_map(|(plan, input): (&LogicalPlan, &Estimate)| {
                    input.columns.get(plan.schema().maybe_index_of_column(column)?)
                });
                found.cloned()
            };
            (*set, selectivity(filter, &column))
        });
        let filters = filters.collect();
        Some(Self { inputs, classes, edges, filters })
    }

    pub(super) fn inputs(&self) -> usize {
        self.inputs.len()
    }

    /// One input alone.
    pub(super) fn input(&self, input: usize) -> Size {
        Size { cost: 0.0, rows: self.inputs[input].rows.max(1.0) }
    }

    /// Whether an equality joins the two sets.
    pub(super) fn connected(&self, left: Set, right: Set) -> bool {
        let touches = |class: &Vec<KnownMember>, set: Set| class.iter().any(|member| set & (1 << member.input) != 0);
        self.classes.iter().any(|class| touches(class, left) && touches(class, right))
            || self.edges.iter().any(|edge| separates(*edge, left, right))
    }

    /// The join of two sets. The smaller is the build side: it is hashed, the other streams through.
    pub(super) fn join(&self, left: (Set, Size), right: (Set, Size)) -> Size {
        let ((left, l), (right, r)) = (left, right);
        let share = self.equal_share(left, right, l.rows, r.rows) * self.filtered_share(left, right);
        let rows = (l.rows * r.rows * share).max(1.0);
        let (build, probe) = (l.rows.min(r.rows), l.rows.max(r.rows));
        Size { cost: l.cost + r.cost + rows + 2.0 * build + 0.3 * probe, rows }
    }

    /// The share of pairs that meet all equalities between the sets. Equalities are not independent: together they
    /// keep no less than a key of the side with fewer combinations would.
    fn equal_share(&self, left: Set, right: Set, left_rows: f64, right_rows: f64) -> f64 {
        let mut sides = [Keys::new(left, left_rows), Keys::new(right, right_rows)];
        let mut most_selective = 1.0_f64;
        for class in &self.classes {
            let found = sides.each_ref().map(|side| side.fewest(class));
            if let [Some(l), Some(r)] = found {
                most_selective = most_selective.min(1.0 / l.distinct.min(left_rows).max(r.distinct.min(right_rows)));
                for (side, member) in sides.iter_mut().zip([l, r]) {
                    side.add(member);
                }
            }
        }
        if sides[0].columns > 1 {
            let combinations = sides.map(|side| side.combinations(&self.inputs));
            most_selective = most_selective.min(1.0 / combinations[0].min(combinations[1]).max(1.0));
        }
        let edges = self.edges.iter().filter(|edge| separates(**edge, left, right)).count();
        let one_edge = 1.0 / left_rows.min(right_rows).max(10.0);
        if edges == 0 { most_selective } else { most_selective.min(one_edge) }
    }

    fn filtered_share(&self, left: Set, right: Set) -> f64 {
        let within = |set: Set, other: Set| set & !other == 0;
        let new = self
            .filters
            .iter()
            .filter(|(set, _)| within(*set, left | right) && !within(*set, left) && !within(*set, right));
        new.map(|(_, share)| share).product()
    }

    /// What joining in this order costs and yields.
    pub(super) fn size(&self, shape: &Shape) -> Size {
        match shape {
            Shape::Input(input) => self.input(*input),
            Shape::Join(left, right) => self.join((left.set(), self.size(left)), (right.set(), self.size(right))),
        }
    }

    /// How many rows joining in this order yields.
    pub(super) fn rows(&self, shape: &Shape) -> f64 {
        self.size(shape).rows
    }
}

/// Whether the sides of an equality lie on either side of a join.
pub(super) fn separates((a, b): (Set, Set), left: Set, right: Set) -> bool {
    let within = |set: Set, other: Set| set != 0 && set & !other == 0;
    within(a, left) && within(b, right) || within(a, right) && within(b, left)
}

/// The columns that one side of a join is joined by.
struct Keys {
    set: Set,
    rows: f64,
    columns: usize,
    product: f64,
    /// The only input they are from, if it is one.
    input: Option<usize>,
}

impl Keys {
    fn new(set: Set, rows: f64) -> Self {
        Self { set, rows, columns: 0, product: 1.0, input: None }
    }

    /// The member of a class on this side that has the fewest values.
    fn fewest<'a>(&self, class: &'a [KnownMember]) -> Option<&'a KnownMember> {
        let members = class.iter().filter(|member| self.set & (1 << member.input) != 0);
        members.min_by(|a, b| a.distinct.total_cmp(&b.distinct))
    }

    fn add(&mut self, member: &KnownMember) {
        self.input = if self.columns == 0 { Some(member.input) } else { self.input.filter(|one| *one == member.input) };
        self.columns += 1;
        self.product *= member.distinct;
    }

    /// How many combinations of values there are, at most.
    fn combinations(&self, inputs: &[Estimate]) -> f64 {
        let most = self.input.map_or(self.rows, |input| inputs[input].stored_rows);
        self.product.min(most)
    }
}
