//! Which shard a row belongs to.
//!
//! Stored tables rely on the answer, so it may never change: the hash is XXH3 (64 bits, with the table's seed) over the
//! ascending, nullable key encoding of the sharding columns, and the shard is the hash scaled to the number of shards.
//! Tests pin it; another hash would be another [`SHARD_HASH_VERSION`].

use arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::DataType;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::super::key::{KeyEncoder, KeyError, Result};

/// The version of hash and scaling described in this module, stored with every table.
pub(crate) const SHARD_HASH_VERSION: u16 = 1;

/// The shard, less than `shards`, of a key made by [`ShardRouter`]'s encoder. With one shard or none it is 0.
#[inline]
pub(crate) fn shard_of(key: &[u8], shards: u32, seed: u64) -> u32 {
    // The product has at most 96 bits, so the shift leaves at most 32.
    ((u128::from(xxh3_64_with_seed(key, seed)) * u128::from(shards)) >> 64) as u32
}

/// Sends the rows of a table to its shards.
#[derive(Debug, Clone)]
pub(crate) struct ShardRouter {
    columns: Vec<usize>,
    encoder: KeyEncoder,
    shards: u32,
    seed: u64,
}

impl ShardRouter {
    /// A router by the columns with these positions and types in the table.
    ///
    /// Fails if a type cannot be part of a key.
    pub(crate) fn new(columns: Vec<usize>, types: &[DataType], shards: u32, seed: u64) -> Result<Self> {
        // Declared nullable whatever the table says, so that dropping NOT NULL moves no row.
        let types: Vec<_> = types.iter().map(|data_type| (data_type.clone(), true, false)).collect();
        if types.len() != columns.len() {
            return Err(KeyError::Unsupported { what: format!("{} types for {} columns", types.len(), columns.len()) });
        }
        Ok(Self { columns, encoder: KeyEncoder::new(&types)?, shards, seed })
    }

    /// The shard of each row.
    pub(crate) fn route(&self, batch: &RecordBatch) -> Result<Vec<u32>> {
        if self.shards <= 1 {
            return Ok(vec![0; batch.num_rows()]);
        }
        let columns = self.columns.iter().map(|&column| self.column(batch, column)).collect::<Result<Vec<_>>>()?;
        let keys = self.encoder.encode_columns(&columns)?;
        Ok(keys.iter().map(|key| shard_of(key, self.shards, self.seed)).collect())
    }

    fn column(&self, batch: &RecordBatch, column: usize) -> Result<ArrayRef> {
        batch.columns().get(column).cloned().ok_or_else(|| KeyError::Unsupported {
            what: format!("sharding column {column} of a batch of {} columns", batch.num_columns()),
        })
    }

    /// The batch cut into the rows of each shard, by ascending shard, without empty parts. Rows of a shard keep their
    /// order.
    pub(crate) fn split(&self, batch: &RecordBatch) -> Result<Vec<(u32, RecordBatch)>> {
        let shard_of_row = self.route(batch)?;
        let Some(&first) = shard_of_row.first() else { return Ok(Vec::new()) };
        if shard_of_row.iter().all(|shard| *shard == first) {
            return Ok(vec![(first, batch.clone())]);
        }
        let mut rows: Vec<u32> = (0..).take(shard_of_row.len()).collect();
        // A stable sort: there may be many more shards than rows.
        rows.sort_by_key(|&row| shard_of_row[row as usize]);
        rows.chunk_by(|&a, &b| shard_of_row[a as usize] == shard_of_row[b as usize])
            .map(|rows| {
                let part = take_record_batch(batch, &UInt32Array::from(rows.to_vec()))
                    .map_err(|error| KeyError::Unsupported { what: error.to_string() })?;
                Ok((shard_of_row[rows[0] as usize], part))
            })
            .collect()
    }

    /// The shard of the rows whose sharding columns have these values, each an array of length 1.
    pub(crate) fn shard_for_literals(&self, literals: &[ArrayRef]) -> Result<u32> {
        let mut key = Vec::new();
        self.encoder.encode_row(literals, 0, &mut key)?;
        Ok(shard_of(&key, self.shards, self.seed))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Array, AsArray, Float64Array, Int32Array, Int64Array, StringArray};
    use arrow::compute::{cast, concat_batches};
    use arrow::datatypes::{Field, Int64Type, Schema};

    use super::*;

