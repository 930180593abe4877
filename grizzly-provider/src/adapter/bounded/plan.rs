//! Puts bounded functions where a plan has others: the operator `||`, and what SQL's planner makes of `ARRAY[…]` and lists.

use std::borrow::Cow;

use datafusion::{
    common::tree_node::{Transformed, TreeNode, TreeNodeRecursion},
    error::Result,
    logical_expr::{BinaryExpr, Expr, LogicalPlan, Operator, expr::ScalarFunction, expr_rewriter::NamePreserver},
};

use super::{
    concat::string_concat,
    growth::Growth,
    scalar::{bounded, is_bounded},
};

/// Bounds the functions of plans.
#[derive(Debug, Clone, Copy)]
pub(in crate::adapter) struct BoundedPlans {
    most: usize,
}

impl BoundedPlans {
    /// Functions make no more than `most` bytes at once.
    pub(in crate::adapter) fn new(most: usize) -> Self {
        Self { most }
    }

    /// `plan`, optimized, with bounded functions. After all rules of the optimizer, which know the operator `||` and not the
    /// function, and write it for other databases.
    pub(in crate::adapter) fn bound<'a>(&self, plan: &'a LogicalPlan) -> Result<Cow<'a, LogicalPlan>> {
        let mut grows = false;
        plan.apply_with_subqueries(|node| {
            if is_scan(node) {
                return Ok(TreeNodeRecursion::Continue);
            }
            node.apply_expressions(|expr| {
                grows = grows || expr.exists(|expr| Ok(is_unbounded(expr)))?;
                Ok(if grows { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
            })
        })?;
        if !grows {
            return Ok(Cow::Borrowed(plan));
        }
        let bounded = plan.clone().transform_up_with_subqueries(|node| {
            if is_scan(&node) {
                return Ok(Transformed::no(node));
            }
            let names = NamePreserver::new(&node);
            node.map_expressions(|expr| {
                let name = names.save(&expr);
                Ok(self.bound_all(expr)?.update_data(|expr| name.restore(expr)))
            })
        })?;
        Ok(Cow::Owned(bounded.data))
    }

    fn bound_all(self, expr: Expr) -> Result<Transformed<Expr>> {
        expr.transform_up(|expr| {
            if !is_unbounded(&expr) {
                return Ok(Transformed::no(expr));
            }
            Ok(match expr {
                Expr::BinaryExpr(BinaryExpr { left, right, .. }) => {
                    let function = bounded(&string_concat(), self.most);
                    Transformed::yes(Expr::ScalarFunction(ScalarFunction::new_udf(function, vec![*left, *right])))
                }
                Expr::ScalarFunction(mut function) => {
                    function.func = bounded(&function.func, self.most);
                    Transformed::yes(Expr::ScalarFunction(function))
                }
                other => Transformed::no(other),
            })
        })
    }
}

/// Filters of a scan are its table's to carry out, or to write down for another database.
fn is_scan(node: &LogicalPlan) -> bool {
    matches!(node, LogicalPlan::TableScan(_))
}

/// Whether a function or an operator makes as much as its arguments ask for.
fn is_unbounded(expr: &Expr) -> bool {
    match expr {
        Expr::BinaryExpr(binary) => binary.op == Operator::StringConcat,
        Expr::ScalarFunction(function) => Growth::of(function.name()).is_some() && !is_bounded(&function.func),
        _ => false,
    }
}
