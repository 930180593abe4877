//! A planned scan and its units of work. The one place where an access path is carried out:
//! zone map, then visibility, then filter on encoded data, then decoding of the survivors.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, RecordBatchOptions},
    buffer::BooleanBuffer,
    compute::{concat_batches, filter_record_batch},
    datatypes::SchemaRef,
    record_batch::RecordBatch,
};

use super::{
    lookup::{Hits, segment_hits},
    mvcc::visibility::visible,
    planning, rows,
    segment::{
        cold::ColdSegment,
        predicate::{evaluate, evaluate_batch},
        zone_map::{Verdict, may_match},
    },
    shard::hot::HotChunk,
    snapshot::TableSnapshot,
    stamps::Stamps,
    version::{Segment, SegmentData},
};
use crate::{
    access::{AccessPath, Csn, KeyRange, Predicate, ScanRequest, SystemColumn},
    error::{Error, Result},
};

/// Index entries up to which one unit of work serves all segments.
const SMALL_LOOKUP: u64 = 16_384;

/// A unit of work of a scan: at most 65,536 rows of a segment, or index lookups in one or more segments.
#[derive(Debug, Clone)]
pub struct Morsel(Work);

#[derive(Debug, Clone)]
enum Work {
    Chunk { shard: u32, segment: Arc<Segment>, chunk: usize },
    Lookup { segments: Vec<(u32, Arc<Segment>)> },
}

/// A planned scan: any thread may read any morsel, in any order. Cheap to clone.
#[derive(Debug, Clone)]
pub struct TableScan {
    plan: Arc<Plan>,
}

#[derive(Debug)]
struct Plan {
    snapshot: TableSnapshot,
    schema: SchemaRef,
    projection: Vec<usize>,
    /// Conditions on the table's own columns.
    own: Option<Predicate>,
    /// Conditions that name system columns, on the columns of `needed`.
    rest: Option<Predicate>,
    /// All conditions, on the columns of `needed`; for rows that an index found.
    looked_up: Option<Predicate>,
    /// The projection, then what the conditions need besides.
    needed: Vec<usize>,
    needed_schema: SchemaRef,
    lookup: Option<(u32, Arc<[KeyRange]>)>,
    all_versions: bool,
    morsels: Vec<Morsel>,
    pruned: usize,
}

/// Plans a scan.
pub(super) fn plan(snapshot: &TableSnapshot, request: &ScanRequest) -> Result<TableScan> {
    let width = snapshot.table.def.schema.fields().len();
    let lookup = lookup(snapshot, request)?;
    let (own, system): (Vec<_>, Vec<_>) = conjuncts(request.predicate.as_ref())
        .into_iter()
        .partition(|part| part.columns().iter().all(|column| *column < width));
    let mut needed = request.projection.clone();
    let tested = if lookup.is_some() { request.predicate.as_ref().map(Predicate::columns) } else { None };
    for column in tested.unwrap_or_else(|| system.iter().flat_map(Predicate::columns).collect()) {
        if !needed.contains(&column) {
            needed.push(column);
        }
    }
    let place = |column: usize| needed.iter().position(|needed| *needed == column).unwrap_or_default();
    let mut plan = Plan {
        schema: rows::projected_schema(&snapshot.table.def.schema, &request.projection)?,
        needed_schema: rows::projected_schema(&snapshot.table.def.schema, &needed)?,
        projection: request.projection.clone(),
        rest: all_of(system.into_iter().map(|part| remap(&part, &place)).collect()),
        looked_up: request.predicate.as_ref().filter(|_| lookup.is_some()).map(|predicate| remap(predicate, &place)),
        own: all_of(own),
        needed,
        lookup,
        all_versions: request.all_versions,
        snapshot: snapshot.clone(),
        morsels: Vec::new(),
        pruned: 0,
    };
    plan.divide(request.shards.as_deref());
    Ok(TableScan { plan: Arc::new(plan) })
}

/// The index to look into, and where. An index is never needed for the right answer: one that was dropped after it was
/// chosen is done without.
fn lookup(snapshot: &TableSnapshot, request: &ScanRequest) -> Result<Option<(u32, Arc<[KeyRange]>)>> {
    let AccessPath::Index { index, ranges } = &request.access else { return Ok(None) };
    let id = match request.index_id {
        Some(id) => Some(id).filter(|id| snapshot.table.def.indexes.iter().any(|index| index.id == *id)),
        None => Some(planning::index(&snapshot.table, index)?.0.id),
    };
    Ok(id.map(|id| (id, Arc::clone(ranges))))
}

fn conjuncts(predicate: Option<&Predicate>) -> Vec<Predicate> {
    match predicate {
        None => Vec::new(),
        Some(Predicate::And(parts)) => parts.iter().flat_map(|part| conjuncts(Some(part))).collect(),
        Some(other) => vec![other.clone()],
    }
}

