//! Sessions: one per connection or named session, one per transaction; how they are found and how they end.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    hash::{Hash, Hasher},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use datafusion::error::DataFusionError;
use grizzly_provider::{Error, ErrorKind, adapter::GrizzlySession};
use parking_lot::Mutex;
use tonic::Status;

use super::{
    attended::TimeLimit,
    connection::ConnectionId,
    fetching::Fetching,
    forward::{Forward, Lag},
    handles::{Handles, Owner, WhenFull},
    prepared::Prepared,
    query::Statement,
    transaction::Savepoint,
};
use crate::error::{query_status, status};

/// Makes a session. The server calls it once per connection and once per transaction.
pub type SessionFactory = Arc<dyn Fn() -> Result<GrizzlySession, DataFusionError> + Send + Sync>;

/// Request header by which a client that uses several connections names its session.
pub const SESSION_HEADER: &str = "x-grizzly-session";

/// How long a planned query is kept once all its rows were fetched: a ticket may be sent again if the last of them did
/// not arrive.
const FETCHED: Duration = Duration::from_secs(15);
/// How long a session by name is kept without a call once all connections that it was used over are closed.
const LEFT: Duration = Duration::from_secs(60);
/// How long its open transaction is kept then: for as long as it takes to connect again.
const LEFT_TRANSACTION: Duration = Duration::from_secs(5);

/// How long things may lie idle and how many there may be. Plain data.
#[derive(Debug, Clone)]
pub struct Limits {
    /// A statement that runs longer is cancelled. Default: none.
    pub statement_timeout: Option<Duration>,
    /// A transaction without a call for this long is rolled back. Default 10 minutes.
    pub transaction_idle: Duration,
    /// A session, and a prepared statement, without a call for this long is forgotten. Default 1 hour.
    pub session_idle: Duration,
    /// A planned statement, or the stored answer of an executed one, is forgotten after this. Default 10 minutes.
    pub ticket_idle: Duration,
    /// Planned, and prepared, statements and savepoints that one session may have open at a time. Of statements the
    /// oldest goes then; a further savepoint is refused. Default 1,000.
    pub handles: usize,
    /// Sessions by name (see [`SESSION_HEADER`]), and transactions, that one connection may have open at a time. Of
    /// the sessions that which was idle longest goes then; a further transaction is refused. Default 100.
    pub sessions_per_connection: usize,
    /// Results that one session may be fetching at a time: begun, and not read to their end. A further one is refused.
    /// Where the memory of queries is short, results that are not read for a second end with 53200. Default 32.
    pub results: usize,
    /// How long a graceful stop waits for running statements. Default 30 seconds.
    pub shutdown_grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            statement_timeout: None,
            transaction_idle: Duration::from_secs(600),
            session_idle: Duration::from_secs(3600),
            ticket_idle: Duration::from_secs(600),
            handles: 1_000,
            sessions_per_connection: 100,
            results: 32,
            shutdown_grace: Duration::from_secs(30),
        }
    }
}

/// A session and what the server knows of its use.
pub(crate) struct Session {
    grizzly: GrizzlySession,
    owner: Owner,
    /// The way to another node, if that one writes.
    pub(crate) forward: Forward,
    /// Whether it is a transaction that a driver began, which most do unasked.
    is_transaction: bool,
    ended: AtomicBool,
    touched: Mutex<Instant>,
    /// Cloned by everything that is running in the session.
    busy: Arc<()>,
    /// If it goes by a name.
    over: Mutex<Over>,
}

/// What a session by name was used over.
#[derive(Debug, Default)]
struct Over {
    /// Those that are open.
    connections: HashSet<ConnectionId>,
    /// When the last of them was closed.
    left: Option<Instant>,
}

/// Held while something runs, so that its session does not expire.
#[derive(Debug)]
#[cfg_attr(test, derive(Default))]
pub(crate) struct Lease(#[expect(dead_code, reason = "counted, not read")] Arc<()>);

/// Ends a session that was left halfway.
struct EndOnDrop<'a>(Option<&'a Session>);

impl EndOnDrop<'_> {
    fn forget(mut self) {
        self.0 = None;
    }
}

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        if let Some(session) = self.0 {
            session.end();
        }
    }
}

impl Session {
    fn new(state: &State, owner: Owner, lag: Arc<Lag>, is_transaction: bool) -> Result<Self, Status> {
        let grizzly = (state.factory)().map_err(|error| query_status(&error))?;
        let (touched, forward) = (Mutex::new(Instant::now()), Forward::new(state.token.clone(), lag));
        let (ended, busy, over) = (AtomicBool::new(false), Arc::default(), Mutex::default());
        Ok(Self { grizzly, owner, forward, is_transaction, ended, touched, busy, over })
    }

