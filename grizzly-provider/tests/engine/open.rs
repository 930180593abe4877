//! Opening and closing: what survives, and what is refused by name.

use grizzly_provider::{ErrorKind, Grizzly, Result, Settings};

use crate::tables::{definition, manual, pairs, rows};

fn folder() -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let url = folder.path().join("db").to_string_lossy().into_owned();
    (folder, url)
}

fn open(url: &str) -> Result<Grizzly> {
    Grizzly::builder(url).settings(manual()).open()
}

#[test]
fn everything_is_there_after_a_close_and_after_a_crash() -> Result<()> {
    let (_folder, url) = folder();
    let db = open(&url)?;
    db.create_table(definition("t", 3), false)?;
    db.put("t", rows((0..100).map(|id| (id, 0))))?;
    db.flush()?;
    db.put("t", rows((50..150).map(|id| (id, 1))))?;
    let expected = pairs(&db.snapshot(), "t", None)?;
    drop(db);
    let db = open(&url)?;
    assert_eq!(pairs(&db.snapshot(), "t", None)?, expected);
    assert!(db.verify()?.problems.is_empty());
    db.compact("t")?;
    db.put("t", rows([(1_000, 5)]))?;
    db.close()?;
    assert_eq!(db.put("t", rows([(1, 1)])).map_err(|error| error.kind()), Err(ErrorKind::Closed));
    drop(db);
    let db = open(&url)?;
    assert_eq!(pairs(&db.snapshot(), "t", None)?.len(), expected.len() + 1);
    assert!(db.verify()?.problems.is_empty());
    Ok(())
}

#[test]
fn a_second_writer_is_kept_out() -> Result<()> {
    let (_folder, url) = folder();
    let db = open(&url)?;
    let second = open(&url).map(|_| ()).map_err(|error| error.kind());
    assert_eq!(second, Err(ErrorKind::Unavailable));
    db.close()?;
    open(&url).map(|_| ())
}

#[test]
fn a_folder_of_something_else_is_left_alone() {
    let (folder, _) = folder();
    let file = folder.path().join("letter.txt");
    std::fs::write(&file, "dear reader").expect("the folder is writable");
    let error = open(&folder.path().to_string_lossy()).map(|_| ()).map_err(|error| (error.kind(), error.to_string()));
    assert!(matches!(&error, Err((ErrorKind::Invalid, message)) if message.contains("letter.txt")), "{error:?}");
    assert!(file.exists());
    let settings = Settings { create: false, ..manual() };
    let missing = Grizzly::builder(&folder.path().join("nothing").to_string_lossy()).settings(settings).open();
    assert_eq!(missing.map(|_| ()).map_err(|error| error.kind()), Err(ErrorKind::NotFound));
}

#[test]
fn a_flipped_bit_anywhere_in_a_segment_is_found_and_named() -> Result<()> {
    let (folder, url) = folder();
    let db = open(&url)?;
    db.create_table(definition("t", 1), false)?;
    db.put("t", rows((0..5_000).map(|id| (id, id % 3))))?;
    db.flush()?;
    drop(db);
    let data = folder.path().join("db/data");
    let files: Vec<_> = std::fs::read_dir(&data).expect("there is data").flatten().map(|entry| entry.path()).collect();
    assert!(files.len() >= 2, "a segment and its primary key");
    for file in files {
        let whole = std::fs::read(&file).expect("it can be read");
        for at in [whole.len() / 5, whole.len() / 2, whole.len() - 10] {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x10;
            std::fs::write(&file, &damaged).expect("it can be written");
            let found = match open(&url) {
                Err(error) => error.kind() == ErrorKind::Corrupt,
                Ok(db) => !db.verify()?.problems.is_empty(),
            };
            assert!(found, "{} byte {at}", file.display());
        }
        std::fs::write(&file, &whole).expect("it can be written");
    }
    assert!(open(&url)?.verify()?.problems.is_empty());
    Ok(())
}

#[test]
fn bad_definitions_and_rows_are_refused_by_name() -> Result<()> {
    let db = Grizzly::open("memory://")?;
    let mut no_such_key = definition("t", 1);
    no_such_key.primary_key = vec!["nope".into()];
    let error = db.create_table(no_such_key, false).map_err(|error| (error.kind(), error.to_string()));
    assert!(matches!(&error, Err((ErrorKind::NotFound, message)) if message.contains("'nope'")), "{error:?}");
    db.create_table(definition("t", 1), false)?;
    assert_eq!(db.create_table(definition("t", 1), false).map_err(|e| e.kind()), Err(ErrorKind::AlreadyExists));
    assert!(!db.create_table(definition("t", 1), true)?);
    let mut transaction = db.begin()?;
    let two_columns = rows([(1, 1)]).project(&[0, 1]).expect("two of three columns");
    assert_eq!(transaction.insert("t", two_columns).map_err(|error| error.kind()), Err(ErrorKind::Invalid));
    assert_eq!(transaction.insert("u", rows([(1, 1)])).map_err(|error| error.kind()), Err(ErrorKind::NotFound));
    Ok(())
}
