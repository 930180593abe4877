//! Files that were exchanged for others that are sound in themselves, that are missing, cut off or longer: never used,
//! and named.

use std::{
    fs,
    path::{Path, PathBuf},
};

use grizzly_provider::{Error, ErrorKind, Grizzly, Result, access::IndexDefinition};

use crate::tables::{copy_folder, definition, key, manual, pairs, rows};

fn open(folder: &Path) -> Result<Grizzly> {
    Grizzly::builder(&folder.to_string_lossy()).settings(manual()).open()
}

/// A database with two segments of a table, each with an index, a list of ended rows, and records in the log. `shift`
/// is in the rows, not in the names of files.
fn make(folder: &Path, shift: i64) -> Result<()> {
    let db = open(folder)?;
    db.create_table(definition("t", 1), false)?;
    let index = IndexDefinition { name: "by_group".into(), columns: vec![("grp".into(), false)], unique: false };
    db.create_index("t", index, false)?;
    for first in [0, 1_000] {
        db.put("t", rows((first..first + 300).map(|id| (id + shift, id % 7))))?;
        db.flush()?;
    }
    db.put("t", rows([(5 + shift, 1), (1_005 + shift, 1)]))?;
    db.flush()?;
    db.put("t", rows([(9_000 + shift, 1)]))?;
    db.create_table(definition("later", 1), false)?;
    db.close()
}

/// All files below a folder of a database.
fn files(folder: &Path, of: &str) -> Vec<PathBuf> {
    let mut files: Vec<_> =
        fs::read_dir(folder.join(of)).expect("it is a folder").flatten().map(|e| e.path()).collect();
    files.sort();
    files
}

/// Uses everything: the error that names what is wrong, if anything is noticed.
fn use_all(folder: &Path) -> Result<Vec<String>> {
    let db = open(folder)?;
    let report = db.verify()?;
    let read = || -> Result<()> {
        for (id, _) in pairs(&db.snapshot(), "t", None)? {
            if db.get("t", &key(id))?.is_none() {
                return Err(Error::new(ErrorKind::Internal, format!("row {id} is not found by its key")));
            }
        }
        Ok(())
    };
    match read() {
        Err(error) if error.kind() == ErrorKind::Corrupt => Ok([report.problems, vec![error.to_string()]].concat()),
        Err(error) => Err(error),
        Ok(()) => Ok(report.problems),
    }
}

/// Whether something is said about the file, and nothing wrong is read.
fn assert_noticed(folder: &Path, file: &Path, what: &str) {
    let name = file.file_name().expect("it has a name").to_string_lossy().into_owned();
    let said = match use_all(folder) {
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{name}, {what}: {error}");
            error.to_string()
        }
        Ok(problems) => problems.join("\n"),
    };
    assert!(said.contains(&name), "{name}, {what}: {said:?}");
}

#[test]
fn a_file_of_the_same_name_from_elsewhere_is_refused() -> Result<()> {
    let place = tempfile::tempdir().expect("a temporary folder");
    let (ours, other, past) = (place.path().join("ours"), place.path().join("other"), place.path().join("past"));
    make(&ours, 0)?;
    make(&other, 100)?;
    // The same database as it went on elsewhere, with files of the same names.
    copy_folder(&ours, &past);
    for (folder, shift) in [(&ours, 0), (&past, 50)] {
        let db = open(folder)?;
        db.put("t", rows((20_000..20_100).map(|id| (id + shift, 3))))?;
        db.put("t", rows([(7, 3 + shift)]))?;
        db.flush()?;
        db.close()?;
    }
    assert_eq!(use_all(&ours)?, Vec::<String>::new());
    let (mut exchanged, mut forked) = (0, 0);
    for file in files(&ours, "data") {
        let name = file.file_name().expect("it has a name");
        let mine = fs::read(&file).expect("it is there");
        for (elsewhere, count) in [(&other, &mut exchanged), (&past, &mut forked)] {
            let Ok(theirs) = fs::read(elsewhere.join("data").join(name)) else { continue };
            if theirs == mine {
                continue;
            }
            fs::write(&file, theirs).expect("it can be written");
            assert_noticed(&ours, &file, &elsewhere.to_string_lossy());
            *count += 1;
        }
        fs::write(&file, mine).expect("it can be written");
    }
    assert!(exchanged >= 9 && forked >= 4, "{exchanged} and {forked} files were exchanged");
    assert_eq!(use_all(&ours)?, Vec::<String>::new());
    Ok(())
}

