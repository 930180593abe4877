//! Rows in, one segment file out: cut into chunks, encoded column by column, summarised on the way.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::compute;
use arrow::datatypes::SchemaRef;
use bytes::Bytes;

use super::{
    super::label::Label,
    CHUNK_ROWS, DistinctSketch, EncodedColumn, Result, SegmentError, ZoneMap,
    footer::{BlobMeta, ChunkMeta, ColumnSummary, SegmentFooter},
};
use crate::batch::batch_bytes;

/// Blobs start at multiples of this, so that they can be used where they lie.
const ALIGNMENT: u64 = 64;

/// A chunk below this size is encoded by one thread: starting more costs more than they do.
const PARALLEL_ROWS: usize = 8_192;

/// Builds one segment in memory.
#[derive(Debug)]
pub(crate) struct SegmentBuilder {
    schema: SchemaRef,
    threads: usize,
    waiting: VecDeque<RecordBatch>,
    waiting_rows: usize,
    waiting_bytes: usize,
    columns: Vec<ColumnTotals>,
    footer: SegmentFooter,
    chunks: Vec<Vec<EncodedColumn>>,
    parts: Vec<Bytes>,
    offset: u64,
}

/// A finished segment: its file content, and its chunks for whoever wants to go on using them.
#[derive(Debug)]
pub(crate) struct BuiltSegment {
    /// What the file says about itself.
    pub(crate) footer: SegmentFooter,
    /// The file, in parts to be written one after the other.
    pub(crate) parts: Vec<Bytes>,
    /// The encoded columns of each chunk.
    pub(crate) chunks: Vec<Vec<EncodedColumn>>,
}

/// What accumulates for one column over the chunks.
#[derive(Debug, Default)]
struct ColumnTotals {
    zone: Option<ZoneMap>,
    nulls: u64,
    distinct: Option<DistinctSketch>,
    bytes: u64,
}

/// One column of one chunk, ready to be written.
struct Encoded {
    column: EncodedColumn,
    parts: Vec<Bytes>,
    zone: ZoneMap,
}

impl SegmentBuilder {
    /// A builder for rows of `schema`.
    pub(crate) fn new(schema: SchemaRef) -> Self {
        let totals = || ColumnTotals { distinct: Some(DistinctSketch::default()), ..ColumnTotals::default() };
        let header = SegmentFooter::header();
        Self {
            threads: thread::available_parallelism().map_or(1, usize::from).min(4),
            waiting: VecDeque::new(),
            waiting_rows: 0,
            waiting_bytes: 0,
            columns: schema.fields().iter().map(|_| totals()).collect(),
            footer: SegmentFooter::default(),
            chunks: Vec::new(),
            offset: header.len() as u64,
            parts: vec![header],
            schema,
        }
    }

    /// Lets the file say that it is this one.
    pub(crate) fn labelled(mut self, label: Label) -> Self {
        self.footer.label = Some(label);
        self
    }

    /// Encodes the columns of a chunk on this many threads (default: one per core, at most four).
    #[cfg(test)]
    pub(crate) fn with_threads(mut self, threads: usize) -> Self {
        self.threads = threads.max(1);
        self
    }

    /// Adds rows; encodes whenever there are enough for a chunk.
    ///
    /// # Errors
    /// [`SegmentError::Internal`] if the batch is not of the builder's schema.
    pub(crate) fn push(&mut self, batch: RecordBatch) -> Result<()> {
        let matches = batch.num_columns() == self.schema.fields().len()
            && batch.columns().iter().zip(self.schema.fields()).all(|(c, f)| c.data_type() == f.data_type());
        if !matches {
            let what = format!("rows of {:?} pushed to a segment of {:?}", batch.schema(), self.schema);
            return Err(SegmentError::internal("building a segment", what));
        }
        if batch.num_rows() > 0 {
            self.waiting_rows += batch.num_rows();
            self.waiting_bytes += batch_bytes(&batch);
            self.waiting.push_back(batch);
        }
        while self.waiting_rows >= CHUNK_ROWS {
            self.encode_chunk(CHUNK_ROWS)?;
        }
        Ok(())
    }

    /// Rows pushed so far.
    pub(crate) fn rows(&self) -> u64 {
        self.footer.rows + self.waiting_rows as u64
    }

    /// Bytes of memory held, about: encoded chunks, and rows that wait for theirs.
    pub(crate) fn nbytes(&self) -> usize {
        self.offset as usize + self.waiting_bytes
    }

    /// Encodes what is left and closes the file.
    ///
    /// # Errors
    /// [`SegmentError::Internal`] if an encoding fails.
    pub(crate) fn finish(mut self) -> Result<BuiltSegment> {
        if self.waiting_rows > 0 {
            self.encode_chunk(self.waiting_rows)?;
        }
        self.footer.columns = self
            .columns
            .into_iter()
            .zip(self.schema.fields())
            .map(|(totals, field)| {
                let zone = totals.zone.unwrap_or_default();
                ColumnSummary {
                    name: field.name().clone(),
                    data_type: field.data_type().to_string(),
                    nulls: totals.nulls,
                    min: zone.min,
                    max: zone.max,
                    distinct: totals.distinct,
                    bytes: totals.bytes,
                }
            })
            .collect();
        self.parts.extend(self.footer.to_parts(self.offset)?);
        Ok(BuiltSegment { footer: self.footer, parts: self.parts, chunks: self.chunks })
    }

