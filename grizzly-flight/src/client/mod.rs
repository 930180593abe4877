//! The other side of the wire: a connection to any Flight SQL server. Its tables as DataFusion tables are in
//! [`federation`](crate::federation).

mod connection;

pub(crate) use connection::descriptor;
pub use connection::{
    ConnectOptions, FlightSqlConnection, IngestMode, PreparedStatement, Rows, Savepoint, Transaction,
};
