//! Commit, as one straight path: validate, number, log, apply, publish.
//!
//! All of it but the wait for the log runs under one lock, so commits have one order, and it is the log's.

use std::sync::Arc;

use arrow::{array::ArrayRef, compute::concat_batches, record_batch::RecordBatch};
use grizzly_wal::{ErrorKind as Below, Lsn, NewRecord, Wal};
use parking_lot::MutexGuard;

use super::{
    super::{
        catalog::CatalogChange,
        database::Inner,
        ddl,
        index::IndexRun,
        key::Keys,
        mvcc::{row_set::TableRows, tombstones::Tombstones},
        redo::{Attach, EncodedRows, KIND_COMMIT, RedoOp, encode_commit},
        segment::cold::ColdSegment,
        shard::hot::{HotIndexes, HotSegment},
        snapshot::Snapshot,
        stamps::Stamps,
        version::{DatabaseVersion, OVERLAY, Segment, SegmentData, TableVersion, UNCOMMITTED},
    },
    conflict::{self, Compared, MovedRows, NewKeys},
    transaction::{CommitOutcome, Conflict, Transaction},
    writes::{TableWrites, Writes},
};
use crate::{
    access::Csn,
    batch::batch_bytes,
    error::{Error, ErrorKind, Result},
};

/// Commits of so many rows of a table are checked before the commit lock is taken.
const LARGE: usize = 1024;
/// How often a commit is checked without the lock, while others commit much, before it takes the lock for all of it.
const ATTEMPTS: usize = 8;

/// What the commit lock protects: the newest version, visible or not, and where compaction moved rows.
#[derive(Debug)]
pub(crate) struct CommitState {
    pub(crate) version: Arc<DatabaseVersion>,
    pub(crate) moved: MovedRows,
    /// The commit after which this process began to write. Where rows moved before it is not known.
    since: Csn,
}

impl CommitState {
    /// For a process that writes from here on.
    pub(crate) fn new(version: Arc<DatabaseVersion>) -> Self {
        let since = version.csn;
        Self { version, moved: MovedRows::default(), since }
    }

    /// Forgets where rows went that every snapshot has seen there.
    pub(crate) fn forget_moves(&mut self, db: &Inner) {
        self.moved.forget(db.snapshots.oldest(&db.publisher));
    }

    /// What is needed to look at it without the lock.
    fn seen(&self) -> (Arc<DatabaseVersion>, MovedRows) {
        (Arc::clone(&self.version), self.moved.clone())
    }
}

/// A record that is on its way into the log.
#[derive(Debug)]
pub(crate) struct Logged {
    log: Arc<Wal>,
    pub(crate) lsn: Lsn,
}

impl Logged {
    /// Blocks until the record is durable.
    ///
    /// # Errors
    /// `DiskFull` or `Unavailable` if it never will be and the storage holds nothing of it; `OutcomeUnknown` if it is not
    /// known what the storage holds: that is found when it is read again.
    pub(crate) fn wait(&self) -> Result<()> {
        self.log.wait_durable(self.lsn).map_err(unknown)
    }

    /// The same for async code.
    pub(crate) async fn durable(&self) -> Result<()> {
        self.log.durable(self.lsn).await.map_err(unknown)
    }
}

/// What the log's failure means for a commit.
fn unknown(error: grizzly_wal::Error) -> Error {
    if matches!(error.kind(), Below::Full | Below::Io) {
        let error = Error::from(error);
        return Error::new(error.kind(), "the commit did not take place").with_source(error);
    }
    let message = "it is not known whether the commit took effect: the log failed while it was written";
    Error::new(ErrorKind::OutcomeUnknown, message).with_source(error)
}

/// One table's share of a commit, made ready before the lock is taken.
struct TableCommit {
    /// The table as the transaction sees it, under the newest definition.
    table: Arc<TableVersion>,
    /// The transaction made it.
    created: bool,
    ended: TableRows,
    rows: Vec<NewRows>,
    attached: Vec<(u32, Arc<ColdSegment>, Tombstones)>,
    /// What its new keys were compared with before the lock was taken.
    compared: Option<Compared>,
}

