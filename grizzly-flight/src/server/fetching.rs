//! Results that clients fetch. Each that is begun and not read to its end holds what its scans have decoded, so a client that
//! reads the first rows of ten thousand queries would hold the memory of all others: a session fetches a few at a time, and
//! where memory is short, a result that nobody reads goes.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use arrow::record_batch::RecordBatch;
use datafusion::execution::memory_pool::MemoryPool;
use futures::{Stream, StreamExt};
use grizzly_provider::{Error, ErrorKind, adapter::SpillingPool, batch::batch_bytes};
use parking_lot::Mutex;
use tonic::Status;

use super::{handles::Owner, stream::BatchStream};
use crate::error::status;

/// Results, and scans, may hold so much beside what queries have. Above that, results go that are not read.
const MUCH: f64 = 0.25;
/// Above that, who fetches results already gets no further ones.
const TOO_MUCH: f64 = 0.5;
/// How many of its batches a result holds at a time, about: those of each partition, and those on their way to the wire.
const BATCHES: usize = 4;
/// Who reads takes rows more often than this.
const IDLE: Duration = Duration::from_secs(1);

/// The results that are being fetched, by who fetches them.
#[derive(Debug)]
pub(crate) struct Fetching {
    most: usize,
    open: Mutex<HashMap<Owner, Vec<Arc<Held>>>>,
}

/// A result, locked while its client waits for rows to be computed.
struct Held {
    left: Mutex<Left>,
    /// Bytes of the largest batch so far.
    batch: AtomicUsize,
}

/// What its client has not taken.
struct Left {
    /// None once it was given up, or has ended.
    rows: Option<BatchStream>,
    /// When the client last took rows; `None` while it waits for some.
    taken: Option<Instant>,
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
        let results = || self.bytes() as f64 / pool.size().max(1) as f64;
        while results() > MUCH && self.give_up_largest() {}
        // What a scan has decoded goes some time after its result; who asks next sees it.
        if pool.decoded_share() > MUCH {
            self.give_up_largest();
        }
        if own > 0 && results().max(pool.decoded_share()) > TOO_MUCH {
            let message = "the memory of queries is full of rows of results that are being fetched; try again";
            return Err(status(&Error::new(ErrorKind::Resource, message).with_sqlstate("53200")));
        }
        Ok(())
    }

    /// What all results hold, about.
    fn bytes(&self) -> usize {
        self.open.lock().values().flatten().map(|held| held.bytes()).sum()
    }

    /// Ends the largest result that nobody reads; whether there was one.
    fn give_up_largest(&self) -> bool {
        let open = self.open.lock();
        let idle = open.values().flatten().filter(|held| held.idle_for().is_some_and(|idle| idle >= IDLE));
        let largest = idle.max_by_key(|held| (held.bytes(), held.idle_for()));
        let rows = largest.and_then(|held| held.left.try_lock()?.rows.take());
        drop(open);
        // Without the lock: what it runs may take a while to end.
        rows.is_some()
    }

    /// `rows`, as they are fetched by `owner`.
    pub(crate) fn fetch(self: &Arc<Self>, owner: Owner, rows: BatchStream) -> BatchStream {
        let left = Mutex::new(Left { rows: Some(rows), taken: None });
        let held = Arc::new(Held { left, batch: AtomicUsize::new(0) });
        self.open.lock().entry(owner).or_default().push(Arc::clone(&held));
        Fetch { fetching: Arc::clone(self), owner, held, ended: false }.boxed()
    }
}

impl Held {
    /// Bytes that it holds, about; none once it was given up.
    fn bytes(&self) -> usize {
        // What is being read just now is there.
        let is_there = self.left.try_lock().is_none_or(|left| left.rows.is_some());
        if is_there { BATCHES * self.batch.load(Ordering::Relaxed) } else { 0 }
    }

    /// For how long nobody has taken rows of it, if there are some to take.
    fn idle_for(&self) -> Option<Duration> {
        let left = self.left.try_lock()?;
        left.rows.as_ref()?;
        left.taken.map(|taken| taken.elapsed())
    }
}

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Held").field("batch", &self.batch).finish_non_exhaustive()
    }
}

impl Stream for Fetch {
    type Item = Result<RecordBatch, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let held = Arc::clone(&self.held);
        let mut left = held.left.lock();
        let idle = left.taken.take();
        let polled = match left.rows.as_mut() {
            Some(rows) => rows.poll_next_unpin(context),
            None => Poll::Ready(Some(Err(given_up(idle)))),
        };
        if let Poll::Ready(item) = &polled {
            left.taken = Some(Instant::now());
            if let Some(Ok(batch)) = item {
                held.batch.fetch_max(batch_bytes(batch), Ordering::Relaxed);
            }
            self.ended = !matches!(item, Some(Ok(_)));
            if self.ended {
                left.rows = None;
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
    use arrow::{
        array::{ArrayRef, Int64Array},
        datatypes::Schema,
    };
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
    async fn the_largest_that_nobody_reads_goes_first() {
        let (fetching, pool) = (Fetching::new(9), Arc::new(SpillingPool::new(1_000)) as Arc<dyn MemoryPool>);
        let me = Owner::of(&1);
        let of = |count: i64| {
            let numbers = Arc::new(Int64Array::from_iter_values(0..count)) as ArrayRef;
            let batch = RecordBatch::try_from_iter([("n", numbers)]).expect("one column");
            futures::stream::iter(vec![Ok(batch); 3]).boxed()
        };
        let (mut small, mut large) = (fetching.fetch(me, of(1)), fetching.fetch(me, of(20)));
        assert!(
            small.next().await.is_some_and(|rows| rows.is_ok()) && large.next().await.is_some_and(|rows| rows.is_ok())
        );
        assert!(fetching.make_room(me, &pool).is_err(), "both are read");
        tokio::time::sleep(IDLE + Duration::from_millis(100)).await;
        fetching.make_room(me, &pool).expect("the large one goes");
        assert!(small.next().await.is_some_and(|rows| rows.is_ok()));
        assert!(large.next().await.is_some_and(|rows| rows.is_err()));
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
