//! A small database with every kind of file, column and record, as bytes.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryViewArray, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int32Array, Int64Array,
    ListArray, RecordBatch, StringArray, StringViewArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{Int32Type, Schema};
use grizzly_provider::access::{IndexDefinition, TableDefinition};
use grizzly_provider::{BackupKind, Grizzly, Result, Settings};
use grizzly_wal::{MemoryStorage, PutMode, Storage};

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Manifest,
    Segment,
    Run,
    Ended,
    Log,
    /// What one process leaves for others: leases, positions of backups.
    Word,
}

impl Kind {
    pub(crate) fn of(path: &str) -> Self {
        match path {
            _ if path.ends_with(".seg") => Self::Segment,
            _ if path.ends_with(".idx") => Self::Run,
            _ if path.ends_with(".del") => Self::Ended,
            _ if path.ends_with(".log") => Self::Log,
            _ if path.starts_with("manifest/") => Self::Manifest,
            _ => Self::Word,
        }
    }
}

/// The files of a database, by path.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Files(pub(crate) BTreeMap<String, Vec<u8>>);

impl Files {
    pub(crate) fn of(storage: &dyn Storage) -> Self {
        let objects = storage.list("").expect("memory can be listed").into_iter().map(|object| object.path);
        let objects = objects.map(|path| (path.clone(), storage.get(&path).expect("it is there").to_vec()));
        let logs = storage.list_append("log").expect("memory can be listed").into_iter();
        let logs = logs.map(|path| (path.clone(), storage.read_append(&path).expect("it is there").to_vec()));
        Self(objects.chain(logs).collect())
    }

    pub(crate) fn of_folder(folder: &Path) -> Self {
        let mut files = BTreeMap::new();
        let mut folders = vec![folder.to_path_buf()];
        while let Some(next) = folders.pop() {
            for entry in std::fs::read_dir(&next).expect("it is a folder").flatten() {
                let path = entry.path();
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                let name = path.strip_prefix(folder).expect("it lies below").to_string_lossy().replace('\\', "/");
                drop(files.insert(name, std::fs::read(&path).expect("it can be read")));
            }
        }
        files.remove("LOCK");
        Self(files)
    }

    /// A storage with these files.
    pub(crate) fn storage(&self) -> Arc<dyn Storage> {
        let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
        for (path, bytes) in &self.0 {
            if path.ends_with(".log") {
                let mut file = storage.create_append(path, 0).expect("it is new");
                file.append(bytes).and_then(|()| file.sync()).expect("memory takes it");
            } else {
                storage.put(path, &[bytes.clone().into()], PutMode::Create).expect("memory takes it");
            }
        }
        storage
    }

    pub(crate) fn paths(&self, kind: Kind) -> Vec<String> {
        self.0.keys().filter(|path| Kind::of(path) == kind).cloned().collect()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.0.values().map(Vec::len).sum()
    }
}

pub(crate) fn settings() -> Settings {
    Settings { background: false, create: false, memory_bytes: 8 << 20, ..Settings::default() }
}

fn text(id: i64) -> String {
    format!("https://example.org/{}/{}?q={}", id % 11, id * 7919 % 1000, "abcdefgh".repeat(id as usize % 4))
}

