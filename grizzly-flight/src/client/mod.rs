//! The other side of the wire: a connection to any Flight SQL server, and its tables as DataFusion tables.

mod catalog;
mod connection;
mod filter;
mod scan;
mod table;

pub use catalog::RemoteCatalog;
pub(crate) use connection::descriptor;
pub use connection::{
    ConnectOptions, FlightSqlConnection, IngestMode, PreparedStatement, Rows, Savepoint, Transaction,
};
pub use scan::RemoteScanExec;
pub use table::RemoteTable;