fn all_of(mut parts: Vec<Predicate>) -> Option<Predicate> {
    match parts.len() {
        0 => None,
        1 => parts.pop(),
        _ => Some(Predicate::And(parts)),
    }
}

fn remap(predicate: &Predicate, place: &impl Fn(usize) -> usize) -> Predicate {
    match predicate {
        Predicate::Test { column, test } => Predicate::Test { column: place(*column), test: test.clone() },
        Predicate::CompareColumns { left, op, right } => {
            Predicate::CompareColumns { left: place(*left), op: *op, right: place(*right) }
        }
        Predicate::And(parts) => Predicate::And(parts.iter().map(|part| remap(part, place)).collect()),
        Predicate::Or(parts) => Predicate::Or(parts.iter().map(|part| remap(part, place)).collect()),
        Predicate::Constant(value) => Predicate::Constant(*value),
    }
}

impl TableScan {
    /// Schema of the batches.
    pub fn schema(&self) -> SchemaRef {
        Arc::clone(&self.plan.schema)
    }

    /// Units of work.
    pub fn morsels(&self) -> &[Morsel] {
        &self.plan.morsels
    }

    /// Chunks that zone maps ruled out while planning.
    pub fn pruned(&self) -> usize {
        self.plan.pruned
    }

    /// Reads one morsel. `extra` narrows the result further, as a dynamic filter does; rows for which it is not true
    /// may or may not be left out. `None` if nothing matches.
    pub fn read(&self, morsel: &Morsel, extra: Option<&Predicate>) -> Result<Option<RecordBatch>> {
        match &morsel.0 {
            Work::Chunk { shard, segment, chunk } => {
                // Chunks hold the table's own columns; conditions on others are among those left to the caller.
                let width = self.plan.snapshot.table.def.schema.fields().len();
                let own = |part: &Predicate| part.columns().iter().all(|column| *column < width);
                let extra = all_of(conjuncts(extra).into_iter().filter(own).collect());
                let Some(batch) = self.plan.read_chunk(*shard, segment, *chunk, extra.as_ref())? else {
                    return Ok(None);
                };
                self.plan.finish(batch, self.plan.rest.as_ref())
            }
            Work::Lookup { segments } => self.plan.look_up(segments),
        }
    }
}

impl Plan {
    /// Divides the work into morsels.
    fn divide(&mut self, shards: Option<&[u32]>) {
        let chosen =
            self.snapshot.table.segments().filter(|(shard, _)| shards.is_none_or(|shards| shards.contains(shard)));
        let read = chosen.filter(|(_, segment)| self.all_versions || self.snapshot.may_see(segment));
        let segments: Vec<_> = read.map(|(shard, segment)| (shard, Arc::clone(segment))).collect();
        if let Some((index, ranges)) = &self.lookup {
            let name =
                self.snapshot.table.def.indexes.iter().find(|def| def.id == *index).map(|def| Arc::clone(&def.name));
            let expected = self.snapshot.estimate_index_rows(&name.unwrap_or_default(), ranges, shards);
            self.morsels = match expected <= SMALL_LOOKUP {
                true => vec![Morsel(Work::Lookup { segments })],
                false => segments.into_iter().map(|segment| Morsel(Work::Lookup { segments: vec![segment] })).collect(),
            };
            return;
        }
        for (shard, segment) in segments {
            for chunk in 0..chunk_count(&segment) {
                if self.zone_verdict(&segment, chunk, self.own.as_ref()) == Verdict::None {
                    self.pruned += 1;
                } else {
                    self.morsels.push(Morsel(Work::Chunk { shard, segment: Arc::clone(&segment), chunk }));
                }
            }
        }
    }

    fn zone_verdict(&self, segment: &Segment, chunk: usize, predicate: Option<&Predicate>) -> Verdict {
        let (Some(predicate), SegmentData::Cold(cold)) = (predicate, &segment.data) else { return Verdict::Some };
        let zones = &cold.file.footer().chunks[chunk].zones;
        may_match(predicate, &|column| zones.get(column), &self.snapshot.table.def.schema)
    }

    /// The rows of a chunk that are visible and for which the own-column conditions hold, with the needed columns.
    fn read_chunk(
        &self,
        shard: u32,
        segment: &Segment,
        chunk: usize,
        extra: Option<&Predicate>,
    ) -> Result<Option<RecordBatch>> {
        match &segment.data {
            SegmentData::Hot(hot) => self.read_hot(shard, segment, &hot.chunks[chunk], extra),
            SegmentData::Cold(cold) => self.read_cold(shard, segment, cold, chunk, extra),
        }
    }

