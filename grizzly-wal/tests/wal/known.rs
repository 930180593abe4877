//! Files of a log that are missing, cut off or exchanged, where what is left is sound in itself.

use std::sync::Arc;

use grizzly_wal::storage::Storage;
use grizzly_wal::{ErrorKind, FsStorage, Known, Lsn, NewRecord, Record, Result, Wal, WalOptions, check_log};

const DIR: &str = "log";
const OWNER: u128 = 77;

struct Place {
    folder: tempfile::TempDir,
    storage: Arc<dyn Storage>,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let storage = Arc::new(FsStorage::new(folder.path()).expect("a folder can be used"));
        Self { folder, storage }
    }

    fn file(&self, number: u64) -> std::path::PathBuf {
        self.folder.path().join(format!("{DIR}/{number:010}.log"))
    }

    fn open(&self, owner: Option<u128>) -> Result<Arc<Wal>> {
        let options = WalOptions { owner, segment_bytes: 1 << 20, ..WalOptions::default() };
        grizzly_wal::open(Arc::clone(&self.storage), DIR, Lsn(1), options)?.into_records()
    }

    fn check(&self, known: Known) -> Option<String> {
        check_log(&self.storage, DIR, Lsn(1), Lsn(1), known).expect("the log can be read").problem
    }

    fn reopen(&self, known: Known) -> Result<()> {
        let options = WalOptions { owner: known.owner, ..WalOptions::default() };
        let mut replay = grizzly_wal::open(Arc::clone(&self.storage), DIR, Lsn(1), options)?.knowing(known);
        replay.try_for_each(|record| record.map(drop))
    }
}

trait IntoRecords {
    fn into_records(self) -> Result<Arc<Wal>>;
}

impl IntoRecords for grizzly_wal::Replay {
    fn into_records(mut self) -> Result<Arc<Wal>> {
        self.by_ref().collect::<Result<Vec<Record>>>()?;
        Ok(Arc::new(self.into_writer()?))
    }
}

fn append(wal: &Wal, records: u64) -> Result<()> {
    for _ in 0..records {
        let payload = b"payload".as_slice().into();
        let lsn = wal.append(NewRecord { txn: 1, commit_ts: 1, kind: 1, payload })?;
        wal.wait_durable(lsn)?;
    }
    Ok(())
}

/// A log of three files with 5, 5 and 5 records, the last of them open or closed; and what is known of it.
fn three_files(place: &Place, closed: bool) -> Result<Known> {
    let wal = place.open(Some(OWNER))?;
    append(&wal, 5)?;
    for _ in 0..2 {
        wal.rotate()?;
        append(&wal, 5)?;
    }
    let known = wal.known();
    assert_eq!(known, Known { owner: Some(OWNER), file: 3, last: Lsn(15) });
    match closed {
        true => wal.close()?,
        false => std::mem::forget(wal),
    }
    Ok(known)
}

fn refused(place: &Place, known: Known, naming: &str) {
    let problem = place.check(known).expect("it is noticed when the log is read");
    let error = place.reopen(known).expect_err("it is noticed when the log is opened");
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    for text in [problem, error.to_string()] {
        assert!(text.contains(naming), "{text}");
    }
}

#[test]
fn a_missing_newest_file_is_noticed_by_the_one_before_it() -> Result<()> {
    for closed in [false, true] {
        let place = Place::new();
        three_files(&place, closed)?;
        assert_eq!(place.check(Known::default()), None);
        std::fs::remove_file(place.file(3)).expect("it is there");
        refused(&place, Known::default(), "0000000002.log");
        std::fs::write(place.file(3), vec![0; 4096]).expect("it can be written");
        refused(&place, Known::default(), "0000000002.log");
    }
    Ok(())
}

