//! Cases that are known: numbers at the ends of their ranges, names that are none, and frames that claim more than they hold.

use serde_json::{Value, json};

use crate::database::{Files, Kind};
use crate::forge::checksummed;
use crate::reading::{Sound, open, read_everything, small};

/// The newest manifest's path.
fn newest(files: &Files) -> String {
    files.paths(Kind::Manifest).pop().expect("there is a manifest")
}

fn with_manifest(sound: &Sound, change: impl FnOnce(&mut Value)) -> Files {
    let mut files = sound.files.clone();
    let path = newest(&files);
    let text = files.0[&path].clone();
    let mut manifest: Value = serde_json::from_slice(&text[..text.len() - 9]).expect("it is JSON");
    change(&mut manifest);
    files.0.insert(path, checksummed(manifest.to_string().as_bytes()));
    files
}

/// None of these is a database: it is refused, and by name.
fn refused(sound: &Sound, what: &str, files: &Files) {
    read_everything(sound, files, true, false);
    let error = open(files).err().map(|error| error.to_string());
    assert!(error.as_ref().is_some_and(|error| error.contains('\'') || error.contains("/")), "{what}: {error:?}");
}

/// Numbers of a manifest that overflowed where they were counted on, or stood for memory or columns that are not there.
pub(crate) fn numbers_of_manifests() {
    let sound = small();
    let absurd = || json!(u64::MAX);
    let changes: [(&str, Value); 12] = [
        ("/number", absurd()),
        ("/epoch", absurd()),
        ("/csn", absurd()),
        ("/replay_from", absurd()),
        ("/next_segment", json!(u32::MAX)),
        ("/log/lsn", absurd()),
        ("/catalog/next_table_id", absurd()),
        ("/catalog/version", absurd()),
        ("/catalog/tables/1/shards", json!(u32::MAX)),
        ("/catalog/tables/1/primary_key", json!([99])),
        ("/catalog/tables/1/indexes/1/columns", json!([0, 99])),
        ("/catalog/tables/1/indexes/1/descending", json!([])),
    ];
    for (field, value) in changes {
        let files = with_manifest(sound, |manifest| {
            *manifest.pointer_mut(field).expect("it is there") = value.clone();
        });
        refused(sound, field, &files);
    }
    for (id, epoch) in [(0xFFFF_0000_u64, 1), (1, u64::MAX)] {
        let files = with_manifest(sound, |manifest| {
            let entry = &mut manifest["tables"]["1"][0][0];
            (entry["id"], entry["epoch"]) = (id.into(), epoch.into());
        });
        refused(sound, "a segment", &files);
    }
}

/// A schema in which Arrow's decoder panics, and one that claims two gigabytes.
pub(crate) fn schemas() {
    let sound = small();
    for schema in ["ffffffff0000007f", "ffffffff10000000", "00000080", "ff", ""] {
        let files = with_manifest(sound, |manifest| manifest["catalog"]["tables"]["1"]["schema"] = schema.into());
        refused(sound, schema, &files);
    }
}

/// Files beside a database that are named like one of its own, with numbers that no database reaches.
pub(crate) fn names() {
    let sound = small();
    let odd = [
        "manifest/99999999999999999999-00000000000000000001.json",
        "manifest/18446744073709551615-18446744073709551615.json",
        "lease/18446744073709551615.json",
        "data/ffffffff.seg",
        "data/00000001.e18446744073709551615-4294967295.idx",
    ];
    for name in odd {
        let mut files = sound.files.clone();
        files.0.insert(name.to_owned(), b"{}".to_vec());
        read_everything(sound, &files, true, true);
    }
    // A manifest by its folder and not by its name is no database: it was looked for again and again, to the end of the stack.
    let mut files = Files::default();
    files.0.insert("manifest/x.json".to_owned(), b"{}".to_vec());
    read_everything(sound, &files, true, false);
    assert!(open(&files).is_err());
}

/// A lease that is good for an age is damage: whoever opens would wait for it.
pub(crate) fn leases() {
    let sound = small();
    let path = sound.files.0.keys().rfind(|path| path.starts_with("lease/")).cloned().expect("there is a lease");
    let text = sound.files.0[&path].clone();
    let lease: Value = serde_json::from_slice(&text[..text.len() - 9]).expect("it is JSON");
    for (field, value) in [("millis", u64::MAX), ("millis", 1 << 40), ("renewal", u64::MAX)] {
        let mut lease = lease.clone();
        (lease["released"], lease[field]) = (false.into(), value.into());
        let mut files = sound.files.clone();
        files.0.insert(path.clone(), checksummed(lease.to_string().as_bytes()));
        refused(sound, field, &files);
    }
}
