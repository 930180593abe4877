//! The SQL front of a session: what DataFusion's planner rejects or would quietly misread is carried out or
//! rewritten here, what Grizzly does not support is refused by name, and everything else goes to DataFusion.

mod call;
mod conflict;
mod create_table;
mod create_view;
mod default_values;
mod depth;
mod dialect;
mod drop_several;
mod front;
mod index;
mod joined;
mod names;
mod normalize;
mod parse;
mod refuse;
mod size;
mod transaction;

pub use call::is_call;
pub use dialect::GrizzlyDialect;
pub(crate) use front::{Front, plan as plan_statement};
pub(crate) use index::index_to_create;
pub(crate) use names::own_name;
pub(crate) use parse::{Parsed, parse};
