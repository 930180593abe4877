//! Results that clients fetch. Each that is begun and not read to its end holds what its scans have decoded, so a client that
//! reads the first rows of ten thousand queries would hold the memory of all others: a session fetches a few at a time, and
//! where memory is short, a result that nobody reads goes.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use arrow::record_batch::RecordBatch;
use datafusion::execution::memory_pool::MemoryPool;
use futures::{Stream, StreamExt};
use grizzly_provider::{Error, ErrorKind, adapter::SpillingPool};
use parking_lot::Mutex;
use tonic::Status;

use super::{handles::Owner, stream::BatchStream};
use crate::error::status;

/// Scans may hold so much of what queries have beside it. Above that, results go that are not read.
const DECODED: f64 = 0.25;
/// Above that, who fetches results already gets no further ones.
const TOO_MUCH: f64 = 0.5;
/// Who reads takes rows more often than this.
const IDLE: Duration = Duration::from_secs(1);

/// The results that are being fetched, by who fetches them.
#[derive(Debug)]
pub(crate) struct Fetching {
    most: usize,
    open: Mutex<HashMap<Owner, Vec<Arc<Held>>>>,
}

/// A result's rows, as far as they were not taken.
struct Held {
    rows: Mutex<Option<BatchStream>>,
    /// When the client last took rows; `None` while it waits for some.
    taken: Mutex<Option<Instant>>,
}

/// The rows on their way to the client.
struct Fetch {
    fetching: Arc<Fetching>,
    owner: Owner,
    held: Arc<Held>,
    ended: bool,
}

impl Fetching {
    /// None are; each owner may fetch `most` at a time.
    pub(crate) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, open: Mutex::default() })
    }

    /// Checks that `owner` may fetch another result, and makes room for it in the memory of queries.
    pub(crate) fn make_room(&self, owner: Owner, pool: &Arc<dyn MemoryPool>) -> Result<(), Status> {
        let own = self.open.lock().get(&owner).map_or(0, Vec::len);
        if own >= self.most {
            let message =
                format!("{own} results are being fetched in this session; read some to their end, or close them");
            return Err(status(&Error::new(ErrorKind::Resource, message)));
        }
        let Some(pool) = SpillingPool::of(pool) else { return Ok(()) };
        while pool.decoded_share() > DECODED {
            let Some(idle) = self.most_idle() else { break };
            drop(idle);
        }
        if own > 0 && pool.decoded_share() > TOO_MUCH {
            let message = "the memory of queries is full of rows of results that are being fetched; try again";
            return Err(status(&Error::new(ErrorKind::Resource, message).with_sqlstate("53200")));
        }
        Ok(())
    }

    /// Takes the rows of the result that was not read for longest.
    fn most_idle(&self) -> Option<BatchStream> {
        let open = self.open.lock();
        let all = open.values().flatten().filter_map(|held| Some((held.idle_for()?, held)));
        let (_, held) = all.filter(|(idle, _)| *idle >= IDLE).max_by_key(|(idle, _)| *idle)?;
        held.rows.try_lock()?.take()
    }

    /// `rows`, as they are fetched by `owner`.
    pub(crate) fn fetch(self: &Arc<Self>, owner: Owner, rows: BatchStream) -> BatchStream {
        let held = Arc::new(Held { rows: Mutex::new(Some(rows)), taken: Mutex::new(None) });
        self.open.lock().entry(owner).or_default().push(Arc::clone(&held));
        Fetch { fetching: Arc::clone(self), owner, held, ended: false }.boxed()
    }
}

impl Held {
    /// For how long nobody has taken rows of it, if there are some to take.
    fn idle_for(&self) -> Option<Duration> {
        let has_rows = self.rows.try_lock().is_some_and(|rows| rows.is_some());
        has_rows.then(|| *self.taken.lock()).flatten().map(|taken| taken.elapsed())
    }
}

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Held").field("taken", &self.taken).finish_non_exhaustive()
    }
}

