//! Cost-based access paths for Grizzly tables in Apache DataFusion.
//!
//! One line installs everything: `SessionStateBuilder::new().with_default_features().with_grizzly_optimizer()?`.
//!
//! A rule here may assume that a scan tests its whole predicate again, whatever way the rows were found, and that a
//! plan may run later, on a newer snapshot than the one it was planned on. It must preserve the answer: removing every
//! rule changes speed and nothing else.
//!
//! - [`GrizzlyOptimizerExt`] installs the rules and lists where each stands.
//! - [`AccessPathRule`] is the hook for your own ways to read a table; [`ScanView`] is what a rule sees.
//! - [`index_ranges`] and [`cost`] are the pure halves: which part of an index a predicate needs, and what it costs.

mod choose;
pub mod cost;
mod explain;
mod install;
mod join_order;
mod ranges;
mod rule;
pub mod rules;
mod scan_view;

pub use choose::ChooseAccessPath;
pub use install::GrizzlyOptimizerExt;
pub use join_order::JoinOrder;
pub use ranges::{EncodePrefix, IndexRanges, conjuncts, index_ranges};
pub use rule::{AccessPathRule, Candidate};
pub use scan_view::ScanView;
