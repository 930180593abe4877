//! One connection to a Flight SQL server.
//!
//! Thin and typed: each method is one or two calls of the protocol. An empty or malformed reply is an error that
//! names the server, never a panic.

use std::{sync::Arc, time::Duration};

use arrow::{
    datatypes::{Schema, SchemaRef},
    record_batch::RecordBatch,
};
use arrow_flight::{
    Action, FlightData, FlightDescriptor, FlightEndpoint, FlightInfo, IpcMessage, Ticket,
    decode::FlightRecordBatchStream,
    encode::FlightDataEncoderBuilder,
    error::FlightError,
    flight_service_client::FlightServiceClient,
    sql::{
        ActionBeginTransactionRequest, ActionBeginTransactionResult, ActionCreatePreparedStatementRequest,
        ActionCreatePreparedStatementResult, Any, CommandStatementIngest, CommandStatementQuery,
        CommandStatementUpdate, DoPutUpdateResult, ProstMessageExt, TableDefinitionOptions, TableExistsOption,
        TableNotExistOption,
    },
};
use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt, future::BoxFuture, stream::BoxStream};
use grizzly_provider::{Error, ErrorKind, Result};
use prost::Message;
use tonic::{
    Request, Status,
    metadata::MetadataValue,
    transport::{Channel, Endpoint},
};

use super::{PreparedStatement, Transaction};
use crate::{
    MAX_MESSAGE_BYTES,
    error::{Unanswered, from_flight, from_status},
    server::SESSION_HEADER,
};

/// How to reach a server. Plain data.
#[derive(Clone)]
pub struct ConnectOptions {
    /// Sent with every call as `authorization: Bearer …`.
    pub token: Option<String>,
    /// Names a session that outlives a reconnect; without one the TCP connection is the session.
    pub session: Option<String>,
    /// How long connecting may take. Default 10 seconds.
    pub connect_timeout: Duration,
    /// A server that answers no pings for this long while a call waits is taken for gone. Default 50 seconds.
    pub gone_after: Duration,
    /// How long to wait for each reply and each batch; `None` waits forever. Default 5 minutes.
    pub timeout: Option<Duration>,
    /// The server is pinged while no call waits, too, so that a link that went dead is noticed before the next call is
    /// sent over it. Default false: many servers close a connection for that.
    pub pings_idle: bool,
}

impl Default for ConnectOptions {
    fn default() -> Self {
        let (connect_timeout, gone_after) = (Duration::from_secs(10), Duration::from_secs(50));
        Self {
            token: None,
            session: None,
            connect_timeout,
            gone_after,
            timeout: Some(Duration::from_secs(300)),
            pings_idle: false,
        }
    }
}

impl std::fmt::Debug for ConnectOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConnectOptions")
            .field("token", &self.token.as_ref().map(|_| "…"))
            .field("session", &self.session)
            .field("connect_timeout", &self.connect_timeout)
            .field("gone_after", &self.gone_after)
            .field("timeout", &self.timeout)
            .field("pings_idle", &self.pings_idle)
            .finish()
    }
}

/// A connection to a Flight SQL server. Cheap to clone; clones share the connection and the session.
#[derive(Debug, Clone)]
pub struct FlightSqlConnection {
    client: FlightServiceClient<Channel>,
    remote: Arc<str>,
    options: Arc<ConnectOptions>,
}

/// The rows of a query as they arrive.
pub struct Rows {
    /// Their columns.
    pub schema: SchemaRef,
    /// The batches.
    pub batches: BoxStream<'static, Result<RecordBatch>>,
}

impl std::fmt::Debug for Rows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rows").field("schema", &self.schema).finish_non_exhaustive()
    }
}

/// What an ingest does if the table exists, or does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IngestMode {
    /// Make the table; an error if it exists.
    Create,
    /// Add to the table; an error if it does not exist.
    Append,
    /// Add to the table, making it if it does not exist.
    CreateAppend,
    /// Make the table, in place of one that exists.
    Replace,
}

