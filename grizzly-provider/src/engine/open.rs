//! Opening a database, alone or as one of several processes.

use std::sync::Arc;

use grizzly_wal::Storage;

use super::{alone, cluster, core::Inner, settings::Settings};
use crate::error::{Error, Result};

/// Opens or creates the database in `storage`.
pub(super) fn open(url: String, mut settings: Settings, storage: Arc<dyn Storage>) -> Result<Arc<Inner>> {
    match settings.cluster.take() {
        Some(_) if !settings.sync_commits => Err(Error::invalid(
            "a database in a cluster needs sync_commits: an acknowledged commit must outlive its writer",
        )),
        Some(cluster) => cluster::open(url, settings, cluster, storage),
        None => alone::open(url, settings, storage),
    }
}
