//! The Flight SQL service: decodes, calls, encodes. What is done is done in the other files.

use std::{pin::Pin, sync::Arc};

use arrow::datatypes::SchemaRef;
use arrow_flight::{
    Action, ActionType, CancelFlightInfoRequest, CancelFlightInfoResult, CancelStatus, FlightDescriptor, FlightInfo,
    HandshakeRequest, HandshakeResponse, Ticket,
    sql::{
        ActionBeginSavepointRequest, ActionBeginSavepointResult, ActionBeginTransactionRequest,
        ActionBeginTransactionResult, ActionCancelQueryRequest, ActionCancelQueryResult,
        ActionClosePreparedStatementRequest, ActionCreatePreparedStatementRequest, ActionCreatePreparedStatementResult,
        ActionEndSavepointRequest, ActionEndTransactionRequest, Any, Command, CommandGetCatalogs,
        CommandGetCrossReference, CommandGetDbSchemas, CommandGetExportedKeys, CommandGetImportedKeys,
        CommandGetPrimaryKeys, CommandGetSqlInfo, CommandGetTableTypes, CommandGetTables, CommandGetXdbcTypeInfo,
        CommandPreparedStatementQuery, CommandPreparedStatementUpdate, CommandStatementIngest, CommandStatementQuery,
        CommandStatementUpdate, DoPutPreparedStatementResult, SqlInfo, TicketStatementQuery,
        server::{FlightSqlService, PeekableFlightDataStream},
    },
};
use futures::{Stream, stream::BoxStream};
use grizzly_provider::adapter::unhurried;
use prost::Message;
use tonic::{Request, Response, Status, Streaming};

use super::{
    auth::Auth,
    connection::ConnectionId,
    handles::packed,
    ingest,
    metadata::{self, Metadata},
    prepared, query,
    sessions::{SESSION_HEADER, SessionKey, SessionName, State},
    stream::{FlightStream, encode, wire_schema},
    transaction,
};
use crate::error::invalid;

const CANCEL_FLIGHT_INFO: &str = "CancelFlightInfo";

/// The service behind every connection.
#[derive(Debug)]
pub(crate) struct Service {
    state: Arc<State>,
    auth: Auth,
}

type Info = Result<Response<FlightInfo>, Status>;
type Data = Result<Response<FlightStream>, Status>;

impl Service {
    pub(crate) fn new(state: Arc<State>, auth: Auth) -> Self {
        Self { state, auth }
    }

    /// Whose session a request belongs to.
    pub(crate) fn key<T>(&self, request: &Request<T>) -> SessionKey {
        let named = request.metadata().get(SESSION_HEADER).and_then(|name| name.to_str().ok());
        match (named, request.extensions().get::<ConnectionId>()) {
            (Some(name), over) if !name.is_empty() => {
                SessionKey::Named(SessionName { name: name.to_owned(), over: over.copied() })
            }
            (_, Some(connection)) => SessionKey::Connection(*connection),
            // Without a connection (a transport of an embedder's own) nothing ties two calls together.
            _ => SessionKey::Named(SessionName { name: uuid::Uuid::new_v4().to_string(), over: None }),
        }
    }

    /// A call came: of a session by name, whatever the call is about, its client is there.
    pub(crate) fn note_call<T>(&self, request: &Request<T>) {
        if request.metadata().contains_key(SESSION_HEADER) {
            self.state.note_call(&self.key(request));
        }
    }

    /// All tables, each as what fetches all of it.
    pub(crate) async fn tables(&self, key: &SessionKey) -> Result<Vec<FlightInfo>, Status> {
        metadata::table_flights(self.state.session(key, None)?.open()?).await
    }

    /// A table's path as a query for all of its rows.
    pub(crate) async fn table_info(&self, key: &SessionKey, path: FlightDescriptor) -> Result<FlightInfo, Status> {
        let sql = metadata::select_path(&path.path)?;
        query::plan(&self.state, key, None, &sql, path).await
    }