impl FlightSqlConnection {
    /// Connects to `grpc://host:port`.
    pub async fn connect(url: &str) -> Result<Self> {
        Self::connect_with(url, ConnectOptions::default()).await
    }

    /// Connects with options. Fails within `connect_timeout` if nobody answers.
    pub fn connect_with(url: &str, options: ConnectOptions) -> BoxFuture<'_, Result<Self>> {
        Box::pin(async move {
            let failed = |what: &str, error: tonic::transport::Error| {
                Error::new(ErrorKind::Unavailable, format!("{url}: {what}")).with_source(deepest(error))
            };
            let endpoint = Endpoint::from_shared(http_url(url)?)
                .map_err(|error| Error::new(ErrorKind::Invalid, format!("{url} is no address")).with_source(error))?
                .connect_timeout(options.connect_timeout)
                .http2_keep_alive_interval(options.gone_after * 3 / 5)
                .keep_alive_timeout(options.gone_after * 2 / 5)
                .keep_alive_while_idle(options.pings_idle)
                .tcp_nodelay(true);
            let connecting = tokio::time::timeout(options.connect_timeout, endpoint.connect());
            let channel = match connecting.await {
                Ok(connected) => connected.map_err(|error| failed("cannot connect", error))?,
                Err(_) => {
                    let message = format!("{url}: no answer within {:?}", options.connect_timeout);
                    return Err(Error::new(ErrorKind::Unavailable, message));
                }
            };
            let client = FlightServiceClient::new(channel)
                .max_decoding_message_size(MAX_MESSAGE_BYTES)
                .max_encoding_message_size(MAX_MESSAGE_BYTES);
            Ok(Self { client, remote: Arc::from(url), options: Arc::new(options) })
        })
    }

    /// The address it was connected with.
    pub fn url(&self) -> &str {
        &self.remote
    }

    /// How it was connected.
    pub fn options(&self) -> &ConnectOptions {
        &self.options
    }

    /// Runs a query and returns its rows as they come.
    pub async fn query(&self, sql: &str) -> Result<Rows> {
        self.query_in(sql, None).await
    }

    /// Runs a statement and collects its rows.
    pub async fn execute(&self, sql: &str) -> Result<Vec<RecordBatch>> {
        self.query(sql).await?.batches.try_collect().await
    }

    /// Runs a statement that returns no rows and says how many it changed.
    pub async fn update(&self, sql: &str) -> Result<i64> {
        self.update_in(sql, None).await
    }

    /// The columns of a query, without running it.
    pub async fn schema(&self, sql: &str) -> Result<SchemaRef> {
        let command = CommandStatementQuery { query: sql.to_owned(), transaction_id: None };
        self.columns(self.describe(&command).await?)
    }

    /// Begins a transaction.
    pub async fn begin(&self) -> Result<Transaction> {
        let result: ActionBeginTransactionResult =
            self.act("BeginTransaction", &ActionBeginTransactionRequest {}).await?;
        Ok(Transaction { connection: self.clone(), id: result.transaction_id })
    }

    /// Plans a statement for repeated use.
    pub async fn prepare(&self, sql: &str) -> Result<PreparedStatement> {
        self.prepare_in(sql, None).await
    }

    /// Stores `rows` in `table` and returns their number; all or none.
    pub async fn ingest(
        &self,
        table: &str,
        mode: IngestMode,
        schema: SchemaRef,
        rows: impl Stream<Item = RecordBatch> + Send + 'static,
    ) -> Result<i64> {
        self.ingest_in(table, mode, schema, rows, None).await
    }

    /// Asks a metadata command (`CommandGetTables`, `CommandGetSqlInfo`…) and collects the answer.
    pub async fn ask(&self, command: &impl ProstMessageExt) -> Result<Vec<RecordBatch>> {
        self.fetch(self.describe(command).await?).await?.batches.try_collect().await
    }

    pub(super) async fn query_in(&self, query: &str, transaction_id: Option<Bytes>) -> Result<Rows> {
        let command = CommandStatementQuery { query: query.to_owned(), transaction_id };
        self.fetch(self.describe(&command).await?).await
    }

    pub(super) async fn update_in(&self, query: &str, transaction_id: Option<Bytes>) -> Result<i64> {
        let command = CommandStatementUpdate { query: query.to_owned(), transaction_id };
        self.put_command(&command, None).await
    }

    pub(super) async fn prepare_in(&self, query: &str, transaction_id: Option<Bytes>) -> Result<PreparedStatement> {
        let request = ActionCreatePreparedStatementRequest { query: query.to_owned(), transaction_id };
        let result: ActionCreatePreparedStatementResult = self.act("CreatePreparedStatement", &request).await?;
        Ok(PreparedStatement {
            connection: self.clone(),
            handle: result.prepared_statement_handle,
            columns: self.ipc_schema(result.dataset_schema)?,
            parameters: self.ipc_schema(result.parameter_schema)?,
        })
    }

    pub(super) async fn ingest_in(
        &self,
        table: &str,
        mode: IngestMode,
        schema: SchemaRef,
        rows: impl Stream<Item = RecordBatch> + Send + 'static,
        transaction_id: Option<Bytes>,
    ) -> Result<i64> {
        let (exists, missing) = match mode {
            IngestMode::Create => (TableExistsOption::Fail, TableNotExistOption::Create),
            IngestMode::Append => (TableExistsOption::Append, TableNotExistOption::Fail),
            IngestMode::CreateAppend => (TableExistsOption::Append, TableNotExistOption::Create),
            IngestMode::Replace => (TableExistsOption::Replace, TableNotExistOption::Create),
        };
        let options = TableDefinitionOptions { if_not_exist: missing as i32, if_exists: exists as i32 };
        let (schema_name, table) = match table.split_once('.') {
            Some((schema, table)) => (Some(schema.to_owned()), table.to_owned()),
            None => (None, table.to_owned()),
        };
        let command = CommandStatementIngest {
            table_definition_options: Some(options),
            table,
            schema: schema_name,
            catalog: None,
            temporary: false,
            transaction_id,
            options: std::collections::HashMap::new(),
        };
        let encoder = FlightDataEncoderBuilder::new()
            .with_schema(schema)
            .with_flight_descriptor(Some(descriptor(&command)))
            .build(rows.map(Ok));
        // The rows are in memory: encoding them fails only for a type the wire does not know.
        let (failure, mut failed) = tokio::sync::mpsc::channel(1);
        let data = encoder.scan(failure, |failure, data| {
            let kept = data.map_err(|error| failure.try_send(error)).ok();
            std::future::ready(kept)
        });
        let count = self.put(data).await;
        match failed.try_recv() {
            Ok(error) => Err(from_flight(&error, &self.remote)),
            Err(_) => count,
        }
    }

    /// GetFlightInfo of a command.
    pub(crate) async fn describe(&self, command: &impl ProstMessageExt) -> Result<FlightInfo> {
        self.info(descriptor(command)).await
    }

    fn info(&self, descriptor: FlightDescriptor) -> BoxFuture<'_, Result<FlightInfo>> {
        Box::pin(async move {
            let request = self.request(descriptor)?;
            let mut client = self.client.clone();
            let reply = self.in_time(client.get_flight_info(request)).await?;
            Ok(reply.into_inner())
        })
    }

    /// All endpoints of an info, one after another.
    pub(crate) fn fetch(&self, info: FlightInfo) -> BoxFuture<'_, Result<Rows>> {
        Box::pin(async move {
            let endpoints = info.endpoint.clone();
            let is_announced = !info.schema.is_empty();
            let announced = self.columns(info)?;
            let connection = self.clone();
            let batches = futures::stream::iter(endpoints).then(move |endpoint| {
                let connection = connection.clone();
                async move { connection.fetch_endpoint(endpoint).await }
            });
            let mut batches = batches.try_flatten().boxed();
            if is_announced {
                return Ok(Rows { schema: announced, batches });
            }
            // The columns of a statement that writes come with its result.
            let first = batches.try_next().await?;
            let schema = first.as_ref().map_or(announced, RecordBatch::schema);
            Ok(Rows { schema, batches: futures::stream::iter(first.map(Ok)).chain(batches).boxed() })
        })
    }

    async fn fetch_endpoint(&self, endpoint: FlightEndpoint) -> Result<BoxStream<'static, Result<RecordBatch>>> {
        let ticket = endpoint.ticket.ok_or_else(|| self.broken("an endpoint without a ticket"))?;
        let here = endpoint.location.is_empty()
            || endpoint.location.iter().any(|at| at.uri == *self.remote || at.uri.starts_with("arrow-flight-reuse"));
        if here {
            return self.get(ticket).await;
        }
        let mut refused = self.broken("an endpoint without a location");
        for location in endpoint.location {
            match Self::connect_with(&location.uri, self.options.as_ref().clone()).await {
                Ok(other) => return other.get(ticket).await,
                Err(error) => refused = error,
            }
        }
        Err(refused)
    }

    async fn get(&self, ticket: Ticket) -> Result<BoxStream<'static, Result<RecordBatch>>> {
        let mut client = self.client.clone();
        let reply = self.in_time(client.do_get(self.request(ticket)?)).await?;
        let data = reply.into_inner().map_err(FlightError::from);
        let stream = FlightRecordBatchStream::new_from_flight_data(data);
        let connection = self.clone();
        let timed = futures::stream::unfold(Some(stream), move |stream| {
            let connection = connection.clone();
            async move {
                let mut stream = stream?;
                match connection.wait(stream.next()).await {
                    Ok(Some(Ok(batch))) => Some((Ok(batch), Some(stream))),
                    Ok(Some(Err(error))) => Some((Err(from_flight(&error, &connection.remote)), None)),
                    Ok(None) => None,
                    Err(error) => Some((Err(error), None)),
                }
            }
        });
        Ok(timed.boxed())
    }

    /// DoPut of a command with parameter rows, answered by a number of rows.
    pub(super) async fn put_command(&self, command: &impl ProstMessageExt, rows: Option<RecordBatch>) -> Result<i64> {
        match rows {
            None => {
                let message = FlightData { flight_descriptor: Some(descriptor(command)), ..FlightData::default() };
                self.put(futures::stream::iter([message])).await
            }
            Some(rows) => {
                let data = self.encode(command, rows).await?;
                self.put(futures::stream::iter(data)).await
            }
        }
    }

    pub(super) async fn encode(&self, command: &impl ProstMessageExt, rows: RecordBatch) -> Result<Vec<FlightData>> {
        let encoder = FlightDataEncoderBuilder::new()
            .with_schema(rows.schema())
            .with_flight_descriptor(Some(descriptor(command)))
            .build(futures::stream::iter([Ok(rows)]));
        encoder.try_collect().await.map_err(|error| from_flight(&error, &self.remote))
    }

    pub(crate) async fn put(&self, data: impl Stream<Item = FlightData> + Send + 'static) -> Result<i64> {
        let unanswered = || self.broken("no answer to an update").with_source(Unanswered);
        let reply = self.put_reply(data).await?.ok_or_else(unanswered)?;
        let result = DoPutUpdateResult::decode(reply).map_err(|error| self.undecodable(&error))?;
        Ok(result.record_count)
    }

    pub(super) async fn put_reply(
        &self,
        data: impl Stream<Item = FlightData> + Send + 'static,
    ) -> Result<Option<Bytes>> {
        let mut client = self.client.clone();
        let mut replies = self.in_time(client.do_put(self.request(data)?)).await?.into_inner();
        let reply = self.in_time(replies.message()).await?;
        Ok(reply.map(|reply| reply.app_metadata))
    }

    /// DoAction whose result is one message.
    pub(super) async fn act<R: ProstMessageExt>(&self, name: &str, request: &impl ProstMessageExt) -> Result<R> {
        let body =
            self.act_raw(action(name, request)).await?.ok_or_else(|| self.broken("an action without a result"))?;
        let any = Any::decode(body).map_err(|error| self.undecodable(&error))?;
        let unpacked = any.unpack::<R>().map_err(|error| self.undecodable(&error))?;
        unpacked.ok_or_else(|| self.broken("an action with a result of another kind"))
    }

    pub(super) fn act_raw(&self, action: Action) -> BoxFuture<'_, Result<Option<Bytes>>> {
        Box::pin(async move {
            let mut client = self.client.clone();
            let mut results = self.in_time(client.do_action(self.request(action)?)).await?.into_inner();
            let result = self.in_time(results.message()).await?;
            Ok(result.map(|result| result.body))
        })
    }

    fn request<T>(&self, message: T) -> Result<Request<T>> {
        let mut request = Request::new(message);
        let unfit =
            |what: &str| Error::new(ErrorKind::Invalid, format!("the {what} has characters headers cannot carry"));
        if let Some(token) = &self.options.token {
            let value = MetadataValue::try_from(format!("Bearer {token}")).map_err(|_| unfit("token"))?;
            request.metadata_mut().insert("authorization", value);
        }
        if let Some(session) = &self.options.session {
            let value = MetadataValue::try_from(session.as_str()).map_err(|_| unfit("session name"))?;
            request.metadata_mut().insert(SESSION_HEADER, value);
        }
        Ok(request)
    }

    async fn in_time<T>(&self, call: impl Future<Output = std::result::Result<T, Status>>) -> Result<T> {
        self.wait(call).await?.map_err(|status| from_status(&status, &self.remote))
    }

    async fn wait<T>(&self, future: impl Future<Output = T>) -> Result<T> {
        let Some(timeout) = self.options.timeout else { return Ok(future.await) };
        tokio::time::timeout(timeout, future).await.map_err(|_| {
            let message = format!("{}: no answer within {timeout:?}", self.remote);
            Error::new(ErrorKind::Unavailable, message).with_source(Unanswered)
        })
    }

    fn columns(&self, info: FlightInfo) -> Result<SchemaRef> {
        if info.schema.is_empty() {
            return Ok(Arc::new(Schema::empty()));
        }
        info.try_decode_schema().map(Arc::new).map_err(|error| self.undecodable(&error))
    }

    fn ipc_schema(&self, bytes: Bytes) -> Result<SchemaRef> {
        if bytes.is_empty() {
            return Ok(Arc::new(Schema::empty()));
        }
        Schema::try_from(IpcMessage(bytes)).map(Arc::new).map_err(|error| self.undecodable(&error))
    }

    fn broken(&self, what: &str) -> Error {
        Error::new(ErrorKind::Unavailable, format!("{}: the server sent {what}", self.remote))
    }

    pub(super) fn undecodable(&self, error: &dyn std::fmt::Display) -> Error {
        self.broken(&format!("a message that cannot be read: {error}"))
    }
}

