//! Removing old chains: whole ones, and each from its end, so that what a crash leaves is whole as well.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;

use bytes::Bytes;

use super::chain::{Backups, chain_to, incomplete};
use super::manifest::{Backup, begun_path, id, manifest_path};
use crate::error::{Error, ErrorKind, Result};
use crate::storage::PutMode;

/// What [`Backups::prune`] removes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Backups, oldest first.
    pub backups: Vec<Backup>,
    /// Folders older than all that stays, of backups that were never finished, or half removed.
    pub unfinished: Vec<String>,
}

impl Backups {
    /// What [`prune`](Self::prune) would remove.
    ///
    /// # Errors
    /// As [`prune`](Self::prune).
    pub fn prunable(&self, keep: NonZeroUsize) -> Result<Pruned> {
        let backups: BTreeMap<u64, Backup> = self.list()?.into_iter().map(|backup| (backup.number, backup)).collect();
        let full: Vec<&Backup> = backups.values().filter(|backup| backup.is_full()).collect();
        let Some(kept) = full.len().checked_sub(keep.get()).and_then(|first| full.get(first..)) else {
            return Ok(Pruned::default());
        };
        let first = kept.first().map_or(0, |oldest| oldest.number);
        let kept: BTreeSet<&String> = kept.iter().map(|full| &full.chain).collect();
        for backup in backups.range(first..).map(|(_, backup)| backup) {
            if let Some(problem) = incomplete(&chain_to(&backups, backup)?).into_iter().next() {
                let message = format!("{problem}; nothing is removed before what stays is whole");
                return Err(Error::new(ErrorKind::Corrupt, message));
            }
        }
        let unfinished = self.unfinished()?.into_iter().filter(|number| *number < first).map(id).collect();
        let backups = backups.values().filter(|backup| !kept.contains(&backup.chain)).cloned().collect();
        Ok(Pruned { backups, unfinished })
    }

    /// Removes all chains but the newest `keep`, and what older backups that were never finished have left behind.
    /// Chains stay or go as a whole, and the newest one is that of the newest full backup.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] if a backup's description is damaged or missing, or a chain that is to stay lacks
    /// something; nothing has been removed then. After any other error what is left is whole, and can be pruned again.
    pub fn prune(&self, keep: NonZeroUsize) -> Result<Pruned> {
        let pruned = self.prunable(keep)?;
        for backup in pruned.backups.iter().rev() {
            // With this and without its description it counts as one that was never finished.
            let mark = Bytes::from_static(b"being removed");
            self.storage().put(&begun_path(backup.number), &[mark], PutMode::Overwrite)?;
            self.storage().remove(&manifest_path(backup.number))?;
            self.remove_unfinished(&backup.id())?;
        }
        pruned.unfinished.iter().try_for_each(|folder| self.remove_unfinished(folder))?;
        Ok(pruned)
    }
}
