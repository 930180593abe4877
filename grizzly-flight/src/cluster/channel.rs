//! Connections between nodes, and errors that name the node behind them.
//!
//! A node that is gone refuses connections or resets them; one that is frozen or cut off does not answer HTTP/2 pings.
//! Either way a call fails within seconds, with an error that names the node. Errors travel between nodes as text, so
//! the name is found again in the text.

use std::{collections::HashMap, sync::Arc, time::Duration};

use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use datafusion::{
    error::{DataFusionError, Result},
    execution::TaskContext,
    physical_plan::metrics::ExecutionPlanMetricsSet,
};
use datafusion_distributed::{
    ChannelResolver, CoordinatorToWorkerMsg, ExecuteTaskRequest, GetWorkerInfoRequest, GetWorkerInfoResponse,
    SetPlanRequest, WorkerChannel, WorkerToCoordinatorMsg,
    grpc::{BoxCloneSyncChannel, create_worker_client},
};
use futures::{StreamExt, stream::BoxStream};
use grizzly_provider::{Error, ErrorKind};
use parking_lot::Mutex;
use tonic::{
    body::Body,
    codegen::http::{HeaderMap, HeaderValue, Request},
    transport::{Channel, Endpoint},
};
use tower::ServiceExt;
use url::Url;

use super::guard::carried;

/// A connection must stand after this.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// A node is pinged this often, also while no call runs: the next one shall not be sent over a link that is dead…
const PING_INTERVAL: Duration = Duration::from_secs(1);
/// …and must answer within this.
const PING_TIMEOUT: Duration = Duration::from_secs(3);
/// A node that is asked whether it is there must say so within this.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// How errors that are a node's fault begin.
const MARK: &str = "cluster node ";

/// Where a node is, from what people write: `grpc://host:port`, or `http://host:port`.
pub(super) fn node_url(text: &str) -> grizzly_provider::Result<Url> {
    let invalid = || Error::new(ErrorKind::Invalid, format!("'{text}' is no URL of a node, like grpc://10.0.0.1:4711"));
    let rest = text.strip_prefix("grpc://").or_else(|| text.strip_prefix("http://")).ok_or_else(invalid)?;
    let url = Url::parse(&format!("http://{rest}")).map_err(|error| invalid().with_source(error))?;
    let plain = url.path() == "/" && url.query().is_none() && url.username().is_empty();
    if url.host_str().is_none() || url.port_or_known_default().is_none() || !plain {
        return Err(invalid());
    }
    Ok(url)
}

/// The same as people write it.
pub(super) fn public_url(url: &Url) -> String {
    let port = url.port_or_known_default().unwrap_or_default();
    format!("grpc://{}:{port}", url.host_str().unwrap_or_default())
}

/// An error that is the fault of the node at `url`; another node may do what it could not.
pub(super) fn node_error(url: &Url, what: &str) -> Error {
    Error::new(ErrorKind::Unavailable, format!("{MARK}{} {what}", public_url(url)))
}

/// The node that `error` is the fault of, if it is one's.
pub(super) fn failed_node(error: &DataFusionError) -> Option<Url> {
    let text = error.to_string();
    let (_, after) = text.split_once(MARK)?;
    node_url(after.split_whitespace().next()?).ok()
}

/// Open connections to nodes, by URL.
#[derive(Debug)]
pub(super) struct Channels {
    authorization: Option<HeaderValue>,
    /// What a node of the same database says of itself.
    expected: String,
    open: Mutex<HashMap<Url, Channel>>,
}

impl Channels {
    /// Connections that show `authorization` to nodes, which must call themselves `expected`.
    pub(super) fn new(authorization: Option<HeaderValue>, expected: String) -> Self {
        Self { authorization, expected, open: Mutex::default() }
    }

    /// Whether the node at `url` is there and serves the same database.
    pub(super) async fn answers(&self, url: &Url) -> bool {
        let asked = async { self.client(url).ok()?.get_worker_info(GetWorkerInfoRequest {}).await.ok() };
        let answer = tokio::time::timeout(PROBE_TIMEOUT, asked).await;
        answer.ok().flatten().is_some_and(|answer| answer.version == self.expected)
    }

    /// Lets go of connections to all but these.
    pub(super) fn keep_only(&self, urls: &[Url]) {
        self.open.lock().retain(|url, _| urls.contains(url));
    }

    fn client(&self, url: &Url) -> grizzly_provider::Result<NodeChannel> {
        let header = self.authorization.clone();
        let channel = self.channel(url)?.map_request(move |mut request: Request<Body>| {
            if let Some(header) = &header {
                request.headers_mut().insert("authorization", header.clone());
            }
            request
        });
        Ok(NodeChannel { url: url.clone(), inner: create_worker_client(BoxCloneSyncChannel::new(channel)) })
    }

