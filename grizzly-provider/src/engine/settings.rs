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
        }
    }
}