    /// The columns of a statement, where they are known without keeping it for a ticket.
    pub(crate) async fn statement_schema(
        &self,
        key: &SessionKey,
        descriptor: &FlightDescriptor,
    ) -> Result<Option<SchemaRef>, Status> {
        if !descriptor.path.is_empty() {
            let sql = metadata::select_path(&descriptor.path)?;
            return query::schema(&self.state, key, None, &sql).await.map(Some);
        }
        let message = Any::decode(&*descriptor.cmd).map_err(|error| invalid(format!("descriptor: {error}")))?;
        match Command::try_from(message).map_err(|error| invalid(format!("descriptor: {error}")))? {
            Command::CommandStatementQuery(command) => {
                let transaction = command.transaction_id.as_deref();
                query::schema(&self.state, key, transaction, &command.query).await.map(Some)
            }
            Command::CommandPreparedStatementQuery(command) => {
                prepared::schema(&self.state, &command.prepared_statement_handle).await.map(Some)
            }
            _ => Ok(None),
        }
    }

    fn describe(&self, command: impl Metadata, request: Request<FlightDescriptor>) -> Info {
        let schema = wire_schema(&command.columns());
        query::flight_info(&schema, packed(&command), request.into_inner()).map(Response::new)
    }

    async fn answer(&self, command: impl Metadata, request: Request<Ticket>) -> Data {
        let session = self.state.session(&self.key(&request), None)?;
        let batch = unhurried(command.rows(session.open()?)).await?;
        Ok(Response::new(encode(batch.schema(), futures::stream::iter([Ok(batch)]))))
    }

    /// Stops the statement that an info describes.
    fn cancel(&self, info: &FlightInfo) -> Result<(), Status> {
        let ticket = info.endpoint.first().and_then(|endpoint| endpoint.ticket.as_ref());
        let ticket = ticket.ok_or_else(|| invalid("the flight info to cancel has no ticket"))?;
        let unreadable = |error: &dyn std::fmt::Display| invalid(format!("the ticket to cancel: {error}"));
        let message = Any::decode(&*ticket.ticket).map_err(|error| unreadable(&error))?;
        let ticket = message.unpack::<TicketStatementQuery>().map_err(|error| unreadable(&error))?;
        let ticket = ticket.ok_or_else(|| invalid("only statements can be cancelled"))?;
        self.state.statements.get(&ticket.statement_handle)?.cancel();
        Ok(())
    }
}

#[tonic::async_trait]
impl FlightSqlService for Service {
    type FlightService = Self;

    async fn do_handshake(
        &self,
        _request: Request<Streaming<HandshakeRequest>>,
    ) -> Result<Response<Pin<Box<dyn Stream<Item = Result<HandshakeResponse, Status>> + Send>>>, Status> {
        // The credentials were checked before the call came here.
        let answer = HandshakeResponse { protocol_version: 0, payload: bytes::Bytes::new() };
        let mut response: Response<Pin<Box<dyn Stream<Item = _> + Send>>> =
            Response::new(Box::pin(futures::stream::iter([Ok(answer)])));
        if let Some(header) = self.auth.header().and_then(|header| header.parse().ok()) {
            response.metadata_mut().insert("authorization", header);
        }
        Ok(response)
    }

    async fn get_flight_info_statement(
        &self,
        command: CommandStatementQuery,
        request: Request<FlightDescriptor>,
    ) -> Info {
        let key = self.key(&request);
        let transaction = command.transaction_id.as_deref();
        query::plan(&self.state, &key, transaction, &command.query, request.into_inner()).await.map(Response::new)
    }

    async fn get_flight_info_prepared_statement(
        &self,
        command: CommandPreparedStatementQuery,
        request: Request<FlightDescriptor>,
    ) -> Info {
        let handle = &command.prepared_statement_handle;
        prepared::plan(&self.state, handle, request.into_inner()).await.map(Response::new)
    }

    async fn get_flight_info_catalogs(&self, command: CommandGetCatalogs, request: Request<FlightDescriptor>) -> Info {
        self.describe(command, request)
    }

    async fn get_flight_info_schemas(&self, command: CommandGetDbSchemas, request: Request<FlightDescriptor>) -> Info {
        self.describe(command, request)
    }

    async fn get_flight_info_tables(&self, command: CommandGetTables, request: Request<FlightDescriptor>) -> Info {
        self.describe(command, request)
    }

    async fn get_flight_info_table_types(
        &self,
        command: CommandGetTableTypes,
        request: Request<FlightDescriptor>,
    ) -> Info {
        self.describe(command, request)
    }

