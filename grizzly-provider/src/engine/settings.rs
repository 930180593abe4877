//! Settings: plain data with defaults.

use std::time::Duration;

/// How a database behaves. Plain data; see [`Default`] for the values used when none are given.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Bytes of encoded chunks, index runs and hot rows kept in memory. Default 1 GiB.
    pub memory_bytes: usize,
    /// Whether a commit returns only once it is on storage. Default true; `false` may lose the last moments
    /// before a crash, but never part of a transaction.
    pub sync_commits: bool,
    /// Rows a shard keeps in memory before they become a segment file. Default 262,144.
    pub flush_rows: usize,
    /// How long replaced and deleted rows stay readable for time travel. Default one hour.
    pub retention: Duration,
    /// How long after a backup the log behind it is kept for an incremental one. Default seven days.
    pub backup_window: Duration,
    /// Whether flush and compaction run by themselves. Default true.
    pub background: bool,
    /// Create the database if the URL holds none. Default true.
    pub create: bool,
    /// Bytes of query results that are kept, besides `memory_bytes`, for when the same query comes again and its
    /// tables have not changed. Default 0: none are.
    pub result_cache: usize,
    /// Share the database with other processes, of which one writes. Default none: this process alone opens it.
    pub cluster: Option<ClusterSettings>,
}

/// How a database takes part in a cluster: several processes that open one folder or bucket. One writes, the others
/// follow its log and answer reads; when it is gone, one of them takes its place.
#[derive(Debug, Clone)]
pub struct ClusterSettings {
    /// The name of this process, for people. Default a random one.
    pub node: String,
    /// Where others reach this process; they send writes there. Default empty.
    pub advertise: String,
    /// How long the others wait for a sign of life before one takes the writer's place; it renews its lease three
    /// times within that. Between 100 milliseconds and a day; default 3 seconds.
    pub lease: Duration,
    /// How often a follower looks for new commits; less often where looking takes long. Default 20 ms.
    pub poll: Duration,
    /// Whether this process may write. Default true.
    pub candidate: bool,
    /// How long files that the writer no longer needs stay for those who still read them. Default one minute. A
    /// query on a follower that takes longer may fail with `Unavailable`; it never returns wrong rows.
    pub grace: Duration,
}

impl Default for ClusterSettings {
    fn default() -> Self {
        Self {
            node: uuid::Uuid::new_v4().simple().to_string(),
            advertise: String::new(),
            lease: Duration::from_secs(3),
            poll: Duration::from_millis(20),
            candidate: true,
            grace: Duration::from_secs(60),
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            memory_bytes: 1 << 30,
            sync_commits: true,
            flush_rows: 262_144,
            retention: Duration::from_secs(3600),
            backup_window: Duration::from_secs(7 * 24 * 3600),
            background: true,
            create: true,
            result_cache: 0,
            cluster: None,
        }
    }
}
