//! One immutable value that names everything a reader sees. Making the next version copies only the path to what
//! changed.

pub(crate) mod apply;

use std::{
    ops::Range,
    sync::{Arc, OnceLock},
};

use arrow::{array::ArrayRef, record_batch::RecordBatch};
use imbl::OrdMap;

use super::{
    catalog::{Catalog, IndexDef, TableDef},
    key::{KeyEncoder, Keys},
    mvcc::tombstones::Tombstones,
    segment::{CHUNK_ROWS, cold::ColdSegment, meta::OVERLAY},
    shard::{hot::HotSegment, router::ShardRouter},
    stamps::Stamps,
};
use crate::{
    access::{Csn, RowId, TableStatistics},
    error::{Error, Result},
};

/// Later than every commit: what a transaction has changed and not committed.
pub(crate) const UNCOMMITTED: Csn = Csn(u64::MAX);

/// The database after a commit.
#[derive(Debug, Clone)]
pub(crate) struct DatabaseVersion {
    pub(crate) csn: Csn,
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) tables: OrdMap<u64, Arc<TableVersion>>,
    /// States before this commit can no longer be read: vacuum has removed rows of theirs.
    pub(crate) history_from: Csn,
    /// How many compactions it contains.
    pub(crate) compactions: u64,
}

/// One table.
#[derive(Debug)]
pub(crate) struct TableVersion {
    pub(crate) def: Arc<TableDef>,
    pub(crate) codecs: Arc<TableCodecs>,
    /// The last commit that changed rows or definition, or a later one since when nothing did.
    pub(crate) changed: Csn,
    pub(crate) shards: Vec<Arc<ShardVersion>>,
    pub(crate) statistics: OnceLock<Arc<TableStatistics>>,
}

/// What a table's definition implies: made once per definition.
#[derive(Debug)]
pub(crate) struct TableCodecs {
    pub(crate) router: Option<ShardRouter>,
    pub(crate) keys: Vec<(IndexDef, KeyEncoder)>,
}

/// One shard: segments in the order they were begun; the last may be hot and growing.
#[derive(Debug, Clone, Default)]
pub(crate) struct ShardVersion {
    pub(crate) segments: Vec<Arc<Segment>>,
}

/// One segment and which of its rows have ended.
#[derive(Debug, Clone)]
pub(crate) struct Segment {
    pub(crate) data: SegmentData,
    pub(crate) tombstones: Tombstones,
}

/// What became of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RowState {
    /// It has not ended.
    Live,
    /// A commit ended it.
    Ended(Csn),
    /// There is no such row: its segment is gone, or shorter.
    Missing,
}

/// What is written beside each row.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Stamp {
    /// The commit that wrote it.
    Created,
    /// Its version number.
    Version,
}

/// Where a segment's rows are.
#[derive(Debug, Clone)]
pub(crate) enum SegmentData {
    /// In memory, covered by the log.
    Hot(HotSegment),
    /// In a file.
    Cold(Arc<ColdSegment>),
}

impl DatabaseVersion {
    /// A new database.
    pub(crate) fn empty(csn: Csn) -> Self {
        Self { csn, catalog: Arc::default(), tables: OrdMap::new(), history_from: csn, compactions: 0 }
    }

    /// Bytes that its lists of ended rows take, about.
    pub(crate) fn ended_bytes(&self) -> u64 {
        let segments = self.tables.values().flat_map(|table| table.segments());
        segments.map(|(_, segment)| segment.tombstones.nbytes() as u64).sum()
    }

    pub(crate) fn table(&self, id: u64) -> Result<&Arc<TableVersion>> {
        self.tables.get(&id).ok_or_else(|| no_table(id))
    }

    pub(crate) fn table_named(&self, name: &str) -> Result<&Arc<TableVersion>> {
        self.table(self.catalog.table(name)?.id)
    }

    /// The table, to change in this version only what readers do not notice: where its rows are.
    pub(crate) fn table_mut(&mut self, id: u64) -> Result<&mut TableVersion> {
        let table = Arc::make_mut(self.tables.get_mut(&id).ok_or_else(|| no_table(id))?);
        table.statistics = OnceLock::new();
        Ok(table)
    }

    /// The table, to change its rows or its definition, in this version only, as commit `csn` does.
    pub(crate) fn change_table(&mut self, id: u64, csn: Csn) -> Result<&mut TableVersion> {
        let table = self.table_mut(id)?;
        table.changed = csn;
        Ok(table)
    }
}

