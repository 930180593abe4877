//! Requests that end are told from requests that break off.
//!
//! tonic takes a stream that its client has reset for one that has ended, so that the rows of a client that died, or
//! changed its mind, in the middle of an ingest would be stored as if they were all. Here a reset is an error of the
//! stream.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use grizzly_provider::{Error, ErrorKind};
use http_body::{Frame, SizeHint};
use tonic::{
    Code, Status,
    body::Body,
    codegen::{Service, http},
    server::NamedService,
};

use crate::error::status;

/// A service whose requests are whole, or fail.
#[derive(Debug, Clone)]
pub(super) struct WholeRequests<S>(pub(super) S);

impl<S: NamedService> NamedService for WholeRequests<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<http::Request<Body>> for WholeRequests<S>
where
    S: Service<http::Request<Body>, Error = Infallible>,
{
    type Response = S::Response;
    type Error = Infallible;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> S::Future {
        self.0.call(request.map(|body| Body::new(WholeBody(body))))
    }
}

struct WholeBody(Body);

impl http_body::Body for WholeBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Pin::new(&mut self.0).poll_frame(cx).map_err(|error| match error.code() {
            Code::Cancelled => {
                let message = "the client went away before it had sent everything";
                status(&Error::new(ErrorKind::Unavailable, message).with_source(error))
            }
            _ => error,
        })
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}
