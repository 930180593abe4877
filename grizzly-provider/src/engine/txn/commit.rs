//! Commit, as one straight path: validate, number, log, apply, publish.
//!
//! All of it but the wait for the log runs under one lock, so commits have one order, and it is the log's.

use std::{collections::HashSet, sync::Arc};

use arrow::{array::ArrayRef, compute::concat_batches, record_batch::RecordBatch};
use grizzly_wal::{ErrorKind as Below, Lsn, NewRecord, Wal};

use super::{
    super::{
        catalog::CatalogChange,
        database::Inner,
        ddl,
        index::IndexRun,
        key::Keys,
        mvcc::tombstones::Tombstones,
        redo::{Attach, EncodedRows, KIND_COMMIT, RedoOp, encode_commit},
        segment::cold::ColdSegment,
        shard::hot::{HotIndexes, HotSegment},
        stamps::Stamps,
        version::{DatabaseVersion, OVERLAY, Segment, SegmentData, TableVersion, UNCOMMITTED},
    },
    conflict::{self, MovedRows, NewKeys},
    transaction::{CommitOutcome, Conflict, Transaction},
    writes::{TableWrites, Writes},
};
use crate::{
    access::{Csn, RowId},
    batch::batch_bytes,
    error::{Error, ErrorKind, Result},
};

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
    ended: Vec<RowId>,
    rows: Vec<NewRows>,
    attached: Vec<(u32, Arc<ColdSegment>, Tombstones)>,
    /// Segments whose keys were compared with those of `attached` before the lock was taken.
    compared: HashSet<u32>,
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
    let (mut tables, mut state) = loop {
        // What indexes there are is asked first and looked at again under the lock: new rows are checked against all.
        let newest = Arc::clone(&db.commit.lock().version);
        let mut tables = prepare(writes, txn.base.version(), &newest)?;
        if let Some(conflict) = precheck(&mut tables, snapshot)? {
            return Ok((CommitOutcome::Conflict(conflict), None));
        }
        db.wait_for_room()?;
        let state = db.commit.lock();
        if tables.iter().all(|table| table.is_defined_as_in(&state.version)) {
            break (tables, state);
        }
    };
    db.check_writable()?;
    // A snapshot can be older than the transaction.
    if txn.term != db.term() || snapshot < state.since {
        return Err(db.writer_changed());
    }
    for table in tables.iter_mut().filter(|table| !table.created) {
        if let Some(conflict) = validate(&state, table, txn.base.version(), snapshot)? {
            return Ok((CommitOutcome::Conflict(conflict), None));
        }
    }
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
    db.obsolete.lock().extend(dropped);
    txn.done = true;
    let added = tables.iter().flat_map(|table| &table.rows);
    let added = added.map(|rows| (rows.batch.num_rows() as u64, batch_bytes(&rows.batch) as u64));
    let (rows, bytes) = added.fold((0, 0), |sum, each| (sum.0 + each.0, sum.1 + each.1));
    db.added(rows, bytes);
    Ok((CommitOutcome::Committed { csn }, Some(logged)))
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
        let compared = base.tables.get(id).into_iter().flat_map(|table| table.segments());
        let compared =
            compared.filter(|(_, segment)| segment.cold().is_some()).map(|(_, segment)| segment.id()).collect();
        let mut prepared = TableCommit {
            ended: written.ended.iter().copied().collect(),
            rows: Vec::new(),
            attached: attached(&table, written),
            compared,
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

/// Checks that need no lock: the new keys against each other, and whole new segments against what the
/// transaction's snapshot has on storage.
fn precheck(tables: &mut [TableCommit], snapshot: Csn) -> Result<Option<Conflict>> {
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
            let mut others: HashSet<u32> = table.segments().map(|(_, segment)| segment.id()).collect();
            others.retain(|segment| !commit.compared.contains(segment));
            if let Some(conflict) = check_attached(commit, number, table, &others, snapshot)? {
                return Ok(Some(conflict));
            }
        }
    }
    Ok(None)
}

/// Compares the keys of new segments with those of all segments of `pending` but `skip`.
fn check_attached(
    commit: &TableCommit,
    number: usize,
    pending: &TableVersion,
    skip: &HashSet<u32>,
    snapshot: Csn,
) -> Result<Option<Conflict>> {
    let (index, encoder) = &commit.table.codecs.keys[number];
    let ended: HashSet<RowId> = commit.ended.iter().copied().collect();
    for (shard, segment, own_ended) in &commit.attached {
        let check = NewKeys { index, encoder, shard: placed(&commit.table, number, *shard) };
        let run = own_run(segment, index.id)?;
        if let Some(conflict) = check.check_run(pending, &ended, (&run, own_ended), skip, snapshot)? {
            return Ok(Some(conflict));
        }
    }
    Ok(None)
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

/// Checks one table against everything committed since the snapshot; moves `ended` to where the rows are now.
fn validate(
    state: &CommitState,
    commit: &mut TableCommit,
    base: &DatabaseVersion,
    snapshot: Csn,
) -> Result<Option<Conflict>> {
    let id = commit.table.def.id;
    let pending = conflict::still_there(&state.version, id, &commit.table.def.name)?;
    let base = base.table(id)?;
    match conflict::check_rows(&pending, base, &state.moved, commit.ended.iter().copied())? {
        Ok(rows) => commit.ended = rows,
        Err(conflict) => return Ok(Some(conflict)),
    }
    let ended: HashSet<RowId> = commit.ended.iter().copied().collect();
    for (number, (index, encoder)) in commit.table.codecs.keys.iter().enumerate().filter(|(_, (index, _))| index.unique)
    {
        for rows in &commit.rows {
            let check = NewKeys { index, encoder, shard: placed(&commit.table, number, rows.shard) };
            if let Some(conflict) = check.check(&pending, &ended, &rows.keys[number], snapshot)? {
                return Ok(Some(conflict));
            }
        }
        if let Some(conflict) = check_attached(commit, number, &pending, &commit.compared, snapshot)? {
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
            ops.push(RedoOp::Attach(Attach {
                table: id,
                shard: *shard,
                meta,
                ended: ended.iter().map(|(row, _)| row).collect(),
            }));
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
pub(crate) fn end_rows(table: &mut TableVersion, rows: &[RowId], csn: Csn) -> Result<()> {
    let name = Arc::clone(&table.def);
    let lost = |row: RowId| {
        let (table, segment, row) = (name.display_name(), row.segment(), row.row());
        Error::corrupt(format!(
            "row {row} of segment {segment} of table '{table}', which commit {csn} ends, is not live"
        ))
    };
    for rows in rows.chunk_by(|a, b| a.segment() == b.segment()) {
        let segment = table.segment_mut(rows[0].segment()).ok_or_else(|| lost(rows[0]))?;
        for row in rows {
            if row.row() >= segment.rows() || !segment.tombstones.insert(row.row(), csn) {
                return Err(lost(*row));
            }
        }
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