impl Clone for TableVersion {
    fn clone(&self) -> Self {
        Self {
            def: Arc::clone(&self.def),
            codecs: Arc::clone(&self.codecs),
            changed: self.changed,
            shards: self.shards.clone(),
            statistics: OnceLock::new(),
        }
    }
}

impl TableCodecs {
    pub(crate) fn new(def: &TableDef) -> Result<Self> {
        let keys = def.indexes.iter().map(|index| Ok((index.clone(), def.key_encoder(index)?)));
        Ok(Self { router: def.router()?, keys: keys.collect::<Result<_>>()? })
    }

    pub(crate) fn primary(&self) -> Option<&(IndexDef, KeyEncoder)> {
        self.keys.iter().find(|(index, _)| index.primary)
    }

    pub(crate) fn named(&self, name: &str) -> Option<&(IndexDef, KeyEncoder)> {
        self.keys.iter().find(|(index, _)| index.name.as_ref() == name)
    }
}

impl TableVersion {
    /// An empty table, made by commit `csn`.
    pub(crate) fn new(def: Arc<TableDef>, csn: Csn) -> Result<Self> {
        let codecs = Arc::new(TableCodecs::new(&def)?);
        let shards = (0..def.shards).map(|_| Arc::default()).collect();
        Ok(Self { def, codecs, changed: csn, shards, statistics: OnceLock::new() })
    }

    /// The same rows under a changed definition.
    pub(crate) fn redefine(&mut self, def: Arc<TableDef>) -> Result<()> {
        self.codecs = Arc::new(TableCodecs::new(&def)?);
        self.def = def;
        Ok(())
    }

    /// Every segment with its shard.
    pub(crate) fn segments(&self) -> impl Iterator<Item = (u32, &Arc<Segment>)> {
        self.shards.iter().zip(0_u32..).flat_map(|(shard, number)| shard.segments.iter().map(move |s| (number, s)))
    }

    /// The keys of all indexes for some rows.
    pub(crate) fn index_keys(&self, batch: &RecordBatch) -> Result<Vec<Keys>> {
        let keys = self.codecs.keys.iter().map(|(index, encoder)| {
            let columns: Vec<ArrayRef> = index.columns.iter().map(|column| Arc::clone(batch.column(*column))).collect();
            Ok(encoder.encode_columns(&columns)?)
        });
        keys.collect()
    }

    /// The segment with this number.
    pub(crate) fn segment(&self, id: u32) -> Option<&Arc<Segment>> {
        self.segments().map(|(_, segment)| segment).find(|segment| segment.id() == id)
    }

    /// The segment, to change it in this version only.
    pub(crate) fn segment_mut(&mut self, id: u32) -> Option<&mut Segment> {
        for shard in &mut self.shards {
            if let Some(at) = shard.segments.iter().position(|segment| segment.id() == id) {
                return Some(Arc::make_mut(&mut Arc::make_mut(shard).segments[at]));
            }
        }
        None
    }

    /// Ends its growing segments; returns all that are in memory.
    pub(crate) fn seal(&mut self) -> Vec<u32> {
        let hot = self.segments().filter(|(_, segment)| segment.hot().is_some());
        let hot: Vec<u32> = hot.map(|(_, segment)| segment.id()).collect();
        for id in &hot {
            if let Some(SegmentData::Hot(hot)) = self.segment_mut(*id).map(|segment| &mut segment.data) {
                hot.sealed = true;
            }
        }
        hot
    }

    /// Rows of a shard, to change them in this version only.
    pub(crate) fn shard_mut(&mut self, shard: u32) -> Result<&mut ShardVersion> {
        if shard as usize >= self.shards.len() {
            return Err(self.no_shard(shard));
        }
        Ok(Arc::make_mut(&mut self.shards[shard as usize]))
    }

    /// Rows of a shard.
    pub(crate) fn shard(&self, shard: u32) -> Result<&ShardVersion> {
        self.shards.get(shard as usize).map(Arc::as_ref).ok_or_else(|| self.no_shard(shard))
    }

    fn no_shard(&self, shard: u32) -> Error {
        Error::corrupt(format!("table '{}' has no shard {shard}", self.def.name))
    }

    /// What became of a row.
    pub(crate) fn row_state(&self, row: RowId) -> RowState {
        match self.segment(row.segment()).filter(|segment| row.row() < segment.rows()) {
            Some(segment) => segment.tombstones.get(row.row()).map_or(RowState::Live, RowState::Ended),
            None => RowState::Missing,
        }
    }

    /// Rows that are not ended in this version.
    pub(crate) fn live_rows(&self) -> u64 {
        self.segments().map(|(_, segment)| u64::from(segment.rows() - segment.tombstones.len())).sum()
    }
}

