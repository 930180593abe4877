//! The other side of the wire: a connection to any Flight SQL server. Its tables as DataFusion tables are in
//! [`federation`](crate::federation).

mod connection;
mod prepared;
mod transaction;

pub(crate) use connection::descriptor;
pub use connection::{ConnectOptions, FlightSqlConnection, IngestMode, Rows};
pub use prepared::PreparedStatement;
pub use transaction::{Savepoint, Transaction};