    /// Whose the handles are that are opened in this session: those of a transaction count as its beginner's.
    pub(crate) fn owner(&self) -> Owner {
        self.owner
    }

    /// Runs a definition (CREATE, DROP…), which cannot be part of a transaction. A driver's transaction that has not
    /// written yet is begun anew around it, so that drivers without autocommit can define tables at all; in any other
    /// transaction the definition is refused where it is carried out.
    pub(crate) async fn define<T>(&self, work: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
        if !self.is_transaction || !self.has_unwritten_transaction() {
            return work.await;
        }
        // Stopped before it has begun again, it would be without a transaction, and each statement would commit.
        let unfinished = EndOnDrop(Some(self));
        self.say("ROLLBACK").await?;
        let result = work.await;
        self.say("BEGIN").await?;
        unfinished.forget();
        result
    }

    /// Whether a definition is possible now: see [`Session::define`].
    pub(crate) fn may_define(&self) -> bool {
        !self.in_transaction() || (self.is_transaction && self.has_unwritten_transaction())
    }

    fn has_unwritten_transaction(&self) -> bool {
        let handle = self.grizzly.handle();
        self.forward.is_unwritten()
            || !handle.is_aborted() && handle.with_transaction(|transaction| transaction.is_empty()) == Some(true)
    }

    /// Whether a transaction is open in it, here or at the node that writes.
    pub(super) fn in_transaction(&self) -> bool {
        self.grizzly.in_transaction() || self.forward.is_open()
    }

    /// Runs statements whose result is of no interest.
    pub(crate) async fn say(&self, sql: &str) -> Result<(), Status> {
        let grizzly = self.ready().await?;
        if self.forward.applies_to(grizzly, sql) {
            return self.forward.say(grizzly, sql).await;
        }
        grizzly.execute(sql).await.map(drop).map_err(|error| query_status(&error))
    }

    /// The session, unless it has ended: a statement of an ended transaction must not run outside it.
    pub(crate) fn open(&self) -> Result<&GrizzlySession, Status> {
        if self.ended.load(Ordering::Acquire) {
            let message = "the transaction or session of this handle has ended";
            return Err(status(&Error::new(ErrorKind::Closed, message)));
        }
        *self.touched.lock() = Instant::now();
        Ok(&self.grizzly)
    }

    /// The same for a statement that is about to run: a transaction that has not gone to another node yet begins here, if
    /// this one has become the writer.
    pub(crate) async fn ready(&self) -> Result<&GrizzlySession, Status> {
        let grizzly = self.open()?;
        if let Some(begins) = self.forward.takes_over(grizzly.handle().db()).await {
            // Stopped before it has begun, it would be without a transaction, and each statement would commit.
            let unfinished = EndOnDrop(Some(self));
            grizzly.execute(&begins).await.map_err(|error| query_status(&error))?;
            unfinished.forget();
        }
        Ok(grizzly)
    }

    /// Keeps the session from expiring while the lease lives.
    pub(crate) fn lease(&self) -> Lease {
        Lease(Arc::clone(&self.busy))
    }

    /// A statement failed: the open transaction, if any, can only be rolled back.
    pub(crate) fn abort(&self) {
        self.grizzly.handle().abort();
    }

    /// A statement was stopped, and may not have noticed yet. If it was a definition in a driver's transaction, which has none
    /// just then, the next statement must not run outside it.
    pub(crate) fn stopped(&self) {
        self.abort();
        if self.is_transaction && !self.in_transaction() {
            self.end();
        }
    }

    /// Refuses all further statements.
    pub(crate) fn end(&self) {
        self.ended.store(true, Ordering::Release);
        self.grizzly.handle().end();
    }

    /// Whether [`Session::end`] was called.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// Ends the session and rolls back what it left open.
    pub(crate) fn abandon(self: Arc<Self>) {
        self.end();
        if !self.in_transaction() {
            return;
        }
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                self.forward.leave().await;
                if !self.grizzly.in_transaction() {
                    return;
                }
                if let Err(error) = self.grizzly.execute("ROLLBACK").await {
                    tracing::warn!(%error, "an abandoned transaction could not be rolled back");
                }
            });
        }
    }

    /// It is used over a connection, by its name.
    fn used_over(&self, connection: ConnectionId) {
        let mut over = self.over.lock();
        over.connections.insert(connection);
        over.left = None;
    }

    /// A connection is closed that it may have been used over.
    fn left_over(&self, connection: ConnectionId) {
        let mut over = self.over.lock();
        if over.connections.remove(&connection) && over.connections.is_empty() {
            over.left = Some(Instant::now());
        }
    }

    /// For how long nobody has been there who could use it, if it goes by a name.
    fn left_for(&self) -> Option<Duration> {
        self.over.lock().left.map(|left| left.elapsed())
    }

    fn idle_for(&self) -> Duration {
        if Arc::strong_count(&self.busy) > 1 { Duration::ZERO } else { self.touched.lock().elapsed() }
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("ended", &self.ended).finish_non_exhaustive()
    }
}