    async fn get_flight_info_sql_info(&self, command: CommandGetSqlInfo, request: Request<FlightDescriptor>) -> Info {
        self.describe(command, request)
    }

    async fn get_flight_info_primary_keys(
        &self,
        command: CommandGetPrimaryKeys,
        request: Request<FlightDescriptor>,
    ) -> Info {
        self.describe(command, request)
    }

    async fn get_flight_info_exported_keys(
        &self,
        command: CommandGetExportedKeys,
        request: Request<FlightDescriptor>,
    ) -> Info {
        self.describe(command, request)
    }

    async fn get_flight_info_imported_keys(
        &self,
        command: CommandGetImportedKeys,
        request: Request<FlightDescriptor>,
    ) -> Info {
        self.describe(command, request)
    }

    async fn get_flight_info_cross_reference(
        &self,
        command: CommandGetCrossReference,
        request: Request<FlightDescriptor>,
    ) -> Info {
        self.describe(command, request)
    }

    async fn get_flight_info_xdbc_type_info(
        &self,
        command: CommandGetXdbcTypeInfo,
        request: Request<FlightDescriptor>,
    ) -> Info {
        self.describe(command, request)
    }

    async fn do_get_statement(&self, ticket: TicketStatementQuery, _request: Request<Ticket>) -> Data {
        let statement = self.state.statements.get(&ticket.statement_handle)?;
        statement.fetch(&self.state).await.map(Response::new)
    }

    async fn do_get_prepared_statement(
        &self,
        command: CommandPreparedStatementQuery,
        _request: Request<Ticket>,
    ) -> Data {
        prepared::fetch(&self.state, &command.prepared_statement_handle).await.map(Response::new)
    }

    async fn do_get_catalogs(&self, command: CommandGetCatalogs, request: Request<Ticket>) -> Data {
        self.answer(command, request).await
    }

    async fn do_get_schemas(&self, command: CommandGetDbSchemas, request: Request<Ticket>) -> Data {
        self.answer(command, request).await
    }

    async fn do_get_tables(&self, command: CommandGetTables, request: Request<Ticket>) -> Data {
        self.answer(command, request).await
    }

    async fn do_get_table_types(&self, command: CommandGetTableTypes, request: Request<Ticket>) -> Data {
        self.answer(command, request).await
    }

    async fn do_get_sql_info(&self, command: CommandGetSqlInfo, request: Request<Ticket>) -> Data {
        self.answer(command, request).await
    }

    async fn do_get_primary_keys(&self, command: CommandGetPrimaryKeys, request: Request<Ticket>) -> Data {
        self.answer(command, request).await
    }

    async fn do_get_exported_keys(&self, command: CommandGetExportedKeys, request: Request<Ticket>) -> Data {
        self.answer(command, request).await
    }

    async fn do_get_imported_keys(&self, command: CommandGetImportedKeys, request: Request<Ticket>) -> Data {
        self.answer(command, request).await
    }

    async fn do_get_cross_reference(&self, command: CommandGetCrossReference, request: Request<Ticket>) -> Data {
        self.answer(command, request).await
    }

    async fn do_get_xdbc_type_info(&self, command: CommandGetXdbcTypeInfo, request: Request<Ticket>) -> Data {
        self.answer(command, request).await
    }

    async fn do_put_statement_update(
        &self,
        command: CommandStatementUpdate,
        request: Request<PeekableFlightDataStream>,
    ) -> Result<i64, Status> {
        let transaction = command.transaction_id.as_deref();
        query::update(&self.state, &self.key(&request), transaction, &command.query).await
    }

    async fn do_put_statement_ingest(
        &self,
        command: CommandStatementIngest,
        request: Request<PeekableFlightDataStream>,
    ) -> Result<i64, Status> {
        let key = self.key(&request);
        ingest::ingest(&self.state, &key, command, request.into_inner()).await
    }

    async fn do_put_prepared_statement_query(
        &self,
        command: CommandPreparedStatementQuery,
        request: Request<PeekableFlightDataStream>,
    ) -> Result<DoPutPreparedStatementResult, Status> {
        let handle = command.prepared_statement_handle;
        prepared::bind(&self.state, &handle, request.into_inner()).await?;
        Ok(DoPutPreparedStatementResult { prepared_statement_handle: Some(handle) })
    }

