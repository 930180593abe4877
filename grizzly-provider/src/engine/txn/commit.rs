//! Commit, as one straight path: validate, number, log, apply, publish.
//!
//! All of it but the wait for the log runs under one lock, so commits have one order, and it is the log's.

use std::sync::Arc;

use arrow::compute::concat_batches;
use grizzly_wal::world::MutexGuard;

use super::{
    super::{
        alone::begin::begin_to_write,
        catalog::CatalogChange,
        consent::Consent,
        core::Inner,
        index::IndexRun,
        maintenance::room,
        mvcc::{row_set::TableRows, tombstones::Tombstones},
        redo::{Attach, Change, EncodedRows, KeyedRows, LoggedRows, RedoOp},
        rows,
        segment::{cold::ColdSegment, meta::OVERLAY},
        shard::hot::HotSegment,
        snapshot::Snapshot,
        stamps::Stamps,
        version::{
            DatabaseVersion, Segment, SegmentData, TableVersion, UNCOMMITTED,
            apply::{Applying, Effects, IndexEntries},
        },
    },
    conflict::{self, Compared, NewKeys},
    moved::MovedRows,
    order::{CommitState, Logged},
    outcome::{CommitOutcome, Conflict},
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
    rows: Arc<KeyedRows>,
    versions: Stamps,
    encoded: EncodedRows,
}

/// The tables' shares of a commit that may go on, under the commit lock.
type Prepared<'a> = (Vec<TableCommit>, MutexGuard<'a, CommitState>);

/// The transaction that commits, and what it began with.
#[derive(Clone, Copy)]
pub(super) struct Begun<'a> {
    pub(super) transaction: u64,
    pub(super) term: u64,
    pub(super) base: &'a Snapshot,
}

/// Commits up to the log; the caller waits for the returned record.
pub(super) fn commit(
    db: &Inner,
    begun: Begun<'_>,
    writes: &mut Writes,
    consent: &dyn Consent,
) -> Result<(CommitOutcome, Option<Logged>)> {
    begin_to_write(db);
    let snapshot = begun.base.csn();
    writes.check_whole()?;
    writes.settle(db)?;
    if writes.is_empty() {
        return Ok((CommitOutcome::Committed { csn: snapshot }, None));
    }
    let prepared = match prepare_and_lock(db, begun, writes)? {
        Ok(prepared) => prepared,
        Err(conflict) => return Ok((CommitOutcome::Conflict(conflict), None)),
    };
    let (tables, mut state) = prepared;
    let mut next = state.version.as_ref().clone();
    let csn = db.clock.next(next.csn, &db.url);
    if let Err(error) = check_definitions(&next, &writes.definitions, snapshot) {
        drop(state);
        // What stands in the way may be on its way into the log only. Who is told of it finds it.
        if db.settings.sync_commits {
            db.last_logged()?.wait()?;
        }
        return Err(error);
    }
    consent.commit()?;
    let definitions = writes.definitions.iter().cloned().map(RedoOp::Define).collect();
    let (ops, effects) = apply(db, &mut next, csn, definitions, &tables)?;
    let record = Change::Commit(ops).record(begun.transaction, csn)?;
    let Effects { entries, gone, named, .. } = effects;
    let logged = db.append(&mut state, next, record, || entries.into_iter().for_each(IndexEntries::insert))?;
    named.into_iter().for_each(|segment| db.pins.note(logged.lsn, segment));
    drop(state);
    // They go when a checkpoint that comes after this commit names them no more.
    if !gone.is_empty() {
        db.retire(gone);
    }
    let added = tables.iter().flat_map(|table| &table.rows);
    let added = added.map(|new| (new.rows.batch.num_rows() as u64, batch_bytes(&new.rows.batch) as u64));
    let (rows, bytes) = added.fold((0, 0), |sum, each| (sum.0 + each.0, sum.1 + each.1));
    room::added(db, rows, bytes);
    Ok((CommitOutcome::Committed { csn }, Some(logged)))
}

/// Makes the shares ready and checks them against everything that was committed, down to the version under the lock
/// that it returns with. What takes long is done before, against the newest version, so that under the lock only what came
/// since is left; if that is much, again.
fn prepare_and_lock<'a>(
    db: &'a Inner,
    Begun { term, base, .. }: Begun<'_>,
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
            room::wait_for_room(db)?;
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

