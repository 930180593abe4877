//! Rows by index key: which row versions carry a key and are not ended. Serves uniqueness checks, get by key,
//! and index scans.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef};

use super::{
    catalog::{IndexDef, TableDef},
    key::KeyRange,
    segment::{cold::Found, meta::OVERLAY},
    version::{Segment, SegmentData, TableCodecs, TableVersion},
};
use crate::{
    access::RowId,
    error::{Error, Result},
};

/// Row numbers that an index has for some ranges in one segment.
pub(crate) enum Hits {
    /// These rows, ascending, each once; some may have ended.
    Rows(Vec<u32>),
    /// The segment has no run of this index: every row must be looked at.
    Scan,
}

/// The rows of one segment whose key falls into one of the ranges.
pub(crate) fn segment_hits(segment: &Segment, index: u32, ranges: &[KeyRange]) -> Result<Hits> {
    let mut rows = Vec::new();
    match &segment.data {
        SegmentData::Hot(hot) => match hot.index(index) {
            Some(live) => ranges.iter().for_each(|range| live.lookup(range, hot.rows, &mut rows)),
            None => return Ok(Hits::Scan),
        },
        SegmentData::Cold(cold) => match cold.run_with(index, ranges)? {
            Found::Run(run) => ranges.iter().for_each(|range| run.lookup(range, &mut rows)),
            Found::Nothing => {}
            Found::NoRun => return Ok(Hits::Scan),
        },
    }
    if rows.len() > 1 {
        rows.sort_unstable();
        rows.dedup();
    }
    Ok(Hits::Rows(rows))
}

/// The rows of a segment that carry `key`, ended ones included.
pub(crate) fn rows_of(table: &TableVersion, segment: &Segment, index: &IndexDef, key: &[u8]) -> Result<Vec<u32>> {
    match segment_hits(segment, index.id, &[KeyRange::point(key)])? {
        Hits::Rows(rows) => Ok(rows),
        Hits::Scan => super::rows::rows_with_key(table, segment, index, key),
    }
}

/// Calls `found` with every row that carries `key` and has not ended, until it returns false.
/// `shard` narrows the search where the key says which shard its rows are in. Uncommitted rows of a transaction are
/// not looked at: it knows their keys itself.
pub(crate) fn live_rows(
    table: &TableVersion,
    index: &IndexDef,
    key: &[u8],
    shard: Option<u32>,
    mut found: impl FnMut(&Segment, RowId) -> Result<bool>,
) -> Result<()> {
    let shards = match shard {
        Some(shard) => &table.shards[shard as usize..=shard as usize],
        None => &table.shards[..],
    };
    let segments = shards.iter().flat_map(|shard| shard.segments.iter().rev());
    for segment in segments.filter(|segment| segment.id() < OVERLAY && segment.has_live()) {
        for row in rows_of(table, segment, index, key)? {
            if segment.tombstones.get(row).is_none() && !found(segment, RowId::new(segment.id(), row))? {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// A primary key in bytes, and the shard its row is in.
pub(crate) struct PrimaryKey {
    pub(crate) bytes: Vec<u8>,
    pub(crate) shard: Option<u32>,
}

/// The primary key made of `values`, which are cast to the key's types where that loses nothing.
pub(crate) fn primary_key(table: &TableVersion, values: &[ArrayRef]) -> Result<PrimaryKey> {
    let name = &table.def.name;
    let primary = table.codecs.primary();
    let (index, encoder) = primary.ok_or_else(|| Error::invalid(format!("table '{name}' has no primary key")))?;
    if values.len() != index.columns.len() {
        return Err(Error::invalid(format!(
            "the primary key of table '{name}' has {} columns, not {}",
            index.columns.len(),
            values.len()
        )));
    }
    let mut literals = Vec::with_capacity(values.len());
    for (column, value) in index.columns.iter().zip(values) {
        let field = table.def.schema.field(*column);
        if value.len() != 1 || value.is_null(0) {
            return Err(Error::invalid(format!("key column '{}' of table '{name}' needs one value", field.name())));
        }
        literals.push(match value.data_type() == field.data_type() {
            true => Arc::clone(value),
            false => arrow::compute::cast(value, field.data_type())?,
        });
    }
    let mut bytes = Vec::with_capacity(32);
    encoder.encode_prefix(&literals, &mut bytes)?;
    let shard = shard_of_key(&table.codecs, &table.def, &literals)?;
    Ok(PrimaryKey { bytes, shard })
}

fn shard_of_key(codecs: &TableCodecs, def: &TableDef, literals: &[ArrayRef]) -> Result<Option<u32>> {
    let Some(router) = &codecs.router else { return Ok(None) };
    let placed = def.shard_by.iter().map(|column| {
        let at = def.primary_key.iter().position(|key| key == column);
        at.map(|at| Arc::clone(&literals[at]))
            .ok_or_else(|| Error::internal("a shard column is not in the primary key"))
    });
    let placed = placed.collect::<Result<Vec<_>>>()?;
    Ok(Some(router.shard_for_literals(&placed)?))
}

/// The committed live row with this key.
pub(crate) fn find_committed(table: &TableVersion, key: &PrimaryKey) -> Result<Option<RowId>> {
    let Some((index, _)) = table.codecs.primary() else { return Ok(None) };
    let mut found = None;
    live_rows(table, index, &key.bytes, key.shard, |_, row| {
        found = Some(row);
        Ok(false)
    })?;
    Ok(found)
}
