//! `grizzly.cache`: the kept results, most valuable first, and `grizzly.cache_totals`: one row of sums. Both as they
//! are when the statement runs.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, Float64Array, StringArray, UInt64Array},
    datatypes::{DataType, Field, Schema},
};
use datafusion::{
    catalog::{CatalogProvider, TableProvider},
    error::Result,
};

use super::ResultCache;
use crate::{
    Grizzly,
    adapter::live_table::{live_table, show_table},
};

/// Shows the tables in `catalog`, if `db` keeps results.
pub(crate) fn register(catalog: &dyn CatalogProvider, db: &Grizzly) -> Result<()> {
    let Some(cache) = ResultCache::of(db) else { return Ok(()) };
    show_table(catalog, "cache", table(&cache, results_schema(), results)?)?;
    show_table(catalog, "cache_totals", table(&cache, totals_schema(), totals)?)
}

type Read = fn(&ResultCache) -> Vec<ArrayRef>;

fn table(cache: &Arc<ResultCache>, schema: Schema, read: Read) -> Result<Arc<dyn TableProvider>> {
    let cache = Arc::clone(cache);
    live_table(schema, move |_| Ok(read(&cache)))
}

fn results_schema() -> Schema {
    Schema::new(vec![
        Field::new("tables", DataType::Utf8, false),
        Field::new("rows", DataType::UInt64, false),
        Field::new("bytes", DataType::UInt64, false),
        Field::new("hits", DataType::UInt64, false),
        Field::new("compute_ms", DataType::Float64, false),
        Field::new("plan", DataType::Utf8, false),
    ])
}

fn results(cache: &ResultCache) -> Vec<ArrayRef> {
    let shown = cache.shelf.lock().shown();
    let tables = StringArray::from_iter_values(shown.iter().map(|result| &result.tables));
    let rows = UInt64Array::from_iter_values(shown.iter().map(|result| result.rows));
    let bytes = UInt64Array::from_iter_values(shown.iter().map(|result| result.bytes));
    let hits = UInt64Array::from_iter_values(shown.iter().map(|result| result.hits));
    let took = Float64Array::from_iter_values(shown.iter().map(|result| result.took.as_secs_f64() * 1e3));
    let plans = StringArray::from_iter_values(shown.iter().map(|result| result.question.text()));
    vec![Arc::new(tables), Arc::new(rows), Arc::new(bytes), Arc::new(hits), Arc::new(took), Arc::new(plans)]
}

fn totals_schema() -> Schema {
    let names = ["budget", "bytes", "results", "hits", "misses", "kept", "evicted"];
    Schema::new(names.map(|name| Field::new(name, DataType::UInt64, false)).to_vec())
}

fn totals(cache: &ResultCache) -> Vec<ArrayRef> {
    let totals = cache.shelf.lock().totals();
    let values = [cache.budget, totals.bytes, totals.results, totals.hits, totals.misses, totals.kept, totals.evicted];
    values.map(|value| Arc::new(UInt64Array::from(vec![value])) as ArrayRef).to_vec()
}