/// What identifies a session outside a Flight SQL transaction.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum SessionKey {
    /// Everything that comes over one connection.
    Connection(ConnectionId),
    /// Everything that carries this name in [`SESSION_HEADER`].
    Named(SessionName),
}

/// The name of a session, and the connection that it was said over: the same session over all connections.
#[derive(Debug, Clone)]
pub(crate) struct SessionName {
    pub(crate) name: String,
    pub(crate) over: Option<ConnectionId>,
}

impl PartialEq for SessionName {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for SessionName {}

impl Hash for SessionName {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl SessionKey {
    /// Whose the transactions are that are begun in this session.
    pub(crate) fn owner(&self) -> Owner {
        Owner::of(self)
    }

    /// The connection that a call came over, whatever its session goes by.
    fn connection(&self) -> Option<ConnectionId> {
        match self {
            Self::Connection(id) => Some(*id),
            Self::Named(name) => name.over,
        }
    }

    /// The connection over which a session by name was opened.
    fn opened_over(&self) -> Option<ConnectionId> {
        match self {
            Self::Connection(_) => None,
            Self::Named(name) => name.over,
        }
    }
}

/// Everything the server keeps between calls.
pub(crate) struct State {
    factory: SessionFactory,
    /// What other nodes want to see.
    token: Option<String>,
    pub(crate) limits: Limits,
    sessions: Mutex<HashMap<SessionKey, Arc<Session>>>,
    /// The connections that are open.
    connections: Mutex<HashSet<ConnectionId>>,
    pub(crate) transactions: Handles<Arc<Session>>,
    pub(crate) savepoints: Handles<Savepoint>,
    pub(crate) prepared: Handles<Prepared>,
    pub(crate) statements: Handles<Statement>,
    pub(crate) fetching: Arc<Fetching>,
}

impl State {
    pub(crate) fn new(factory: SessionFactory, limits: Limits, token: Option<String>) -> Self {
        let (handles, own) = (limits.handles, limits.sessions_per_connection);
        let fetching = Fetching::new(limits.results);
        Self {
            fetching,
            factory,
            token,
            limits,
            sessions: Mutex::default(),
            connections: Mutex::default(),
            transactions: Handles::new("transaction", own, WhenFull::Refuse),
            savepoints: Handles::new("savepoint", handles, WhenFull::Refuse),
            prepared: Handles::new("prepared statement", handles, WhenFull::DropOldest),
            statements: Handles::new("planned statement", handles, WhenFull::DropOldest),
        }
    }

    /// How long a statement may take.
    pub(crate) fn time_limit(&self) -> TimeLimit {
        TimeLimit::new(self.limits.statement_timeout)
    }

    /// A session nobody else has.
    pub(crate) fn fresh_session(&self, owner: Owner) -> Result<Arc<Session>, Status> {
        Session::new(self, owner, Arc::default(), false).map(Arc::new)
    }

    /// A session for a driver's transaction. What is seen in it, the caller's own session has seen.
    pub(crate) fn transaction_session(&self, key: &SessionKey) -> Result<Arc<Session>, Status> {
        let lag = Arc::clone(self.own_session(key)?.forward.lag());
        Session::new(self, key.owner(), lag, true).map(Arc::new)
    }

    /// The transaction's session if a handle is given, else the caller's own.
    pub(crate) fn session(&self, key: &SessionKey, transaction: Option<&[u8]>) -> Result<Arc<Session>, Status> {
        match transaction {
            Some(handle) if !handle.is_empty() => Ok(Arc::clone(&*self.transactions.get(handle)?)),
            _ => self.own_session(key),
        }
    }

    fn own_session(&self, key: &SessionKey) -> Result<Arc<Session>, Status> {
        let known = self.sessions.lock().get(key).map(Arc::clone);
        if let Some(session) = known {
            if session.has_ended() {
                // Told once, so that a client does not go on as if its transaction were still open.
                self.sessions.lock().remove(key);
                session.open()?;
            }
            return Ok(session);
        }
        // Made outside the lock: a factory may be slow. If two calls race, the first one's session wins.
        let session = self.fresh_session(key.owner())?;
        let mut sessions = self.sessions.lock();
        let gone = match sessions.contains_key(key) {
            true => None,
            false => self.make_room(&mut sessions, key)?,
        };
        let session = Arc::clone(sessions.entry(key.clone()).or_insert(session));
        drop(sessions);
        if let Some((key, _)) = gone {
            self.forget_handles(key.owner());
        }
        self.note_use(key, &session);
        Ok(session)
    }

