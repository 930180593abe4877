//! Reading a log while another process writes it: each look yields what has come since the last one.

use std::sync::Arc;

use crate::codec::{FileHeader, Frame, read_frame};
use crate::encryption::FileCipher;
use crate::error::{Error, ErrorKind, Result};
use crate::files::{self, LogFile};
use crate::ids::Lsn;
use crate::known::{Known, check_link};
use crate::record::Record;
use crate::storage::Storage;

/// Looks without a new record before the folder is listed: a file can be missing in the row of numbers.
const LIST_AFTER: u32 = 16;

/// A place in a log that moves on with every [`poll`](Self::poll). A clone of it reads on from the same place.
///
/// What it yields was written, but its writer may have been replaced before that: then a later writer begins its file
/// with an earlier record, and what was read from there on never counted. Who holds the lease *after* a poll tells:
/// while no writer follows [`epoch`](Self::epoch), any later one will find all that was read.
#[derive(Debug, Clone)]
pub struct LogTail {
    storage: Arc<dyn Storage>,
    dir: String,
    /// The record to yield next.
    next: Lsn,
    place: Option<Place>,
    known: Known,
    quiet: u32,
    /// The next look lists the folder.
    thorough: bool,
}

/// A place in a file.
#[derive(Debug, Clone)]
struct Place {
    file: LogFile,
    header: FileHeader,
    /// Decrypts the payloads of this file.
    cipher: Option<Arc<FileCipher>>,
    offset: u64,
    /// The record at `offset`.
    at: Lsn,
}

impl Place {
    fn start(storage: &dyn Storage, known: &Known, file: LogFile, header: FileHeader) -> Result<Self> {
        known.check_file(&file.path, &header, None)?;
        let cipher = files::cipher(storage, &file.path, &header)?.map(Arc::new);
        Ok(Self { file, header, cipher, offset: header.len() as u64, at: header.first_lsn })
    }
}

impl LogTail {
    /// Will yield the record `next` of the log in folder `dir` first.
    pub fn new(storage: Arc<dyn Storage>, dir: &str, next: Lsn) -> Self {
        Self {
            storage,
            dir: dir.to_owned(),
            next: next.max(Lsn::FIRST),
            place: None,
            known: Known::default(),
            quiet: 0,
            thorough: false,
        }
    }

    /// The same place, in the log of `owner`: a file of another one is [`ErrorKind::Corrupt`].
    #[must_use]
    pub fn of(mut self, owner: u128) -> Self {
        self.known.owner = Some(owner);
        self
    }

    /// The record that comes next.
    pub fn next_lsn(&self) -> Lsn {
        self.next
    }

    /// The epoch of the writer whose file was read last; 0 before the first record of a log, and for a log that never
    /// changes hands.
    pub fn epoch(&self) -> u64 {
        self.place.as_ref().map_or(0, |place| place.header.epoch)
    }

    /// Makes the next look list the folder, for callers who know that there may be a later file: numbers can be
    /// missing. A file that such a look does not find had not begun before it, and no record was durable in it.
    pub fn search(&mut self) {
        self.thorough = true;
    }

    /// What has come since the last look, perhaps nothing.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] if the records that come next are damaged, or were removed meanwhile: then only a newer
    /// checkpoint helps. After an error this place must not be used any more; an earlier clone may.
    pub fn poll(&mut self) -> Result<Vec<Record>> {
        let records = self.read_all()?;
        self.thorough = false;
        Ok(records)
    }

    fn read_all(&mut self) -> Result<Vec<Record>> {
        let mut records = Vec::new();
        loop {
            let Some(place) = &self.place else {
                match self.find_start()? {
                    Some(place) => self.place = Some(place),
                    None => return Ok(records),
                }
                continue;
            };
            // Looked for before the file is read: what its writer adds once it was replaced must not be taken.
            let mut follower = self.successor(place)?;
            let before = records.len();
            let is_there = self.read_on(follower.as_ref().map(|place| place.at), &mut records)?;
            if !is_there && follower.is_none() {
                follower = self.any_successor()?;
            }
            self.quiet = if records.len() > before { 0 } else { self.quiet.saturating_add(1) };
            let Some(follower) = follower else { return Ok(records) };
            let at = self.place.as_ref().map_or(self.next, |place| place.at);
            if at != follower.at {
                let message = format!(
                    "{} begins with record {}, but {at} comes next: records are damaged or were removed",
                    follower.file.path, follower.at
                );
                return Err(Error::new(ErrorKind::Corrupt, message));
            }
            // A file without records may be followed by one that was written after another.
            let before = self.place.as_ref().filter(|place| place.header.first_lsn < follower.at);
            check_link(&follower.file.path, &follower.header, before.map(|place| place.header.salt))?;
            self.place = Some(follower);
        }
    }

