//! The writing ends of append files.

use grizzly_provider::storage::{AppendFile, Error, ErrorKind, Result};

use super::disk::{Kind, Mount};

/// The writing end of an append file that is several objects.
pub(super) struct Parts {
    pub(super) mount: Mount,
    pub(super) path: String,
    pub(super) file: Box<dyn AppendFile>,
}

impl AppendFile for Parts {
    fn append(&mut self, data: &[u8]) -> Result<()> {
        self.mount.alive()?;
        self.file.append(data)
    }

    fn sync(&mut self) -> Result<()> {
        let Self { mount, path, file } = self;
        mount.ask("sync", path, || file.sync())
    }
}

/// The writing end of an append file.
pub(super) struct Appending {
    pub(super) mount: Mount,
    pub(super) path: String,
    /// In a bucket, what was not synced.
    pub(super) pending: Vec<u8>,
}

impl AppendFile for Appending {
    fn append(&mut self, data: &[u8]) -> Result<()> {
        if self.mount.disk.kind == Kind::Bucket {
            self.mount.alive()?;
            self.pending.extend_from_slice(data);
            return Ok(());
        }
        let (mount, path) = (self.mount.clone(), self.path.as_str());
        let full = mount.disk.content.lock().full;
        mount.call("append", path, |content| {
            // Of an append that fails, a part is there.
            let written = if full { data.len() / 2 } else { data.len() };
            content.file(path)?.unsynced.extend_from_slice(&data[..written]);
            content.room(path)
        })
    }

    fn sync(&mut self) -> Result<()> {
        let (pending, path) = (std::mem::take(&mut self.pending), self.path.as_str());
        let mut tried = false;
        let synced = self.mount.call("sync", path, |content| {
            tried = true;
            let full = content.room(path);
            let file = content.file(path)?;
            if file.sealed {
                return Err(Error::new(ErrorKind::AlreadyExists, format!("{path} was taken over by another writer")));
            }
            if !pending.is_empty() {
                full?;
                file.synced.extend_from_slice(&pending);
            }
            let unsynced = std::mem::take(&mut file.unsynced);
            file.synced.extend(unsynced);
            Ok(())
        });
        if !tried && synced.is_err() && !self.mount.is_dead() && self.mount.disk.kind == Kind::Folder {
            // What a sync should have written that failed is gone, as in Linux.
            self.mount.disk.content.lock().file(path)?.unsynced.clear();
        }
        synced
    }

    fn withdraw(&mut self) -> Result<()> {
        self.pending.clear();
        let path = self.path.as_str();
        self.mount.call("withdraw", path, |content| {
            content.file(path)?.unsynced.clear();
            Ok(())
        })
    }
}
