//! Rows by index key: which row versions carry a key and are not ended. Serves uniqueness checks, get by key,
//! and index scans.

use super::{
    catalog::IndexDef,
    key::KeyRange,
    segment::cold::Found,
    version::{OVERLAY, Segment, SegmentData, TableVersion},
};
use crate::{access::RowId, error::Result};

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