/// New rows of one shard.
struct NewRows {
    shard: u32,
    batch: RecordBatch,
    versions: Stamps,
    encoded: EncodedRows,
    /// Per index of the table.
    keys: Vec<Keys>,
}

/// The tables' shares of a commit that may go on, under the commit lock.
type Prepared<'a> = (Vec<TableCommit>, MutexGuard<'a, CommitState>);

/// Commits up to the log; the caller waits for the returned record.
pub(crate) fn commit(mut txn: Transaction) -> Result<(CommitOutcome, Option<Logged>)> {
    let db = Arc::clone(&txn.db);
    db.begin_to_write();
    let snapshot = txn.base.csn();
    let writes = txn.writes.get_mut();
    writes.check_whole()?;
    writes.settle(&db)?;
    if writes.is_empty() {
        txn.done = true;
        return Ok((CommitOutcome::Committed { csn: snapshot }, None));
    }
    let prepared = match prepare_and_lock(&db, &txn.base, txn.term, writes)? {
        Ok(prepared) => prepared,
        Err(conflict) => return Ok((CommitOutcome::Conflict(conflict), None)),
    };
    let (tables, mut state) = prepared;
    let mut next = state.version.as_ref().clone();
    next.csn = db.next_csn(next.csn);
    let csn = next.csn;
    let dropped = define(&mut next, &writes.definitions, snapshot)?;
    let (written, entries) = apply(&db, &mut next, &tables)?;
    let ops: Vec<RedoOp> = writes.definitions.iter().cloned().map(RedoOp::Define).chain(written).collect();
    let record = NewRecord { txn: txn.id, commit_ts: csn.0, kind: KIND_COMMIT, payload: encode_commit(&ops)? };
    let logged = append(&db, &mut state, next, record, || entries.into_iter().for_each(IndexEntries::insert))?;
    for op in &ops {
        if let RedoOp::Attach(attach) = op {
            db.pins.note(logged.lsn, attach.meta.key());
        }
    }
    drop(state);
    // They go when a checkpoint that comes after this commit names them no more.
    if !dropped.is_empty() {
        db.retire(dropped);
    }
    txn.done = true;
    let added = tables.iter().flat_map(|table| &table.rows);
    let added = added.map(|rows| (rows.batch.num_rows() as u64, batch_bytes(&rows.batch) as u64));
    let (rows, bytes) = added.fold((0, 0), |sum, each| (sum.0 + each.0, sum.1 + each.1));
    db.added(rows, bytes);
    Ok((CommitOutcome::Committed { csn }, Some(logged)))
}

/// Makes the shares ready and checks them against everything that was committed, down to the version under the lock
/// that it returns with. What takes long is done before, against the newest version, so that under the lock only what came
/// since is left; if that is much, again.
fn prepare_and_lock<'a>(
    db: &'a Inner,
    base: &Snapshot,
    term: u64,
    writes: &Writes,
) -> Result<Result<Prepared<'a>, Conflict>> {
    let snapshot = base.csn();
    'defined: loop {
        // What indexes there are is asked first and looked at again under the lock: new rows are checked against all.
        let newest = Arc::clone(&db.commit.lock().version);
        let mut tables = prepare(writes, base.version(), &newest)?;
        check_own(&tables)?;
        for attempt in 0.. {
            if tables.iter().any(TableCommit::is_large) {
                let (newest, moved) = db.commit.lock().seen();
                if let Some(conflict) = validate(&newest, &moved, &mut tables, base)? {
                    return Ok(Err(conflict));
                }
                for table in &mut tables {
                    table.compared = newest.tables.get(&table.table.def.id).map(|now| Compared::with_all(now));
                }
            }
            db.wait_for_room()?;
            let state = db.commit.lock();
            if !tables.iter().all(|table| table.is_defined_as_in(&state.version)) {
                continue 'defined;
            }
            if attempt < ATTEMPTS && tables.iter().any(|table| table.is_behind(&state.version)) {
                continue;
            }
            db.check_writable()?;
            // A snapshot can be older than the transaction.
            if term != db.term() || snapshot < state.since {
                return Err(db.writer_changed());
            }
            if let Some(conflict) = validate(&state.version, &state.moved, &mut tables, base)? {
                return Ok(Err(conflict));
            }
            return Ok(Ok((tables, state)));
        }
    }
}

