//! Records in order, across files. Decides what is a clean end and what is damage.
//!
//! A frame that is not sound is either the torn end of what a crash left, or damage to something confirmed. It is
//! damage if anything proves that the record was once durable: a later frame whose group began after it, or a later
//! file that begins after it. Otherwise nobody was ever told that the record is safe, and the file ends there.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use crate::codec::{FileHeader, Frame, SealKind, is_sealed, proves_durable, read_frame};
use crate::encryption::FileCipher;
use crate::error::{Error, ErrorKind, Result};
use crate::files::{self, LogFile};
use crate::ids::Lsn;
use crate::known::Known;
use crate::record::Record;
use crate::storage::Storage;

/// A file that is being written while it is read may look as if a group in its middle were missing. Another look
/// settles that.
const REREADS: u8 = 2;

/// Reads a log without taking it over: for backup, verification and followers.
///
/// Yields what is durable in folder `dir` from record `from` on, up to the end as it is when the last file is read.
///
/// # Errors
/// [`ErrorKind::Corrupt`] if `from` was truncated away, or was confirmed and is not there any more.
/// [`ErrorKind::NotFound`] if the log's writer truncated it meanwhile.
pub fn read(storage: Arc<dyn Storage>, dir: &str, from: Lsn) -> Result<LogReader> {
    LogReader::new(storage, dir, from, false)
}

/// An iterator over the records of a log. Ends for good after the first error.
#[derive(Debug)]
pub struct LogReader {
    storage: Arc<dyn Storage>,
    dir: String,
    /// Whether the last file is to be closed for any other writer.
    take_over: bool,
    from: Lsn,
    /// The record that must come next.
    expected: Lsn,
    /// Files still to be read.
    ahead: VecDeque<LogFile>,
    /// Files not to be read, and those read already.
    known: Vec<LogFile>,
    /// The last file, by number, once no other writer can add to it.
    closed: Option<Closed>,
    current: Option<OpenFile>,
    tail: Option<BadTail>,
    torn: Vec<String>,
    known_of: Known,
    chain: Chain,
    state: State,
}

/// What the files read so far say of those that come.
#[derive(Debug, Default)]
struct Chain {
    /// The last file that was opened, with its salt and its first record.
    last: Option<(LogFile, u64, Lsn)>,
    /// The salt of the last file before it that has a record.
    before: Option<u64>,
    /// The file that says, with its end mark, that another one follows.
    followed: Option<String>,
}

impl Chain {
    /// The salt of the file with the record before `next`, if that file was read.
    fn salt_before(&self, next: Lsn) -> Option<u64> {
        match &self.last {
            Some((_, salt, first)) if *first < next => Some(*salt),
            _ => self.before,
        }
    }

    fn open(&mut self, file: &LogFile, header: &FileHeader) {
        self.before = self.salt_before(header.first_lsn);
        self.last = Some((file.clone(), header.salt, header.first_lsn));
        self.followed = None;
    }
}

/// A file by number, and all it will ever hold.
type Closed = (u64, Bytes);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Reading,
    Finished,
    Failed,
}

#[derive(Debug)]
struct OpenFile {
    path: String,
    bytes: Bytes,
    salt: u64,
    cipher: Option<FileCipher>,
    offset: usize,
    rereads: u8,
    /// Where the writer of the next file took over: what follows was written by one that had been replaced.
    end: Option<Lsn>,
}

/// A frame that is not sound, until it is known what follows.
#[derive(Debug)]
struct BadTail {
    error: Error,
    was_durable: bool,
}

impl LogReader {
    pub(crate) fn new(storage: Arc<dyn Storage>, dir: &str, from: Lsn, take_over: bool) -> Result<Self> {
        let from = from.max(Lsn::FIRST);
        if from >= Lsn::BEYOND {
            return Err(Error::new(
                ErrorKind::Corrupt,
                format!("record {from} of {dir} is needed, which no log reaches"),
            ));
        }
        let (mut known, closed) = match take_over {
            true => close_last(storage.as_ref(), dir)?,
            false => (files::list(storage.as_ref(), dir)?, None),
        };
        let (start, expected) = find_start(storage.as_ref(), dir, &mut known, from)?;
        let ahead = known.split_off(start).into();
        let (dir, state) = (dir.to_owned(), State::Reading);
        let (current, tail, torn, known_of, chain) = (None, None, Vec::new(), Known::default(), Chain::default());
        let reading = Self {
            storage,
            dir,
            take_over,
            from,
            expected,
            ahead,
            known,
            closed,
            current,
            tail,
            torn,
            known_of,
            chain,
            state,
        };
        Ok(reading)
    }

    /// The same reader, for which a log that is not what is known of it is [`ErrorKind::Corrupt`].
    #[must_use]
    pub fn knowing(mut self, known: Known) -> Self {
        self.known_of = known;
        self
    }