    fn encode_chunk(&mut self, rows: usize) -> Result<()> {
        let arrays = self.next_rows(rows)?;
        let encoded = encode_columns(&arrays, &self.schema, &mut self.columns, self.threads)?;
        let mut meta = ChunkMeta {
            rows: u32::try_from(rows).map_err(|e| SegmentError::internal("building a segment", e))?,
            first_row: self.footer.rows,
            ..ChunkMeta::default()
        };
        let mut columns = Vec::with_capacity(encoded.len());
        for (encoded, totals) in encoded.into_iter().zip(&mut self.columns) {
            let blob = append_blob(&mut self.parts, &mut self.offset, encoded.parts);
            totals.bytes += blob.len;
            totals.nulls += u64::from(encoded.zone.nulls);
            totals.zone =
                Some(totals.zone.as_ref().map_or_else(|| encoded.zone.clone(), |sum| sum.merge(&encoded.zone)));
            meta.columns.push(blob);
            meta.zones.push(encoded.zone);
            columns.push(encoded.column);
        }
        self.footer.rows += rows as u64;
        self.footer.chunks.push(meta);
        self.chunks.push(columns);
        Ok(())
    }

    /// The first `rows` waiting rows, column by column.
    fn next_rows(&mut self, rows: usize) -> Result<Vec<ArrayRef>> {
        let mut taken: Vec<RecordBatch> = Vec::new();
        let mut missing = rows;
        while missing > 0 {
            let Some(batch) = self.waiting.pop_front() else {
                return Err(SegmentError::internal("building a segment", "fewer rows than counted"));
            };
            if batch.num_rows() > missing {
                self.waiting.push_front(batch.slice(missing, batch.num_rows() - missing));
            }
            let batch = batch.slice(0, batch.num_rows().min(missing));
            missing -= batch.num_rows();
            taken.push(batch);
        }
        self.waiting_rows -= rows;
        self.waiting_bytes = self.waiting.iter().map(batch_bytes).sum();
        let column = |index: usize| -> Result<ArrayRef> {
            let parts: Vec<&dyn Array> = taken.iter().map(|batch| batch.column(index).as_ref()).collect();
            Ok(compute::concat(&parts)?)
        };
        (0..self.schema.fields().len()).map(column).collect()
    }
}

/// Each is for the one thread that takes its column. Threads that compute and end within a call are none of a simulation's.
#[expect(clippy::disallowed_types, reason = "nobody waits for it")]
type OneTaker<T> = std::sync::Mutex<T>;

/// Encodes and summarises each column; threads take the next one until none is left.
fn encode_columns(
    arrays: &[ArrayRef],
    schema: &SchemaRef,
    totals: &mut [ColumnTotals],
    threads: usize,
) -> Result<Vec<Encoded>> {
    let rows = arrays.first().map_or(0, |array| array.len());
    let sketches: Vec<_> = totals.iter_mut().map(|totals| OneTaker::new(&mut totals.distinct)).collect();
    let work = |index: usize| -> Result<Encoded> {
        let (array, field) = (&arrays[index], schema.field(index));
        let column = EncodedColumn::encode(array, field)?;
        // A dictionary has far fewer values to look at than the column has rows.
        let values = column.distinct_values(field)?;
        if let Ok(mut sketch) = sketches[index].lock() {
            add_distinct(&mut sketch, values.as_ref().unwrap_or(array));
        }
        let zone = match values {
            Some(values) => ZoneMap::of_values(array.len(), array.logical_null_count(), &values)?,
            None => ZoneMap::of(array)?,
        };
        Ok(Encoded { parts: column.to_bytes()?, zone, column })
    };
    if threads < 2 || rows < PARALLEL_ROWS || arrays.len() < 2 {
        return (0..arrays.len()).map(work).collect();
    }
    let next = AtomicUsize::new(0);
    let take_all = || -> Vec<(usize, Result<Encoded>)> {
        std::iter::from_fn(|| Some(next.fetch_add(1, Ordering::Relaxed)).filter(|index| *index < arrays.len()))
            .map(|index| (index, work(index)))
            .collect()
    };
    let mut done = thread::scope(|scope| -> Result<Vec<(usize, Result<Encoded>)>> {
        let others: Vec<_> = (1..threads.min(arrays.len())).map(|_| scope.spawn(take_all)).collect();
        let mut done = take_all();
        for other in others {
            let theirs = other.join().map_err(|_| SegmentError::internal("encoding a chunk", "a thread panicked"))?;
            done.extend(theirs);
        }
        Ok(done)
    })?;
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, encoded)| encoded).collect()
}

fn add_distinct(distinct: &mut Option<DistinctSketch>, array: &ArrayRef) {
    let counted = distinct.as_mut().is_some_and(|sketch| sketch.add(array));
    if !counted {
        *distinct = None;
    }
}

fn append_blob(parts: &mut Vec<Bytes>, offset: &mut u64, blob: Vec<Bytes>) -> BlobMeta {
    let start = offset.next_multiple_of(ALIGNMENT);
    if start > *offset {
        parts.push(Bytes::from_static(&[0; ALIGNMENT as usize]).slice(..(start - *offset) as usize));
    }
    let len = blob.iter().map(|part| part.len() as u64).sum();
    let crc = blob.iter().fold(0, |crc, part| crc32c::crc32c_append(crc, part));
    parts.extend(blob);
    *offset = start + len;
    BlobMeta { offset: start, len, crc }
}