#[test]
fn a_missing_only_file_is_noticed_by_whoever_knows_of_it() -> Result<()> {
    let place = Place::new();
    let wal = place.open(Some(OWNER))?;
    append(&wal, 5)?;
    let known = wal.known();
    wal.close()?;
    assert_eq!(place.check(known), None);
    std::fs::remove_file(place.file(1)).expect("it is there");
    assert_eq!(place.check(Known::default()), None, "an empty log is a log");
    refused(&place, known, "0000000001.log");
    Ok(())
}

#[test]
fn an_end_that_was_cut_off_or_zeroed_is_noticed_by_whoever_knows_how_far_it_was() -> Result<()> {
    for closed in [false, true] {
        for zeroed in [false, true] {
            let place = Place::new();
            let known = three_files(&place, closed)?;
            let whole = std::fs::read(place.file(3)).expect("it is there");
            // A header of 128 bytes, then frames of 56: three of five stay.
            let kept = 128 + 3 * 56;
            let mut cut = whole[..kept].to_vec();
            if zeroed {
                cut.resize(whole.len(), 0);
            }
            std::fs::write(place.file(3), cut).expect("it can be written");
            assert_eq!(place.check(Known::default()), None, "it looks like the end of a log");
            refused(&place, known, "15 was durable");
        }
    }
    Ok(())
}

#[test]
fn files_of_another_log_and_of_another_past_are_refused() -> Result<()> {
    let (ours, other, again) = (Place::new(), Place::new(), Place::new());
    let known = three_files(&ours, true)?;
    let wal = other.open(Some(OWNER + 1))?;
    append(&wal, 5)?;
    wal.rotate()?;
    append(&wal, 5)?;
    wal.rotate()?;
    append(&wal, 5)?;
    wal.close()?;
    three_files(&again, true)?;
    for number in 1..=3 {
        let mine = std::fs::read(ours.file(number)).expect("it is there");
        // Of another log.
        std::fs::copy(other.file(number), ours.file(number)).expect("it can be copied");
        refused(&ours, known, &format!("{number:010}.log"));
        // Of the same log, as it went on elsewhere.
        std::fs::copy(again.file(number), ours.file(number)).expect("it can be copied");
        refused(&ours, known, "the file before it is not the one");
        std::fs::write(ours.file(number), mine).expect("it can be written");
        assert_eq!(ours.check(known), None);
    }
    Ok(())
}

#[test]
fn a_file_without_an_owner_passes_before_those_that_have_one_only() -> Result<()> {
    let place = Place::new();
    let wal = place.open(None)?;
    append(&wal, 3)?;
    wal.close()?;
    let old = std::fs::read(place.file(1)).expect("it is there");
    assert_eq!(old[8], 1, "the version that says no owner");
    let wal = place.open(Some(OWNER))?;
    append(&wal, 3)?;
    let known = wal.known();
    wal.close()?;
    assert_eq!(place.check(known), None);
    std::fs::write(place.file(2), &old).expect("it can be written");
    let problem = place.check(known);
    assert!(problem.is_some_and(|problem| problem.contains("0000000002.log")));
    Ok(())
}

#[test]
fn a_crash_between_beginning_a_file_and_ending_the_one_before_loses_nothing() -> Result<()> {
    let place = Place::new();
    let known = three_files(&place, true)?;
    let second = std::fs::read(place.file(2)).expect("it is there");
    let end = 128 + 5 * 56;
    assert!(second[end..end + 48].iter().any(|byte| *byte != 0), "an end mark");
    std::fs::write(place.file(2), &second[..end]).expect("it can be written");
    assert_eq!(place.check(known), None);
    place.reopen(known)
}

#[test]
fn a_followed_reader_goes_on_into_files_that_were_begun_after_it_listed_them() -> Result<()> {
    let place = Place::new();
    let wal = place.open(Some(OWNER))?;
    append(&wal, 2)?;
    let mut reader = grizzly_wal::read(Arc::clone(&place.storage), DIR, Lsn(1))?;
    wal.rotate()?;
    append(&wal, 2)?;
    wal.close()?;
    assert_eq!(reader.by_ref().collect::<Result<Vec<_>>>()?.len(), 4);
    Ok(())
}
