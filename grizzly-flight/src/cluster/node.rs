//! A node of a cluster: its lease, what it knows of the others, and its door for their tasks.

use std::{
    fmt,
    sync::{Arc, OnceLock, Weak},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use datafusion::{
    error::DataFusionError,
    execution::{SessionStateBuilder, TaskContext, runtime_env::RuntimeEnv},
};
use datafusion_distributed::Worker;
use grizzly_provider::{Error, ErrorKind, Grizzly, NodeLease, Result};
use parking_lot::Mutex;
use tokio::task::{AbortHandle, JoinHandle};
use tonic::codegen::http::HeaderValue;
use url::Url;
use uuid::Uuid;

use super::{
    channel::{Channels, failed_node, node_url, public_url},
    members::{Members, NodeState},
    worker::TaskSessions,
};

/// A lease is written so many times within the lease time.
const BEATS_PER_LEASE: u32 = 4;

/// How a node behaves in its cluster. Plain data.
#[derive(Debug, Clone)]
pub struct NodeSettings {
    /// A node whose lease has not changed for this long takes no part in queries. Default 4 seconds.
    pub lease: Duration,
    /// Up to so many bytes of a result are held back, so that the query can run again if a node fails. Default 8 MiB.
    pub held_bytes: usize,
    /// How long a node waits to learn of the commit that a query reads. Default 3 seconds.
    pub commit_wait: Duration,
}

impl Default for NodeSettings {
    fn default() -> Self {
        Self { lease: Duration::from_secs(4), held_bytes: 8 << 20, commit_wait: Duration::from_secs(3) }
    }
}

/// This node, and the others that share its database. Cheap to clone.
#[derive(Clone)]
pub struct Cluster {
    inner: Arc<Inner>,
}

/// What an embedder adds to the sessions of tasks.
type Configure = dyn Fn(SessionStateBuilder) -> SessionStateBuilder + Send + Sync;

struct Inner {
    db: Grizzly,
    settings: NodeSettings,
    runtime: Arc<RuntimeEnv>,
    configure: Option<Box<Configure>>,
    channels: Arc<Channels>,
    members: Mutex<Members>,
    /// What every node knows that reads a plan.
    task_context: OnceLock<Arc<TaskContext>>,
    own: OnceLock<Own>,
    beating: Mutex<Option<AbortHandle>>,
}

/// What this node says of itself.
struct Own {
    url: Url,
    lease: Mutex<NodeLease>,
}

/// Configures a [`Cluster`].
pub struct ClusterBuilder {
    db: Grizzly,
    settings: NodeSettings,
    runtime: Option<Arc<RuntimeEnv>>,
    configure: Option<Box<Configure>>,
    token: Option<String>,
}

/// A node as others see it.
#[derive(Debug, Clone)]
pub struct Node {
    /// Where it is: `grpc://host:port`.
    pub url: String,
    /// The version of its software.
    pub version: String,
    /// When it started, in microseconds since the Unix epoch, by its own clock.
    pub started_micros: u64,
    /// What this node thinks of it.
    pub state: NodeState,
    /// Whether it is this node.
    pub is_own: bool,
}

impl ClusterBuilder {
    /// Replaces all settings.
    #[must_use]
    pub fn settings(mut self, settings: NodeSettings) -> Self {
        self.settings = settings;
        self
    }

    /// Memory and disk for tasks of other nodes' queries; unbounded by default.
    #[must_use]
    pub fn runtime(mut self, runtime: Arc<RuntimeEnv>) -> Self {
        self.runtime = Some(runtime);
        self
    }

    /// Adds to the sessions that run tasks of other nodes' queries: functions that are not DataFusion's must be known
    /// on every node.
    #[must_use]
    pub fn task_sessions(
        mut self,
        configure: impl Fn(SessionStateBuilder) -> SessionStateBuilder + Send + Sync + 'static,
    ) -> Self {
        self.configure = Some(Box::new(configure));
        self
    }

    /// The token that all nodes ask each other for.
    #[must_use]
    pub fn token(mut self, token: Option<String>) -> Self {
        self.token = token;
        self
    }

    /// The node, which is nobody's neighbour before [`Cluster::join`].
    ///
    /// # Errors
    /// `Invalid` for a token that no header can hold.
    pub fn build(self) -> Result<Cluster> {
        let header = self.token.map(|token| HeaderValue::from_str(&format!("Bearer {token}"))).transpose();
        let mut header = header.map_err(|error| {
            Error::new(ErrorKind::Invalid, "the token has characters that a header cannot hold").with_source(error)
        })?;
        if let Some(header) = &mut header {
            header.set_sensitive(true);
        }
        let inner = Inner {
            channels: Arc::new(Channels::new(header, self.db.identity().to_string())),
            members: Mutex::new(Members::new(self.settings.lease)),
            runtime: self.runtime.unwrap_or_default(),
            configure: self.configure,
            db: self.db,
            settings: self.settings,
            task_context: OnceLock::new(),
            own: OnceLock::new(),
            beating: Mutex::new(None),
        };
        Ok(Cluster { inner: Arc::new(inner) })
    }
}

impl Cluster {
    /// A node over `db`.
    pub fn builder(db: &Grizzly) -> ClusterBuilder {
        let (db, settings) = (db.clone(), NodeSettings::default());
        ClusterBuilder { db, settings, runtime: None, configure: None, token: None }
    }

    /// Tells the other nodes that this one answers at `url` (`grpc://host:port`), and learns of them. Until then its
    /// queries run on it alone.
    ///
    /// # Errors
    /// `Invalid` for a URL that is not one, or if it has joined already; whatever the storage reports.
    pub async fn join(&self, url: &str) -> Result<()> {
        let url = node_url(url)?;
        let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let lease = NodeLease {
            id: Uuid::new_v4(),
            url: public_url(&url),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_micros: u64::try_from(started.as_micros()).unwrap_or_default(),
            beat: 0,
        };
        let own = Own { url, lease: Mutex::new(lease) };
        let joined = || Error::new(ErrorKind::Invalid, "this node has joined its cluster already");
        self.inner.own.set(own).map_err(|_| joined())?;
        let unproven = match self.inner.beat().await {
            // Here it can be read, and as soon as there is room the others see it.
            Err(error) if error.kind() == ErrorKind::DiskFull => {
                tracing::warn!(%error, "this node's lease could not be written; the others do not know of it yet");
                Vec::new()
            }
            unproven => unproven?,
        };
        self.inner.ask(unproven).await;
        let beating = tokio::spawn(beat_while_alive(Arc::downgrade(&self.inner)));
        *self.inner.beating.lock() = Some(beating.abort_handle());
        Ok(())
    }

    /// Tells the others that this node goes.
    ///
    /// # Errors
    /// Whatever the storage reports; the others then find out after the lease time.
    pub async fn leave(&self) -> Result<()> {
        if let Some(beating) = self.inner.beating.lock().take() {
            beating.abort();
        }
        let Some(own) = self.inner.own.get() else { return Ok(()) };
        let (db, id) = (self.inner.db.clone(), own.lease.lock().id);
        on_storage(move || db.remove_node(id)).await
    }

    /// All nodes that this one knows of, itself included.
    pub fn nodes(&self) -> Vec<Node> {
        let own = self.inner.own.get().map(|own| own.lease.lock().id);
        let members = self.inner.members.lock().all();
        let nodes = members.into_iter().map(|member| Node {
            is_own: own == Some(member.lease.id),
            url: member.lease.url,
            version: member.lease.version,
            started_micros: member.lease.started_micros,
            state: member.state,
        });
        nodes.collect()
    }

    /// The database.
    pub fn db(&self) -> &Grizzly {
        &self.inner.db
    }

    pub(super) fn settings(&self) -> &NodeSettings {
        &self.inner.settings
    }

    pub(super) fn channels(&self) -> &Arc<Channels> {
        &self.inner.channels
    }

    pub(super) fn configure(&self, builder: SessionStateBuilder) -> SessionStateBuilder {
        match &self.inner.configure {
            Some(configure) => configure(builder),
            None => builder,
        }
    }

    /// The functions that a task may use.
    pub(super) fn task_context(&self) -> &TaskContext {
        self.inner.task_context.get_or_init(|| {
            let builder = SessionStateBuilder::new().with_default_features();
            self.configure(builder).build().task_ctx()
        })
    }

    pub(super) fn own_url(&self) -> Option<Url> {
        self.inner.own.get().map(|own| own.url.clone())
    }

    /// Where the nodes are that take part in queries.
    pub(super) fn live(&self) -> Vec<Url> {
        self.inner.members.lock().live()
    }

    /// The nodes among `nodes` that are to blame for `error`. They take no part in queries until they answer again.
    pub(super) async fn blame(&self, error: &DataFusionError, nodes: &[Url]) -> Vec<Url> {
        let failed = match failed_node(error).filter(|node| nodes.contains(node)) {
            Some(node) => vec![node],
            None => self.silent(nodes).await,
        };
        let mut members = self.inner.members.lock();
        for node in &failed {
            members.suspect(node);
        }
        failed
    }

    /// The nodes that do not answer.
    async fn silent(&self, nodes: &[Url]) -> Vec<Url> {
        let asked =
            nodes.iter().map(|node| async move { (!self.channels().answers(node).await).then(|| node.clone()) });
        futures::future::join_all(asked).await.into_iter().flatten().collect()
    }

    /// What runs the tasks of other nodes, to be mounted on the server.
    pub(crate) fn worker(&self) -> Worker {
        Worker::from_session_builder(TaskSessions { cluster: self.clone() })
            .with_runtime_env(Arc::clone(&self.inner.runtime))
            .with_version(self.inner.db.identity().to_string())
    }
}

impl Inner {
    /// Writes this node's lease and reads the others'. Returns who should be asked whether it is there.
    async fn beat(&self) -> Result<Vec<(Uuid, Url)>> {
        let Some(own) = self.own.get() else { return Ok(Vec::new()) };
        let lease = {
            let mut lease = own.lease.lock();
            lease.beat += 1;
            lease.clone()
        };
        let (db, id) = (self.db.clone(), lease.id);
        let leases = on_storage(move || {
            db.write_node(&lease)?;
            db.read_nodes()
        });
        let leases = leases.await?;
        let urls: Vec<Url> = leases.iter().filter_map(|lease| node_url(&lease.url).ok()).collect();
        self.channels.keep_only(&urls);
        let (unproven, forgotten) = {
            let (mut members, now) = (self.members.lock(), Instant::now());
            members.observe(leases, now);
            members.answered(id);
            (members.unproven(), members.forgotten(now))
        };
        for id in forgotten {
            let db = self.db.clone();
            on_storage(move || db.remove_node(id)).await?;
        }
        Ok(unproven)
    }

    /// Lets those of the nodes take part that answer.
    async fn ask(&self, unproven: Vec<(Uuid, Url)>) {
        let asked = unproven.iter().map(|(id, url)| async move { self.channels.answers(url).await.then_some(*id) });
        for id in futures::future::join_all(asked).await.into_iter().flatten() {
            self.members.lock().answered(id);
        }
    }
}

/// Beats at its pace, however long others take to answer.
async fn beat_while_alive(inner: Weak<Inner>) {
    let mut asking: Option<JoinHandle<()>> = None;
    loop {
        let Some(pause) = inner.upgrade().map(|inner| inner.settings.lease / BEATS_PER_LEASE) else { return };
        tokio::time::sleep(pause).await;
        let Some(inner) = inner.upgrade() else { return };
        match inner.beat().await {
            Ok(unproven) if asking.as_ref().is_none_or(JoinHandle::is_finished) => {
                asking = Some(tokio::spawn(async move { inner.ask(unproven).await }));
            }
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(%error, "this node's lease could not be kept; if that lasts, others go on without it");
            }
        }
    }
}

/// Storage blocks.
async fn on_storage<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Error::new(ErrorKind::Internal, "work on the storage ended abnormally").with_source(error))?
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(beating) = self.beating.lock().take() {
            beating.abort();
        }
    }
}

impl fmt::Debug for ClusterBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterBuilder").field("db", &self.db).field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let own = self.own_url().map(|url| public_url(&url));
        f.debug_struct("Cluster").field("db", &self.inner.db).field("own", &own).finish_non_exhaustive()
    }
}