    /// The newest file that begins at or before the next record. `None` while there is no file at all.
    fn find_start(&self) -> Result<Option<Place>> {
        let mut first = None;
        for file in files::list(self.storage.as_ref(), &self.dir)?.into_iter().rev() {
            let Some(header) = probe(self.storage.as_ref(), &file)? else { continue };
            if header.first_lsn <= self.next {
                return Place::start(self.storage.as_ref(), &self.known, file, header).map(Some);
            }
            first = Some(header.first_lsn);
        }
        match first {
            None => Ok(None),
            Some(first) => Err(self.removed(first)),
        }
    }

    /// The first file behind `place` that has been started.
    fn successor(&self, place: &Place) -> Result<Option<Place>> {
        let storage = self.storage.as_ref();
        let Some(next) = files::successor(storage, &self.dir, &place.file)? else {
            return if self.looks_further() { self.later(place.file.number) } else { Ok(None) };
        };
        match probe(storage, &next)? {
            Some(header) => Place::start(storage, &self.known, next, header).map(Some),
            // Its writer may have died before it wrote the header, and another one may have begun behind it.
            None if self.looks_further() => self.later(place.file.number),
            None => Ok(None),
        }
    }

    /// Whether it is time to list the folder.
    fn looks_further(&self) -> bool {
        self.thorough || (self.quiet >= LIST_AFTER && self.quiet.is_multiple_of(LIST_AFTER))
    }

    /// The first file that is left, when the present one is not there any more.
    fn any_successor(&self) -> Result<Option<Place>> {
        let found = self.later(self.place.as_ref().map_or(0, |place| place.file.number))?;
        let gone = || Error::new(ErrorKind::Corrupt, format!("{} has no record {} any more", self.dir, self.next));
        found.ok_or_else(gone).map(Some)
    }

    /// The first file with a greater number that has been started.
    fn later(&self, number: u64) -> Result<Option<Place>> {
        let storage = self.storage.as_ref();
        for file in files::list(storage, &self.dir)?.into_iter().filter(|file| file.number > number) {
            if let Some(header) = probe(storage, &file)? {
                return Place::start(storage, &self.known, file, header).map(Some);
            }
        }
        Ok(None)
    }

    /// Takes what is written in the present file, up to the record `end`, with which another one begins. `false` if
    /// the file was removed: it goes when a restart does not need it, and what is needed here may be in the next one.
    fn read_on(&mut self, end: Option<Lsn>, records: &mut Vec<Record>) -> Result<bool> {
        let Some(place) = &mut self.place else { return Ok(true) };
        let bytes = match self.storage.read_append_from(&place.file.path, place.offset) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
            bytes => bytes?,
        };
        let mut offset = 0;
        while end.is_none_or(|end| place.at < end) {
            // A frame that is not sound may be one that is being written just now.
            let Frame::Record(record, next) = read_frame(&bytes, offset, place.header.salt) else { break };
            let found = record.header.lsn;
            if found != place.at {
                let message = format!("record {found} stands where {} belongs", place.at);
                return Err(Error::corrupt(&place.file.path, place.offset + offset as u64, message));
            }
            if found >= self.next {
                records.push(record.unpack(place.cipher.as_deref())?);
                self.next = found.next();
            }
            place.at = found.next();
            offset = next;
        }
        place.offset += offset as u64;
        Ok(true)
    }

    fn removed(&self, first: Lsn) -> Error {
        let message = format!("{} begins with record {first}, but {} is needed", self.dir, self.next);
        Error::new(ErrorKind::Corrupt, message)
    }
}

/// The header of a file, if it has one and was not removed just now.
fn probe(storage: &dyn Storage, file: &LogFile) -> Result<Option<FileHeader>> {
    match files::probe(storage, file) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        header => header,
    }
}