    /// Where files read so far end within a record, naming file and byte: what a crash leaves. Nothing that was
    /// confirmed is missing there, but damage to the last group of a file can look the same.
    pub fn torn(&self) -> &[String] {
        &self.torn
    }

    /// Whether everything was read, without an error.
    pub(crate) fn is_finished(&self) -> bool {
        self.state == State::Finished
    }

    /// The salt of the file with the last record; 0 if no such file was read.
    pub(crate) fn last_salt(&self) -> u64 {
        self.chain.salt_before(self.expected).unwrap_or(0)
    }

    /// The storage, all files of the log, and the number the next record gets. Only when finished.
    pub(crate) fn into_parts(self) -> (Arc<dyn Storage>, String, Vec<LogFile>, Lsn) {
        (self.storage, self.dir, self.known, self.expected)
    }

    fn next_record(&mut self) -> Result<Option<Record>> {
        loop {
            let Some(file) = &mut self.current else {
                if self.open_next()? {
                    continue;
                }
                return Ok(None);
            };
            if file.end.is_some_and(|end| self.expected >= end) {
                // What a replaced writer added is read by nobody. Half of something is a torn end here, too.
                let odd = match read_frame(&file.bytes, file.offset, file.salt) {
                    Frame::Bad(why) => {
                        Some((file.offset, format!("what follows the last record cannot be read, {why}")))
                    }
                    Frame::Seal(_, next, _) if file.bytes[next..].iter().any(|byte| *byte != 0) => {
                        Some((next, "something follows its end mark".to_owned()))
                    }
                    _ => None,
                };
                let odd = odd.map(|(at, what)| Error::corrupt(&file.path, at as u64, what).message().to_owned());
                self.torn.extend(odd);
                self.current = None;
                continue;
            }
            match read_frame(&file.bytes, file.offset, file.salt) {
                Frame::Record(record, next) => {
                    let lsn = record.header.lsn;
                    if lsn != self.expected {
                        return Err(out_of_order(file, lsn, self.expected));
                    }
                    let at = std::mem::replace(&mut file.offset, next) as u64;
                    self.expected = lsn.next();
                    if lsn >= self.from {
                        let place = |error: Error| {
                            let message = format!("{} at byte {at}: {}", file.path, error.message());
                            Error::new(error.kind(), message).with_source(error)
                        };
                        return record.unpack(file.cipher.as_ref()).map(Some).map_err(place);
                    }
                }
                Frame::Seal(lsn, next, kind) => {
                    if lsn != self.expected {
                        return Err(out_of_order(file, lsn, self.expected));
                    }
                    if file.bytes[next..].iter().any(|byte| *byte != 0) {
                        return Err(Error::corrupt(&file.path, next as u64, "something follows its end mark"));
                    }
                    self.chain.followed = (kind == SealKind::Followed).then(|| file.path.clone());
                    self.current = None;
                }
                Frame::Unwritten => self.current = None,
                Frame::Bad(_) if !self.take_over && file.rereads < REREADS => {
                    file.rereads += 1;
                    file.bytes = self.storage.read_append(&file.path)?;
                }
                Frame::Bad(why) => {
                    let missing = self.expected;
                    let what = format!("record {missing} cannot be read, {why}");
                    let error = Error::corrupt(&file.path, file.offset as u64, what);
                    let was_durable = proves_durable(&file.bytes, file.offset, file.salt, missing);
                    self.tail = Some(BadTail { error, was_durable });
                    self.current = None;
                }
            }
        }
    }

    /// Opens the next file that was ever started. `false` if the log ends here.
    fn open_next(&mut self) -> Result<bool> {
        loop {
            while let Some(mut file) = self.ahead.pop_front() {
                let bytes = self.load(&file)?;
                let header = files::header(&file.path, file.number, &bytes)?;
                file.first_lsn = header.map(|header| header.first_lsn);
                let path = file.path.clone();
                self.known.push(file.clone());
                let Some(header) = header else { continue };
                if header.first_lsn != self.expected {
                    return Err(self.gap(&path, header.first_lsn));
                }
                self.known_of.check_file(&path, &header, self.chain.salt_before(header.first_lsn))?;
                self.chain.open(&file, &header);
                self.torn.extend(self.tail.take().map(|tail| tail.error.message().to_owned()));
                let cipher = files::cipher(self.storage.as_ref(), &path, &header)?;
                let (salt, offset, end) = (header.salt, header.len(), self.taken_over_at(header.epoch)?);
                self.current = Some(OpenFile { path, bytes, salt, cipher, offset, rereads: 0, end });
                return Ok(true);
            }
            if !self.find_newer()? {
                return self.check_end().map(|()| false);
            }
        }
    }

    /// The first record of the next file, if its writer says that it took over there from the one of `epoch`.
    fn taken_over_at(&self, epoch: u64) -> Result<Option<Lsn>> {
        for file in &self.ahead {
            if let Some(header) = files::probe(self.storage.as_ref(), file)? {
                return Ok((header.epoch > epoch).then_some(header.first_lsn));
            }
        }
        Ok(None)
    }

