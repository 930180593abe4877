//! Bytes that nobody vouches for, where the server expects tickets, handles, commands and rows: each call is answered in time,
//! with an error or as if nothing were, and the connection that it came over goes on.

use std::{sync::Arc, time::Duration};

use arrow::{
    array::{ArrayRef, Int64Array, RecordBatch, StringArray},
    ipc::writer::IpcWriteOptions,
};
use arrow_flight::{
    Action, FlightData, FlightDescriptor, SchemaAsIpc, Ticket,
    flight_service_client::FlightServiceClient,
    sql::{
        ActionBeginSavepointRequest, ActionBeginTransactionRequest, ActionCancelQueryRequest,
        ActionClosePreparedStatementRequest, ActionCreatePreparedStatementRequest, ActionEndTransactionRequest, Any,
        CommandGetCrossReference, CommandGetDbSchemas, CommandGetSqlInfo, CommandGetTables, CommandGetXdbcTypeInfo,
        CommandPreparedStatementQuery, CommandPreparedStatementUpdate, CommandStatementIngest, CommandStatementQuery,
        CommandStatementUpdate, ProstMessageExt, TicketStatementQuery,
    },
};
use futures::TryStreamExt;
use prost::Message;
use tonic::{
    Status,
    transport::{Channel, Endpoint},
};

use crate::support::{Served, TestResult, ask, ticket};

/// Calls of each kind. `GRIZZLY_UNTRUSTED_CASES` makes them more.
const CASES: u64 = 300;
/// Calls here take milliseconds; a machine that does much else at once is no hang.
const HANG: Duration = Duration::from_secs(60);

fn cases() -> u64 {
    std::env::var("GRIZZLY_UNTRUSTED_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(CASES)
}

/// Numbers that follow from a seed: SplitMix64.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    fn damage(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        for _ in 0..=self.below(3) {
            let at = self.below(bytes.len());
            match self.below(8) {
                0 if !bytes.is_empty() => bytes[at] ^= 1 << self.below(8),
                1 if !bytes.is_empty() => bytes[at] = 0xFF,
                2 if !bytes.is_empty() => bytes[at] = 0,
                3 => bytes.truncate(at),
                4 => drop(bytes.splice(at..at, self.next().to_le_bytes())),
                // A length, or a number, without end.
                5 => drop(bytes.splice(at..at, [0xFF; 9])),
                6 => {
                    let end = bytes.len().min(at + 8);
                    let odd = [0, u64::MAX, 1 << 63, 1 << 31, u64::from(u32::MAX)][self.below(5)];
                    bytes.splice(at..end, odd.to_le_bytes());
                }
                _ => bytes = (0..self.below(80)).map(|_| self.next() as u8).collect(),
            }
        }
        bytes
    }
}

fn packed(message: &impl ProstMessageExt) -> Vec<u8> {
    message.as_any().encode_to_vec()
}

/// What is answered, within time. A server that panics ends the connection, and the client says that.
fn answered<T>(seed: u64, what: &str, answer: Result<Result<T, Status>, tokio::time::error::Elapsed>) -> Option<T> {
    assert!(answer.is_ok(), "{what} of seed {seed} hangs");
    match answer.ok()? {
        Ok(answer) => Some(answer),
        Err(status) => {
            let text = status.message();
            let ended = ["transport error", "h2 protocol error", "connection", "panick"].iter();
            assert!(ended.clone().all(|word| !text.contains(word)), "{what} of seed {seed}: {status}");
            None
        }
    }
}

struct Caller {
    served: Served,
    client: FlightServiceClient<Channel>,
}

impl Caller {
    async fn start() -> Result<Self, Box<dyn std::error::Error>> {
        let served = Served::start().await?;
        let connection = served.connect().await?;
        connection.update("CREATE TABLE t (id BIGINT PRIMARY KEY, name VARCHAR)").await?;
        connection.update("INSERT INTO t VALUES (1, 'a'), (2, 'b')").await?;
        let channel = Endpoint::from_shared(served.url.replace("grpc://", "http://"))?.connect().await?;
        Ok(Self { served, client: FlightServiceClient::new(channel) })
    }

