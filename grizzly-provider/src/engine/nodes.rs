//! The nodes that share a database: each keeps an object of its own beside the data, and writes it again and again.
//! Nobody compares clocks: a node is there as long as others see its object change.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::core::Grizzly;
use crate::error::{Error, Result};

const DIR: &str = "nodes";

/// What a node says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeLease {
    /// Of this run of the node; a restarted node has another.
    pub id: Uuid,
    /// Where other nodes reach it.
    pub url: String,
    /// The version of its software.
    pub version: String,
    /// When it started, in microseconds since the Unix epoch, by its own clock.
    pub started_micros: u64,
    /// Grows by one each time the node writes this.
    pub beat: u64,
}

fn path(id: Uuid) -> String {
    format!("{DIR}/{id}.json")
}

impl Grizzly {
    /// Identifies the database; every node that has it open sees the same. A restored copy has another.
    pub fn identity(&self) -> Uuid {
        self.inner.identity
    }

    /// Writes a node's lease, over the one before. Blocks.
    ///
    /// # Errors
    /// Whatever the storage reports.
    pub fn write_node(&self, lease: &NodeLease) -> Result<()> {
        let text = serde_json::to_vec(lease)
            .map_err(|error| Error::internal("a node's lease has no JSON").with_source(error))?;
        Ok(self.inner.storage.put(&path(lease.id), &[text.into()], grizzly_wal::PutMode::Overwrite)?)
    }

    /// Removes a node's lease; fine if there is none. Blocks.
    ///
    /// # Errors
    /// Whatever the storage reports.
    pub fn remove_node(&self, id: Uuid) -> Result<()> {
        Ok(self.inner.storage.remove(&path(id))?)
    }

    /// The leases of all nodes, those that ended without removing theirs included. Blocks.
    ///
    /// # Errors
    /// Whatever the storage reports. A lease that cannot be read is left out: one node's must not stop the others.
    pub fn read_nodes(&self) -> Result<Vec<NodeLease>> {
        let storage = &self.inner.storage;
        let mut leases = Vec::new();
        for file in storage.list(DIR)? {
            let text = match storage.get(&file.path) {
                Ok(text) => text,
                // It left while we looked.
                Err(error) if error.kind() == grizzly_wal::ErrorKind::NotFound => continue,
                Err(error) => return Err(error.into()),
            };
            match serde_json::from_slice(&text) {
                Ok(lease) => leases.push(lease),
                Err(error) => tracing::warn!(path = %file.path, %error, "the lease of a node cannot be read"),
            }
        }
        Ok(leases)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_written_read_and_removed() -> Result<()> {
        let db = Grizzly::open("memory://")?;
        let lease = |beat| NodeLease {
            id: Uuid::from_u128(7),
            url: "http://127.0.0.1:1".to_owned(),
            version: "0.1.0".to_owned(),
            started_micros: 5,
            beat,
        };
        db.write_node(&lease(1))?;
        db.write_node(&lease(2))?;
        assert_eq!(db.read_nodes()?, [lease(2)]);
        db.remove_node(lease(2).id)?;
        db.remove_node(lease(2).id)?;
        assert_eq!(db.read_nodes()?, []);
        Ok(())
    }
}