    /// The content of a file. When taking over, the last one is closed for whoever may still hold it.
    fn load(&mut self, file: &LogFile) -> Result<Bytes> {
        match self.closed.take_if(|(number, _)| *number == file.number) {
            Some((_, bytes)) => Ok(bytes),
            None if self.take_over && self.ahead.is_empty() => close(self.storage.as_ref(), file),
            None => self.storage.read_append(&file.path),
        }
    }

    /// A writer that was still alive may have begun another file before its last one was closed.
    fn find_newer(&mut self) -> Result<bool> {
        if self.take_over
            && let Some(last) = self.known.last()
        {
            self.ahead.extend(files::successor(self.storage.as_ref(), &self.dir, last)?);
        }
        if self.ahead.is_empty() && self.chain.followed.is_some() {
            self.find_followers()?;
        }
        Ok(!self.ahead.is_empty())
    }

    /// The files behind the last one, which says that there is one. It was begun after the folder was listed, or it
    /// is missing.
    fn find_followers(&mut self) -> Result<()> {
        let last = self.known.last().map_or(0, |last| last.number);
        let later = files::list(self.storage.as_ref(), &self.dir)?.into_iter().filter(|file| file.number > last);
        self.ahead.extend(later);
        match &self.chain.followed {
            Some(path) if self.ahead.is_empty() => {
                let message = format!("{path} says that another file follows, which is missing or empty");
                Err(Error::new(ErrorKind::Corrupt, message))
            }
            _ => Ok(()),
        }
    }

    fn check_end(&mut self) -> Result<()> {
        match self.tail.take() {
            Some(tail) if tail.was_durable => return Err(tail.error),
            tail => self.torn.extend(tail.map(|tail| tail.error.message().to_owned())),
        }
        if self.expected < self.from {
            let message =
                format!("{} ends before record {}, but {} was durable", self.dir, self.expected, self.from.0 - 1);
            return Err(Error::new(ErrorKind::Corrupt, message));
        }
        let newest = self.chain.last.as_ref().map_or(0, |(file, ..)| file.number);
        self.known_of.check_end(&self.dir, newest, self.expected)?;
        self.state = State::Finished;
        Ok(())
    }

    /// The error for a file that does not begin where the one before it ended.
    fn gap(&mut self, path: &str, first: Lsn) -> Error {
        let expected = self.expected;
        match self.tail.take() {
            Some(tail) if first > expected => tail.error,
            _ => Error::corrupt(path, 24, format!("it begins with record {first}, but {expected} comes next")),
        }
    }
}

impl Iterator for LogReader {
    type Item = Result<Record>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.state != State::Reading {
            return None;
        }
        let record = self.next_record();
        if record.is_err() {
            self.state = State::Failed;
        }
        record.transpose()
    }
}

/// Closes the last file before anything is read: a writer that is still alive must not add records faster than they
/// are replayed. Returns all files, and the content of the last one.
fn close_last(storage: &dyn Storage, dir: &str) -> Result<(Vec<LogFile>, Option<Closed>)> {
    let mut files = files::list(storage, dir)?;
    let mut closed = None;
    while let Some(last) = files.last() {
        let next = files::successor(storage, dir, last)?;
        match (next, &closed) {
            (Some(next), _) => {
                files.push(next);
                closed = None;
            }
            (None, Some(_)) => break,
            (None, None) => closed = Some((last.number, close(storage, last)?)),
        }
    }
    Ok((files, closed))
}

/// All a file will ever hold. One that its writer has ended needs nothing more.
fn close(storage: &dyn Storage, file: &LogFile) -> Result<Bytes> {
    let bytes = storage.read_append(&file.path)?;
    let header = files::header(&file.path, file.number, &bytes)?;
    if header.is_some_and(|header| is_sealed(&bytes, header.len(), header.salt)) {
        return Ok(bytes);
    }
    storage.seal_append(&file.path)
}

/// The newest file that begins at or before `from`, and the record it begins with. Without any started file, the end
/// of the list and `from` itself.
fn find_start(storage: &dyn Storage, dir: &str, files: &mut [LogFile], from: Lsn) -> Result<(usize, Lsn)> {
    let mut oldest = None;
    for (index, file) in files.iter_mut().enumerate().rev() {
        let Some(header) = files::probe(storage, file)? else {
            continue;
        };
        file.first_lsn = Some(header.first_lsn);
        if header.first_lsn <= from {
            return Ok((index, header.first_lsn));
        }
        oldest = Some(header.first_lsn);
    }
    match oldest {
        None => Ok((0, from)),
        Some(first) => {
            let message = format!("{dir} begins with record {first}, but {from} is needed: a file is missing");
            Err(Error::new(ErrorKind::Corrupt, message))
        }
    }
}

fn out_of_order(file: &OpenFile, found: Lsn, expected: Lsn) -> Error {
    Error::corrupt(&file.path, file.offset as u64, format!("record {found} stands where {expected} belongs"))
}
