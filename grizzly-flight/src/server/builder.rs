//! Starting and stopping the server.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use arrow_flight::flight_service_server::FlightServiceServer;
use futures::{StreamExt, future::BoxFuture};
use grizzly_provider::{Error, ErrorKind, Result};
use tokio::net::{TcpListener, ToSocketAddrs};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{service::interceptor::InterceptedService, transport::Server};

use super::{
    auth::Auth,
    connection::Connection,
    rpc::Rpc,
    service::Service,
    sessions::{Limits, SessionFactory, State},
    whole::WholeRequests,
};
use crate::MAX_MESSAGE_BYTES;
#[cfg(feature = "cluster")]
use crate::cluster::Cluster;

/// How often idle things are looked for.
const SWEEP: Duration = Duration::from_secs(5);

/// Configures a [`FlightSqlServer`].
#[derive(Debug)]
pub struct FlightSqlServerBuilder {
    factory: Factory,
    limits: Limits,
    auth: Auth,
    #[cfg(feature = "cluster")]
    cluster: Option<Cluster>,
}

struct Factory(SessionFactory);

impl std::fmt::Debug for Factory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SessionFactory")
    }
}

/// A server that has its address and is about to serve.
#[derive(Debug)]
pub struct FlightSqlServer {
    listener: TcpListener,
    address: SocketAddr,
    auth: Auth,
    state: Arc<State>,
    #[cfg(feature = "cluster")]
    cluster: Option<Cluster>,
}

impl FlightSqlServer {
    /// A server whose sessions come from `factory`.
    pub fn builder(factory: SessionFactory) -> FlightSqlServerBuilder {
        FlightSqlServerBuilder {
            factory: Factory(factory),
            limits: Limits::default(),
            auth: Auth::default(),
            #[cfg(feature = "cluster")]
            cluster: None,
        }
    }

    /// Where it listens; the port is the real one, also if port 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address as clients write it: `grpc://127.0.0.1:31337`.
    pub fn url(&self) -> String {
        format!("grpc://{}", self.address)
    }

    /// Serves until the process ends.
    pub async fn serve(self) -> Result<()> {
        self.serve_with_shutdown(std::future::pending()).await
    }

    /// Serves until `stop` resolves; then takes no more calls and waits for running statements, up to
    /// [`Limits::shutdown_grace`].
    pub async fn serve_with_shutdown(self, stop: impl Future<Output = ()> + Send) -> Result<()> {
        self.serve_until(Box::pin(stop)).await
    }

    /// Boxed, so that the server is compiled here and not by each program that starts one.
    fn serve_until(self, stop: BoxFuture<'_, ()>) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let Self {
                listener,
                address,
                auth,
                state,
                #[cfg(feature = "cluster")]
                cluster,
            } = self;
            let sweeper = tokio::spawn(sweep(Arc::downgrade(&state)));
            let accepting = Arc::clone(&state);
            let incoming =
                TcpListenerStream::new(listener).map(move |stream| stream.map(|s| Connection::new(s, &accepting)));
            let flight = FlightServiceServer::new(Rpc::new(Service::new(Arc::clone(&state), auth.clone())))
                .max_decoding_message_size(MAX_MESSAGE_BYTES)
                .max_encoding_message_size(MAX_MESSAGE_BYTES);
            #[cfg(feature = "cluster")]
            let worker = cluster.map(|cluster| {
                let auth = auth.clone();
                InterceptedService::new(cluster.worker().into_worker_server(), move |request| auth.check(request))
            });
            let checked = InterceptedService::new(flight, move |request| auth.check(request));
            let checked = WholeRequests(checked);
            let (stopping, stopped) = tokio::sync::oneshot::channel();
            let signal = async move {
                stop.await;
                let _ = stopping.send(());
            };
            let services =
                Server::builder().http2_keepalive_interval(Some(Duration::from_secs(30))).add_service(checked);
            #[cfg(feature = "cluster")]
            let services = services.add_optional_service(worker);
            let serving = services.serve_with_incoming_shutdown(incoming, signal);
            let out_of_patience = async {
                match stopped.await {
                    Ok(()) => tokio::time::sleep(state.limits.shutdown_grace).await,
                    Err(_) => std::future::pending().await,
                }
            };
            let result = tokio::select! {
                result = serving => result,
                () = out_of_patience => {
                    tracing::warn!("statements still ran after the grace period and were dropped");
                    Ok(())
                }
            };
            sweeper.abort();
            result.map_err(|error| {
                Error::new(ErrorKind::Unavailable, format!("serving on {address} failed")).with_source(error)
            })
        })
    }
}

impl FlightSqlServerBuilder {
    /// Replaces all limits.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Every call must carry this bearer token, or have it as its password.
    #[must_use]
    pub fn token(mut self, token: Option<String>) -> Self {
        self.auth = Auth::new(token);
        self
    }

    /// Serves the other nodes of the cluster too, at the same address. [`Cluster::join`] tells them.
    #[cfg(feature = "cluster")]
    #[must_use]
    pub fn cluster(mut self, cluster: &Cluster) -> Self {
        self.cluster = Some(cluster.clone());
        self
    }

    /// Takes the address; port 0 takes any free port. Beyond loopback a token is mandatory.
    pub async fn listen(self, address: impl ToSocketAddrs + std::fmt::Debug) -> Result<FlightSqlServer> {
        let failed = |error: std::io::Error| {
            Error::new(ErrorKind::Unavailable, format!("cannot listen on {address:?}")).with_source(error)
        };
        let wanted: Vec<SocketAddr> = tokio::net::lookup_host(&address).await.map_err(failed)?.collect();
        self.check(&wanted)?;
        let listener = TcpListener::bind(wanted.as_slice()).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(self.server(listener, address))
    }

    /// The same with an address that was taken before, for whoever must know it before there are sessions to serve.
    /// Call it within a Tokio runtime.
    pub fn listen_on(self, listener: std::net::TcpListener) -> Result<FlightSqlServer> {
        let failed = |error: std::io::Error| {
            Error::new(ErrorKind::Unavailable, format!("cannot listen on {listener:?}")).with_source(error)
        };
        let address = listener.local_addr().map_err(failed)?;
        self.check(&[address])?;
        listener.set_nonblocking(true).map_err(failed)?;
        let name = format!("cannot listen on {address}");
        let listener = TcpListener::from_std(listener);
        let listener = listener.map_err(|error| Error::new(ErrorKind::Unavailable, name).with_source(error))?;
        Ok(self.server(listener, address))
    }

    fn check(&self, wanted: &[SocketAddr]) -> Result<()> {
        if !self.auth.is_required() && wanted.iter().any(|address| !address.ip().is_loopback()) {
            let message = format!("listening on {wanted:?}, beyond this machine, needs a token");
            return Err(Error::new(ErrorKind::Permission, message));
        }
        Ok(())
    }

    fn server(self, listener: TcpListener, address: SocketAddr) -> FlightSqlServer {
        FlightSqlServer {
            listener,
            address,
            state: Arc::new(State::new(self.factory.0, self.limits, self.auth.token())),
            auth: self.auth,
            #[cfg(feature = "cluster")]
            cluster: self.cluster,
        }
    }
}

/// Lets idle things expire for as long as the server lives.
async fn sweep(state: std::sync::Weak<State>) {
    loop {
        tokio::time::sleep(SWEEP).await;
        match state.upgrade() {
            Some(state) => state.expire(),
            None => return,
        }
    }
}
