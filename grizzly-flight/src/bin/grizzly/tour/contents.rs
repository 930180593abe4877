//! What a database holds, in so few bytes that two of them can be compared.

use std::{collections::BTreeMap, hash::BuildHasher};

use arrow::record_batch::RecordBatch;
use datafusion::{
    common::hash_utils::{RandomState, create_hashes},
    error::DataFusionError,
};
use futures::StreamExt;

use super::check::failed;
use crate::session::Database;

/// The same for all databases.
const HASH: RandomState = RandomState::with_seed(0);

/// Rows of each table, and the sum of their hashes, which no order of rows changes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Contents {
    tables: BTreeMap<String, Rows>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Rows {
    number: u64,
    hashes: u64,
}

impl Contents {
    /// Reads all tables.
    pub(crate) async fn of(database: &Database) -> Result<Self, DataFusionError> {
        let session = database.session()?;
        let mut contents = Self::default();
        for table in database.grizzly().snapshot().table_names("public") {
            let mut rows = Rows::default();
            let mut batches = session.sql(&format!("SELECT * FROM \"{table}\"")).await?.execute_stream().await?;
            while let Some(batch) = batches.next().await {
                rows.add(&batch?)?;
            }
            contents.tables.insert(table, rows);
        }
        Ok(contents)
    }

    /// Rows of all tables.
    pub(crate) fn rows(&self) -> u64 {
        self.tables.values().map(|rows| rows.number).sum()
    }

    /// An error that names a table which is not the same.
    pub(crate) fn expect(&self, expected: &Self) -> Result<(), DataFusionError> {
        for name in self.tables.keys().chain(expected.tables.keys()) {
            match (self.tables.get(name), expected.tables.get(name)) {
                (Some(found), Some(expected)) if found == expected => {}
                (Some(found), Some(expected)) if found.number == expected.number => {
                    return Err(failed(format!("table {name} has other rows, {} of them", found.number)));
                }
                (Some(found), Some(expected)) => {
                    return Err(failed(format!("table {name} has {} rows, not {}", found.number, expected.number)));
                }
                (None, _) => return Err(failed(format!("table {name} is missing"))),
                (_, None) => return Err(failed(format!("there should be no table {name}"))),
            }
        }
        Ok(())
    }
}

impl Rows {
    fn add(&mut self, batch: &RecordBatch) -> Result<(), DataFusionError> {
        let mut hashes = vec![0; batch.num_rows()];
        create_hashes(batch.columns(), &HASH, &mut hashes)?;
        self.number += batch.num_rows() as u64;
        // Hashed once more: the library adds up those of a row's columns, and a sum of sums does not tell which belong
        // to one row.
        self.hashes = hashes.iter().fold(self.hashes, |sum, hash| sum.wrapping_add(HASH.hash_one(hash)));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int64Array, StringArray};

    use super::*;

    fn contents(batches: &[(&[i64], &[&str])]) -> Contents {
        let mut rows = Rows::default();
        for (keys, names) in batches {
            let keys = Arc::new(Int64Array::from(keys.to_vec())) as _;
            let names = Arc::new(StringArray::from(names.to_vec())) as _;
            let batch = RecordBatch::try_from_iter([("k", keys), ("n", names)]).expect("columns of one length");
            rows.add(&batch).expect("columns that can be hashed");
        }
        Contents { tables: BTreeMap::from([("t".to_owned(), rows)]) }
    }

    #[test]
    fn rows_count_and_their_order_does_not() {
        let expected = contents(&[(&[1, 2], &["a", "b"])]);
        assert!(contents(&[(&[2], &["b"]), (&[1], &["a"])]).expect(&expected).is_ok());
        for other in [
            contents(&[(&[1, 2], &["b", "a"])]),
            contents(&[(&[1, 3], &["a", "b"])]),
            contents(&[(&[1], &["a"])]),
            contents(&[(&[1, 2, 2], &["a", "b", "b"])]),
            Contents::default(),
        ] {
            assert!(other.expect(&expected).is_err() && expected.expect(&other).is_err());
        }
    }
}
