//! The other side of the wire: a connection to any Flight SQL server, and its tables as DataFusion tables.

mod connection;

pub use connection::{ConnectOptions, FlightSqlConnection, IngestMode, PreparedStatement, Rows, Savepoint, Transaction};
