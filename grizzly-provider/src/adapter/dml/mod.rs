//! Statements that write.
//!
//! DataFusion 55 hands DELETE and UPDATE to a provider as a list of filters that has lost subqueries and
//! contradictions, and does so while planning. Here a rule turns every DELETE, UPDATE, MERGE and TRUNCATE on a Grizzly
//! table into a plan whose input yields row ids and new values, so that DataFusion itself evaluates all conditions
//! and expressions; a sink on top of it writes, once, when executed.
//!
//! ```text
//!   Dml(Update, t)                      Dml(Insert, sink of t)
//!     Projection: new values              Projection: __row_id, new values
//!       Filter: WHERE              =>       Filter: WHERE
//!         TableScan: t                        TableScan: t with __row_id
//! ```

mod conform;
mod distinct;
mod merge;
mod rule;
mod scope;
mod sink;
mod source;
mod subqueries;
mod target;
mod write;

pub(crate) use merge::{Repeats, insert_new_rows, merge};
pub(crate) use rule::{DmlRule, with_nullable_values};
pub(crate) use sink::{create_and_fill, insert_into};
pub(crate) use source::table_id;
pub(crate) use subqueries::SubqueriesBelowSink;
pub(crate) use target::grizzly_table;
