//! What an access-path rule may know about one scan. Nothing is estimated before it is asked for, and then once.

use std::{cell::OnceCell, collections::BTreeSet, sync::Arc};

use arrow::datatypes::SchemaRef;
use grizzly_provider::{
    TableSnapshot,
    access::{AccessPath, IndexInfo, Predicate, ScanRequest, ShardInfo, TableStatistics},
};

use crate::{
    Candidate,
    cost::{self, IndexShape, ScanShape},
    ranges::{self, IndexRanges},
};

/// Ranges of an index are looked up without comparing costs if they are this many single keys of a unique index.
const FEW_POINTS: usize = 8;

/// A read-only view of one scan: what is asked for, and what the table offers. Numbers are those of the snapshot that
/// was current when the plan was made; the plan may run on a later one.
#[derive(Debug)]
pub struct ScanView<'a> {
    table: &'a TableSnapshot,
    request: &'a ScanRequest,
    schema: SchemaRef,
    conjuncts: Vec<&'a Predicate>,
    indexes: OnceCell<Vec<IndexInfo>>,
    lookups: OnceCell<Vec<Option<IndexRanges>>>,
    entries: OnceCell<Vec<Option<u64>>>,
    pruned_shards: OnceCell<Option<Arc<[u32]>>>,
    shards: OnceCell<Vec<ShardInfo>>,
    scan_rows: OnceCell<u64>,
}

impl<'a> ScanView<'a> {
    /// A view of what `request` asks of `table`.
    pub fn new(table: &'a TableSnapshot, request: &'a ScanRequest) -> Self {
        Self {
            table,
            request,
            schema: table.schema(),
            conjuncts: request.predicate.as_ref().map(ranges::conjuncts).unwrap_or_default(),
            indexes: OnceCell::new(),
            lookups: OnceCell::new(),
            entries: OnceCell::new(),
            pruned_shards: OnceCell::new(),
            shards: OnceCell::new(),
            scan_rows: OnceCell::new(),
        }
    }

    /// The table as of planning.
    pub fn table(&self) -> &TableSnapshot {
        self.table
    }

    /// The table's own columns. Column numbers everywhere are into these, system columns follow.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// What is asked for.
    pub fn request(&self) -> &ScanRequest {
        self.request
    }

    /// The columns to return.
    pub fn projection(&self) -> &[usize] {
        &self.request.projection
    }

    /// The conditions a row must all meet; empty if every row is asked for.
    pub fn conjuncts(&self) -> &[&'a Predicate] {
        &self.conjuncts
    }

    /// The table's indexes, the primary key's first.
    pub fn indexes(&self) -> &[IndexInfo] {
        self.indexes.get_or_init(|| self.table.indexes())
    }

    /// Exact statistics of the table. The most expensive thing to ask for here.
    pub fn statistics(&self) -> Arc<TableStatistics> {
        self.table.statistics()
    }

    /// Rows of the table.
    pub fn rows(&self) -> u64 {
        self.table.row_count()
    }

    /// Rows a full scan must test after zone maps, about.
    pub fn scan_rows(&self) -> u64 {
        *self.scan_rows.get_or_init(|| self.estimate_scan_rows(self.request.shards.as_deref()))
    }

    fn estimate_scan_rows(&self, shards: Option<&[u32]>) -> u64 {
        self.table.estimate_scan_rows(self.request.predicate.as_ref(), shards)
    }

    /// The table's shards.
    pub fn shards(&self) -> &[ShardInfo] {
        self.shards.get_or_init(|| self.table.shards())
    }

    /// The shards that can hold matching rows, if fewer than those the request names.
    pub fn pruned_shards(&self) -> Option<&Arc<[u32]>> {
        self.pruned_shards.get_or_init(|| self.prune()).as_ref()
    }

    fn prune(&self) -> Option<Arc<[u32]>> {
        let possible = self.table.prune_shards(self.request.predicate.as_ref()?)?;
        match &self.request.shards {
            None => Some(possible),
            Some(wanted) => {
                let both: Arc<[u32]> = wanted.iter().filter(|shard| possible.contains(shard)).copied().collect();
                (both.len() < wanted.len()).then_some(both)
            }
        }
    }

    fn shards_to_read(&self) -> Option<Arc<[u32]>> {
        self.pruned_shards().or(self.request.shards.as_ref()).cloned()
    }

    /// The part of `index` that the predicate leaves, if it narrows it.
    pub fn index_ranges(&self, index: &IndexInfo) -> Option<&IndexRanges> {
        let position = self.indexes().iter().position(|other| other.name == index.name)?;
        self.lookups().get(position)?.as_ref()
    }

    fn lookups(&self) -> &[Option<IndexRanges>] {
        self.lookups.get_or_init(|| self.indexes().iter().map(|index| self.lookup(index)).collect())
    }

    fn lookup(&self, index: &IndexInfo) -> Option<IndexRanges> {
        // An index knows the live rows only.
        if self.request.all_versions || self.conjuncts.is_empty() {
            return None;
        }
        let encode = |values: &[_]| self.table.index_key(&index.name, values).ok();
        ranges::index_ranges(index, &self.schema, &self.conjuncts, &encode)
    }

