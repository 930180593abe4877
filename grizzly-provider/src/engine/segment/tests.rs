//! Whole segments: built, written, opened, searched, and damaged in every place.

#![expect(clippy::disallowed_types, reason = "tests run beside what they test")]

use std::collections::{HashMap, HashSet};
use std::error::Error as StdError;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use arrow::array::{
    Array, ArrayRef, Date32Array, Decimal128Array, Int64Array, ListArray, RecordBatch, StringArray, StringViewArray,
    UInt64Array,
};
use arrow::buffer::BooleanBuffer;
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Int32Type, Schema, SchemaRef};
use bytes::Bytes;
use proptest::prelude::*;

use super::container::VerifyReport;
use super::predicate::{evaluate, evaluate_batch};
use super::zone_map::{Verdict, may_match};
use super::*;
use crate::access::{ColumnTest, CompareOp, Predicate};

type AnyError = Box<dyn StdError + Send + Sync>;

/// Files in memory, counting reads.
#[derive(Debug, Default)]
struct Memory {
    files: Mutex<HashMap<String, Bytes>>,
    reads: AtomicU64,
}

impl Memory {
    fn put(&self, path: &str, bytes: Vec<u8>) {
        self.files.lock().expect("no test panics while holding it").insert(path.to_owned(), Bytes::from(bytes));
    }

    fn get(&self, path: &str) -> Result<Bytes, AnyError> {
        let files = self.files.lock().map_err(|_| "poisoned")?;
        files.get(path).cloned().ok_or_else(|| format!("no file {path}").into())
    }
}

impl BlobRead for Memory {
    fn get_range(&self, path: &str, range: Range<u64>) -> Result<Bytes, AnyError> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        let bytes = self.get(path)?;
        let range = range.start as usize..range.end as usize;
        if range.end > bytes.len() { Err("out of range".into()) } else { Ok(bytes.slice(range)) }
    }

    fn size(&self, path: &str) -> Result<u64, AnyError> {
        Ok(self.get(path)?.len() as u64)
    }
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("name", DataType::Utf8View, true),
        Field::new("price", DataType::Decimal128(15, 2), true),
        Field::new("shipped", DataType::Date32, true),
        Field::new("arrived", DataType::Date32, true),
        Field::new("tags", DataType::List(Arc::new(Field::new("item", DataType::Int32, true))), true),
        Field::new("created", DataType::UInt64, false),
    ]))
}

/// `rows` rows from number `first` on; a value of a row depends on its number only.
fn rows(first: i64, rows: usize) -> RecordBatch {
    let numbers = || (first..).take(rows);
    let tags = numbers().map(|n| (n % 5 != 0).then(|| vec![Some(n as i32), None]));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter_values(numbers())),
        Arc::new(StringViewArray::from_iter(
            numbers().map(|n| (n % 11 != 0).then(|| format!("customer {}", n % 1_000))),
        )),
        Arc::new(
            Decimal128Array::from_iter(numbers().map(|n| (n % 13 != 0).then_some(i128::from(n * 7_919 % 100_000))))
                .with_precision_and_scale(15, 2)
                .expect("fits"),
        ),
        Arc::new(Date32Array::from_iter(numbers().map(|n| (n % 17 != 0).then_some((n * 31 % 2_000) as i32)))),
        Arc::new(Date32Array::from_iter(numbers().map(|n| (n % 19 != 0).then_some((n * 37 % 2_000) as i32)))),
        Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(tags)),
        Arc::new(UInt64Array::from(vec![42; rows])),
    ];
    RecordBatch::try_new(schema(), columns).expect("columns of the schema")
}

fn built(batches: &[RecordBatch], threads: usize) -> BuiltSegment {
    let mut builder = SegmentBuilder::new(schema()).with_threads(threads);
    batches.iter().for_each(|batch| builder.push(batch.clone()).expect("rows of the schema"));
    builder.finish().expect("builds")
}

fn opened(built: &BuiltSegment, cache: u64) -> (Arc<Memory>, SegmentFile) {
    let store = Arc::new(Memory::default());
    store.put("seg", built.parts.concat());
    let cache = Arc::new(ChunkCache::new(cache));
    let file = SegmentFile::open(Arc::clone(&store) as Arc<dyn BlobRead>, "seg", schema(), cache).expect("opens");
    (store, file)
}

fn read_all(file: &SegmentFile) -> Result<RecordBatch> {
    let chunks: Vec<RecordBatch> = (0..file.chunks())
        .map(|chunk| {
            let column = |(index, field): (usize, &Arc<Field>)| file.column(chunk, index)?.decode(field);
            let columns = file.schema().fields().iter().enumerate().map(column).collect::<Result<_>>()?;
            Ok(RecordBatch::try_new(Arc::clone(file.schema()), columns)?)
        })
        .collect::<Result<_>>()?;
    Ok(concat_batches(file.schema(), &chunks)?)
}

