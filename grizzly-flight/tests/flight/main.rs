//! The server on loopback, asked by arrow-flight's own client and by ours; the command as a process; one SQL corpus on
//! every engine; and a process that is killed while it commits.

mod backup;
mod cli;
mod cluster;
mod crash;
mod engine;
mod failover;
mod federation;
#[path = "../../../grizzly-provider/tests/engine/gate.rs"]
#[expect(dead_code, reason = "the engine's tests use all of it")]
mod gate;
mod ingest;
mod limits;
mod metadata;
mod planning;
mod prepared;
mod remote_table;
mod slt;
mod statements;
mod store;
mod support;
mod transactions;
mod untrusted;