    fn batch() -> RecordBatch {
        let schema = Schema::new(vec![
            Field::new("id", DataType::Int64, false),
            Field::new("name", DataType::Utf8, true),
            Field::new("x", DataType::Float64, true),
        ]);
        let ids = Int64Array::from_iter_values(0..1000);
        let names: StringArray = (0..1000).map(|row| (row % 7 != 0).then(|| format!("n{}", row % 50))).collect();
        let xs: Float64Array = (0..1000).map(|row| Some(f64::from(row % 10) - 5.0)).collect();
        RecordBatch::try_new(Arc::new(schema), vec![Arc::new(ids), Arc::new(names), Arc::new(xs)]).expect("a batch")
    }

    #[test]
    fn the_hash_never_changes() {
        assert_eq!(SHARD_HASH_VERSION, 1);
        GOLDEN_KEYS.iter().for_each(|(key, seed, shards, shard)| {
            assert_eq!(shard_of(key, *shards, *seed), *shard, "{key:?}");
        });
        let router = ShardRouter::new(vec![0, 1], &[DataType::Int64, DataType::Utf8], 16, 42).expect("routes");
        let shards = router.route(&batch()).expect("routes");
        assert_eq!(shards[..16], GOLDEN_ROWS);
    }

    const GOLDEN_KEYS: [(&[u8], u64, u32, u32); 5] = [
        (b"", 0, 1 << 20, 184424),
        (b"a", 0, 1 << 20, 945251),
        (b"a", 7, 1 << 20, 650584),
        (b"0123456789abcdef0123456789abcdef", 0, 1 << 20, 4385),
        (b"a", 0, 1, 0),
    ];
    const GOLDEN_ROWS: [u32; 16] = [0, 8, 11, 4, 6, 7, 0, 6, 8, 3, 4, 0, 3, 6, 3, 11];

    #[test]
    fn splits_without_losing_or_reordering() {
        let batch = batch();
        for (columns, types) in [
            (vec![0], vec![DataType::Int64]),
            (vec![1], vec![DataType::Utf8]),
            (vec![2, 0], vec![DataType::Float64, DataType::Int64]),
        ] {
            for shards in [1, 2, 8, 5000] {
                let router = ShardRouter::new(columns.clone(), &types, shards, 1).expect("routes");
                let route = router.route(&batch).expect("routes");
                let parts = router.split(&batch).expect("splits");
                assert!(parts.is_sorted_by(|a, b| a.0 < b.0));
                for (shard, part) in &parts {
                    assert!(*shard < shards);
                    let ids = part.column(0).as_primitive::<Int64Type>().values();
                    assert!(ids.is_sorted());
                    assert!(ids.iter().all(|id| route[*id as usize] == *shard));
                }
                let whole = concat_batches(&batch.schema(), parts.iter().map(|(_, part)| part)).expect("one schema");
                assert_eq!(whole.num_rows(), 1000);
            }
        }
        let router = ShardRouter::new(vec![0], &[DataType::Int64], 8, 1).expect("routes");
        let mut counts = [0; 8];
        router.route(&batch).expect("routes").into_iter().for_each(|shard| counts[shard as usize] += 1);
        assert!(counts.iter().all(|count| (80..180).contains(count)), "{counts:?}");
        assert!(router.split(&batch.slice(0, 0)).expect("splits").is_empty());
    }

    #[test]
    fn literals_go_where_rows_go() {
        let batch = batch();
        let router = ShardRouter::new(vec![1, 2], &[DataType::Utf8, DataType::Float64], 64, 3).expect("routes");
        let route = router.route(&batch).expect("routes");
        for (row, shard) in route.iter().enumerate() {
            let literals = [
                cast(&batch.column(1).slice(row, 1), &DataType::Utf8View).expect("text is text"),
                batch.column(2).slice(row, 1),
            ];
            assert_eq!(router.shard_for_literals(&literals).expect("routes"), *shard);
        }
        let shard = |x: f64| {
            let x: ArrayRef = Arc::new(Float64Array::from(vec![x]));
            let router = ShardRouter::new(vec![0], &[DataType::Float64], 1 << 30, 3).expect("routes");
            router.shard_for_literals(&[x]).expect("routes")
        };
        assert_eq!(shard(0.0), shard(-0.0));
        assert_eq!(shard(f64::NAN), shard(-f64::NAN));
    }

    #[test]
    fn refuses_what_it_cannot_route() {
        let router = ShardRouter::new(vec![9], &[DataType::Int64], 4, 0).expect("routes");
        assert!(router.route(&batch()).is_err());
        let wrong: ArrayRef = Arc::new(Int32Array::from(vec![1]));
        assert!(router.shard_for_literals(&[wrong]).is_err());
        assert!(ShardRouter::new(vec![0], &[], 4, 0).is_err());
        assert!(ShardRouter::new(vec![0], &[DataType::Null], 4, 0).is_err());
    }
}