#[test]
fn a_file_of_a_sibling_is_refused() -> Result<()> {
    let place = tempfile::tempdir().expect("a temporary folder");
    let folder = place.path().join("db");
    make(&folder, 0)?;
    let all = files(&folder, "data");
    let mut exchanged = 0;
    for file in &all {
        let mine = fs::read(file).expect("it is there");
        for sibling in all.iter().filter(|other| *other != file && other.extension() == file.extension()) {
            fs::copy(sibling, file).expect("it can be copied");
            assert_noticed(&folder, file, &format!("overwritten by {}", sibling.display()));
            exchanged += 1;
        }
        fs::write(file, mine).expect("it can be written");
    }
    assert!(exchanged >= 30, "{exchanged} files were exchanged");
    assert_eq!(use_all(&folder)?, Vec::<String>::new());
    Ok(())
}

#[test]
fn manifests_leases_and_logs_of_another_database_are_refused() -> Result<()> {
    for folder in ["manifest", "lease", "log"] {
        let place = tempfile::tempdir().expect("a temporary folder");
        let (ours, other) = (place.path().join("ours"), place.path().join("other"));
        make(&ours, 0)?;
        make(&other, 100)?;
        let newest = files(&ours, folder).pop().expect("there is one");
        let mine = fs::read(&newest).expect("it is there");
        let name = newest.file_name().expect("it has a name").to_owned();
        fs::copy(other.join(folder).join(&name), &newest).expect("it can be copied");
        let error = open(&ours).map(drop).expect_err("it is another database's");
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{folder}: {error}");
        fs::write(&newest, mine).expect("it can be written");
        assert_eq!(use_all(&ours)?, Vec::<String>::new(), "{folder}");
    }
    Ok(())
}

#[test]
fn bytes_at_the_end_of_a_file_are_seen_by_verify() -> Result<()> {
    let place = tempfile::tempdir().expect("a temporary folder");
    let folder = place.path().join("db");
    make(&folder, 0)?;
    let db = open(&folder)?;
    assert_eq!(db.verify()?.problems, Vec::<String>::new());
    for file in [files(&folder, "data"), files(&folder, "manifest"), files(&folder, "lease")].concat() {
        let whole = fs::read(&file).expect("it is there");
        fs::write(&file, [&whole[..], b"\0\0\0\0"].concat()).expect("it can be written");
        let problems = db.verify()?.problems.join("\n");
        let name = file.file_name().expect("it has a name").to_string_lossy().into_owned();
        assert!(problems.contains(&name), "{name}: {problems:?}");
        fs::write(&file, whole).expect("it can be written");
    }
    assert_eq!(db.verify()?.problems, Vec::<String>::new());
    Ok(())
}

/// What an open database sees, and what one sees that opens it.
fn assert_missed(open_now: &Grizzly, folder: &Path, what: &str) -> Result<()> {
    assert_ne!(open_now.verify()?.problems, Vec::<String>::new(), "{what}");
    let copied = folder.with_extension("copy");
    copy_folder(folder, &copied);
    let error = open(&copied).map(drop).expect_err(what);
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{what}: {error}");
    assert!(error.to_string().contains("log"), "{what}: {error}");
    fs::remove_dir_all(&copied).expect("it can be removed");
    Ok(())
}

#[test]
fn a_log_that_lacks_what_was_durable_is_refused() -> Result<()> {
    let place = tempfile::tempdir().expect("a temporary folder");
    let folder = place.path().join("db");
    make(&folder, 0)?;
    let db = open(&folder)?;
    for flushed in [false, true] {
        db.put("t", rows([(30_000, 1)]))?;
        if flushed {
            db.flush()?;
            db.put("t", rows([(30_001, 1)]))?;
        }
        let newest = files(&folder, "log").pop().expect("there is one");
        let whole = fs::read(&newest).expect("it is there");
        fs::remove_file(&newest).expect("it can be removed");
        assert_missed(&db, &folder, "the newest file was removed")?;
        fs::write(&newest, vec![0; whole.len()]).expect("it can be written");
        assert_missed(&db, &folder, "the newest file was zeroed")?;
        fs::write(&newest, &whole).expect("it can be written");
    }
    Ok(())
}

#[test]
fn an_end_that_is_cut_off_after_a_close_is_refused() -> Result<()> {
    let place = tempfile::tempdir().expect("a temporary folder");
    let folder = place.path().join("db");
    make(&folder, 0)?;
    let db = open(&folder)?;
    db.create_table(definition("latest", 1), false)?;
    db.close()?;
    let newest = files(&folder, "log").pop().expect("there is one");
    let whole = fs::read(&newest).expect("it is there");
    let used = whole.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    assert!(used > 128 + 48, "there is a record and an end mark");
    for zeroed in [false, true] {
        let mut cut = whole[..128].to_vec();
        if zeroed {
            cut.resize(whole.len(), 0);
        }
        fs::write(&newest, cut).expect("it can be written");
        let error = open(&folder).map(drop).expect_err("records are missing");
        assert!(error.kind() == ErrorKind::Corrupt && error.to_string().contains("was durable"), "{error}");
    }
    fs::write(&newest, &whole).expect("it can be written");
    assert_eq!(use_all(&folder)?, Vec::<String>::new());
    Ok(())
}
