//! Commit, as one straight path: validate, number, log, apply, publish.
//!
//! All of it but the wait for the log runs under one lock, so commits have one order, and it is the log's.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use arrow::{
    array::ArrayRef,
    compute::{concat_batches, filter_record_batch},
    record_batch::RecordBatch,
};
use bytes::Bytes;
use grizzly_wal::{Durable, Lsn, NewRecord, Wal};

use super::{
    super::{
        database::Inner,
        index::IndexRun,
        key::Keys,
        mvcc::tombstones::Tombstones,
        redo::{Attach, EncodedRows, KIND_COMMIT, RedoOp, encode_commit},
        segment::cold::ColdSegment,
        shard::hot::HotSegment,
        stamps::Stamps,
        version::{DatabaseVersion, OVERLAY, Segment, SegmentData, TableVersion},
    },
    conflict::{self, MovedRows, NewKeys},
    transaction::{CommitOutcome, Conflict, Transaction},
    writes::{TableWrites, Writes},
};
use crate::{
    access::{Csn, RowId},
    error::{Error, Result},
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
    /// Blocks until the record is durable, or never will be.
    pub(crate) fn wait(&self) -> Result<()> {
        Ok(self.log.wait_durable(self.lsn)?)
    }

    /// The same for async code.
    pub(crate) fn durable(&self) -> Durable {
        self.log.durable(self.lsn)
    }
}

/// One table's share of a commit, made ready before the lock is taken.
struct TableCommit {
    table: Arc<TableVersion>,
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

/// The commit number after `last`: the present microsecond, or one more where the clock has not moved on.
pub(crate) fn next_csn(last: Csn) -> Csn {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_micros() as u64);
    Csn(now.max(last.0 + 1))
}

/// Commits up to the log; the caller waits for the returned record.
pub(crate) fn commit(mut txn: Transaction) -> Result<(CommitOutcome, Option<Logged>)> {
    let db = Arc::clone(&txn.db);
    let snapshot = txn.base.csn();
    let writes = txn.writes.get_mut();
    writes.settle(&db)?;
    if writes.is_empty() {
        txn.done = true;
        return Ok((CommitOutcome::Committed { csn: snapshot }, None));
    }
    let mut tables = prepare(writes, txn.base.version())?;
    let own = precheck(&mut tables, snapshot)?;
    if let Some(conflict) = own {
        return Ok((CommitOutcome::Conflict(conflict), None));
    }
    db.wait_for_room()?;
    let mut state = db.commit.lock();
    db.check_writable()?;
    // A snapshot can be older than the transaction.
    if txn.term != db.term() || snapshot < state.since {
        return Err(db.writer_changed());
    }
    for table in &mut tables {
        if let Some(conflict) = validate(&state, table, txn.base.version(), snapshot)? {
            return Ok((CommitOutcome::Conflict(conflict), None));
        }
    }
    let mut next = state.version.as_ref().clone();
    next.csn = next_csn(next.csn);
    let csn = next.csn;
    let ops = apply(&db, &mut next, &tables)?;
    let logged = append(&db, &mut state, next, txn.id, KIND_COMMIT, encode_commit(&ops)?)?;
    for op in &ops {
        if let RedoOp::Attach(attach) = op {
            db.pins.note(logged.lsn, attach.meta.key());
        }
    }
    drop(state);
    let added = tables.iter().flat_map(|table| &table.rows).map(|rows| rows.batch.num_rows() as u64).sum();
    txn.done = true;
    db.added(added);
    Ok((CommitOutcome::Committed { csn }, Some(logged)))
}

/// Writes a record to the log and makes `next` the newest version, visible once the record is durable.
pub(crate) fn append(
    db: &Inner,
    state: &mut CommitState,
    next: DatabaseVersion,
    txn: u64,
    kind: u8,
    payload: Bytes,
) -> Result<Logged> {
    let log = db.log()?;
    let next = Arc::new(next);
    // The log thread may sync the record before `append` returns, so the version must wait for it by then.
    let expected = log.next_lsn();
    db.publisher.enqueue(expected, Arc::clone(&next));
    let appended = log.append(NewRecord { txn, commit_ts: next.csn.0, kind, payload });
    let lsn = match appended {
        Ok(lsn) => lsn,
        Err(error) => {
            db.publisher.withdraw(expected);
            return Err(error.into());
        }
    };
    state.version = next;
    if !db.settings.sync_commits {
        db.publisher.publish_now(Arc::clone(&state.version));
    }
    Ok(Logged { log, lsn })
}