    fn read_hot(
        &self,
        shard: u32,
        segment: &Segment,
        chunk: &HotChunk,
        extra: Option<&Predicate>,
    ) -> Result<Option<RecordBatch>> {
        let (first, rows) = (chunk.first_row, chunk.rows());
        let mut mask = self.visible_rows(segment, first, rows, || Ok(chunk.created.clone()))?;
        for predicate in self.own.iter().chain(extra) {
            let holds = evaluate_batch(predicate, &chunk.batch)?;
            mask = Some(mask.map_or(holds.clone(), |mask| &mask & &holds));
        }
        self.collect(shard, segment, first, rows, mask, |column, mask| match mask {
            None => Ok(Arc::clone(chunk.batch.column(column))),
            Some(mask) => Ok(arrow::compute::filter(chunk.batch.column(column), &mask.clone().into())?),
        })
    }

    fn read_cold(
        &self,
        shard: u32,
        segment: &Segment,
        cold: &ColdSegment,
        chunk: usize,
        extra: Option<&Predicate>,
    ) -> Result<Option<RecordBatch>> {
        let meta = &cold.file.footer().chunks[chunk];
        let (first, rows) = (meta.first_row as u32, meta.rows as usize);
        let schema = &self.snapshot.table.def.schema;
        let mut mask = self.visible_rows(segment, first, rows, || cold.created(chunk))?;
        for predicate in self.own.iter().chain(extra) {
            match self.zone_verdict(segment, chunk, Some(predicate)) {
                Verdict::None => return Ok(None),
                Verdict::All => {}
                Verdict::Some => {
                    let mut column = |column| cold.file.column(chunk, column);
                    let holds = evaluate(predicate, &mut column, schema, rows, mask.as_ref())?;
                    let both = match &mask {
                        Some(mask) => mask & &holds,
                        None => holds,
                    };
                    if both.count_set_bits() == 0 {
                        return Ok(None);
                    }
                    mask = Some(both);
                }
            }
        }
        if mask.as_ref().is_some_and(|mask| mask.count_set_bits() == 0) {
            return Ok(None);
        }
        let columns: Vec<usize> =
            self.needed.iter().copied().filter(|column| *column < schema.fields().len()).collect();
        let encoded = cold.file.columns(chunk, &columns)?;
        self.collect(shard, segment, first, rows, mask, |column, mask| {
            let at = columns.iter().position(|fetched| *fetched == column);
            let encoded = at.map(|at| &encoded[at]).ok_or_else(|| Error::internal("a column was not fetched"))?;
            let field = schema.field(column);
            Ok(match mask {
                None => encoded.decode(field)?,
                Some(mask) => encoded.filter(field, mask)?,
            })
        })
    }

    /// Puts the needed columns of the selected rows together.
    fn collect(
        &self,
        shard: u32,
        segment: &Segment,
        first: u32,
        rows: usize,
        mask: Option<BooleanBuffer>,
        own: impl Fn(usize, Option<&BooleanBuffer>) -> Result<ArrayRef>,
    ) -> Result<Option<RecordBatch>> {
        let selected = mask.as_ref().map_or(rows, BooleanBuffer::count_set_bits);
        if selected == 0 {
            return Ok(None);
        }
        let mask = mask.filter(|_| selected < rows);
        let width = self.snapshot.table.def.schema.fields().len();
        let mut numbers: Option<Vec<u32>> = None;
        let mut columns = Vec::with_capacity(self.needed.len());
        for column in &self.needed {
            let Some(system) = column.checked_sub(width) else {
                columns.push(own(*column, mask.as_ref())?);
                continue;
            };
            let numbers = numbers.get_or_insert_with(|| match &mask {
                None => (first..first + rows as u32).collect(),
                Some(mask) => mask.set_indices().map(|row| first + row as u32).collect(),
            });
            columns.push(self.system_column(segment, shard, SystemColumn::ALL[system], numbers)?);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(selected));
        Ok(Some(RecordBatch::try_new_with_options(Arc::clone(&self.needed_schema), columns, &options)?))
    }

    fn system_column(&self, segment: &Segment, shard: u32, system: SystemColumn, rows: &[u32]) -> Result<ArrayRef> {
        let column = rows::system_column(segment, shard, system, rows)?;
        if !(self.snapshot.historic && system == SystemColumn::Deleted) {
            return Ok(column);
        }
        // As of the past, what was deleted later is not deleted.
        let deleted = rows.iter().map(|row| segment.tombstones.get(*row).filter(|csn| *csn <= self.snapshot.csn));
        Ok(Arc::new(deleted.map(|csn| csn.map(|csn| csn.0)).collect::<arrow::array::UInt64Array>()))
    }

