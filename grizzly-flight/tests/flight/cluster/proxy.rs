//! The network between nodes, which a test can freeze and cut.

use std::sync::Arc;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
};

/// How the network is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Network {
    Works,
    /// Nothing arrives any more; connections stay open.
    Frozen,
    /// Nothing arrives any more over connections from before; new ones work.
    Lost,
    /// Connections break and new ones are refused at once.
    Cut,
}

/// Forwards what comes to its address.
pub(crate) struct Proxy {
    pub(crate) url: String,
    network: Arc<watch::Sender<Network>>,
    /// What happens after so many more bytes from the server.
    trap: Arc<watch::Sender<Option<(usize, Network)>>>,
}

impl Proxy {
    pub(crate) async fn to(target: String) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("grpc://{}", listener.local_addr()?);
        let (network, trap) = (Arc::new(watch::Sender::new(Network::Works)), Arc::new(watch::Sender::new(None)));
        let proxy = Self { url, network: Arc::clone(&network), trap: Arc::clone(&trap) };
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if *network.borrow() == Network::Cut {
                    continue;
                }
                let Ok(server) = TcpStream::connect(&target).await else { continue };
                let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
                let state = (Arc::clone(&network), Arc::clone(&trap));
                tokio::spawn(forward(from_client, to_server, state.0.subscribe(), None));
                tokio::spawn(forward(from_server, to_client, state.0.subscribe(), Some(state)));
            }
        });
        Ok(proxy)
    }

    pub(crate) fn set(&self, network: Network) {
        self.trap.send_replace(None);
        self.network.send_replace(network);
    }

    /// From the moment at which the server has sent so many more bytes, the network is like this.
    pub(crate) fn set_after(&self, bytes: usize, network: Network) {
        self.trap.send_replace(Some((bytes, network)));
    }

    pub(crate) fn network(&self) -> Network {
        *self.network.borrow()
    }
}

type State = (Arc<watch::Sender<Network>>, Arc<watch::Sender<Option<(usize, Network)>>>);

async fn forward(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut network: watch::Receiver<Network>,
    trapped: Option<State>,
) {
    let mut buffer = vec![0; 4096];
    let is_new = *network.borrow() == Network::Lost;
    loop {
        let read = tokio::select! {
            read = from.read(&mut buffer) => read,
            _ = network.wait_for(|network| *network == Network::Cut) => return,
        };
        let Ok(read @ 1..) = read else { return };
        if let Some((network, trap)) = &trapped {
            spring(network, trap, read);
        }
        let stands = |network: &Network| *network == Network::Frozen || (*network == Network::Lost && !is_new);
        let thawed = network.wait_for(|network| !stands(network)).await;
        let works = thawed.is_ok_and(|network| *network != Network::Cut);
        if !works || to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}

/// Counts bytes against the trap, and lets it snap.
fn spring(network: &watch::Sender<Network>, trap: &watch::Sender<Option<(usize, Network)>>, bytes: usize) {
    trap.send_if_modified(|trap| {
        match trap {
            Some((left, then)) if *left <= bytes => {
                network.send_replace(*then);
                *trap = None;
            }
            Some((left, _)) => *left -= bytes,
            None => {}
        }
        true
    });
}
