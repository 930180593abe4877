//! What is known of a table from what writing it told: counts, bounds, distinct estimates.

use std::sync::Arc;

use arrow::{array::ArrayRef, datatypes::DataType};

use super::{
    key,
    segment::{DistinctSketch, ZoneMap},
    version::{SegmentData, TableVersion},
};
use crate::access::{ColumnStatistics, ShardInfo, TableStatistics};

/// Rows and bytes per shard.
pub(crate) fn shards(table: &TableVersion) -> Vec<ShardInfo> {
    let shard = |(shard, version): (u32, &Arc<super::version::ShardVersion>)| ShardInfo {
        shard,
        rows: version.segments.iter().map(|segment| u64::from(segment.rows() - segment.tombstones.len())).sum(),
        segments: version.segments.len() as u32,
        hot_rows: version.hot_rows(),
        bytes: version.segments.iter().filter_map(|segment| segment.cold()).map(|cold| cold.meta.file_bytes).sum(),
    };
    (0_u32..).zip(&table.shards).map(shard).collect()
}

/// Statistics of a version of a table, made once.
pub(crate) fn statistics(table: &TableVersion) -> Arc<TableStatistics> {
    Arc::clone(table.statistics.get_or_init(|| Arc::new(compute(table))))
}

/// Bounds of one column while segments are gone through, as key bytes.
#[derive(Debug, Clone, Default)]
struct Bounds {
    nulls: u64,
    min: Option<Vec<u8>>,
    max: Option<Vec<u8>>,
    distinct: u64,
    bytes: u64,
    unknown: bool,
}

impl Bounds {
    fn add(&mut self, zone: &ZoneMap) {
        self.nulls += u64::from(zone.nulls);
        match (&zone.min, &zone.max) {
            (Some(min), Some(max)) => {
                if self.min.as_ref().is_none_or(|least| min < least) {
                    self.min = Some(min.clone());
                }
                if self.max.as_ref().is_none_or(|greatest| max > greatest) {
                    self.max = Some(max.clone());
                }
            }
            _ => self.unknown |= zone.nulls < zone.rows,
        }
    }
}

fn compute(table: &TableVersion) -> TableStatistics {
    let width = table.def.schema.fields().len();
    let mut bounds = vec![Bounds::default(); width];
    let (mut stored, mut ended) = (0_u64, 0_u64);
    for (_, segment) in table.segments() {
        stored += u64::from(segment.rows());
        ended += u64::from(segment.tombstones.len());
        match &segment.data {
            SegmentData::Hot(hot) => {
                for zones in hot.chunks.iter().map(|chunk| chunk.zones()) {
                    bounds.iter_mut().zip(zones).for_each(|(bounds, zone)| bounds.add(zone));
                }
            }
            SegmentData::Cold(cold) => {
                let footer = cold.file.footer();
                for chunk in &footer.chunks {
                    for ((bounds, zone), blob) in bounds.iter_mut().zip(&chunk.zones).zip(&chunk.columns) {
                        bounds.add(zone);
                        bounds.bytes += blob.len;
                    }
                }
            }
        }
    }
    for (column, bounds) in bounds.iter_mut().enumerate() {
        bounds.distinct = distinct(table, column);
    }
    let rows = stored - ended;
    let columns =
        bounds.iter().zip(table.def.schema.fields()).map(|(bounds, field)| column(bounds, field.data_type(), rows));
    TableStatistics { rows, stored_rows: stored, exact: ended == 0, columns: columns.collect() }
}

/// About how many different values the files hold in a column; 0 if unknown.
fn distinct(table: &TableVersion, column: usize) -> u64 {
    let mut merged: Option<DistinctSketch> = None;
    for cold in table.segments().filter_map(|(_, segment)| segment.cold()) {
        let sketch = cold.file.footer().columns.get(column).and_then(|summary| summary.distinct.as_ref());
        match (&mut merged, sketch) {
            (_, None) => return 0,
            (Some(merged), Some(sketch)) => merged.merge(sketch),
            (merged, Some(sketch)) => *merged = Some(sketch.clone()),
        }
    }
    merged.map_or(0, |sketch| sketch.estimate())
}

fn column(bounds: &Bounds, data_type: &DataType, rows: u64) -> ColumnStatistics {
    let value = |bytes: &Option<Vec<u8>>| -> Option<ArrayRef> {
        let mut bytes = bytes.as_deref().filter(|_| !bounds.unknown)?;
        key::decode_value(&mut bytes, data_type).ok()
    };
    ColumnStatistics {
        nulls: bounds.nulls,
        min: value(&bounds.min),
        max: value(&bounds.max),
        distinct: (bounds.distinct > 0).then(|| bounds.distinct.min(rows.max(1))),
        bytes: bounds.bytes,
    }
}
