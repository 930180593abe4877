//! Opening a log: first everything in it, then the right to write.

use std::sync::Arc;

use crate::codec::FilePlace;
use crate::error::{Error, Result};
use crate::files::{self, NewFile};
use crate::ids::Lsn;
use crate::known::Known;
use crate::reader::LogReader;
use crate::record::Record;
use crate::storage::Storage;
use crate::writer::{Wal, WalOptions};

/// Opens the log in folder `dir`: everything from record `from` on, and then the writer.
///
/// `from` is the first record that is not yet part of something durable elsewhere; a new log begins with it. The
/// caller holds the storage's [`lock`](Storage::lock).
///
/// # Errors
/// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) if the log does not reach back to `from`.
pub fn open(storage: Arc<dyn Storage>, dir: &str, from: Lsn, options: WalOptions) -> Result<Replay> {
    options.check()?;
    let known = Known { owner: options.owner, ..Known::default() };
    let reader = LogReader::new(storage, dir, from, true)?.knowing(known);
    Ok(Replay { reader, options })
}

/// The records to redo. Iterate to the end, then call [`into_writer`](Self::into_writer).
#[derive(Debug)]
pub struct Replay {
    reader: LogReader,
    options: WalOptions,
}

impl Iterator for Replay {
    type Item = Result<Record>;

    fn next(&mut self) -> Option<Self::Item> {
        self.reader.next()
    }
}

impl Replay {
    /// See [`LogReader::knowing`]; the owner is that of the options.
    #[must_use]
    pub fn knowing(mut self, known: Known) -> Self {
        self.reader = self.reader.knowing(Known { owner: self.options.owner, ..known });
        self
    }

    /// See [`LogReader::torn`].
    pub fn torn(&self) -> &[String] {
        self.reader.torn()
    }

    /// The writer, which begins a new file: nothing is ever written behind a torn end.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) if the replay was not consumed to its end or met an error.
    /// [`ErrorKind::AlreadyExists`](crate::ErrorKind::AlreadyExists) if another writer began a file first.
    pub fn into_writer(mut self) -> Result<Wal> {
        // An iterator that was dropped right after its last record has not seen the end yet.
        if !self.reader.is_finished() && self.reader.next().is_some() || !self.reader.is_finished() {
            return Err(Error::invalid("the log cannot be written before all of it was replayed"));
        }
        let previous = self.reader.last_salt();
        let (storage, dir, mut all, next) = self.reader.into_parts();
        let number = all.last().map_or(1, |file| file.number + 1);
        let WalOptions { segment_bytes, epoch, owner, .. } = self.options;
        let place = owner.map(|owner| FilePlace { owner, previous });
        let new = NewFile { number, first_lsn: next, epoch, place, preallocate: segment_bytes };
        let (file, current, header) = files::create(storage.as_ref(), &dir, new)?;
        // Files that got no record would pile up with every open; they say nothing that the new one does not.
        while let Some(last) = all.last_mut() {
            // Files before the first needed record were not looked into, and may be kept for a backup.
            if last.first_lsn.is_none() {
                // One that is damaged is not empty; nothing in it is needed here.
                let Ok(header) = files::probe(storage.as_ref(), last) else { break };
                last.first_lsn = header.map(|header| header.first_lsn);
            }
            let Some(empty) = all.pop_if(|file| file.first_lsn.is_none_or(|first| first == next)) else { break };
            if let Err(error) = storage.remove_append(&empty.path) {
                tracing::warn!(file = empty.path, %error, "cannot remove an empty log file");
            }
        }
        all.push(current);
        Wal::start(storage, dir, all, file, header, self.options)
    }
}