/// Writes a record to the log and makes `next` the newest version, visible once the record is durable. `share` then
/// changes what versions have in common: nobody sees that before `next`, and a record that is refused leaves no trace.
pub(crate) fn append(
    db: &Inner,
    state: &mut CommitState,
    next: DatabaseVersion,
    record: NewRecord,
    share: impl FnOnce(),
) -> Result<Logged> {
    let log = db.log()?;
    let lsn = log.append(record)?;
    share();
    let next = Arc::new(next);
    db.publisher.enqueue(lsn, Arc::clone(&next));
    state.version = next;
    if !db.settings.sync_commits {
        db.publisher.publish_now(Arc::clone(&state.version));
    }
    Ok(Logged { log, lsn })
}

impl TableCommit {
    /// Whether checking it takes too long for the commit lock.
    fn is_large(&self) -> bool {
        let rows: usize = self.rows.iter().map(|rows| rows.batch.num_rows()).sum();
        !self.created && (!self.attached.is_empty() || rows.max(self.ended.len()) >= LARGE)
    }

    /// Whether `version` has many rows that its keys were not compared with, though they were with many.
    fn is_behind(&self, version: &DatabaseVersion) -> bool {
        let now = version.tables.get(&self.table.def.id);
        let missing = |compared: &Compared| now.is_some_and(|now| compared.missing(now) >= LARGE as u64);
        self.compared.as_ref().is_some_and(missing)
    }

    /// Whether the definition that its rows were prepared for is that of `version`, or the table is gone there.
    fn is_defined_as_in(&self, version: &DatabaseVersion) -> bool {
        version.tables.get(&self.table.def.id).is_none_or(|now| Arc::ptr_eq(&now.codecs, &self.table.codecs))
    }
}

/// Applies the transaction's definitions to `next`. Returns the segments of tables that are gone by them.
fn define(next: &mut DatabaseVersion, definitions: &[CatalogChange], snapshot: Csn) -> Result<Vec<Arc<ColdSegment>>> {
    let mut dropped = Vec::new();
    for change in definitions {
        match change {
            CatalogChange::CreateTable(def) => {
                next.catalog.check_free(&format!("{}.{}", def.schema_name, def.name))?;
            }
            CatalogChange::DropTable { table } => {
                let Some(table) = next.tables.get(table) else {
                    let message = "a table that the transaction drops was dropped by another; it may be retried";
                    return Err(Error::new(ErrorKind::Conflict, message));
                };
                // One that this very transaction made was changed by it.
                if table.changed > snapshot && table.changed < next.csn {
                    let name = table.def.display_name();
                    let message = format!(
                        "could not serialize access: table '{name}', which the transaction replaces, was changed by \
                         commit {}; the transaction may be retried",
                        table.changed
                    );
                    return Err(Error::new(ErrorKind::Conflict, message));
                }
                dropped.extend(table.segments().filter_map(|(_, segment)| segment.cold().cloned()));
            }
            other => return Err(Error::internal(format!("a transaction cannot make the change {other:?}"))),
        }
        ddl::apply(next, change, next.csn)?;
    }
    Ok(dropped)
}