impl ShardVersion {
    /// The growing segment, if there is one.
    pub(crate) fn growing(&self) -> Option<&HotSegment> {
        self.segments.iter().rfind(|segment| segment.is_growing())?.hot()
    }

    /// The same, to add rows to it in this version only.
    pub(crate) fn growing_mut(&mut self) -> Option<&mut HotSegment> {
        let at = self.segments.iter().rposition(|segment| segment.is_growing())?;
        match &mut Arc::make_mut(&mut self.segments[at]).data {
            SegmentData::Hot(hot) => Some(hot),
            SegmentData::Cold(_) => None,
        }
    }

    /// Adds a hot segment that grows from now on.
    pub(crate) fn push_hot(&mut self, hot: HotSegment) {
        self.push(SegmentData::Hot(hot), Tombstones::default());
    }

    pub(crate) fn push(&mut self, data: SegmentData, tombstones: Tombstones) {
        self.segments.push(Arc::new(Segment { data, tombstones }));
    }

    /// Rows in memory.
    pub(crate) fn hot_rows(&self) -> u64 {
        self.segments.iter().filter_map(|segment| segment.hot()).map(|hot| u64::from(hot.rows)).sum()
    }

    /// Their bytes, about.
    pub(crate) fn hot_bytes(&self) -> u64 {
        self.segments.iter().filter_map(|segment| segment.hot()).map(|hot| hot.bytes as u64).sum()
    }
}

impl Segment {
    fn is_growing(&self) -> bool {
        self.hot().is_some_and(|hot| !hot.sealed && hot.id < OVERLAY)
    }

    pub(crate) fn id(&self) -> u32 {
        match &self.data {
            SegmentData::Hot(hot) => hot.id,
            SegmentData::Cold(cold) => cold.meta.id,
        }
    }

    pub(crate) fn rows(&self) -> u32 {
        match &self.data {
            SegmentData::Hot(hot) => hot.rows,
            SegmentData::Cold(cold) => cold.meta.rows,
        }
    }

    /// Whether a row has not ended. Where all have, a reader of this version has nothing to look for.
    pub(crate) fn has_live(&self) -> bool {
        self.tombstones.len() < self.rows()
    }

    pub(crate) fn hot(&self) -> Option<&HotSegment> {
        match &self.data {
            SegmentData::Hot(hot) => Some(hot),
            SegmentData::Cold(_) => None,
        }
    }

    pub(crate) fn cold(&self) -> Option<&Arc<ColdSegment>> {
        match &self.data {
            SegmentData::Hot(_) => None,
            SegmentData::Cold(cold) => Some(cold),
        }
    }

    /// The commit that wrote a row.
    pub(crate) fn created(&self, row: u32) -> Result<Csn> {
        self.stamp(row, Stamp::Created).map(Csn)
    }

    /// The version number of a row.
    pub(crate) fn row_version(&self, row: u32) -> Result<u64> {
        self.stamp(row, Stamp::Version)
    }

    fn stamp(&self, row: u32, stamp: Stamp) -> Result<u64> {
        let (rows, stamps) = self.stamps_of(row, stamp)?;
        Ok(stamps.get((row - rows.start) as usize))
    }

    /// The stamps of the chunk that a row is in, and which rows those are.
    pub(crate) fn stamps_of(&self, row: u32, stamp: Stamp) -> Result<(Range<u32>, Stamps)> {
        match &self.data {
            SegmentData::Hot(hot) => {
                let (chunk, _) = hot.locate(row).ok_or_else(|| missing_row(hot.id, row))?;
                let stamps = match stamp {
                    Stamp::Created => &chunk.created,
                    Stamp::Version => &chunk.versions,
                };
                Ok((chunk.first_row..chunk.first_row + chunk.rows() as u32, stamps.clone()))
            }
            SegmentData::Cold(cold) => {
                let chunk = row as usize / CHUNK_ROWS;
                let first = (chunk * CHUNK_ROWS) as u32;
                let stamps = match stamp {
                    Stamp::Created => cold.created(chunk)?,
                    Stamp::Version => cold.versions(chunk)?,
                };
                Ok((first..first.saturating_add(CHUNK_ROWS as u32), stamps))
            }
        }
    }
}

fn no_table(id: u64) -> Error {
    Error::not_found(format!("table number {id} was dropped, or is newer than the snapshot")).outdated()
}

fn missing_row(segment: u32, row: u32) -> Error {
    Error::internal(format!("segment {segment} has no row {row}"))
}