    async fn describe(&mut self, seed: u64, command: Vec<u8>) -> Option<Ticket> {
        let descriptor = FlightDescriptor::new_cmd(command);
        let schema = tokio::time::timeout(HANG, self.client.get_schema(descriptor.clone())).await;
        answered(seed, "GetSchema", schema);
        let info = tokio::time::timeout(HANG, self.client.get_flight_info(descriptor)).await;
        answered(seed, "GetFlightInfo", info).and_then(|info| ticket(info.get_ref()).ok())
    }

    async fn fetch(&mut self, seed: u64, ticket: impl Into<bytes::Bytes>) {
        let fetch = async {
            let stream = self.client.do_get(Ticket { ticket: ticket.into() }).await?;
            stream.into_inner().try_collect::<Vec<_>>().await
        };
        answered(seed, "DoGet", tokio::time::timeout(HANG, fetch).await);
    }

    async fn act(&mut self, seed: u64, kind: &str, body: Vec<u8>) -> Option<Vec<arrow_flight::Result>> {
        let act = async {
            let stream = self.client.do_action(Action::new(kind, body)).await?;
            stream.into_inner().try_collect::<Vec<_>>().await
        };
        answered(seed, kind, tokio::time::timeout(HANG, act).await)
    }

    async fn put(&mut self, seed: u64, messages: Vec<FlightData>) {
        let put = async {
            let stream = self.client.do_put(futures::stream::iter(messages)).await?;
            stream.into_inner().try_collect::<Vec<_>>().await
        };
        answered(seed, "DoPut", tokio::time::timeout(HANG, put).await);
    }

    /// The handle of a prepared statement.
    async fn prepare(&mut self, sql: &str) -> Result<bytes::Bytes, Box<dyn std::error::Error>> {
        let request = ActionCreatePreparedStatementRequest { query: sql.to_owned(), transaction_id: None };
        let results = self.act(0, "CreatePreparedStatement", packed(&request)).await.ok_or("it is refused")?;
        let result = Any::decode(results.first().ok_or("there is no answer")?.body.clone())?;
        let result = result.unpack::<arrow_flight::sql::ActionCreatePreparedStatementResult>()?;
        Ok(result.ok_or("another answer")?.prepared_statement_handle)
    }

