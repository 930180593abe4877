//! A served database in memory, and values out of results.

use std::sync::Arc;

use arrow::{
    array::AsArray,
    compute::cast,
    datatypes::{DataType, Int64Type},
    record_batch::RecordBatch,
};
use arrow_flight::{FlightInfo, Ticket, sql::client::FlightSqlServiceClient};
use futures::TryStreamExt;
use grizzly_flight::{FlightSqlConnection, FlightSqlServer, FlightSqlServerBuilder, SessionFactory};
use grizzly_provider::{Grizzly, adapter::GrizzlySession};
use tokio::sync::oneshot;
use tonic::transport::{Channel, Endpoint};

pub(crate) type TestResult = Result<(), Box<dyn std::error::Error>>;

/// A server in this process; it stops when dropped.
pub(crate) struct Served {
    pub(crate) url: String,
    _stop: oneshot::Sender<()>,
}

impl Served {
    pub(crate) async fn start() -> Result<Self, Box<dyn std::error::Error>> {
        Self::start_with(|builder| builder).await
    }

    pub(crate) async fn start_with(
        configure: impl FnOnce(FlightSqlServerBuilder) -> FlightSqlServerBuilder,
    ) -> Result<Self, Box<dyn std::error::Error>> {
        let db = Grizzly::open("memory://")?;
        Ok(Self::of(configure(FlightSqlServer::builder(factory(&db))).listen("127.0.0.1:0").await?))
    }

    pub(crate) fn of(server: FlightSqlServer) -> Self {
        let url = server.url();
        let (stop, stopped) = oneshot::channel::<()>();
        tokio::spawn(server.serve_with_shutdown(async {
            let _ = stopped.await;
        }));
        Self { url, _stop: stop }
    }

    pub(crate) async fn connect(&self) -> Result<FlightSqlConnection, grizzly_provider::Error> {
        FlightSqlConnection::connect(&self.url).await
    }

    /// arrow-flight's own client, to be sure that others than ours understand the server.
    pub(crate) async fn stock_client(&self) -> Result<FlightSqlServiceClient<Channel>, tonic::transport::Error> {
        let url = self.url.replace("grpc://", "http://");
        Ok(FlightSqlServiceClient::new(Endpoint::from_shared(url)?.connect().await?))
    }
}

pub(crate) fn factory(db: &Grizzly) -> SessionFactory {
    let db = db.clone();
    Arc::new(move || Ok(GrizzlySession::new(&db)))
}

/// The ticket of the one endpoint.
pub(crate) fn ticket(info: &FlightInfo) -> Result<Ticket, Box<dyn std::error::Error>> {
    assert_eq!(info.endpoint.len(), 1);
    Ok(info.endpoint[0].ticket.clone().ok_or("an endpoint without a ticket")?)
}

/// All batches of a ticket.
pub(crate) async fn fetch(
    client: &mut FlightSqlServiceClient<Channel>,
    ticket: Ticket,
) -> Result<Vec<RecordBatch>, Box<dyn std::error::Error>> {
    Ok(client.do_get(ticket).await?.try_collect().await?)
}

/// All numbers of the first column.
pub(crate) fn numbers(batches: &[RecordBatch]) -> Vec<i64> {
    let columns = batches.iter().map(|batch| cast(batch.column(0), &DataType::Int64).expect("numbers"));
    columns.flat_map(|column| column.as_primitive::<Int64Type>().iter().flatten().collect::<Vec<_>>()).collect()
}

/// The one number that a query returns.
pub(crate) async fn ask(connection: &FlightSqlConnection, sql: &str) -> Result<i64, Box<dyn std::error::Error>> {
    let numbers = numbers(&connection.execute(sql).await?);
    assert_eq!(numbers.len(), 1, "{sql}");
    Ok(numbers[0])
}
