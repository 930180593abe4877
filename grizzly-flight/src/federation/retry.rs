//! Time limits, and trying again where nothing was delivered.

use std::time::{Duration, Instant};

use grizzly_provider::{Error, ErrorKind, Result};

/// Waits before a query is sent again that failed before it delivered anything.
const WAITS: [Duration; 2] = [Duration::from_millis(50), Duration::from_millis(250)];

/// Calls `attempt` until it succeeds, or fails with anything else than the remote being away; not after `limit`.
pub(super) async fn retrying<T, F>(limit: Duration, mut attempt: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Result<T>>,
{
    let started = Instant::now();
    let mut waits = WAITS.iter();
    loop {
        let error = match attempt().await {
            Ok(done) => return Ok(done),
            Err(error) => error,
        };
        let away = matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Closed);
        match waits.next().filter(|wait| away && started.elapsed() + **wait < limit) {
            Some(wait) => tokio::time::sleep(*wait).await,
            None => return Err(error),
        }
    }
}

/// What `future` gives within `limit`; otherwise an error that names the remote.
pub(super) async fn within<T>(limit: Option<Duration>, remote: &str, future: impl Future<Output = T>) -> Result<T> {
    let Some(limit) = limit else { return Ok(future.await) };
    let late = |_| Error::new(ErrorKind::Unavailable, format!("{remote}: no answer within {limit:?}"));
    tokio::time::timeout(limit, future).await.map_err(late)
}