#[test]
fn rows_come_back_whatever_batches_they_came_in() -> Result<()> {
    let batches = [rows(0, 100_000), rows(100_000, 1), rows(100_001, 0), rows(100_001, 65_535), rows(165_536, 5_000)];
    let all = concat_batches(&schema(), &batches)?;
    for threads in [1, 3] {
        let built = built(&batches, threads);
        let lens: Vec<u32> = built.footer.chunks.iter().map(|chunk| chunk.rows).collect();
        assert_eq!(lens, [65_536, 65_536, 39_464]);
        let (_, file) = opened(&built, 1 << 30);
        assert_eq!(file.footer(), &built.footer);
        assert_eq!(file.rows(), all.num_rows() as u64);
        assert_eq!(read_all(&file)?, all);
        assert_eq!(file.locate(0), Some((0, 0)));
        assert_eq!(file.locate(65_536), Some((1, 0)));
        assert_eq!(file.locate(170_535), Some((2, 39_463)));
        assert_eq!(file.locate(170_536), None);
    }
    Ok(())
}

#[test]
fn an_empty_segment_is_a_segment() -> Result<()> {
    let (_, file) = opened(&built(&[], 1), 1 << 20);
    assert_eq!((file.rows(), file.chunks(), file.locate(0)), (0, 0, None));
    assert_eq!(file.verify()?, VerifyReport::default());
    Ok(())
}

#[test]
fn rows_of_another_schema_are_refused() {
    let other =
        RecordBatch::try_from_iter([("id", Arc::new(StringArray::from(vec!["1"])) as ArrayRef)]).expect("batch");
    assert!(SegmentBuilder::new(schema()).push(other).is_err());
}

#[test]
fn summaries_are_those_of_the_rows() -> Result<()> {
    let built = built(&[rows(0, 70_000)], 2);
    let summary = |name: &str| built.footer.columns.iter().find(|column| column.name == name).expect(name);
    assert_eq!(summary("id").nulls, 0);
    assert_eq!(summary("name").nulls, 6_364);
    let distinct = |name: &str| summary(name).distinct.as_ref().map(DistinctSketch::estimate);
    assert_eq!(distinct("created"), Some(1));
    assert_eq!(distinct("tags"), None);
    assert!(distinct("name").is_some_and(|n| (900..1_100).contains(&n)), "{:?}", distinct("name"));
    assert!(distinct("id").is_some_and(|n| (63_000..77_000).contains(&n)), "{:?}", distinct("id"));
    let whole = ZoneMap::of(rows(0, 70_000).column(3))?;
    assert_eq!(built.footer.zone(3), Some(whole));
    assert!(built.footer.columns.iter().all(|column| column.bytes > 0));
    Ok(())
}

#[test]
fn the_cache_saves_reads_and_keeps_its_budget() -> Result<()> {
    let built = built(&[rows(0, 140_000)], 2);
    let (store, file) = opened(&built, 1 << 30);
    let after_open = store.reads.load(Ordering::Relaxed);
    assert_eq!(after_open, 1, "trailer and footer are one read");
    read_all(&file)?;
    read_all(&file)?;
    assert_eq!(store.reads.load(Ordering::Relaxed) - after_open, 21, "each blob is read once");

    let cache = Arc::new(ChunkCache::new(64 * 1024));
    let store = Arc::new(Memory::default());
    store.put("seg", built.parts.concat());
    let file = SegmentFile::from_built(store, "seg", schema(), Arc::clone(&cache), built);
    read_all(&file)?;
    let stats = cache.stats();
    assert!(stats.bytes <= 64 * 1024, "{stats:?}");
    assert!(stats.misses > 0, "{stats:?}");
    cache.forget(&HashSet::from([file.number()]));
    assert_eq!(cache.stats().chunks, 0);
    Ok(())
}

#[test]
fn what_is_charged_leaves_less_room_for_chunks() -> Result<()> {
    let built = built(&[rows(0, 140_000)], 2);
    let cache = Arc::new(ChunkCache::new(1 << 20));
    let store = Arc::new(Memory::default());
    store.put("seg", built.parts.concat());
    let file = SegmentFile::from_built(store, "seg", schema(), Arc::clone(&cache), built);
    read_all(&file)?;
    let before = cache.stats();
    let charge = file.cache().charge(1 << 20);
    let during = cache.stats();
    assert_eq!((during.charged, during.budget), (1 << 20, before.budget));
    assert!(before.bytes > 128 * 1024 && during.bytes <= 128 * 1024 + 64, "{before:?} {during:?}");
    drop(charge);
    read_all(&file)?;
    let after = cache.stats();
    assert!(after.charged == 0 && after.bytes > during.bytes, "{after:?}");
    Ok(())
}

