//! Tables of other databases, and queries that run where their tables are.
//!
//! ```text
//! RemoteDatabase     a database elsewhere: its tables, its dialect, how it runs SQL      flight.rs
//! RemoteTable        one of its tables, or a query, for DataFusion                       table.rs, scan.rs, insert.rs
//! RemoteCatalog      all of its tables                                                   catalog.rs
//! FederationRule     finds the largest sub-plan of one remote …                          rule.rs, candidate.rs
//! Select, Writer     … and writes it as SQL                                              select.rs, expression.rs
//! Dialect            what means there what it means here                                 dialect.rs
//! ```
//!
//! What a remote would not surely answer as this process does is not sent: the rows come here instead.

mod candidate;
mod catalog;
mod dialect;
mod expression;
mod factory;
mod flight;
mod insert;
mod location;
#[cfg(feature = "postgres")]
mod postgres;
mod remote;
mod retry;
mod rule;
mod scan;
mod select;
#[cfg(feature = "sqlite")]
mod sqlite;
mod table;

use std::sync::Arc;

use datafusion::execution::session_state::SessionStateBuilder;

pub use catalog::{FlightSqlCatalog, RemoteCatalog};
pub use dialect::{Comparison, Dialect};
pub use factory::{RemoteTableFactory, attach, open};
pub use flight::FlightSqlDatabase;
pub use insert::RemoteInsertExec;
pub use location::Location;
#[cfg(feature = "postgres")]
pub use postgres::PostgresDatabase;
pub use remote::RemoteDatabase;
pub use rule::FederationRule;
pub use scan::RemoteScanExec;
#[cfg(feature = "sqlite")]
pub use sqlite::SqliteDatabase;
pub use table::RemoteTable;

/// Makes a DataFusion session one that federates.
pub trait FederationExt {
    /// Sends the largest sub-plans of remote tables to their remotes, and makes `CREATE EXTERNAL TABLE … STORED AS
    /// FLIGHTSQL` work. Without it remote tables give the same answers, only with more rows on the way.
    #[must_use]
    fn with_federation(self) -> Self;
}

impl FederationExt for SessionStateBuilder {
    fn with_federation(self) -> Self {
        // Rules that are added this way run after all others, where the plan has its final shape.
        let builder = self
            .with_optimizer_rule(Arc::new(FederationRule))
            .with_table_factory("FLIGHTSQL".to_owned(), Arc::new(RemoteTableFactory::new("flightsql")));
        #[cfg(feature = "postgres")]
        let builder = builder.with_table_factory("POSTGRES".to_owned(), Arc::new(RemoteTableFactory::new("postgres")));
        #[cfg(feature = "sqlite")]
        let builder = builder.with_table_factory("SQLITE".to_owned(), Arc::new(RemoteTableFactory::new("sqlite")));
        builder
    }
}