    /// A call came whose session goes by a name.
    pub(crate) fn note_call(&self, key: &SessionKey) {
        let known = self.sessions.lock().get(key).map(Arc::clone);
        if let Some(session) = known {
            self.note_use(key, &session);
        }
    }

    /// A session is used over the connection that a call came over, which may be closed by now.
    fn note_use(&self, key: &SessionKey, session: &Session) {
        if let Some(connection) = key.opened_over() {
            session.used_over(connection);
        }
        self.forget_if_gone(key);
    }

    /// A connection was opened.
    pub(crate) fn welcome(&self, id: ConnectionId) {
        self.connections.lock().insert(id);
    }

    /// Forgets what a call has opened whose connection was closed while it was carried out.
    pub(crate) fn forget_if_gone(&self, key: &SessionKey) {
        if let Some(id) = key.connection()
            && !self.connections.lock().contains(&id)
        {
            self.forget_connection(id);
        }
    }

    /// Forgets everything that an owner has opened but transactions.
    fn forget_handles(&self, owner: Owner) {
        self.prepared.remove_all(owner);
        self.statements.remove_all(owner);
        self.savepoints.remove_all(owner);
    }

    /// Takes out the session that was idle longest where a connection has opened too many by name.
    fn make_room(
        &self,
        sessions: &mut HashMap<SessionKey, Arc<Session>>,
        key: &SessionKey,
    ) -> Result<Option<(SessionKey, Arc<Session>)>, Status> {
        let Some(connection) = key.opened_over() else { return Ok(None) };
        let own = || sessions.iter().filter(|(key, _)| key.opened_over() == Some(connection));
        let most = self.limits.sessions_per_connection;
        if own().count() < most {
            return Ok(None);
        }
        let idle = own().filter(|(_, session)| !session.in_transaction() && session.idle_for() > Duration::ZERO);
        let Some(oldest) = idle.max_by_key(|(_, session)| session.idle_for()).map(|(key, _)| key.clone()) else {
            let message = format!("{most} sessions of this connection are at work; end some");
            return Err(status(&Error::new(ErrorKind::Resource, message)));
        };
        Ok(sessions.remove_entry(&oldest))
    }

    /// The connection is gone: so is its session and what belongs to it.
    pub(crate) fn forget_connection(&self, id: ConnectionId) {
        self.connections.lock().remove(&id);
        let key = SessionKey::Connection(id);
        let session = {
            let mut sessions = self.sessions.lock();
            sessions.values().for_each(|session| session.left_over(id));
            sessions.remove(&key)
        };
        let transactions = self.transactions.remove_all(key.owner());
        let transactions = transactions.iter().map(|session| Arc::clone(&**session));
        for session in transactions.chain(session) {
            session.abandon();
        }
        self.forget_handles(key.owner());
    }

    /// Forgets what has been idle for too long.
    pub(crate) fn expire(&self) {
        let limits = &self.limits;
        let (mut ended, mut left) = (Vec::new(), HashSet::new());
        self.sessions.lock().retain(|_, session| {
            let idle = session.idle_for();
            let left_for = session.left_for().map_or(Duration::ZERO, |left_for| left_for.min(idle));
            let is_left = left_for >= LEFT_TRANSACTION;
            if is_left {
                left.insert(session.owner);
            }
            let expired = idle >= limits.session_idle || left_for >= LEFT;
            if expired || ((is_left || idle >= limits.transaction_idle) && session.in_transaction()) {
                ended.push(Arc::clone(session));
            }
            // One whose transaction expired stays until its client has been told.
            !expired
        });
        let keep = |session: &Session| {
            let most = if left.contains(&session.owner) { LEFT_TRANSACTION } else { Duration::MAX };
            session.idle_for() < limits.transaction_idle.min(most)
        };
        let transactions = self.transactions.retain(|session, _| keep(session));
        ended.extend(transactions.iter().map(|session| Arc::clone(&**session)));
        for session in ended {
            session.abandon();
        }
        self.prepared.retain(|_, idle| idle < limits.session_idle);
        let keep = |statement: &Statement| if statement.is_fetched() { FETCHED } else { limits.ticket_idle };
        self.statements.retain(|statement, idle| idle < keep(statement).min(limits.ticket_idle));
        self.drop_ended();
    }

    /// Drops the handles that belong to ended sessions.
    pub(crate) fn drop_ended(&self) {
        self.prepared.retain(|prepared, _| !prepared.session().has_ended());
        // The answer of a write stays: its ticket may be sent again.
        self.statements.retain(|statement, _| statement.has_started() || !statement.has_ended());
        self.savepoints.retain(|savepoint, _| !savepoint.session().has_ended());
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State").field("limits", &self.limits).finish_non_exhaustive()
    }
}