#[test]
fn neighbouring_columns_are_one_read() -> Result<()> {
    let built = built(&[rows(0, 70_000)], 2);
    let (store, file) = opened(&built, 1 << 30);
    let before = store.reads.load(Ordering::Relaxed);
    let wanted = [3, 1, 2];
    file.column(0, 2)?;
    for _ in 0..2 {
        let columns = file.columns(0, &wanted)?;
        assert_eq!(columns.len(), wanted.len());
        for (column, index) in columns.iter().zip(wanted) {
            assert_eq!(&column.decode(schema().field(index))?, rows(0, 65_536).column(index));
        }
    }
    assert_eq!(store.reads.load(Ordering::Relaxed) - before, 2);
    assert!(file.columns(0, &[7]).is_err());
    assert!(file.columns(2, &[0]).is_err());
    Ok(())
}

#[test]
fn chunks_just_built_are_not_read_again() -> Result<()> {
    let built = built(&[rows(0, 1_000)], 1);
    let store = Arc::new(Memory::default());
    let cache = Arc::new(ChunkCache::new(1 << 30));
    let file = SegmentFile::from_built(Arc::clone(&store) as Arc<dyn BlobRead>, "seg", schema(), cache, built);
    assert_eq!(read_all(&file)?, rows(0, 1_000));
    assert_eq!(store.reads.load(Ordering::Relaxed), 0);
    Ok(())
}

/// Every bit of a file matters: whichever is flipped, opening or verifying says so, and names the place.
#[test]
fn a_flipped_bit_anywhere_is_found() -> Result<()> {
    let built = built(&[rows(0, 300)], 1);
    let intact = built.parts.concat();
    let store = Arc::new(Memory::default());
    let open = || {
        let store = Arc::clone(&store) as Arc<dyn BlobRead>;
        SegmentFile::open(store, "seg", schema(), Arc::new(ChunkCache::new(1 << 20)))
    };
    store.put("seg", intact.clone());
    let before = open()?;
    let report = before.verify()?;
    assert_eq!((report.blobs, report.rows, report.problems.as_slice()), (7, 2_100, &[][..]));

    for position in 0..intact.len() {
        let mut damaged = intact.clone();
        damaged[position] ^= 1 << (position % 8);
        store.put("seg", damaged);
        let report = before.verify()?;
        assert!(!report.problems.is_empty(), "the flip at {position} went unnoticed");
        let blob = built.footer.chunks[0]
            .columns
            .iter()
            .position(|blob| (blob.offset..blob.offset + blob.len).contains(&(position as u64)));
        if let Some(column) = blob {
            let place = (report.problems[0].column.as_deref(), report.problems[0].chunk);
            assert_eq!(place, (Some(schema().field(column).name().as_str()), Some(0)));
            let read = open()?.column(0, column);
            assert!(matches!(read, Err(SegmentError::Corrupt { .. })), "{read:?}");
        } else if position >= intact.len() - 1_000 {
            // Footer or trailer: such a file must not even open.
            let in_footer = position as u64 >= built.footer.chunks[0].columns.last().map_or(0, |b| b.offset + b.len);
            assert!(!in_footer || open().is_err(), "the flip at {position} went unnoticed by open");
        }
    }
    Ok(())
}

#[test]
fn a_shortened_file_does_not_open() {
    let built = built(&[rows(0, 300)], 1);
    let intact = built.parts.concat();
    let store = Arc::new(Memory::default());
    for len in [0, 1, 39, 40, 64, 200, intact.len() - 1] {
        store.put("seg", intact[..len].to_vec());
        let store = Arc::clone(&store) as Arc<dyn BlobRead>;
        let opened = SegmentFile::open(store, "seg", schema(), Arc::new(ChunkCache::new(1 << 20)));
        assert!(matches!(opened, Err(SegmentError::Corrupt { .. })), "{len}: {opened:?}");
    }
}

#[test]
fn a_file_of_other_columns_does_not_open() {
    let store = Arc::new(Memory::default());
    store.put("seg", built(&[rows(0, 10)], 1).parts.concat());
    let other = Arc::new(schema().project(&[1, 0, 2, 3, 4, 5, 6]).expect("seven columns"));
    let cache = Arc::new(ChunkCache::new(1 << 20));
    assert!(SegmentFile::open(store, "seg", other, cache).is_err());
}

