//! A client's TCP connection, numbered, and noticed when it ends.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tonic::transport::server::Connected;

use super::sessions::State;

static NEXT: AtomicU64 = AtomicU64::new(1);

/// Which connection a request came over; among the request's extensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct ConnectionId(u64);

/// A TCP stream that ends its session when it is closed.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    id: ConnectionId,
    state: Weak<State>,
}

impl Connection {
    pub(crate) fn new(stream: TcpStream, state: &Arc<State>) -> Self {
        // Answers are small and awaited; an unset option costs latency, not correctness.
        let _ = stream.set_nodelay(true);
        let id = ConnectionId(NEXT.fetch_add(1, Ordering::Relaxed));
        state.welcome(id);
        Self { stream, id, state: Arc::downgrade(state) }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Some(state) = self.state.upgrade() {
            state.forget_connection(self.id);
        }
    }
}

impl Connected for Connection {
    type ConnectInfo = ConnectionId;

    fn connect_info(&self) -> ConnectionId {
        self.id
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
