//! Recent rows of a shard, in memory and covered by the log: a growing segment whose row numbers stay the same
//! when it is written to a file. Chunks merge geometrically, so one row costs O(1) and a scan sees few batches.

use std::sync::{Arc, OnceLock};

use arrow::{
    buffer::BooleanBuffer,
    compute::{concat_batches, filter_record_batch},
    record_batch::RecordBatch,
};

use super::super::{
    index::{HotIndex, IndexRun},
    mvcc::tombstones::CHUNK_ROWS,
    segment::zone_map::ZoneMap,
    stamps::Stamps,
};
use crate::{batch::batch_bytes, error::Result};

/// Chunks of one size class that merge into one of the next.
const FAN_IN: usize = 16;

/// Rows of a hot segment that came together or were merged; never crosses a multiple of [`CHUNK_ROWS`].
#[derive(Debug)]
pub(crate) struct HotChunk {
    pub(crate) first_row: u32,
    pub(crate) batch: RecordBatch,
    pub(crate) created: Stamps,
    pub(crate) versions: Stamps,
    zones: OnceLock<Vec<ZoneMap>>,
}

/// The live indexes of a hot segment: shared by all versions of it, since readers ignore rows beyond their own.
pub(crate) type HotIndexes = Arc<[(u32, HotIndex)]>;

/// Recent rows of one shard.
#[derive(Debug, Clone)]
pub(crate) struct HotSegment {
    pub(crate) id: u32,
    pub(crate) chunks: Vec<Arc<HotChunk>>,
    pub(crate) rows: u32,
    pub(crate) bytes: usize,
    /// Set when a flush begins: later rows go to another segment.
    pub(crate) sealed: bool,
    /// By index id. An index that is missing here was created later: the segment is scanned for it.
    pub(crate) indexes: HotIndexes,
}

impl HotChunk {
    fn new(first_row: u32, batch: RecordBatch, created: Stamps, versions: Stamps) -> Self {
        Self { first_row, batch, created, versions, zones: OnceLock::new() }
    }

    pub(crate) fn rows(&self) -> usize {
        self.batch.num_rows()
    }

    /// Bounds per column, computed when first asked for.
    pub(crate) fn zones(&self) -> &[ZoneMap] {
        self.zones.get_or_init(|| {
            self.batch
                .columns()
                .iter()
                .map(|column| ZoneMap::of(column).unwrap_or_else(|_| ZoneMap::unknown(column)))
                .collect()
        })
    }

    /// The rows that `live` keeps, all without it, and their versions.
    pub(crate) fn kept(&self, live: Option<BooleanBuffer>) -> Result<(RecordBatch, Stamps)> {
        let Some(live) = live else { return Ok((self.batch.clone(), self.versions.clone())) };
        let versions: Vec<u64> = live.set_indices().map(|row| self.versions.get(row)).collect();
        Ok((filter_record_batch(&self.batch, &live.into())?, Stamps::Each(versions.as_slice().into())))
    }

    fn size_class(&self) -> u32 {
        self.rows().max(1).ilog(FAN_IN)
    }

    fn block(&self) -> u32 {
        self.first_row / CHUNK_ROWS
    }
}

impl HotSegment {
    /// An empty segment with live indexes of these ids.
    pub(crate) fn new(id: u32, indexes: impl Iterator<Item = u32>) -> Self {
        let indexes = indexes.map(|index| (index, HotIndex::new())).collect();
        Self { id, chunks: Vec::new(), rows: 0, bytes: 0, sealed: false, indexes }
    }

    /// Adds rows behind the last. Index entries are the caller's matter.
    pub(crate) fn append(&mut self, batch: &RecordBatch, created: u64, versions: &Stamps) -> Result<()> {
        let mut from = 0;
        while from < batch.num_rows() {
            let room = (CHUNK_ROWS - self.rows % CHUNK_ROWS) as usize;
            let len = room.min(batch.num_rows() - from);
            let part = batch.slice(from, len);
            self.bytes += batch_bytes(&part);
            let chunk = HotChunk::new(self.rows, part, Stamps::All(created), versions.slice(from, len));
            self.chunks.push(Arc::new(chunk));
            self.rows += len as u32;
            from += len;
            self.merge()?;
        }
        Ok(())
    }

    fn merge(&mut self) -> Result<()> {
        while self.chunks.len() >= FAN_IN {
            let tail = &self.chunks[self.chunks.len() - FAN_IN..];
            let (class, block) = (tail[0].size_class(), tail[0].block());
            if tail.iter().any(|chunk| chunk.size_class() != class || chunk.block() != block) {
                return Ok(());
            }
            let merged = Self::merged(tail)?;
            self.chunks.truncate(self.chunks.len() - FAN_IN);
            self.chunks.push(Arc::new(merged));
        }
        Ok(())
    }

    fn merged(chunks: &[Arc<HotChunk>]) -> Result<HotChunk> {
        let batch = concat_batches(&chunks[0].batch.schema(), chunks.iter().map(|chunk| &chunk.batch))?;
        let created = Stamps::concat(chunks.iter().map(|chunk| (&chunk.created, chunk.rows())));
        let versions = Stamps::concat(chunks.iter().map(|chunk| (&chunk.versions, chunk.rows())));
        Ok(HotChunk::new(chunks[0].first_row, batch, created, versions))
    }

    /// The chunk that holds `row`, and the row's place in it.
    pub(crate) fn locate(&self, row: u32) -> Option<(&Arc<HotChunk>, usize)> {
        let at = self.chunks.partition_point(|chunk| chunk.first_row <= row).checked_sub(1)?;
        let chunk = &self.chunks[at];
        let within = (row - chunk.first_row) as usize;
        (within < chunk.rows()).then_some((chunk, within))
    }

    /// The live index with this id.
    pub(crate) fn index(&self, id: u32) -> Option<&HotIndex> {
        self.indexes.iter().find(|(index, _)| *index == id).map(|(_, index)| index)
    }

    /// The run of a live index, for the file this segment becomes.
    pub(crate) fn run(&self, id: u32) -> Option<IndexRun> {
        self.index(id).map(|index| index.to_run(self.rows))
    }
}

#[cfg(test)]
mod tests {
    use arrow::{
        array::Int64Array,
        datatypes::{DataType, Field, Schema},
    };

    use super::*;

    #[test]
    fn single_rows_merge_into_few_chunks_and_keep_their_numbers() -> Result<()> {
        let schema = Arc::new(Schema::new(vec![Field::new("a", DataType::Int64, false)]));
        let mut segment = HotSegment::new(7, [1].into_iter());
        for row in 0..5_000_i64 {
            let batch = RecordBatch::try_new(Arc::clone(&schema), vec![Arc::new(Int64Array::from(vec![row]))])?;
            segment.append(&batch, row as u64, &Stamps::All(1))?;
        }
        assert_eq!(segment.rows, 5_000);
        assert!(segment.chunks.len() < 4 * FAN_IN, "{} chunks", segment.chunks.len());
        for row in [0_u32, 15, 16, 4_095, 4_999] {
            let (chunk, within) = segment.locate(row).expect("the row is there");
            assert_eq!(chunk.created.get(within), u64::from(row));
        }
        assert!(segment.locate(5_000).is_none());
        Ok(())
    }
}