pub(super) fn action(name: &str, request: &impl ProstMessageExt) -> Action {
    Action { r#type: name.to_owned(), body: request.as_any().encode_to_vec().into() }
}

pub(crate) fn descriptor(command: &impl ProstMessageExt) -> FlightDescriptor {
    FlightDescriptor::new_cmd(command.as_any().encode_to_vec())
}

/// The address as HTTP/2 wants it.
fn http_url(url: &str) -> Result<String> {
    let invalid = |why: &str| Error::new(ErrorKind::Invalid, format!("{url}: {why}"));
    match url.split_once("://") {
        Some(("grpc" | "grpc+tcp" | "http", rest)) => Ok(format!("http://{rest}")),
        Some(("grpc+tls" | "https", _)) => {
            Err(Error::new(ErrorKind::Unsupported, format!("{url}: connections with TLS are not supported yet")))
        }
        Some((scheme, _)) => Err(invalid(&format!("unknown scheme {scheme}, expected grpc://host:port"))),
        None => Err(invalid("expected grpc://host:port")),
    }
}

/// The innermost cause: the outer ones only say "transport error".
fn deepest(error: tonic::transport::Error) -> Box<dyn std::error::Error + Send + Sync> {
    let mut inner: &dyn std::error::Error = &error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    inner.to_string().into()
}