fn prepare(writes: &Writes, base: &DatabaseVersion, newest: &DatabaseVersion) -> Result<Vec<TableCommit>> {
    let mut tables = Vec::new();
    for (id, written) in &writes.tables {
        let mut table = Arc::clone(writes.working.table(*id)?);
        let created = !base.tables.contains_key(id);
        if let Some(now) = newest.tables.get(id).filter(|now| !Arc::ptr_eq(&now.codecs, &table.codecs)) {
            let mut defined = table.as_ref().clone();
            defined.def = Arc::clone(&now.def);
            defined.codecs = Arc::clone(&now.codecs);
            table = Arc::new(defined);
        }
        add_runs(&table, written)?;
        let mut prepared = TableCommit {
            ended: written.ended.clone(),
            rows: Vec::new(),
            attached: attached(&table, written),
            compared: None,
            created,
            table: Arc::clone(&table),
        };
        for (shard, segment) in table.segments().filter(|(_, segment)| segment.id() >= OVERLAY) {
            prepared.rows.extend(new_rows(&table, shard, segment)?);
        }
        if !(prepared.ended.is_empty() && prepared.rows.is_empty() && prepared.attached.is_empty()) {
            tables.push(prepared);
        }
    }
    Ok(tables)
}

/// Gives the transaction's own segments the runs of indexes that were created after they were written.
fn add_runs(table: &TableVersion, written: &TableWrites) -> Result<()> {
    for segment in written.attached.keys().filter_map(|id| table.segment(*id)) {
        for (index, _) in &table.codecs.keys {
            ddl::build_run(table, segment, index)?;
        }
    }
    Ok(())
}

fn attached(table: &TableVersion, written: &TableWrites) -> Vec<(u32, Arc<ColdSegment>, Tombstones)> {
    let segments = written.attached.iter().filter_map(|(id, shard)| {
        let segment = table.segment(*id)?;
        Some((*shard, Arc::clone(segment.cold()?), segment.tombstones.clone()))
    });
    segments.collect()
}

/// The rows of an overlay segment that the transaction did not end itself.
fn new_rows(table: &TableVersion, shard: u32, segment: &Segment) -> Result<Option<NewRows>> {
    let SegmentData::Hot(hot) = &segment.data else { return Ok(None) };
    let mut parts = Vec::new();
    let mut versions = Vec::new();
    for chunk in &hot.chunks {
        let (rows, stamps) = chunk.kept(segment.tombstones.live(chunk.first_row, chunk.rows(), UNCOMMITTED))?;
        versions.push((stamps, rows.num_rows()));
        parts.push(rows);
    }
    let batch = match parts.as_slice() {
        [only] => only.clone(),
        parts => concat_batches(&table.def.schema, parts)?,
    };
    if batch.num_rows() == 0 {
        return Ok(None);
    }
    let versions = Stamps::concat(versions.iter().map(|(stamps, rows)| (stamps, *rows)));
    let encoded = EncodedRows::encode(&batch)?;
    let keys = index_keys(table, &batch)?;
    Ok(Some(NewRows { shard, batch, versions, encoded, keys }))
}

/// The keys of all indexes of a table for some rows.
pub(crate) fn index_keys(table: &TableVersion, batch: &RecordBatch) -> Result<Vec<Keys>> {
    let keys = table.codecs.keys.iter().map(|(index, encoder)| {
        let columns: Vec<ArrayRef> = index.columns.iter().map(|column| Arc::clone(batch.column(*column))).collect();
        Ok(encoder.encode_columns(&columns)?)
    });
    keys.collect()
}

/// Checks the new keys against each other.
fn check_own(tables: &[TableCommit]) -> Result<()> {
    for commit in tables {
        let table = &commit.table;
        for (number, (index, encoder)) in table.codecs.keys.iter().enumerate().filter(|(_, (index, _))| index.unique) {
            let mut runs = Vec::new();
            for rows in &commit.rows {
                if commit.rows.len() > 1 || rows.keys[number].len() > 1 || !commit.attached.is_empty() {
                    runs.push((Arc::new(IndexRun::build(&rows.keys[number], None)), Tombstones::default()));
                }
            }
            for (_, segment, ended) in &commit.attached {
                runs.push((own_run(segment, index.id)?, ended.clone()));
            }
            conflict::check_own(table, index, encoder, &runs)?;
        }
    }
    Ok(())
}

