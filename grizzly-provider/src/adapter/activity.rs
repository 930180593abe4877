//! `grizzly.activity`: one row about what the open database is busy with, as it is when the statement runs.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, UInt64Array},
    datatypes::{DataType, Field, Schema},
};
use datafusion::{
    catalog::{CatalogProvider, TableProvider},
    error::Result,
};

use super::live_table::{live_table, show_table};
use crate::Grizzly;

/// The sessions of one database: each holds one of these.
#[derive(Debug, Default)]
pub(super) struct Sessions(Arc<()>);

/// Counts a session while it lives.
#[derive(Debug)]
pub(super) struct CountedSession(#[expect(dead_code, reason = "counted, not read")] Arc<()>);

impl Sessions {
    /// Those of `db`.
    fn of(db: &Grizzly) -> Arc<Self> {
        db.extension(Self::default)
    }

    /// One more session of `db`.
    pub(super) fn one_more(db: &Grizzly) -> CountedSession {
        CountedSession(Arc::clone(&Self::of(db).0))
    }

    fn count(&self) -> usize {
        Arc::strong_count(&self.0) - 1
    }
}

/// Shows the table in `catalog`.
pub(super) fn register(catalog: &dyn CatalogProvider, db: &Grizzly) -> Result<()> {
    show_table(catalog, "activity", table(db)?)
}

fn table(db: &Grizzly) -> Result<Arc<dyn TableProvider>> {
    let column = |name, nullable| Field::new(name, DataType::UInt64, nullable);
    let schema = Schema::new(vec![
        column("sessions", false),
        column("transactions", false),
        column("snapshots", false),
        column("oldest_snapshot", true),
        column("newest_commit", false),
        column("hot_bytes", false),
        column("chunk_bytes", false),
        column("index_bytes", false),
    ]);
    let db = db.clone();
    live_table(schema, move |_| {
        let (activity, sessions) = (db.activity(), Sessions::of(&db).count());
        let values = [
            u64::try_from(sessions).ok(),
            u64::try_from(activity.transactions).ok(),
            u64::try_from(activity.snapshots).ok(),
            activity.oldest_snapshot.map(|csn| csn.0),
            Some(activity.newest_commit.0),
            Some(activity.hot_bytes),
            Some(activity.chunk_bytes),
            Some(activity.index_bytes),
        ];
        Ok(values.map(|value| Arc::new(UInt64Array::from(vec![value])) as ArrayRef).to_vec())
    })
}
