//! The Flight service proper: Flight SQL's, and the calls that arrow-flight's dispatcher leaves out (GetSchema,
//! PollFlightInfo, ListFlights, descriptors that are paths).

use std::sync::Arc;

use arrow_flight::{
    Action, ActionType, Criteria, Empty, FlightData, FlightDescriptor, FlightInfo, HandshakeRequest, PollInfo,
    SchemaAsIpc, SchemaResult, Ticket, flight_descriptor::DescriptorType, flight_service_server::FlightService,
};
use futures::{StreamExt, TryStreamExt, stream::BoxStream};
use grizzly_provider::Error;
use tonic::{Request, Response, Status, Streaming};

use super::service::Service;
use crate::error::{invalid, status};

/// Answers every Flight call.
#[derive(Debug, Clone)]
pub(crate) struct Rpc(Arc<Service>);

impl Rpc {
    pub(crate) fn new(service: Service) -> Self {
        Self(Arc::new(service))
    }

    /// A table's path as a query for all of it; a command as it is.
    async fn info(&self, request: Request<FlightDescriptor>) -> Result<Response<FlightInfo>, Status> {
        if request.get_ref().r#type() == DescriptorType::Path {
            let key = self.0.key(&request);
            return self.0.table_info(&key, request.into_inner()).await.map(Response::new);
        }
        FlightService::get_flight_info(self.0.as_ref(), request).await
    }
}

type Answer<T> = Result<Response<T>, Status>;
type Items<T> = BoxStream<'static, Result<T, Status>>;

#[tonic::async_trait]
impl FlightService for Rpc {
    type HandshakeStream = <Service as FlightService>::HandshakeStream;
    type ListFlightsStream = Items<FlightInfo>;
    type DoGetStream = <Service as FlightService>::DoGetStream;
    type DoPutStream = <Service as FlightService>::DoPutStream;
    type DoActionStream = <Service as FlightService>::DoActionStream;
    type ListActionsStream = Items<ActionType>;
    type DoExchangeStream = <Service as FlightService>::DoExchangeStream;

    async fn handshake(&self, request: Request<Streaming<HandshakeRequest>>) -> Answer<Self::HandshakeStream> {
        self.0.handshake(request).await
    }

    async fn list_flights(&self, request: Request<Criteria>) -> Answer<Self::ListFlightsStream> {
        if !request.get_ref().expression.is_empty() {
            return Err(invalid("ListFlights takes no expression here"));
        }
        let tables = self.0.tables(&self.0.key(&request)).await?;
        Ok(Response::new(futures::stream::iter(tables.into_iter().map(Ok)).boxed()))
    }

    async fn get_flight_info(&self, request: Request<FlightDescriptor>) -> Answer<FlightInfo> {
        self.info(request).await
    }

    async fn poll_flight_info(&self, request: Request<FlightDescriptor>) -> Answer<PollInfo> {
        // Planning is all that is done before the ticket, and that is done when this answers: nothing to poll for.
        let info = self.info(request).await?.into_inner();
        let poll = PollInfo { info: Some(info), flight_descriptor: None, progress: Some(1.0), expiration_time: None };
        Ok(Response::new(poll))
    }

    async fn get_schema(&self, request: Request<FlightDescriptor>) -> Answer<SchemaResult> {
        let key = self.0.key(&request);
        let schema = match self.0.statement_schema(&key, request.get_ref()).await? {
            Some(schema) => schema,
            None => {
                let info = self.info(request).await?.into_inner();
                Arc::new(info.try_decode_schema().map_err(|error| status(&Error::from(error)))?)
            }
        };
        let options = arrow::ipc::writer::IpcWriteOptions::default();
        let result = SchemaResult::try_from(SchemaAsIpc::new(&schema, &options));
        result.map(Response::new).map_err(|error| status(&Error::from(error)))
    }

    async fn do_get(&self, request: Request<Ticket>) -> Answer<Self::DoGetStream> {
        FlightService::do_get(self.0.as_ref(), request).await
    }

    async fn do_put(&self, request: Request<Streaming<FlightData>>) -> Answer<Self::DoPutStream> {
        FlightService::do_put(self.0.as_ref(), request).await
    }

    async fn do_action(&self, request: Request<Action>) -> Answer<Self::DoActionStream> {
        FlightService::do_action(self.0.as_ref(), request).await
    }

    async fn list_actions(&self, request: Request<Empty>) -> Answer<Self::ListActionsStream> {
        let listed = self.0.list_actions(request).await?.into_inner();
        // arrow-flight's list is fixed and names one that is not supported here.
        let honest = listed.try_filter(|action| std::future::ready(!action.r#type.contains("Substrait")));
        Ok(Response::new(honest.boxed()))
    }

    async fn do_exchange(&self, request: Request<Streaming<FlightData>>) -> Answer<Self::DoExchangeStream> {
        FlightService::do_exchange(self.0.as_ref(), request).await
    }
}
