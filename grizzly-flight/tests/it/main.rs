//! The server on loopback, asked by arrow-flight's own client and by ours; the command as a process.

mod cli;
mod ingest;
mod metadata;
mod prepared;
mod remote_table;
mod statements;
mod support;
mod transactions;