    async fn do_put_prepared_statement_update(
        &self,
        command: CommandPreparedStatementUpdate,
        request: Request<PeekableFlightDataStream>,
    ) -> Result<i64, Status> {
        prepared::update(&self.state, &command.prepared_statement_handle, request.into_inner()).await
    }

    async fn do_action_create_prepared_statement(
        &self,
        command: ActionCreatePreparedStatementRequest,
        request: Request<Action>,
    ) -> Result<ActionCreatePreparedStatementResult, Status> {
        let transaction = command.transaction_id.as_deref();
        prepared::create(&self.state, &self.key(&request), transaction, &command.query).await
    }

    async fn do_action_close_prepared_statement(
        &self,
        command: ActionClosePreparedStatementRequest,
        _request: Request<Action>,
    ) -> Result<(), Status> {
        // Closing what has expired, or went with its transaction, is no mistake.
        let _ = self.state.prepared.remove(&command.prepared_statement_handle);
        Ok(())
    }

    async fn do_action_begin_transaction(
        &self,
        _command: ActionBeginTransactionRequest,
        request: Request<Action>,
    ) -> Result<ActionBeginTransactionResult, Status> {
        let transaction_id = transaction::begin(&self.state, &self.key(&request)).await?;
        Ok(ActionBeginTransactionResult { transaction_id })
    }

    async fn do_action_end_transaction(
        &self,
        command: ActionEndTransactionRequest,
        _request: Request<Action>,
    ) -> Result<(), Status> {
        transaction::end(&self.state, &command.transaction_id, command.action).await
    }

    async fn do_action_begin_savepoint(
        &self,
        command: ActionBeginSavepointRequest,
        _request: Request<Action>,
    ) -> Result<ActionBeginSavepointResult, Status> {
        let savepoint_id = transaction::savepoint(&self.state, &command.transaction_id, &command.name).await?;
        Ok(ActionBeginSavepointResult { savepoint_id })
    }

    async fn do_action_end_savepoint(
        &self,
        command: ActionEndSavepointRequest,
        _request: Request<Action>,
    ) -> Result<(), Status> {
        transaction::end_savepoint(&self.state, &command.savepoint_id, command.action).await
    }

    async fn do_action_cancel_query(
        &self,
        command: ActionCancelQueryRequest,
        _request: Request<Action>,
    ) -> Result<ActionCancelQueryResult, Status> {
        let info = FlightInfo::decode(command.info).map_err(|error| invalid(format!("flight info: {error}")))?;
        self.cancel(&info)?;
        // 2 is "cancelling": what runs notices at its next batch.
        Ok(ActionCancelQueryResult { result: 2 })
    }

    async fn do_action_fallback(
        &self,
        request: Request<Action>,
    ) -> Result<Response<BoxStream<'static, Result<arrow_flight::Result, Status>>>, Status> {
        let action = request.into_inner();
        if action.r#type != CANCEL_FLIGHT_INFO {
            return Err(invalid(format!("there is no action {}", action.r#type)));
        }
        let request = CancelFlightInfoRequest::decode(action.body);
        let request = request.map_err(|error| invalid(format!("{CANCEL_FLIGHT_INFO}: {error}")))?;
        let info = request.info.ok_or_else(|| invalid("the request to cancel has no flight info"))?;
        self.cancel(&info)?;
        let result = CancelFlightInfoResult { status: CancelStatus::Cancelling as i32 };
        let answer = arrow_flight::Result { body: result.encode_to_vec().into() };
        Ok(Response::new(Box::pin(futures::stream::iter([Ok(answer)]))))
    }

    async fn list_custom_actions(&self) -> Option<Vec<Result<ActionType, Status>>> {
        let description = "Stops a statement.\nRequest: CancelFlightInfoRequest\nResponse: CancelFlightInfoResult";
        let action = ActionType { r#type: CANCEL_FLIGHT_INFO.to_owned(), description: description.to_owned() };
        Some(vec![Ok(action)])
    }

    async fn register_sql_info(&self, _id: i32, _info: &SqlInfo) {}
}