    fn channel(&self, url: &Url) -> grizzly_provider::Result<Channel> {
        let mut open = self.open.lock();
        if let Some(channel) = open.get(url) {
            return Ok(channel.clone());
        }
        let endpoint = Endpoint::from_shared(url.to_string())
            .map_err(|error| node_error(url, "has an unusable URL").with_source(error))?
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .keep_alive_while_idle(true)
            .tcp_nodelay(true);
        // Connects when first used, and again after it broke.
        let channel = endpoint.connect_lazy();
        open.insert(url.clone(), channel.clone());
        Ok(channel)
    }
}

/// The connections of a node, as datafusion-distributed asks for them.
#[derive(Debug, Clone)]
pub(super) struct Resolver(pub(super) Arc<Channels>);

#[async_trait]
impl ChannelResolver for Resolver {
    async fn get_worker_client_for_url(&self, url: &Url) -> Result<Box<dyn WorkerChannel>> {
        Ok(Box::new(self.0.client(url)?))
    }
}

/// A connection that puts the node's name on its failures.
struct NodeChannel {
    url: Url,
    inner: Box<dyn WorkerChannel>,
}

impl NodeChannel {
    fn named<'a, T: 'a>(&self, stream: BoxStream<'a, Result<T>>) -> BoxStream<'a, Result<T>> {
        let url = self.url.clone();
        stream.map(move |item| item.map_err(|error| name(&url, error))).boxed()
    }
}

/// What gRPC itself reports is the node's fault. Errors of the query are what they were where they happened.
fn name(url: &Url, error: DataFusionError) -> DataFusionError {
    let DataFusionError::External(inner) = &error else { return error };
    match inner.downcast_ref::<tonic::Status>() {
        Some(status) => node_error(url, &format!("failed: {} ({:?})", status.message(), status.code())).into(),
        None => carried(&inner.to_string()).map_or(error, DataFusionError::from),
    }
}

#[async_trait]
impl WorkerChannel for NodeChannel {
    async fn coordinator_channel(
        &mut self,
        headers: HeaderMap,
        request: SetPlanRequest,
        messages: BoxStream<'static, CoordinatorToWorkerMsg>,
        metrics: ExecutionPlanMetricsSet,
        context: &Arc<TaskContext>,
    ) -> Result<BoxStream<'static, Result<WorkerToCoordinatorMsg>>> {
        let opened = self.inner.coordinator_channel(headers, request, messages, metrics, context).await;
        opened.map(|stream| self.named(stream)).map_err(|error| name(&self.url, error))
    }

    async fn execute_task(
        &mut self,
        headers: HeaderMap,
        request: ExecuteTaskRequest,
        metrics: ExecutionPlanMetricsSet,
        context: &Arc<TaskContext>,
    ) -> Result<Vec<BoxStream<'static, Result<RecordBatch>>>> {
        let streams = self.inner.execute_task(headers, request, metrics, context).await;
        let streams = streams.map_err(|error| name(&self.url, error))?;
        Ok(streams.into_iter().map(|stream| self.named(stream)).collect())
    }

    async fn get_worker_info(&mut self, request: GetWorkerInfoRequest) -> Result<GetWorkerInfoResponse> {
        self.inner.get_worker_info(request).await.map_err(|error| name(&self.url, error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_of_nodes_are_read_and_written() {
        for (text, public) in [
            ("grpc://127.0.0.1:4711", "grpc://127.0.0.1:4711"),
            ("http://node-1:80/", "grpc://node-1:80"),
            ("grpc://[::1]:4711", "grpc://[::1]:4711"),
        ] {
            assert_eq!(node_url(text).map(|url| public_url(&url)).expect(text), public);
        }
        for wrong in ["", "10.0.0.1:4711", "file:///tmp", "grpc://", "grpc://host:1/path", "grpc://user@host:1"] {
            assert_eq!(node_url(wrong).expect_err(wrong).kind(), ErrorKind::Invalid);
        }
    }

    #[test]
    fn the_node_at_fault_is_found_again_in_an_error_that_travelled() {
        let url = node_url("grpc://127.0.0.1:4711").expect("a URL");
        let there = name(&url, DataFusionError::External(Box::new(tonic::Status::unavailable("reset"))));
        assert_eq!(failed_node(&there), Some(url.clone()));
        let relayed = DataFusionError::External(there.to_string().into()).context("stage 2");
        assert_eq!(failed_node(&relayed), Some(url.clone()));
        let ours = name(&url, DataFusionError::Execution("Divide by zero".to_owned()));
        assert_eq!(failed_node(&ours), None);
    }
}