/// Columns that are encoded in every way there is: runs, dictionaries, symbols, packed integers with exceptions, constants,
/// sequences, NULLs here and there, and types that stay as Arrow has them.
pub(crate) fn rows(ids: std::ops::Range<i64>) -> RecordBatch {
    let n = ids.clone();
    let each = || n.clone();
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("id", Arc::new(Int64Array::from_iter_values(each()))),
        ("grp", Arc::new(each().map(|id| (id % 13 != 0).then_some(id % 7)).collect::<Int64Array>())),
        ("name", Arc::new(each().map(|id| Some(format!("name {}", id % 5))).collect::<StringViewArray>())),
        ("url", Arc::new(each().map(|id| Some(text(id))).collect::<StringArray>())),
        ("price", Arc::new(each().map(|id| Some((id * 37 % 1000) as f64 / 100.0)).collect::<Float64Array>())),
        ("ok", Arc::new(each().map(|id| (id % 9 != 0).then_some(id % 3 == 0)).collect::<BooleanArray>())),
        (
            "at",
            Arc::new(TimestampMicrosecondArray::from_iter_values(
                each().map(|id| 1_700_000_000_000_000 + id * 999_983),
            )),
        ),
        ("day", Arc::new(each().map(|id| Some((id / 100) as i32)).collect::<Date32Array>())),
        (
            "odd",
            Arc::new(Int64Array::from_iter_values(each().map(|id| if id % 97 == 0 { 1 << 40 } else { id * 31 % 200 }))),
        ),
        ("one", Arc::new(Int32Array::from_iter_values(each().map(|_| 1)))),
        ("rare", Arc::new(each().map(|id| (id % 50 == 0).then_some(id as i32)).collect::<Int32Array>())),
        ("sum", Arc::new(Decimal128Array::from_iter_values(each().map(|id| i128::from(id * 100_003))))),
        ("raw", Arc::new(each().map(|id| Some(vec![id as u8; id as usize % 20])).collect::<BinaryViewArray>())),
        (
            "list",
            Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(
                each().map(|id| Some(vec![Some(id as i32); id as usize % 3])),
            )),
        ),
    ];
    RecordBatch::try_from_iter(columns).expect("columns of one length")
}

fn definition(name: &str, shards: u32) -> TableDefinition {
    let schema = rows(0..1).schema();
    let fields: Vec<_> = schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true)).collect();
    let index = |name: &str, columns: &[(&str, bool)], unique| IndexDefinition {
        name: name.into(),
        columns: columns.iter().map(|(column, descending)| ((*column).to_owned(), *descending)).collect(),
        unique,
    };
    TableDefinition {
        schema_name: "public".into(),
        name: name.into(),
        schema: Arc::new(Schema::new(fields)),
        primary_key: vec!["id".into()],
        shards,
        shard_by: vec![],
        defaults: vec![("grp".into(), "7".into())],
        indexes: vec![
            index("by_group", &[("grp", false), ("name", true)], false),
            index("by_at", &[("at", false)], true),
        ],
    }
}

fn delete(db: &Grizzly, table: &str, ids: impl IntoIterator<Item = i64>) -> Result<()> {
    let mut transaction = db.begin()?;
    for id in ids {
        let key: [ArrayRef; 1] = [Arc::new(Int64Array::from(vec![id]))];
        if let Some((row, _)) = transaction.find(table, &key)? {
            transaction.delete(table, &[row])?;
        }
    }
    transaction.commit()?.into_result().map(drop)
}

/// A database with all of that, closed; its segments have some `size` rows. `shift` is in the rows only.
pub(crate) fn build(shift: i64, size: i64) -> Result<Files> {
    let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
    let settings = Settings { create: true, ..settings() };
    let db = Grizzly::builder("memory://").settings(settings).storage(Arc::clone(&storage)).open()?;
    db.create_table(definition("t", 2), false)?;
    db.create_table(definition("u", 1), false)?;
    for first in [0, 1_000] {
        db.put("t", rows(first + shift..first + shift + size))?;
        db.flush()?;
    }
    db.put("u", rows(shift..shift + 30))?;
    delete(&db, "t", (shift..shift + size / 2).step_by(7))?;
    db.flush()?;
    let place: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
    db.backup_into(&place, BackupKind::Full, &mut |_, _| {})?;
    // From here on in the log: rows, ended rows, a definition, a merge, and a table that comes with its rows.
    db.put("t", rows(2_000 + shift..2_010 + shift))?;
    delete(&db, "t", (1_000 + shift..1_020 + shift).step_by(7))?;
    let by_day = IndexDefinition { name: "by_day".into(), columns: vec![("day".into(), false)], unique: false };
    db.create_index("u", by_day, false)?;
    db.put("u", rows(500 + shift..510 + shift))?;
    if size < 100 {
        db.compact("t")?;
    }
    db.put("t", rows(3_000 + shift..3_010 + shift))?;
    db.close()?;
    Ok(Files::of(storage.as_ref()))
}