impl TableCommit {
    /// Whether checking it takes too long for the commit lock.
    fn is_large(&self) -> bool {
        let rows: usize = self.rows.iter().map(|new| new.rows.batch.num_rows()).sum();
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

/// Checks that a transaction's definitions, made one after the other, fit the newest version.
fn check_definitions(newest: &DatabaseVersion, definitions: &[CatalogChange], snapshot: Csn) -> Result<()> {
    let mut catalog = Arc::clone(&newest.catalog);
    for change in definitions {
        match change {
            CatalogChange::CreateTable(def) => catalog.check_free(&format!("{}.{}", def.schema_name, def.name))?,
            CatalogChange::DropTable { table } if !catalog.tables.contains_key(table) => {
                let message = "a table that the transaction drops was dropped by another; it may be retried";
                return Err(Error::new(ErrorKind::Conflict, message));
            }
            CatalogChange::DropTable { table } => {
                // One that this very transaction made is in no version yet.
                if let Some(table) = newest.tables.get(table).filter(|table| table.changed > snapshot) {
                    let name = table.def.display_name();
                    let message = format!(
                        "could not serialize access: table '{name}', which the transaction replaces, was changed by \
                         commit {}; the transaction may be retried",
                        table.changed
                    );
                    return Err(Error::new(ErrorKind::Conflict, message));
                }
            }
            other => return Err(Error::internal(format!("a transaction cannot make the change {other:?}"))),
        }
        catalog = Arc::new(catalog.with(change));
    }
    Ok(())
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
            rows::add_missing_run(table, segment, index)?;
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
    let rows = Arc::new(KeyedRows { keys: table.index_keys(&batch)?, batch });
    Ok(Some(NewRows { shard, rows, versions, encoded }))
}

/// Checks the new keys against each other.
fn check_own(tables: &[TableCommit]) -> Result<()> {
    for commit in tables {
        let table = &commit.table;
        for (number, (index, encoder)) in table.codecs.keys.iter().enumerate().filter(|(_, (index, _))| index.unique) {
            let mut runs = Vec::new();
            for new in &commit.rows {
                let keys = &new.rows.keys[number];
                if commit.rows.len() > 1 || keys.len() > 1 || !commit.attached.is_empty() {
                    runs.push((Arc::new(IndexRun::build(keys, None)), Tombstones::default()));
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
    for new in &commit.rows {
        if let Some(conflict) = keys(new.shard).check(pending, &new.rows.keys[number])? {
            return Ok(Some(conflict));
        }
    }
    for (shard, segment, own_ended) in &commit.attached {
        if let Some(conflict) = keys(*shard).check_run(pending, || own_run(segment, index.id), own_ended)? {
            return Ok(Some(conflict));
        }
    }
    Ok(None)
}

/// Applies a validated commit to `next`, piece by piece, and says what the log must carry to do it again.
fn apply(
    db: &Inner,
    next: &mut DatabaseVersion,
    csn: Csn,
    definitions: Vec<RedoOp>,
    tables: &[TableCommit],
) -> Result<(Vec<RedoOp>, Effects)> {
    let (mut applying, mut ops) = (Applying::new(next, csn, &db.files), Vec::new());
    let mut push = |applying: &mut Applying<'_>, op: RedoOp| {
        applying.op(&op)?;
        ops.push(op);
        Ok::<_, Error>(())
    };
    definitions.into_iter().try_for_each(|op| push(&mut applying, op))?;
    for commit in tables {
        let table = commit.table.def.id;
        if !commit.ended.is_empty() {
            push(&mut applying, RedoOp::Delete { table, rows: commit.ended.clone() })?;
        }
        for (shard, segment, ended) in &commit.attached {
            let segment = Arc::new(segment.committed(csn.0));
            push(&mut applying, RedoOp::Attach(Attach::new(table, *shard, segment, ended.clone())))?;
        }
        for new in &commit.rows {
            let (segment, first_row) = place(db, applying.version().table(table)?, new)?;
            let rows = LoggedRows::new(new.encoded.clone(), Arc::clone(&new.rows));
            let versions = new.versions.clone();
            push(&mut applying, RedoOp::Insert { table, shard: new.shard, segment, first_row, versions, rows })?;
        }
    }
    let effects = applying.finish();
    Ok((ops, effects))
}

/// Where new rows go: behind those of their shard's growing segment, or into a new one.
fn place(db: &Inner, table: &TableVersion, new: &NewRows) -> Result<(u32, u32)> {
    let fits = |hot: &&HotSegment| u64::from(hot.rows) + new.rows.batch.num_rows() as u64 <= u64::from(u32::MAX);
    let growing = table.shard(new.shard)?.growing().filter(fits);
    Ok(growing.map_or_else(|| (db.next_segment_id(), 0), |hot| (hot.id, hot.rows)))
}