impl Stream for Fetch {
    type Item = Result<RecordBatch, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let held = Arc::clone(&self.held);
        let mut rows = held.rows.lock();
        let idle = held.taken.lock().take();
        let polled = match rows.as_mut() {
            Some(rows) => rows.poll_next_unpin(context),
            None => Poll::Ready(Some(Err(given_up(idle)))),
        };
        if let Poll::Ready(item) = &polled {
            *held.taken.lock() = Some(Instant::now());
            self.ended = !matches!(item, Some(Ok(_)));
            if self.ended {
                rows.take();
            }
        }
        polled
    }
}

impl Drop for Fetch {
    fn drop(&mut self) {
        let mut open = self.fetching.open.lock();
        if let Some(own) = open.get_mut(&self.owner) {
            own.retain(|held| !Arc::ptr_eq(held, &self.held));
            if own.is_empty() {
                open.remove(&self.owner);
            }
        }
    }
}

/// The end of a result that went.
fn given_up(taken: Option<Instant>) -> Status {
    let idle = taken.map_or(IDLE, |taken| taken.elapsed());
    let message =
        format!("the result was given up: for {idle:.1?} it was not read, and its memory was needed for others");
    status(&Error::new(ErrorKind::Resource, message).with_sqlstate("53200"))
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::Schema;
    use datafusion::execution::memory_pool::MemoryConsumer;

    use super::*;

    fn rows(count: usize) -> BatchStream {
        let batch = RecordBatch::new_empty(Arc::new(Schema::empty()));
        futures::stream::iter(vec![Ok(batch); count]).boxed()
    }

    #[tokio::test]
    async fn each_owner_has_a_number_of_their_own() {
        let (fetching, pool) = (Fetching::new(2), Arc::new(SpillingPool::new(1_000)) as Arc<dyn MemoryPool>);
        let (me, you) = (Owner::of(&1), Owner::of(&2));
        let room = |owner| fetching.make_room(owner, &pool);
        let (mut first, second) = (fetching.fetch(me, rows(1)), fetching.fetch(me, rows(1)));
        assert_eq!(room(me).expect_err("two are open").code(), tonic::Code::ResourceExhausted);
        room(you).expect("another's are in nobody's way");
        assert!(first.next().await.is_some_and(|rows| rows.is_ok()) && first.next().await.is_none());
        drop(first);
        room(me).expect("there is room again");
        drop(second);
        assert!(fetching.open.lock().is_empty(), "who fetches nothing is not kept");
    }

    #[tokio::test]
    async fn what_nobody_reads_goes_where_memory_is_short() {
        let (fetching, pool) = (Fetching::new(9), Arc::new(SpillingPool::new(1_000)) as Arc<dyn MemoryPool>);
        let me = Owner::of(&1);
        let scan = || MemoryConsumer::new("GrizzlyScanExec").register(&pool);
        let holding = |bytes: usize| {
            let held = scan();
            held.grow(bytes);
            rows(3).inspect(move |_| _ = held.size()).boxed()
        };
        let (mut idle, mut read) = (fetching.fetch(me, holding(200)), fetching.fetch(me, holding(200)));
        assert!(idle.next().await.is_some_and(|rows| rows.is_ok()));
        tokio::time::sleep(IDLE + Duration::from_millis(100)).await;
        assert!(read.next().await.is_some_and(|rows| rows.is_ok()));
        fetching.make_room(me, &pool).expect("one of them goes");
        assert_eq!(SpillingPool::of(&pool).map(SpillingPool::decoded_share), Some(0.2));
        let gone = idle.next().await.and_then(Result::err).expect("it is gone");
        assert_eq!(gone.code(), tonic::Code::ResourceExhausted);
        assert!(idle.next().await.is_none() && read.next().await.is_some_and(|rows| rows.is_ok()));
        // What is read is not taken from anybody.
        let more = scan();
        more.grow(600);
        assert!(fetching.make_room(me, &pool).is_err());
        fetching.make_room(Owner::of(&2), &pool).expect("it has nothing that it could close");
    }
}
