//! Folders that earlier versions wrote open, read and go on.

use std::path::Path;

use grizzly_provider::{Grizzly, Result};

use crate::tables::{copy_folder, definition, key, manual, pairs, rows};

/// Format 1: files do not say what they are. Two segments with index runs and a list of ended rows, and records in the
/// log of a process that was killed; without the zeros at the end of log files.
#[test]
fn format_1_opens_and_goes_on() -> Result<()> {
    let place = tempfile::tempdir().expect("a temporary folder");
    let folder = place.path().join("db");
    copy_folder(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/format-1")), &folder);
    let open = || Grizzly::builder(&folder.to_string_lossy()).settings(manual()).open();
    let group = |id: i64| match id {
        590.. => 200,
        400..590 => 100,
        _ => id % 7,
    };
    let mut expected: Vec<(i64, i64)> = (0..610).map(|id| (id, group(id))).collect();
    let check = |db: &Grizzly, expected: &[(i64, i64)]| -> Result<()> {
        assert_eq!(pairs(&db.snapshot(), "t", None)?, expected);
        assert_eq!(db.verify()?.problems, Vec::<String>::new());
        assert!(db.get("t", &key(450))?.is_some() && db.get("t", &key(-1))?.is_none());
        Ok(())
    };
    let db = open()?;
    check(&db, &expected)?;
    db.put("t", rows([(3, 33), (700, 1)]))?;
    expected[3].1 = 33;
    expected.push((700, 1));
    db.create_table(definition("new", 1), false)?;
    check(&db, &expected)?;
    drop(db);
    let db = open()?;
    check(&db, &expected)?;
    db.flush()?;
    check(&db, &expected)?;
    db.close()?;
    let db = open()?;
    check(&db, &expected)?;
    db.compact("t")?;
    check(&db, &expected)?;
    db.close()?;
    check(&open()?, &expected)
}
