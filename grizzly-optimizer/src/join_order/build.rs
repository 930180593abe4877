//! A plan again, from a graph and an order.

use std::sync::Arc;

use datafusion::{
    common::{DFSchemaRef, NullEquality, Result, internal_datafusion_err},
    logical_expr::{Expr, Join, JoinConstraint, JoinType, LogicalPlan, Projection, utils::conjunction},
};

use super::{
    graph::{Class, Edge, Graph, Set, Shape},
    model::Model,
    reorder_all,
};

/// The joins of `graph` in the order of `shape`, with the columns of `schema`. The smaller side of each is built.
pub(super) fn plan_of(graph: Graph, model: &Model, shape: &Shape, schema: &DFSchemaRef) -> Result<LogicalPlan> {
    let Graph { inputs, classes, edges, filters, .. } = graph;
    let inputs = inputs.into_iter().map(|input| reorder_all(input).map(|input| Some(input.data)));
    let mut builder = Builder { inputs: inputs.collect::<Result<_>>()?, classes, edges, filters, model };
    let joined = builder.build(shape)?;
    if joined.schema() == schema {
        return Ok(joined);
    }
    Ok(LogicalPlan::Projection(Projection::new_from_schema(Arc::new(joined), Arc::clone(schema))))
}

struct Builder<'a> {
    inputs: Vec<Option<LogicalPlan>>,
    classes: Vec<Class>,
    edges: Vec<Edge>,
    filters: Vec<(Expr, Set)>,
    model: &'a Model,
}

impl Builder<'_> {
    fn build(&mut self, shape: &Shape) -> Result<LogicalPlan> {
        let (left, right) = match shape {
            Shape::Input(input) => {
                let plan = self.inputs.get_mut(*input).and_then(Option::take);
                return plan.ok_or_else(|| internal_datafusion_err!("join input {input} is used twice"));
            }
            Shape::Join(left, right) if self.model.rows(right) < self.model.rows(left) => (right, left),
            Shape::Join(left, right) => (left, right),
        };
        let plans = [self.build(left)?, self.build(right)?];
        let sets = [left.set(), right.set()];
        let on = self.equalities(sets);
        let filter = self.filters(sets);
        let [left, right] = plans.map(Arc::new);
        let equality = NullEquality::NullEqualsNothing;
        let join = Join::try_new(left, right, on, filter, JoinType::Inner, JoinConstraint::On, equality, false)?;
        Ok(LogicalPlan::Join(join))
    }

    /// One equality per class, and every edge, between the two sets.
    fn equalities(&mut self, [left, right]: [Set; 2]) -> Vec<(Expr, Expr)> {
        let member = |class: &Class, set: Set| {
            let found = class.iter().find(|member| set & (1 << member.input) != 0);
            found.map(|member| Expr::Column(member.column.clone()))
        };
        let classes = self.classes.iter();
        let mut on: Vec<_> = classes.filter_map(|class| member(class, left).zip(member(class, right))).collect();
        let within = |set: Set, other: Set| set != 0 && set & !other == 0;
        self.edges.retain(|edge| {
            let ((a, a_set), (b, b_set)) = (&edge.left, &edge.right);
            if within(*a_set, left) && within(*b_set, right) {
                on.push((a.clone(), b.clone()));
            } else if within(*b_set, left) && within(*a_set, right) {
                on.push((b.clone(), a.clone()));
            } else if within(a_set | b_set, left | right) {
                // Its sides are mixed here: from now on a condition like any other.
                self.filters.push((a.clone().eq(b.clone()), a_set | b_set));
            } else {
                return true;
            }
            false
        });
        on
    }

    /// The other conditions that can be tested here for the first time.
    fn filters(&mut self, [left, right]: [Set; 2]) -> Option<Expr> {
        let here = |(_, set): &mut (Expr, Set)| *set & !(left | right) == 0;
        let ready: Vec<_> = self.filters.extract_if(.., here).map(|(filter, _)| filter).collect();
        conjunction(ready)
    }
}
