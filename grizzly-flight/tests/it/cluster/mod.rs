//! Several servers in this process over one database: queries on all of them, and nodes that fail.

mod failures;
pub(crate) mod nodes;
mod proxy;
mod queries;
mod statements;

#[path = "../../../src/bin/grizzly/tour/compare.rs"]
mod compare;
#[path = "../../../src/bin/grizzly/tour/data.rs"]
#[expect(dead_code, reason = "the command uses all of it, the tests the tables alone")]
mod data;