    /// Applies the conditions that are left and cuts the batch down to the projection.
    fn finish(&self, mut batch: RecordBatch, rest: Option<&Predicate>) -> Result<Option<RecordBatch>> {
        if let Some(rest) = rest {
            let holds = evaluate_batch(rest, &batch)?;
            match holds.count_set_bits() {
                0 => return Ok(None),
                all if all == batch.num_rows() => {}
                _ => batch = filter_record_batch(&batch, &holds.into())?,
            }
        }
        if self.needed.len() == self.projection.len() {
            return Ok(Some(batch));
        }
        let columns: Vec<usize> = (0..self.projection.len()).collect();
        Ok(Some(batch.project(&columns)?))
    }

    /// Which of `rows` rows from `first` on the snapshot sees; `None` if all.
    fn visible_rows(
        &self,
        segment: &Segment,
        first: u32,
        rows: usize,
        created: impl FnOnce() -> Result<Stamps>,
    ) -> Result<Option<BooleanBuffer>> {
        let snapshot = self.snapshot.csn;
        if !self.snapshot.historic {
            // Every row and every end in this version is part of the snapshot.
            return Ok(match self.all_versions {
                true => None,
                false => segment.tombstones.live(first, rows, Csn(u64::MAX)),
            });
        }
        let created = created()?;
        let mask = BooleanBuffer::collect_bool(rows, |row| {
            let deleted = segment.tombstones.get(first + row as u32).filter(|_| !self.all_versions);
            visible(Csn(created.get(row)), deleted, snapshot)
        });
        Ok((mask.count_set_bits() < rows).then_some(mask))
    }

    /// Rows by index, from all given segments.
    fn look_up(&self, segments: &[(u32, Arc<Segment>)]) -> Result<Option<RecordBatch>> {
        let Some((index, ranges)) = &self.lookup else { return Ok(None) };
        let (mut batches, mut found) = (Vec::new(), Vec::new());
        for (shard, segment) in segments {
            match segment_hits(segment, *index, ranges)? {
                Hits::Rows(mut rows) => {
                    self.keep_visible(segment, &mut rows)?;
                    if !rows.is_empty() {
                        found.push((*shard, segment.as_ref(), rows));
                    }
                }
                Hits::Scan => {
                    for chunk in 0..chunk_count(segment) {
                        batches.extend(self.read_chunk(*shard, segment, chunk, None)?);
                    }
                }
            }
        }
        if !found.is_empty() {
            batches.push(self.take(&found)?);
        }
        let batch = match batches.len() {
            0 => return Ok(None),
            1 => batches.remove(0),
            _ => concat_batches(&self.needed_schema, &batches)?,
        };
        self.finish(batch, self.looked_up.as_ref())
    }

    fn keep_visible(&self, segment: &Segment, rows: &mut Vec<u32>) -> Result<()> {
        if !self.snapshot.historic {
            if !self.all_versions && !segment.tombstones.is_empty() {
                rows.retain(|row| segment.tombstones.get(*row).is_none());
            }
            return Ok(());
        }
        let mut kept = Vec::with_capacity(rows.len());
        for row in rows.iter().copied() {
            let deleted = segment.tombstones.get(row).filter(|_| !self.all_versions);
            if visible(segment.created(row)?, deleted, self.snapshot.csn) {
                kept.push(row);
            }
        }
        *rows = kept;
        Ok(())
    }

    /// The needed columns of rows that an index has found in several segments.
    fn take(&self, found: &[(u32, &Segment, Vec<u32>)]) -> Result<RecordBatch> {
        let table = &self.snapshot.table;
        let width = table.def.schema.fields().len();
        let own: Vec<usize> = self.needed.iter().copied().filter(|column| *column < width).collect();
        let chosen: Vec<_> = found.iter().map(|(_, segment, rows)| (*segment, rows.as_slice())).collect();
        let mut own = rows::take_columns(table, &own, &chosen)?.into_iter();
        let columns = self.needed.iter().map(|column| {
            let Some(system) = column.checked_sub(width).map(|system| SystemColumn::ALL[system]) else {
                return own.next().ok_or_else(|| Error::internal("a column was not read"));
            };
            let parts = found.iter().map(|(shard, segment, rows)| self.system_column(segment, *shard, system, rows));
            let data_type = rows::field(&table.def.schema, *column)?.data_type().clone();
            rows::concat(parts.collect::<Result<_>>()?, &data_type)
        });
        let columns = columns.collect::<Result<Vec<_>>>()?;
        let rows = found.iter().map(|(_, _, rows)| rows.len()).sum();
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        Ok(RecordBatch::try_new_with_options(Arc::clone(&self.needed_schema), columns, &options)?)
    }
}

fn chunk_count(segment: &Segment) -> usize {
    match &segment.data {
        SegmentData::Hot(hot) => hot.chunks.len(),
        SegmentData::Cold(cold) => cold.file.footer().chunks.len(),
    }
}