/// A predicate of some depth over the test schema.
fn predicates() -> impl Strategy<Value = Predicate> {
    let op = prop_oneof![
        Just(CompareOp::Eq),
        Just(CompareOp::NotEq),
        Just(CompareOp::Lt),
        Just(CompareOp::LtEq),
        Just(CompareOp::Gt),
        Just(CompareOp::GtEq)
    ];
    let literal = |column: usize, n: i64| -> ArrayRef { rows(n, 1).column(column).slice(0, 1) };
    let compare = (0..5_usize, op.clone(), 1..3_000_i64).prop_map(move |(column, op, n)| Predicate::Test {
        column,
        test: ColumnTest::Compare { op, value: literal(column, n) },
    });
    let in_list = (0..5_usize, any::<bool>(), 1..2_000_i64, 0..12_usize).prop_map(|(column, negated, n, count)| {
        let values = rows(n, count).column(column).clone();
        let values =
            arrow::compute::filter(&values, &arrow::compute::is_not_null(&values).expect("mask")).expect("filter");
        Predicate::Test { column, test: ColumnTest::InList { values, negated } }
    });
    let null = (0..6_usize, any::<bool>()).prop_map(|(column, is)| Predicate::Test {
        column,
        test: if is { ColumnTest::IsNull } else { ColumnTest::IsNotNull },
    });
    let dates = op.prop_map(|op| Predicate::CompareColumns { left: 3, op, right: 4 });
    let leaf = prop_oneof![6 => compare, 2 => in_list, 1 => null, 2 => dates, 1 => any::<bool>().prop_map(Predicate::Constant)];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Predicate::And),
            proptest::collection::vec(inner, 0..4).prop_map(Predicate::Or),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// Encoded columns, plain batches and zone maps agree on which rows a predicate keeps, row by row.
    #[test]
    fn predicates_mean_the_same_everywhere(predicate in predicates(), first in 0..3_000_i64, len in 1..3_000_usize, step in 1..60_usize) {
        let batch = rows(first, len);
        let schema = schema();
        let expected = evaluate_batch(&predicate, &batch).expect("evaluates");
        let by_row = BooleanBuffer::collect_bool(len, |row| {
            evaluate_batch(&predicate, &batch.slice(row, 1)).is_ok_and(|kept| kept.value(0))
        });
        prop_assert_eq!(&by_row, &expected);

        let columns: Vec<EncodedColumn> = batch.columns().iter().zip(schema.fields())
            .map(|(array, field)| EncodedColumn::encode(array, field).expect("encodes")).collect();
        let mut read = |column: usize| Ok(columns[column].clone());
        prop_assert_eq!(&evaluate(&predicate, &mut read, &schema, len, None).expect("evaluates"), &expected);
        let selection = BooleanBuffer::collect_bool(len, |row| row % step == 0);
        let found = evaluate(&predicate, &mut read, &schema, len, Some(&selection)).expect("evaluates");
        prop_assert_eq!(&found, &(&expected & &selection));

        let zones: Vec<ZoneMap> = batch.columns().iter().map(|array| ZoneMap::of(array).expect("a zone map")).collect();
        match may_match(&predicate, &|column| zones.get(column), &schema) {
            Verdict::None => prop_assert_eq!(expected.count_set_bits(), 0),
            Verdict::All => prop_assert_eq!(expected.count_set_bits(), len),
            Verdict::Some => {}
        }
        prop_assert_eq!(may_match(&predicate, &|_| None, &schema) == Verdict::None && expected.count_set_bits() > 0, false);
    }
}

/// Zone maps do skip: a range that lies outside of a chunk's values rules it out, one around them lets it pass whole.
#[test]
fn zone_maps_prune() -> Result<()> {
    let built = built(&[rows(0, 140_000)], 2);
    let verdicts = |op: CompareOp, value: i64| -> Vec<Verdict> {
        let value: ArrayRef = Arc::new(Int64Array::from(vec![value]));
        let predicate = Predicate::Test { column: 0, test: ColumnTest::Compare { op, value } };
        built.footer.chunks.iter().map(|chunk| may_match(&predicate, &|c| chunk.zones.get(c), &schema())).collect()
    };
    use Verdict::{All, None, Some};
    assert_eq!(verdicts(CompareOp::Eq, 70_000), [None, Some, None]);
    assert_eq!(verdicts(CompareOp::Lt, 65_536), [All, None, None]);
    assert_eq!(verdicts(CompareOp::GtEq, 131_071), [None, Some, All]);
    assert_eq!(verdicts(CompareOp::NotEq, -1), [All, All, All]);
    Ok(())
}
