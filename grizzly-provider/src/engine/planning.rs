//! What planning asks of a table: estimates from metadata, and which shards a predicate leaves. No I/O beyond index
//! runs that are opened for the first time.

use std::{collections::BTreeSet, sync::Arc};

use arrow::array::ArrayRef;

use super::{
    catalog::IndexDef,
    key::{KeyEncoder, KeyRange},
    segment::{
        cold::Found,
        zone_map::{Verdict, may_match},
    },
    version::{Segment, SegmentData, TableVersion},
};
use crate::{
    access::{ColumnTest, CompareOp, Predicate},
    error::{Error, Result},
};

/// The index of this name.
pub(crate) fn index<'a>(table: &'a TableVersion, name: &str) -> Result<&'a (IndexDef, KeyEncoder)> {
    let missing = || Error::not_found(format!("table '{}' has no index '{name}'", table.def.name));
    table.codecs.named(name).ok_or_else(missing)
}

fn chosen<'a>(table: &'a TableVersion, shards: Option<&'a [u32]>) -> impl Iterator<Item = &'a Arc<Segment>> {
    table
        .segments()
        .filter(move |(shard, _)| shards.is_none_or(|shards| shards.contains(shard)))
        .map(|(_, segment)| segment)
}

/// About how many entries fall into the ranges, in segments that the reader `reads`.
pub(crate) fn estimate_index_rows(
    table: &TableVersion,
    name: &str,
    ranges: &[KeyRange],
    shards: Option<&[u32]>,
    reads: impl Fn(&Segment) -> bool,
) -> u64 {
    let Ok((index, _)) = index(table, name) else { return u64::MAX };
    let in_segment = |segment: &Arc<Segment>| match &segment.data {
        SegmentData::Hot(hot) => match hot.index(index.id) {
            Some(live) => ranges.iter().map(|range| live.estimate(range)).sum(),
            None => u64::from(hot.rows),
        },
        SegmentData::Cold(cold) => match cold.run_with(index.id, ranges) {
            Ok(Found::Run(run)) => ranges.iter().map(|range| run.estimate(range)).sum(),
            Ok(Found::Nothing) => 0,
            _ => u64::from(cold.meta.rows),
        },
    };
    chosen(table, shards).filter(|segment| reads(segment)).map(in_segment).sum()
}

/// About how many rows a scan looks at, in segments that the reader `reads`.
pub(crate) fn estimate_scan_rows(
    table: &TableVersion,
    predicate: Option<&Predicate>,
    shards: Option<&[u32]>,
    reads: impl Fn(&Segment) -> bool,
) -> u64 {
    let in_segment = |segment: &Arc<Segment>| match (&segment.data, predicate) {
        (SegmentData::Cold(cold), Some(predicate)) => {
            let chunks = cold.file.footer().chunks.iter();
            let left = chunks.filter(|chunk| {
                may_match(predicate, &|column| chunk.zones.get(column), &table.def.schema) != Verdict::None
            });
            left.map(|chunk| chunk.rows as u64).sum()
        }
        _ => u64::from(segment.rows()),
    };
    chosen(table, shards).filter(|segment| reads(segment)).map(in_segment).sum()
}

/// At most this many combinations of IN lists are placed one by one.
const MAX_COMBINATIONS: usize = 64;

pub(crate) fn prune_shards(table: &TableVersion, predicate: &Predicate) -> Option<Arc<[u32]>> {
    let router = table.codecs.router.as_ref()?;
    let mut combinations: Vec<Vec<ArrayRef>> = vec![Vec::new()];
    for column in &table.def.shard_by {
        let values = values_of(predicate, *column)?;
        if combinations.len() * values.len() > MAX_COMBINATIONS {
            return None;
        }
        combinations = combinations
            .into_iter()
            .flat_map(|prefix| {
                values.iter().map(move |value| {
                    let mut longer = prefix.clone();
                    longer.push(Arc::clone(value));
                    longer
                })
            })
            .collect();
    }
    let shards: BTreeSet<u32> =
        combinations.iter().map(|literals| router.shard_for_literals(literals).ok()).collect::<Option<_>>()?;
    (shards.len() < table.shards.len()).then(|| shards.into_iter().collect())
}

/// The values that a column must have one of for the predicate to be true.
fn values_of(predicate: &Predicate, column: usize) -> Option<Vec<ArrayRef>> {
    match predicate {
        Predicate::Test { column: tested, test } if *tested == column => match test {
            ColumnTest::Compare { op: CompareOp::Eq, value } => Some(vec![Arc::clone(value)]),
            ColumnTest::InList { values, negated: false } => {
                Some((0..values.len()).map(|at| values.slice(at, 1)).collect())
            }
            _ => None,
        },
        Predicate::And(parts) => parts.iter().find_map(|part| values_of(part, column)),
        Predicate::Or(parts) => {
            let parts = parts.iter().map(|part| values_of(part, column)).collect::<Option<Vec<_>>>()?;
            Some(parts.into_iter().flatten().collect())
        }
        _ => None,
    }
}
