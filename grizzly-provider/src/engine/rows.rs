//! Values of given rows of a segment, wherever they are: the late end of every read.

use std::{collections::HashSet, sync::Arc};

use arrow::{
    array::{ArrayRef, UInt32Array, UInt64Array},
    compute,
    datatypes::{DataType, Field, FieldRef, Schema, SchemaRef},
    record_batch::{RecordBatch, RecordBatchOptions},
};

use super::{
    catalog::IndexDef,
    index::{IndexRun, RunSorter},
    segment::{CHUNK_ROWS, Gathered, cold::ColdSegment},
    shard::hot::HotSegment,
    version::{Segment, SegmentData, Stamp, TableVersion},
};
use crate::{
    access::{RowId, SystemColumn},
    error::{Error, Result},
};

/// The field of a column by number, system columns behind the table's own.
pub(crate) fn field(schema: &SchemaRef, column: usize) -> Result<FieldRef> {
    let own = schema.fields();
    if let Some(field) = own.get(column) {
        return Ok(Arc::clone(field));
    }
    let system = SystemColumn::ALL.get(column - own.len());
    let system = system.ok_or_else(|| Error::internal(format!("there is no column number {column}")))?;
    let data_type = match system {
        SystemColumn::Shard => DataType::UInt32,
        _ => DataType::UInt64,
    };
    Ok(Arc::new(Field::new(system.name(), data_type, *system == SystemColumn::Deleted)))
}

/// The schema of some columns by number.
pub(crate) fn projected_schema(schema: &SchemaRef, projection: &[usize]) -> Result<SchemaRef> {
    let fields = projection.iter().map(|column| field(schema, *column)).collect::<Result<Vec<_>>>()?;
    Ok(Arc::new(Schema::new(fields)))
}

/// A column of `rows` consecutive-or-not row numbers of a segment that is computed, not stored.
pub(crate) fn system_column(segment: &Segment, shard: u32, system: SystemColumn, rows: &[u32]) -> Result<ArrayRef> {
    Ok(match system {
        SystemColumn::RowId => {
            let id = segment.id();
            Arc::new(UInt64Array::from_iter_values(rows.iter().map(|row| RowId::new(id, *row).0)))
        }
        SystemColumn::Shard => Arc::new(UInt32Array::from_value(shard, rows.len())),
        SystemColumn::Deleted => {
            Arc::new(rows.iter().map(|row| segment.tombstones.get(*row).map(|csn| csn.0)).collect::<UInt64Array>())
        }
        SystemColumn::RowVersion => stamps(segment, rows, Stamp::Version)?,
        SystemColumn::Created => stamps(segment, rows, Stamp::Created)?,
    })
}

fn stamps(segment: &Segment, rows: &[u32], stamp: Stamp) -> Result<ArrayRef> {
    let mut parts = Vec::new();
    let mut rest = rows;
    while let Some(row) = rest.first() {
        let (chunk, stamps) = segment.stamps_of(*row, stamp)?;
        let within = rest.iter().position(|row| !chunk.contains(row)).unwrap_or(rest.len());
        let (part, more) = rest.split_at(within);
        parts.push(stamps.column(part.iter().map(|row| (row - chunk.start) as usize)));
        rest = more;
    }
    concat(parts, &DataType::UInt64)
}

/// Splits ascending row numbers by the chunk they are in.
pub(crate) fn chunks_of(rows: &[u32]) -> impl Iterator<Item = (usize, &[u32])> {
    rows.chunk_by(|a, b| *a as usize / CHUNK_ROWS == *b as usize / CHUNK_ROWS)
        .map(|part| (part[0] as usize / CHUNK_ROWS, part))
}

/// Rows of a segment, ascending.
pub(crate) type Chosen<'a> = (&'a Segment, &'a [u32]);

