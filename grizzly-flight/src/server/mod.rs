//! The Flight SQL server.
//!
//! A call passes `auth`, then `rpc` (Flight) and `service` (Flight SQL), which decode, call, and encode. What is
//! done lives in one file per concern: `query`, `prepared`, `transaction`, `ingest`, `metadata`.
//!
//! Who is who: a client's connection is one session, so that SQL's own BEGIN and SET work, unless it names its
//! session in a header; a transaction begun by a Flight SQL action is a session of its own. What a session left open
//! is rolled back when its connection ends or it expires.

mod attended;
mod auth;
mod batch;
mod builder;
mod connection;
mod decoded;
mod fetching;
mod forward;
mod handles;
mod ingest;
mod metadata;
mod parameters;
mod prepared;
mod query;
mod rpc;
mod service;
mod sessions;
mod statement;
mod stream;
mod transaction;
mod whole;

pub use builder::{FlightSqlServer, FlightSqlServerBuilder};
pub use sessions::{Limits, SESSION_HEADER, SessionFactory};