/// The run of an index over a segment that the transaction wrote.
fn own_run(segment: &ColdSegment, index: u32) -> Result<Arc<IndexRun>> {
    let missing = || Error::internal(format!("segment {} has no run of index {index}", segment.meta.id));
    segment.run(index)?.ok_or_else(missing)
}

/// The shard that must hold every row with a key of this index, if placement follows from the key.
fn placed(table: &TableVersion, index: usize, shard: u32) -> Option<u32> {
    let columns = &table.codecs.keys[index].0.columns;
    let decided = !table.def.shard_by.is_empty() && table.def.shard_by.iter().all(|column| columns.contains(column));
    decided.then_some(shard)
}

/// Checks tables against everything in `version` that they were not compared with; moves `ended` to where those rows are
/// now.
fn validate(
    version: &DatabaseVersion,
    moved: &MovedRows,
    tables: &mut [TableCommit],
    base: &Snapshot,
) -> Result<Option<Conflict>> {
    for commit in tables.iter_mut().filter(|table| !table.created) {
        let id = commit.table.def.id;
        let pending = conflict::still_there(version, id, &commit.table.def.name)?;
        match conflict::check_rows(&pending, base.version().table(id)?, moved, &commit.ended)? {
            Ok(rows) => commit.ended = rows,
            Err(conflict) => return Ok(Some(conflict)),
        }
        for number in 0..commit.table.codecs.keys.len() {
            if let Some(conflict) = check_keys(commit, number, &pending, base.csn())? {
                return Ok(Some(conflict));
            }
        }
    }
    Ok(None)
}

/// Checks the new keys of an index, if it is unique, against the rows of `pending` that they were not compared with.
fn check_keys(commit: &TableCommit, number: usize, pending: &TableVersion, snapshot: Csn) -> Result<Option<Conflict>> {
    let (index, encoder) = &commit.table.codecs.keys[number];
    if !index.unique {
        return Ok(None);
    }
    let (none, ended) = (Compared::default(), &commit.ended);
    let compared = commit.compared.as_ref().unwrap_or(&none);
    let keys =
        |shard| NewKeys { index, encoder, shard: placed(&commit.table, number, shard), ended, compared, snapshot };
    for rows in &commit.rows {
        if let Some(conflict) = keys(rows.shard).check(pending, &rows.keys[number])? {
            return Ok(Some(conflict));
        }
    }
    for (shard, segment, own_ended) in &commit.attached {
        let run = own_run(segment, index.id)?;
        if let Some(conflict) = keys(*shard).check_run(pending, &run, own_ended)? {
            return Ok(Some(conflict));
        }
    }
    Ok(None)
}

/// Entries for live indexes, which all versions of a hot segment share: they go in once the log has their rows.
pub(crate) struct IndexEntries<'a> {
    indexes: HotIndexes,
    first_row: u32,
    /// Per index its number and the keys of the rows.
    keys: Vec<(u32, &'a Keys)>,
}

impl IndexEntries<'_> {
    /// Adds the entries.
    pub(crate) fn insert(self) {
        for (id, keys) in self.keys {
            if let Some((_, live)) = self.indexes.iter().find(|(index, _)| *index == id) {
                for (row, key) in (self.first_row..).zip(keys.iter()) {
                    live.insert(key, row);
                }
            }
        }
    }
}