/// The table's own `columns` of chosen rows of several segments, one behind the other.
pub(crate) fn take_columns(table: &TableVersion, columns: &[usize], chosen: &[Chosen<'_>]) -> Result<Vec<ArrayRef>> {
    let schema = &table.def.schema;
    let mut gathered: Vec<_> = columns.iter().map(|column| Gathered::new(schema.field(*column))).collect();
    for (segment, rows) in chosen {
        match &segment.data {
            SegmentData::Cold(cold) => take_cold(cold, columns, rows, &mut gathered)?,
            SegmentData::Hot(hot) => take_hot(hot, columns, rows, &mut gathered)?,
        }
    }
    gathered.into_iter().map(|gathered| Ok(gathered.finish()?)).collect()
}

fn take_cold(cold: &ColdSegment, columns: &[usize], rows: &[u32], gathered: &mut [Gathered<'_>]) -> Result<()> {
    for (number, part) in chunks_of(rows) {
        let first = (number * CHUNK_ROWS) as u32;
        let within: Vec<u32> = part.iter().map(|row| row - first).collect();
        let columns = cold.file.columns(number, columns)?;
        for column in &columns {
            column.prefetch(&within);
        }
        for (gathered, column) in gathered.iter_mut().zip(&columns) {
            gathered.add(column, &within)?;
        }
    }
    Ok(())
}

fn take_hot(hot: &HotSegment, columns: &[usize], mut rows: &[u32], gathered: &mut [Gathered<'_>]) -> Result<()> {
    while let Some(row) = rows.first() {
        let located = hot.locate(*row);
        let (chunk, _) = located.ok_or_else(|| Error::internal(format!("segment {} has no row {row}", hot.id)))?;
        let end = chunk.first_row + chunk.rows() as u32;
        let (part, more) = rows.split_at(rows.partition_point(|row| *row < end));
        let within: UInt32Array = part.iter().map(|row| row - chunk.first_row).collect();
        for (gathered, column) in gathered.iter_mut().zip(columns) {
            gathered.add_array(compute::take(chunk.batch.column(*column), &within, None)?)?;
        }
        rows = more;
    }
    Ok(())
}

/// `parts` of one column, one behind the other.
pub(crate) fn concat(mut parts: Vec<ArrayRef>, data_type: &DataType) -> Result<ArrayRef> {
    match parts.len() {
        0 => Ok(arrow::array::new_empty_array(data_type)),
        1 => Ok(parts.remove(0)),
        _ => {
            let parts: Vec<_> = parts.iter().map(AsRef::as_ref).collect();
            Ok(compute::concat(&parts)?)
        }
    }
}

/// All columns of the given rows (ascending) of a segment.
pub(crate) fn take_rows(table: &TableVersion, segment: &Segment, rows: &[u32]) -> Result<RecordBatch> {
    let schema = &table.def.schema;
    let columns: Vec<usize> = (0..schema.fields().len()).collect();
    let columns = take_columns(table, &columns, &[(segment, rows)])?;
    let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?)
}

/// The rows of a segment with this index key, found without the index.
pub(crate) fn rows_with_key(table: &TableVersion, segment: &Segment, index: &IndexDef, key: &[u8]) -> Result<Vec<u32>> {
    let encoder = table.def.key_encoder(index)?;
    let mut rows = Vec::new();
    for part in key_columns(table, segment, index) {
        let (first, columns) = part?;
        let keys = encoder.encode_columns(&columns)?;
        rows.extend((0..keys.len()).filter(|row| keys.get(*row) == key).map(|row| first + row as u32));
    }
    Ok(rows)
}

/// A row of a segment that is accepted and has one of some index keys, and that key, found without the index.
pub(crate) fn find_keys(
    table: &TableVersion,
    segment: &Segment,
    index: &IndexDef,
    wanted: &HashSet<&[u8]>,
    accepts: impl Fn(u32) -> bool,
) -> Result<Option<(Vec<u8>, u32)>> {
    let encoder = table.def.key_encoder(index)?;
    for part in key_columns(table, segment, index) {
        let (first, columns) = part?;
        let keys = encoder.encode_columns(&columns)?;
        let mut found = (first..).zip(keys.iter()).filter(|(row, key)| wanted.contains(key) && accepts(*row));
        if let Some((row, key)) = found.next() {
            return Ok(Some((key.to_vec(), row)));
        }
    }
    Ok(None)
}

/// The indexed columns of all rows of a segment, chunk by chunk, with the number of each chunk's first row. One chunk is
/// decoded at a time.
pub(crate) fn key_columns<'a>(
    table: &'a TableVersion,
    segment: &'a Segment,
    index: &'a IndexDef,
) -> Box<dyn Iterator<Item = Result<(u32, Vec<ArrayRef>)>> + 'a> {
    let schema = &table.def.schema;
    match &segment.data {
        SegmentData::Hot(hot) => Box::new(hot.chunks.iter().map(|chunk| {
            let columns = index.columns.iter().map(|column| Arc::clone(chunk.batch.column(*column)));
            Ok((chunk.first_row, columns.collect()))
        })),
        SegmentData::Cold(cold) => Box::new((0..cold.file.footer().chunks.len()).map(move |chunk| {
            let column = |column: &usize| Ok(cold.file.column(chunk, *column)?.decode(schema.field(*column))?);
            let columns = index.columns.iter().map(column);
            Ok(((chunk * CHUNK_ROWS) as u32, columns.collect::<Result<Vec<_>>>()?))
        })),
    }
}

/// The run of an index over all rows of a segment, made from the rows.
pub(crate) fn segment_run(table: &TableVersion, segment: &Segment, index: &IndexDef) -> Result<IndexRun> {
    let encoder = table.def.key_encoder(index)?;
    let mut sorter = RunSorter::default();
    for part in key_columns(table, segment, index) {
        sorter.push(&encoder.encode_columns(&part?.1)?);
    }
    Ok(sorter.finish())
}

/// Gives a segment its run of an index, if it is a file that lacks it.
pub(crate) fn add_missing_run(table: &TableVersion, segment: &Segment, index: &IndexDef) -> Result<()> {
    let Some(cold) = segment.cold() else { return Ok(()) };
    if cold.run(index.id)?.is_none() {
        cold.add_run(index.id, segment_run(table, segment, index)?)?;
    }
    Ok(())
}