    /// Rows that reading `index` would fetch, about; `None` if the predicate doesn't narrow it.
    pub fn index_rows(&self, index: &IndexInfo) -> Option<u64> {
        let position = self.indexes().iter().position(|other| other.name == index.name)?;
        *self.entries().get(position)?
    }

    fn entries(&self) -> &[Option<u64>] {
        self.entries.get_or_init(|| {
            let shards = self.shards_to_read();
            let narrowed = self.indexes().iter().zip(self.lookups());
            let rows = |(index, lookup): (&IndexInfo, &Option<IndexRanges>)| {
                let ranges = &lookup.as_ref()?.ranges;
                Some(self.table.estimate_index_rows(&index.name, ranges, shards.as_deref()))
            };
            narrowed.map(rows).collect()
        })
    }

    /// Reading through `index`, within the shards that can match; `None` if the predicate doesn't narrow it.
    pub fn index(&self, index: &IndexInfo) -> Option<Candidate> {
        let ranges = &self.index_ranges(index)?.ranges;
        let entries = self.index_rows(index)?;
        let shards = self.shards_to_read();
        let shape = IndexShape {
            entries,
            ranges: ranges.len() as u64,
            columns: self.columns_touched(),
            segments: self.segments(shards.as_deref()),
        };
        let path = AccessPath::Index { index: Arc::clone(&index.name), ranges: Arc::clone(ranges) };
        Some(Candidate { path, shards, estimated_rows: entries, cost_us: cost::index_us(&shape) })
    }

    /// Reading everything the request names.
    pub fn full_scan(&self) -> Candidate {
        self.scan(self.scan_rows(), self.request.shards.clone())
    }

    /// Scanning only the shards that can match.
    pub fn pruned_scan(&self) -> Candidate {
        match self.pruned_shards() {
            Some(shards) => self.scan(self.estimate_scan_rows(Some(shards)), Some(Arc::clone(shards))),
            None => self.full_scan(),
        }
    }

    fn scan(&self, rows: u64, shards: Option<Arc<[u32]>>) -> Candidate {
        // No index has fewer entries than rows match.
        let matching = self.entries().iter().flatten().fold(rows, |least, entries| least.min(*entries));
        let shape = ScanShape {
            rows,
            matching,
            columns: self.request.projection.len(),
            tests: self.request.predicate.as_ref().map_or(0, tests),
            segments: self.segments(shards.as_deref()),
        };
        Candidate { path: AccessPath::FullScan, shards, estimated_rows: matching, cost_us: cost::scan_us(&shape) }
    }

    /// At most a few keys of a unique index: nothing reads less, so nothing else needs an estimate.
    pub(crate) fn unique_points(&self) -> Option<Candidate> {
        let few = |lookup: &IndexRanges| lookup.points && lookup.ranges.len() <= FEW_POINTS;
        let (index, lookup) = self.indexes().iter().zip(self.lookups()).find_map(|(index, lookup)| {
            let lookup = lookup.as_ref().filter(|lookup| index.unique && few(lookup))?;
            Some((index, lookup))
        })?;
        let points = lookup.ranges.len() as u64;
        let shape = IndexShape { entries: points, ranges: points, columns: self.columns_touched(), segments: 1 };
        let path = AccessPath::Index { index: Arc::clone(&index.name), ranges: Arc::clone(&lookup.ranges) };
        let shards = self.shards_to_read();
        Some(Candidate { path, shards, estimated_rows: points, cost_us: cost::index_us(&shape) })
    }

    /// Whether any index or shard is narrowed by the predicate, so that there is something to choose.
    pub(crate) fn has_choice(&self) -> bool {
        self.lookups().iter().any(Option::is_some) || self.pruned_shards().is_some()
    }

    /// Segments, counting rows in memory as one, of these shards.
    fn segments(&self, shards: Option<&[u32]>) -> u64 {
        let wanted = |shard: &&ShardInfo| shards.is_none_or(|shards| shards.contains(&shard.shard));
        self.shards().iter().filter(wanted).map(|shard| u64::from(shard.segments.max(1))).sum()
    }

    /// Columns that are returned or tested.
    fn columns_touched(&self) -> usize {
        let mut columns: BTreeSet<usize> = self.request.projection.iter().copied().collect();
        for predicate in &self.conjuncts {
            tested_columns(predicate, &mut columns);
        }
        columns.len()
    }
}

fn tests(predicate: &Predicate) -> usize {
    match predicate {
        Predicate::Test { .. } | Predicate::CompareColumns { .. } => 1,
        Predicate::And(all) | Predicate::Or(all) => all.iter().map(tests).sum(),
        Predicate::Constant(_) => 0,
    }
}

fn tested_columns(predicate: &Predicate, columns: &mut BTreeSet<usize>) {
    match predicate {
        Predicate::Test { column, .. } => {
            columns.insert(*column);
        }
        Predicate::CompareColumns { left, right, .. } => columns.extend([*left, *right]),
        Predicate::And(all) | Predicate::Or(all) => all.iter().for_each(|one| tested_columns(one, columns)),
        Predicate::Constant(_) => {}
    }
}
