//! The Flight service proper: Flight SQL's, and the calls that arrow-flight's dispatcher leaves out (GetSchema,
//! PollFlightInfo, ListFlights, descriptors that are paths).
//!
//! Each call is a plain function that returns a boxed future, and the trait's methods only call those. In a method that
//! `async_trait` has given `where` clauses, rustc proves anew that `Service` is a `FlightService`, by way of every type
//! that a session holds: that took eight seconds a method.

use std::sync::Arc;

use arrow_flight::{
    Action, ActionType, Criteria, Empty, FlightData, FlightDescriptor, FlightInfo, HandshakeRequest, HandshakeResponse,
    PollInfo, PutResult, SchemaAsIpc, SchemaResult, Ticket, flight_descriptor::DescriptorType,
    flight_service_server::FlightService,
};
use futures::{StreamExt, TryStreamExt, future::BoxFuture, stream::BoxStream};
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
}

type Answer<T> = Result<Response<T>, Status>;
type Items<T> = BoxStream<'static, Result<T, Status>>;

#[tonic::async_trait]
impl FlightService for Rpc {
    type HandshakeStream = Items<HandshakeResponse>;
    type ListFlightsStream = Items<FlightInfo>;
    type DoGetStream = Items<FlightData>;
    type DoPutStream = Items<PutResult>;
    type DoActionStream = Items<arrow_flight::Result>;
    type ListActionsStream = Items<ActionType>;
    type DoExchangeStream = Items<FlightData>;

    async fn handshake(&self, request: Request<Streaming<HandshakeRequest>>) -> Answer<Items<HandshakeResponse>> {
        handshake(&self.0, request).await
    }

    async fn list_flights(&self, request: Request<Criteria>) -> Answer<Items<FlightInfo>> {
        self.0.note_call(&request);
        list_flights(&self.0, request).await
    }

    async fn get_flight_info(&self, request: Request<FlightDescriptor>) -> Answer<FlightInfo> {
        self.0.note_call(&request);
        info(&self.0, request).await
    }

    async fn poll_flight_info(&self, request: Request<FlightDescriptor>) -> Answer<PollInfo> {
        self.0.note_call(&request);
        // Planning is all that is done before the ticket, and that is done when this answers: nothing to poll for.
        let info = info(&self.0, request).await?.into_inner();
        let poll = PollInfo { info: Some(info), flight_descriptor: None, progress: Some(1.0), expiration_time: None };
        Ok(Response::new(poll))
    }

    async fn get_schema(&self, request: Request<FlightDescriptor>) -> Answer<SchemaResult> {
        self.0.note_call(&request);
        get_schema(&self.0, request).await
    }

    async fn do_get(&self, request: Request<Ticket>) -> Answer<Items<FlightData>> {
        self.0.note_call(&request);
        do_get(&self.0, request).await
    }

    async fn do_put(&self, request: Request<Streaming<FlightData>>) -> Answer<Items<PutResult>> {
        self.0.note_call(&request);
        do_put(&self.0, request).await
    }

    async fn do_action(&self, request: Request<Action>) -> Answer<Items<arrow_flight::Result>> {
        self.0.note_call(&request);
        do_action(&self.0, request).await
    }

    async fn list_actions(&self, request: Request<Empty>) -> Answer<Items<ActionType>> {
        self.0.note_call(&request);
        list_actions(&self.0, request).await
    }

    async fn do_exchange(&self, request: Request<Streaming<FlightData>>) -> Answer<Items<FlightData>> {
        self.0.note_call(&request);
        do_exchange(&self.0, request).await
    }
}

type Reply<'a, T> = BoxFuture<'a, Answer<T>>;

fn handshake(service: &Service, request: Request<Streaming<HandshakeRequest>>) -> Reply<'_, Items<HandshakeResponse>> {
    FlightService::handshake(service, request)
}

fn list_flights(service: &Service, request: Request<Criteria>) -> Reply<'_, Items<FlightInfo>> {
    Box::pin(async move {
        if !request.get_ref().expression.is_empty() {
            return Err(invalid("ListFlights takes no expression here"));
        }
        let tables = service.tables(&service.key(&request)).await?;
        Ok(Response::new(futures::stream::iter(tables.into_iter().map(Ok)).boxed()))
    })
}

/// A table's path as a query for all of it; a command as it is.
fn info(service: &Service, request: Request<FlightDescriptor>) -> Reply<'_, FlightInfo> {
    if request.get_ref().r#type() != DescriptorType::Path {
        return FlightService::get_flight_info(service, request);
    }
    Box::pin(async move {
        let key = service.key(&request);
        service.table_info(&key, request.into_inner()).await.map(Response::new)
    })
}

fn get_schema(service: &Service, request: Request<FlightDescriptor>) -> Reply<'_, SchemaResult> {
    Box::pin(async move {
        let key = service.key(&request);
        let schema = match service.statement_schema(&key, request.get_ref()).await? {
            Some(schema) => schema,
            None => {
                let info = info(service, request).await?.into_inner();
                Arc::new(info.try_decode_schema().map_err(|error| status(&Error::from(error)))?)
            }
        };
        let options = arrow::ipc::writer::IpcWriteOptions::default();
        let result = SchemaResult::try_from(SchemaAsIpc::new(&schema, &options));
        result.map(Response::new).map_err(|error| status(&Error::from(error)))
    })
}

fn do_get(service: &Service, request: Request<Ticket>) -> Reply<'_, Items<FlightData>> {
    FlightService::do_get(service, request)
}

fn do_put(service: &Service, request: Request<Streaming<FlightData>>) -> Reply<'_, Items<PutResult>> {
    FlightService::do_put(service, request)
}

fn do_action(service: &Service, request: Request<Action>) -> Reply<'_, Items<arrow_flight::Result>> {
    FlightService::do_action(service, request)
}

fn list_actions(service: &Service, request: Request<Empty>) -> Reply<'_, Items<ActionType>> {
    Box::pin(async move {
        let listed = FlightService::list_actions(service, request).await?.into_inner();
        // arrow-flight's list is fixed and names one that is not supported here.
        let honest = listed.try_filter(|action| std::future::ready(!action.r#type.contains("Substrait")));
        Ok(Response::new(honest.boxed()))
    })
}

fn do_exchange(service: &Service, request: Request<Streaming<FlightData>>) -> Reply<'_, Items<FlightData>> {
    FlightService::do_exchange(service, request)
}
