//! Grizzly over the network, in Arrow Flight SQL: a server for any Grizzly session, and remote servers as tables.
//!
//! - [`server`]: [`FlightSqlServer`] answers statements, prepared statements, transactions, bulk ingest and
//!   metadata. It takes a session factory, so whoever embeds it decides which tables, rules and functions its
//!   sessions have.
//! - [`client`]: [`FlightSqlConnection`] speaks to such a server, [`RemoteTable`] makes one of its tables a
//!   DataFusion table.
//! - [`error`]: what both agree on when something fails.

pub mod client;
mod conform;
pub mod error;
pub mod server;

pub use client::{FlightSqlConnection, RemoteCatalog, RemoteTable};
pub use server::{FlightSqlServer, FlightSqlServerBuilder, Limits, SessionFactory};

/// The largest message either side accepts: a batch is cut into messages of about 2 MiB, but one row is never cut.
pub(crate) const MAX_MESSAGE_BYTES: usize = 256 << 20;
