//! Grizzly over the network, in Arrow Flight SQL: a server for any Grizzly session, and remote servers as tables.
//!
//! - [`server`]: [`FlightSqlServer`] answers statements, prepared statements, transactions, bulk ingest and
//!   metadata. It takes a session factory, so whoever embeds it decides which tables, rules and functions its
//!   sessions have.
//! - [`client`]: [`FlightSqlConnection`] speaks to such a server.
//! - [`federation`]: tables and catalogs of other databases in DataFusion ([`RemoteTable`], [`FlightSqlCatalog`]), and
//!   the rule that sends them the largest part of a query that they can run.
//! - `cluster` (feature of that name): several servers over one database run a query together.
//! - [`error`]: what both agree on when something fails.

pub mod client;
#[cfg(feature = "cluster")]
pub mod cluster;
mod conform;
pub mod error;
pub mod federation;
pub mod server;

pub use client::FlightSqlConnection;
#[cfg(feature = "cluster")]
pub use cluster::{Cluster, GrizzlyClusterExt, NodeSettings};
pub use federation::{FederationExt, FlightSqlCatalog, RemoteCatalog, RemoteDatabase, RemoteTable};
pub use server::{FlightSqlServer, FlightSqlServerBuilder, Limits, SessionFactory};

/// The largest message either side accepts: a batch is cut into messages of about 2 MiB, but one row is never cut.
pub(crate) const MAX_MESSAGE_BYTES: usize = 256 << 20;
