//! The cheapest order of a group of joins: every order without cross products for few inputs, greedily for many.

use std::sync::Arc;

use super::{
    graph::{Set, Shape},
    model::{Model, Size},
};

/// Up to so many inputs every order is looked at: 3^9 pairs of sets, a few milliseconds.
const EXHAUSTIVE: usize = 9;

/// An order and its cost.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) shape: Shape,
    pub(super) cost: f64,
}

/// The best order found; `None` if the inputs are not all connected.
pub(super) fn best_order(model: &Model) -> Option<Order> {
    if model.inputs() <= EXHAUSTIVE { exhaustive(model) } else { greedy(model) }
}

/// Dynamic programming over sets of inputs: the best order of a set is a join of best orders of two parts of it.
fn exhaustive(model: &Model) -> Option<Order> {
    let everything: Set = (1 << model.inputs()) - 1;
    let mut best: Vec<Option<(Size, Set)>> = vec![None; everything as usize + 1];
    for input in 0..model.inputs() {
        best[1 << input] = Some((model.input(input), 0));
    }
    for set in 1..=everything {
        if set.count_ones() < 2 {
            continue;
        }
        let mut cheapest: Option<(Size, Set)> = None;
        let mut left = (set - 1) & set;
        while left != 0 {
            let right = set & !left;
            // Each pair of parts once.
            if left > right
                && let (Some((l, _)), Some((r, _))) = (best[left as usize], best[right as usize])
                && model.connected(left, right)
            {
                let mut size = model.join((left, l), (right, r));
                // However a set is joined, it has the same rows: the first estimate stands.
                size.rows = cheapest.map_or(size.rows, |(known, _)| known.rows);
                if cheapest.is_none_or(|(known, _)| size.cost < known.cost) {
                    cheapest = Some((size, left));
                }
            }
            left = (left - 1) & set;
        }
        best[set as usize] = cheapest;
    }
    let (size, _) = best[everything as usize]?;
    Some(Order { shape: shape_of(&best, everything), cost: size.cost })
}

fn shape_of(best: &[Option<(Size, Set)>], set: Set) -> Shape {
    match best[set as usize] {
        Some((_, left)) if left != 0 => {
            Shape::Join(Arc::new(shape_of(best, left)), Arc::new(shape_of(best, set & !left)))
        }
        _ => Shape::Input(set.trailing_zeros() as usize),
    }
}

/// Joins, again and again, the two parts whose join is smallest.
fn greedy(model: &Model) -> Option<Order> {
    let mut parts: Vec<(Set, Size, Shape)> =
        (0..model.inputs()).map(|input| (1 << input, model.input(input), Shape::Input(input))).collect();
    while parts.len() > 1 {
        let mut smallest: Option<(usize, usize, Size)> = None;
        for (at, (left, l, _)) in parts.iter().enumerate() {
            for (other, (right, r, _)) in parts.iter().enumerate().skip(at + 1) {
                if !model.connected(*left, *right) {
                    continue;
                }
                let size = model.join((*left, *l), (*right, *r));
                if smallest.is_none_or(|(.., known)| size.rows < known.rows) {
                    smallest = Some((at, other, size));
                }
            }
        }
        let (at, other, size) = smallest?;
        let (right, _, right_shape) = parts.swap_remove(other);
        let (left, _, left_shape) = parts.swap_remove(at);
        parts.push((left | right, size, Shape::Join(Arc::new(left_shape), Arc::new(right_shape))));
    }
    let (_, size, shape) = parts.pop()?;
    Some(Order { shape, cost: size.cost })
}