    /// What was there is there, whatever rows were added, and the server goes on.
    async fn check(&self) -> TestResult {
        let connection = self.served.connect().await?;
        assert_eq!(
            ask(&connection, "SELECT count(*) FROM t WHERE id = 1 AND name = 'a' OR id = 2 AND name = 'b'").await?,
            2
        );
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tickets_and_descriptors_that_are_none_are_refused() -> TestResult {
    let mut caller = Caller::start().await?;
    let handle = caller.prepare("SELECT id FROM t WHERE id > $1").await?;
    let query = CommandStatementQuery { query: "SELECT name FROM t".to_owned(), transaction_id: None };
    let planned = caller.describe(0, packed(&query)).await.ok_or("a query has a ticket")?;
    let commands = [
        packed(&query),
        packed(&CommandPreparedStatementQuery { prepared_statement_handle: handle }),
        packed(&TicketStatementQuery { statement_handle: vec![7; 16].into() }),
        packed(&CommandGetTables { include_schema: true, table_types: vec!["TABLE".into()], ..Default::default() }),
        packed(&CommandGetDbSchemas { catalog: Some("x".into()), db_schema_filter_pattern: Some("%_%".into()) }),
        packed(&CommandGetSqlInfo { info: vec![0, 1, 500] }),
        packed(&CommandGetXdbcTypeInfo { data_type: Some(4) }),
        packed(&CommandGetCrossReference { pk_table: "t".into(), fk_table: "t".into(), ..Default::default() }),
        planned.ticket.to_vec(),
    ];
    for seed in 0..cases() {
        let mut numbers = Numbers(seed);
        let bytes = numbers.damage(&commands[numbers.0 as usize % commands.len()]);
        caller.describe(seed, bytes.clone()).await;
        caller.fetch(seed, bytes).await;
    }
    caller.check().await
}

#[tokio::test(flavor = "multi_thread")]
async fn actions_whose_bodies_are_none_are_refused() -> TestResult {
    let mut caller = Caller::start().await?;
    let create = |query: &str| ActionCreatePreparedStatementRequest { query: query.to_owned(), transaction_id: None };
    let actions = [
        ("CreatePreparedStatement", packed(&create("SELECT id FROM t WHERE id = ?"))),
        (
            "ClosePreparedStatement",
            packed(&ActionClosePreparedStatementRequest { prepared_statement_handle: vec![1; 16].into() }),
        ),
        ("BeginTransaction", packed(&ActionBeginTransactionRequest {})),
        (
            "BeginSavepoint",
            packed(&ActionBeginSavepointRequest { transaction_id: vec![2; 16].into(), name: "s".into() }),
        ),
        ("EndTransaction", packed(&ActionEndTransactionRequest { transaction_id: vec![3; 16].into(), action: 1 })),
        ("CancelQuery", packed(&ActionCancelQueryRequest { info: vec![10, 0].into() })),
        ("CancelFlightInfo", vec![10, 2, 18, 0]),
        ("no such action", Vec::new()),
    ];
    for seed in 0..cases() {
        let mut numbers = Numbers(seed);
        let (kind, body) = &actions[numbers.0 as usize % actions.len()];
        caller.act(seed, kind, numbers.damage(body)).await;
    }
    caller.check().await
}

/// The number of the greatest parameter is not how many there are.
#[tokio::test(flavor = "multi_thread")]
async fn a_parameter_of_an_absurd_number_is_refused() -> TestResult {
    let mut caller = Caller::start().await?;
    for number in ["65536", "4000000000", "18446744073709551615"] {
        let sql = format!("SELECT id FROM t WHERE id = ${number}");
        assert!(caller.prepare(&sql).await.is_err(), "{sql}");
    }
    assert!(caller.prepare("SELECT id FROM t WHERE id = $3").await.is_ok());
    caller.check().await
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_cannot_be_decoded_are_refused() -> TestResult {
    let mut caller = Caller::start().await?;
    let insert = caller.prepare("INSERT INTO t VALUES ($1, $2)").await?;
    let columns: [(&str, ArrayRef); 2] = [
        ("id", Arc::new(Int64Array::from_iter_values(100..110))),
        ("name", Arc::new(StringArray::from_iter_values((100..110).map(|id| format!("name {id}"))))),
    ];
    let batch = RecordBatch::try_from_iter(columns)?;
    let options = IpcWriteOptions::default();
    let schema: FlightData = SchemaAsIpc::new(&batch.schema(), &options).into();
    let batches = arrow_flight::utils::batches_to_flight_data(&batch.schema(), vec![batch])?;
    let rows = batches.last().cloned().ok_or("a batch is a message")?;
    let ingest = CommandStatementIngest { table: "t".into(), ..Default::default() };
    let commands = [
        packed(&ingest),
        packed(&CommandPreparedStatementUpdate { prepared_statement_handle: insert.clone() }),
        packed(&CommandPreparedStatementQuery { prepared_statement_handle: insert }),
        packed(&CommandStatementUpdate { query: "DELETE FROM t WHERE id > 2".into(), transaction_id: None }),
    ];
    for seed in 0..cases() {
        let mut numbers = Numbers(seed);
        let mut command = commands[numbers.0 as usize % commands.len()].clone();
        let (mut schema, mut rows) = (schema.clone(), rows.clone());
        match numbers.below(5) {
            0 => command = numbers.damage(&command),
            1 => schema.data_header = numbers.damage(&schema.data_header).into(),
            2 => rows.data_body = numbers.damage(&rows.data_body).into(),
            _ => rows.data_header = numbers.damage(&rows.data_header).into(),
        }
        schema.flight_descriptor = Some(FlightDescriptor::new_cmd(command));
        caller.put(seed, vec![schema, rows]).await;
    }
    caller.check().await
}
