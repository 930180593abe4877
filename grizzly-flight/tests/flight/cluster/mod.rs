//! Several servers over one database, in this process and in processes of their own: queries on all of them, and nodes
//! that fail.

mod answers;
mod failures;
mod links;
pub(crate) mod nodes;
pub(crate) mod process;
mod processes;
mod proxy;
mod queries;
mod refusals;
mod statements;

#[path = "../../../src/bin/grizzly/tour/compare.rs"]
mod compare;
#[path = "../../../src/bin/grizzly/tour/data.rs"]
#[expect(dead_code, reason = "the command uses all of it, the tests the tables alone")]
mod data;