/// Applies a validated commit to `next`. Says what the log must carry to do it again, and what is to be done to live
/// indexes.
fn apply<'a>(
    db: &Inner,
    next: &mut DatabaseVersion,
    tables: &'a [TableCommit],
) -> Result<(Vec<RedoOp>, Vec<IndexEntries<'a>>)> {
    let csn = next.csn;
    let (mut ops, mut entries) = (Vec::new(), Vec::new());
    for commit in tables {
        let id = commit.table.def.id;
        let table = next.change_table(id, csn)?;
        end_rows(table, &commit.ended, csn)?;
        if !commit.ended.is_empty() {
            ops.push(RedoOp::Delete { table: id, rows: commit.ended.clone() });
        }
        for (shard, segment, ended) in &commit.attached {
            let segment = Arc::new(segment.committed(csn.0));
            let meta = segment.meta.clone();
            attach(table, *shard, segment, ended.clone())?;
            ops.push(RedoOp::Attach(Attach::new(id, *shard, meta, ended.clone())));
        }
        for rows in &commit.rows {
            let indexes: Vec<u32> = table.def.indexes.iter().map(|index| index.id).collect();
            let shard = table.shard_mut(rows.shard)?;
            if shard.active().is_none_or(|hot| u64::from(hot.rows) + rows.batch.num_rows() as u64 > u64::from(u32::MAX))
            {
                shard.push_hot(HotSegment::new(db.next_segment_id(), indexes.into_iter()));
            }
            let hot = shard.active().ok_or_else(|| Error::internal("a shard has no growing segment"))?;
            let (segment, first_row) = (hot.id, hot.rows);
            entries.push(append_rows(hot, &rows.batch, csn, &rows.versions, &commit.table, &rows.keys)?);
            let (versions, encoded) = (rows.versions.clone(), rows.encoded.clone());
            ops.push(RedoOp::Insert { table: id, shard: rows.shard, segment, first_row, versions, rows: encoded });
        }
    }
    Ok((ops, entries))
}

/// Ends rows of a table.
///
/// # Errors
/// `Corrupt` if one is not there, or has ended before: whoever calls has checked that, or reads a log whose writer had.
pub(crate) fn end_rows(table: &mut TableVersion, rows: &TableRows, csn: Csn) -> Result<()> {
    let def = Arc::clone(&table.def);
    let lost = |segment: u32, row: u32| {
        let table = def.display_name();
        Error::corrupt(format!(
            "row {row} of segment {segment} of table '{table}', which commit {csn} ends, is not live"
        ))
    };
    for (number, rows) in rows.segments() {
        let last = rows.last().unwrap_or_default();
        let segment = table.segment_mut(number).filter(|segment| last < segment.rows());
        let segment = segment.ok_or_else(|| lost(number, last))?;
        segment.tombstones.end(rows, csn).map_err(|row| lost(number, row))?;
    }
    Ok(())
}

/// Adds a segment file to a shard.
pub(crate) fn attach(table: &mut TableVersion, shard: u32, segment: Arc<ColdSegment>, ended: Tombstones) -> Result<()> {
    table.shard_mut(shard)?.push(SegmentData::Cold(segment), ended);
    Ok(())
}

/// Appends committed rows to a hot segment; returns their entries for its live indexes.
pub(crate) fn append_rows<'a>(
    hot: &mut HotSegment,
    batch: &RecordBatch,
    csn: Csn,
    versions: &Stamps,
    table: &TableVersion,
    keys: &'a [Keys],
) -> Result<IndexEntries<'a>> {
    let keys = table.codecs.keys.iter().zip(keys).map(|((index, _), keys)| (index.id, keys)).collect();
    let entries = IndexEntries { indexes: Arc::clone(&hot.indexes), first_row: hot.rows, keys };
    hot.append(batch, csn.0, versions)?;
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Grizzly;

    #[test]
    fn a_record_that_the_log_refuses_changes_nothing() -> Result<()> {
        let db = Grizzly::open("memory://")?;
        let inner = db.inner();
        let mut state = inner.commit.lock();
        let before = Arc::clone(&state.version);
        let mut next = before.as_ref().clone();
        next.csn = inner.next_csn(next.csn);
        let payload = vec![0; grizzly_wal::MAX_PAYLOAD + 1].into();
        let record = NewRecord { txn: 0, commit_ts: next.csn.0, kind: KIND_COMMIT, payload };
        let mut shared = false;
        assert!(append(inner, &mut state, next, record, || shared = true).is_err());
        assert!(!shared, "live indexes are not touched");
        assert!(Arc::ptr_eq(&before, &state.version));
        assert!(Arc::ptr_eq(&before, &inner.publisher.current()));
        Ok(())
    }
}