fn prepare(writes: &Writes, base: &DatabaseVersion) -> Result<Vec<TableCommit>> {
    let mut tables = Vec::new();
    for (id, written) in &writes.tables {
        let table = Arc::clone(writes.working.table(*id)?);
        let compared = base.tables.get(id).into_iter().flat_map(|table| table.segments());
        let compared =
            compared.filter(|(_, segment)| segment.cold().is_some()).map(|(_, segment)| segment.id()).collect();
        let mut prepared = TableCommit {
            ended: written.ended.iter().copied().collect(),
            rows: Vec::new(),
            attached: attached(&table, written),
            compared,
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
        match segment.tombstones.live(chunk.first_row, chunk.rows(), Csn(u64::MAX)) {
            None => {
                parts.push(chunk.batch.clone());
                versions.push((chunk.versions.clone(), chunk.rows()));
            }
            Some(live) => {
                let kept: Vec<u64> = live.set_indices().map(|row| chunk.versions.get(row)).collect();
                parts.push(filter_record_batch(&chunk.batch, &live.into())?);
                versions.push((Stamps::Each(kept.as_slice().into()), kept.len()));
            }
        }
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
                    runs.push(Arc::new(IndexRun::build(&rows.keys[number], None)));
                }
            }
            for (_, segment, _) in &commit.attached {
                runs.extend(segment.run(index.id)?);
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
    for (shard, segment, _) in &commit.attached {
        let check = NewKeys { index, encoder, shard: placed(&commit.table, number, *shard) };
        let Some(run) = segment.run(index.id)? else { continue };
        if let Some(conflict) = check.check_run(pending, &ended, &run, skip, snapshot)? {
            return Ok(Some(conflict));
        }
    }
    Ok(None)
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
    if !Arc::ptr_eq(&pending.codecs, &commit.table.codecs) {
        for rows in &mut commit.rows {
            rows.keys = index_keys(&pending, &rows.batch)?;
        }
        commit.table = Arc::clone(&pending);
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

/// Applies a validated commit to `next`, and says what the log must carry to do it again.
fn apply(db: &Inner, next: &mut DatabaseVersion, tables: &[TableCommit]) -> Result<Vec<RedoOp>> {
    let csn = next.csn;
    let mut ops = Vec::new();
    for commit in tables {
        let id = commit.table.def.id;
        let table = next.change_table(id, csn)?;
        end_rows(table, &commit.ended, csn);
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
            append_rows(hot, &rows.batch, csn, &rows.versions, &commit.table, &rows.keys)?;
            let (versions, encoded) = (rows.versions.clone(), rows.encoded.clone());
            ops.push(RedoOp::Insert { table: id, shard: rows.shard, segment, first_row, versions, rows: encoded });
        }
    }
    Ok(ops)
}

/// Ends rows of a table.
pub(crate) fn end_rows(table: &mut TableVersion, rows: &[RowId], csn: Csn) {
    for rows in rows.chunk_by(|a, b| a.segment() == b.segment()) {
        if let Some(segment) = table.segment_mut(rows[0].segment()) {
            for row in rows {
                segment.tombstones.insert(row.row(), csn);
            }
        }
    }
}

/// Adds a segment file to a shard.
pub(crate) fn attach(table: &mut TableVersion, shard: u32, segment: Arc<ColdSegment>, ended: Tombstones) -> Result<()> {
    table.shard_mut(shard)?.push(SegmentData::Cold(segment), ended);
    Ok(())
}

/// Appends committed rows to a hot segment and its live indexes.
pub(crate) fn append_rows(
    hot: &mut HotSegment,
    batch: &RecordBatch,
    csn: Csn,
    versions: &Stamps,
    table: &TableVersion,
    keys: &[Keys],
) -> Result<()> {
    for ((index, _), keys) in table.codecs.keys.iter().zip(keys) {
        if let Some(live) = hot.index(index.id) {
            for (row, key) in (hot.rows..).zip(keys.iter()) {
                live.insert(key, row);
            }
        }
    }
    hot.append(batch, csn.0, versions)
}
