//! Changes of the catalog. Each is one commit of its own, in the same log and the same order as all others.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, atomic::Ordering},
};

use super::{
    alone::begin::begin_to_write,
    catalog::{Catalog, CatalogChange, DEFAULT_SCHEMA, IndexDef, TableDef, ViewDef, split_name},
    consent::Consent,
    core::{Inner, first_index},
    index::IndexRun,
    maintenance::flush,
    redo::Change,
    rows,
    segment::{
        Charge,
        cold::ColdSegment,
        meta::{DATA_DIR, SegmentKey, run_of_path},
    },
    txn::{
        conflict,
        order::{CommitState, Logged},
    },
    version::{TableVersion, apply::apply},
};
use crate::{
    access::{IfExists, IndexDefinition, TableDefinition},
    error::{Error, ErrorKind, Result},
};

/// So many rows may be compared under the commit lock, for a new unique index.
const FEW: u64 = 4_096;
/// How often rows that came meanwhile are compared without it.
const CHECKS: usize = 16;

/// Makes a change under the commit lock: `make` looks at the newest catalog and says what to do, or nothing. Whether it did.
fn change(db: &Inner, make: impl FnOnce(&Catalog, &CommitState) -> Result<Option<CatalogChange>>) -> Result<bool> {
    begin_to_write(db);
    db.check_writable()?;
    let (made, logged, gone) = {
        let mut state = db.commit.lock();
        match make(&state.version.catalog, &state)? {
            Some(change) => {
                let (logged, gone) = log(db, &mut state, change)?;
                (true, logged, gone)
            }
            // What was found may be on its way into the log only, and not be there in the end.
            None => (false, db.last_logged()?, Vec::new()),
        }
    };
    logged.wait()?;
    db.retire(gone);
    Ok(made)
}

/// Writes a change to the log; returns the segment files that are gone by it, too.
fn log(db: &Inner, state: &mut CommitState, change: CatalogChange) -> Result<(Logged, Vec<Arc<ColdSegment>>)> {
    let mut next = state.version.as_ref().clone();
    let (csn, change) = (db.clock.next(next.csn, &db.url), Change::Catalog(change));
    let effects = apply(&mut next, &change, csn, &db.files)?;
    let logged = db.append(state, next, change.record(0, csn)?, || ())?;
    Ok((logged, effects.gone))
}

pub(super) fn create_table(db: &Inner, definition: TableDefinition, if_not_exists: bool) -> Result<bool> {
    change(db, |catalog, _| {
        let name = format!("{}.{}", definition.schema_name, definition.name);
        if if_not_exists && catalog.find_table(&name).is_some() {
            return Ok(None);
        }
        catalog.check_free(&name)?;
        Ok(Some(CatalogChange::CreateTable(TableDef::new(db.next_table_id(catalog), definition)?)))
    })
}

pub(super) fn drop_table(db: &Inner, table: &str, if_exists: bool) -> Result<bool> {
    change(db, |catalog, _| match catalog.table(table) {
        Ok(def) => Ok(Some(CatalogChange::DropTable { table: def.id })),
        Err(_) if if_exists => Ok(None),
        Err(error) => Err(error),
    })
}

pub(super) fn create_schema(db: &Inner, name: &str, if_not_exists: bool) -> Result<bool> {
    change(db, |catalog, _| {
        let exists = catalog.schemas.iter().any(|schema| schema == name);
        match exists {
            true if if_not_exists => Ok(None),
            true => Err(Error::new(ErrorKind::AlreadyExists, format!("schema '{name}' already exists"))),
            false if name.is_empty() || name.contains('.') => {
                Err(Error::invalid(format!("'{name}' cannot name a schema")))
            }
            false => Ok(Some(CatalogChange::CreateSchema { name: name.to_owned() })),
        }
    })
}

pub(super) fn drop_schema(db: &Inner, name: &str, if_exists: bool) -> Result<bool> {
    change(db, |catalog, _| {
        if name == DEFAULT_SCHEMA {
            return Err(Error::invalid(format!("schema '{name}' cannot be dropped")));
        }
        if !catalog.schemas.iter().any(|schema| schema == name) {
            return if if_exists { Ok(None) } else { Err(Error::not_found(format!("schema '{name}' does not exist"))) };
        }
        let tables = catalog.tables.values().any(|table| table.schema_name == name);
        if tables || catalog.views.iter().any(|view| view.schema_name == name) {
            return Err(Error::invalid(format!("schema '{name}' is not empty")));
        }
        Ok(Some(CatalogChange::DropSchema { name: name.to_owned() }))
    })
}

pub(super) fn create_view(db: &Inner, name: &str, sql: &str, existing: IfExists) -> Result<bool> {
    let (schema_name, view) = split_name(name);
    let view = ViewDef { schema_name: schema_name.to_owned(), name: view.to_owned(), sql: sql.to_owned() };
    change(db, |catalog, _| {
        match existing {
            IfExists::Replace if catalog.find_view(name).is_some() => {}
            IfExists::Keep if catalog.check_free(name).is_err_and(|error| error.kind() == ErrorKind::AlreadyExists) => {
                return Ok(None);
            }
            _ => catalog.check_free(name)?,
        }
        Ok(Some(CatalogChange::CreateView(view)))
    })
}

pub(super) fn drop_view(db: &Inner, name: &str, if_exists: bool) -> Result<bool> {
    change(db, |catalog, _| match catalog.find_view(name) {
        Some(view) => {
            let (schema_name, name) = (view.schema_name.clone(), view.name.clone());
            Ok(Some(CatalogChange::DropView { schema_name, name }))
        }
        None if if_exists => Ok(None),
        None => Err(Error::not_found(format!("view '{name}' does not exist"))),
    })
}

pub(super) fn create_index(
    db: &Inner,
    table: &str,
    definition: &IndexDefinition,
    if_not_exists: bool,
    consent: &dyn Consent,
) -> Result<bool> {
    let mut ready = None;
    let mut defined = Ok(Defined::Behind);
    for attempt in 0..=CHECKS {
        defined = make_ready(db, table, definition, &mut ready, consent).and_then(|()| {
            let wanted = (definition, if_not_exists);
            define_index(db, table, wanted, ready.as_ref(), attempt < CHECKS, consent)
        });
        if !matches!(defined, Ok(Defined::Behind)) {
            break;
        }
    }
    // What is not known to be there may be in force at whoever writes next.
    let in_doubt = defined.as_ref().is_err_and(|error| error.kind() == ErrorKind::OutcomeUnknown);
    match (&defined, ready) {
        (Ok(Defined::Made(table, index)), _) => {
            if let Err(error) = complete_index(db, *table, index) {
                db.runs_differ.store(true, Ordering::Release);
                tracing::warn!(%error, index = %index.name, "an index is in force, but files lack their part of it for a while");
            }
        }
        (_, Some(ready)) if !in_doubt => ready.abandon(db),
        _ => {}
    }
    defined.map(|defined| matches!(defined, Defined::Made(..)))
}

/// An index that does not exist yet, with its runs of a table's files.
struct ReadyIndex {
    table: u64,
    index: IndexDef,
    /// What was compared holds as long as this process goes on writing: commits that others saw may be gone afterwards.
    term: u64,
    /// Those that have their run.
    files: HashMap<u32, Arc<ColdSegment>>,
    /// The runs of those whose rows were compared.
    runs: Runs,
}

/// What came of the attempt to put an index in force.
enum Defined {
    Made(u64, IndexDef),
    Exists,
    /// Too many rows have come since they were compared.
    Behind,
}

impl ReadyIndex {
    /// Lets its runs go: nobody will ask for them, since its number is not used again.
    fn abandon(self, db: &Inner) {
        for file in self.files.into_values() {
            db.files.removal.remove_later(file.drop_run(self.index.id));
        }
    }
}

/// Gives all files of a table their runs of an index that is to be, and checks that no two rows share a key if it is unique.
/// All that takes long is done before the index is in force: from then on each commit looks for its keys in them. `None` if
/// the index cannot be: whoever tries says why.
fn make_ready(
    db: &Inner,
    table: &str,
    definition: &IndexDefinition,
    ready: &mut Option<ReadyIndex>,
    consent: &dyn Consent,
) -> Result<()> {
    begin_to_write(db);
    db.check_writable()?;
    let (term, version) = (db.term(), Arc::clone(&db.commit.lock().version));
    let def = version.catalog.find_table(table);
    if ready.as_ref().is_some_and(|ready| ready.term != term || def.is_none_or(|def| def.id != ready.table)) {
        ready.take().into_iter().for_each(|ready| ready.abandon(db));
    }
    let Some(def) = def else { return Ok(()) };
    if ready.is_none() {
        let Ok(mut index) = def.new_index(definition) else { return Ok(()) };
        index.id = db.next_index_id(def)?;
        *ready = Some(ReadyIndex { table: def.id, index, term, files: HashMap::new(), runs: Runs::new() });
    }
    let Some(ready) = ready else { return Ok(()) };
    if ready.index.unique {
        check_rows(db, ready, consent)?;
    }
    let version = Arc::clone(&db.commit.lock().version);
    let Some(table) = version.tables.get(&ready.table) else { return Ok(()) };
    for (id, segment) in table.segments().map(|(_, segment)| (segment.id(), segment)) {
        let Some(cold) = segment.cold().filter(|_| !ready.files.contains_key(&id)) else { continue };
        consent.go_on()?;
        let run = match ready.runs.get(&id) {
            Some(made) => made.run.as_ref().clone(),
            None => rows::segment_run(table, segment, &ready.index)?,
        };
        ready.files.insert(id, Arc::clone(cold));
        // One that a crash has left under this name is not of this index.
        cold.add_run(ready.index.id, run)?;
    }
    Ok(())
}

/// Puts an index in force, if few rows have come since they were compared, or there is no `later`.
fn define_index(
    db: &Inner,
    table: &str,
    (definition, if_not_exists): (&IndexDefinition, bool),
    ready: Option<&ReadyIndex>,
    later: bool,
    consent: &dyn Consent,
) -> Result<Defined> {
    let mut made = Defined::Exists;
    change(db, |catalog, state| {
        let def = catalog.table(table)?;
        if if_not_exists && def.find_index(&definition.name).is_some() {
            return Ok(None);
        }
        let mut index = def.new_index(definition)?;
        // Under the commit lock no term begins or ends.
        let ready = ready.filter(|ready| ready.table == def.id && ready.term == db.term());
        index.id = ready.map_or_else(|| db.next_index_id(def), |ready| Ok(ready.index.id))?;
        let (none, rows) = (Runs::new(), state.version.table(def.id)?);
        let known = ready.map_or(&none, |ready| &ready.runs);
        if later && (ready.is_none() || index.unique && not_compared(rows, known) > FEW) {
            made = Defined::Behind;
            return Ok(None);
        }
        if index.unique {
            check_unique(rows, &index, known, consent)?;
        }
        consent.commit()?;
        made = Defined::Made(def.id, index.clone());
        Ok(Some(CatalogChange::CreateIndex { table: def.id, index }))
    })?;
    Ok(made)
}

/// Rows that are not in files whose keys are known.
fn not_compared(table: &TableVersion, known: &Runs) -> u64 {
    let new = table.segments().filter(|(_, segment)| !known.contains_key(&segment.id()));
    new.map(|(_, segment)| u64::from(segment.rows())).sum()
}

/// Rows that came before the index but not to a file by then: they become files, which get runs as they are written.
fn complete_index(db: &Inner, table: u64, index: &IndexDef) -> Result<()> {
    let version = Arc::clone(&db.commit.lock().version);
    // It may be gone by now, and its index with it.
    let Some(rows) = version.tables.get(&table) else { return Ok(()) };
    if rows.segments().any(|(_, segment)| segment.hot().is_some()) {
        flush::checkpoint(db)?;
    }
    build_runs(db, table, index)?;
    let version = Arc::clone(&db.commit.lock().version);
    let Some(table) = version.tables.get(&table) else { return Ok(()) };
    if table.def.indexes.iter().all(|known| known.id != index.id) {
        let files = table.segments().filter_map(|(_, segment)| segment.cold());
        files.for_each(|cold| db.files.removal.remove_later(cold.drop_run(index.id)));
    }
    Ok(())
}

/// Gives every segment file that lacks it its run of an index.
pub(super) fn build_runs(db: &Inner, table: u64, index: &IndexDef) -> Result<()> {
    let version = Arc::clone(&db.commit.lock().version);
    let Some(table) = version.tables.get(&table) else { return Ok(()) };
    table.segments().try_for_each(|(_, segment)| rows::add_missing_run(table, segment, index))
}

/// Runs of segments, by an index that does not exist yet.
pub(super) type Runs = HashMap<u32, MadeRun>;

/// A run that is not its segment's yet, with the share of the memory budget that it takes.
#[derive(Clone)]
pub(super) struct MadeRun {
    run: Arc<IndexRun>,
    _charge: Arc<Charge>,
}

/// Checks that no two live rows of a table share a key of a new unique index, and keeps the runs of its files. Until few rows
/// came meanwhile, it looks at those.
fn check_rows(db: &Inner, ready: &mut ReadyIndex, consent: &dyn Consent) -> Result<()> {
    for _ in 0..CHECKS {
        let newest = Arc::clone(&db.commit.lock().version);
        let Some(rows) = newest.tables.get(&ready.table) else { return Ok(()) };
        if rows.segments().filter_map(|(_, segment)| segment.hot()).map(|hot| u64::from(hot.rows)).sum::<u64>() > FEW {
            // In files they are compared once, and not again under the lock.
            flush::checkpoint(db)?;
            continue;
        }
        ready.runs = check_unique(rows, &ready.index, &ready.runs, consent)?;
        let now = Arc::clone(&db.commit.lock().version);
        if now.tables.get(&ready.table).is_none_or(|now| not_compared(now, &ready.runs) <= FEW) {
            break;
        }
    }
    Ok(())
}

/// Checks that no two live rows share a key of a new unique index, where not both are in segments that are `known` to have
/// different keys. Returns the keys of all segment files.
fn check_unique(table: &TableVersion, index: &IndexDef, known: &Runs, consent: &dyn Consent) -> Result<Runs> {
    let encoder = table.def.key_encoder(index)?;
    let (mut runs, mut files) = (Vec::new(), HashMap::new());
    for (_, segment) in table.segments() {
        consent.go_on()?;
        let known = known.get(&segment.id()).filter(|_| segment.cold().is_some()).cloned();
        let is_known = known.is_some();
        let run = match &known {
            Some(made) => Arc::clone(&made.run),
            None => Arc::new(rows::segment_run(table, segment, index)?),
        };
        if let Some(cold) = segment.cold() {
            let new = || MadeRun { run: Arc::clone(&run), _charge: Arc::new(cold.file.cache().charge(run.nbytes())) };
            files.insert(segment.id(), known.unwrap_or_else(new));
        }
        runs.push((run, segment.tombstones.clone(), is_known));
    }
    // Those that are new first: each pair is looked at from its first member.
    runs.sort_by_key(|(_, _, is_known)| *is_known);
    let new = runs.iter().filter(|(_, _, is_known)| !is_known).count();
    let runs: Vec<_> = runs.into_iter().map(|(run, ended, _)| (run, ended)).collect();
    conflict::check_first(table, index, &encoder, &runs, new, consent)?;
    Ok(files)
}

/// Makes the runs that files lack of their table's indexes, and removes those of indexes that an opening before this has not
/// come to define. A failure between the two leaves such files; nobody is misled, but each key is looked for in every row.
pub(super) fn mend_runs(db: &Inner) -> Result<()> {
    let version = Arc::clone(&db.commit.lock().version);
    let mut there: HashMap<SegmentKey, HashSet<u32>> = HashMap::new();
    for (segment, index) in db.storage.list(DATA_DIR)?.iter().filter_map(|file| run_of_path(&file.path)) {
        there.entry(segment).or_default().insert(index);
    }
    let (least, none) = (first_index(db.epoch.load(Ordering::Acquire)), HashSet::new());
    for table in version.tables.values() {
        let defined: HashSet<u32> = table.def.indexes.iter().map(|index| index.id).collect();
        for (_, segment) in table.segments() {
            let Some(cold) = segment.cold() else { continue };
            let there = there.get(&cold.meta.key()).unwrap_or(&none);
            for index in table.def.indexes.iter().filter(|index| !there.contains(&index.id)) {
                rows::add_missing_run(table, segment, index)?;
            }
            for index in there.difference(&defined).filter(|index| **index < least) {
                db.files.removal.remove_later(cold.drop_run(*index));
            }
        }
    }
    Ok(())
}

pub(super) fn drop_index(db: &Inner, table: Option<&str>, name: &str, if_exists: bool) -> Result<bool> {
    let mut dropped = Vec::new();
    let done = change(db, |catalog, state| {
        let tables = catalog.tables.values().filter(|def| match table {
            Some(wanted) => catalog.find_table(wanted).is_some_and(|found| found.id == def.id),
            None => true,
        });
        let found: Vec<_> = tables
            .filter_map(|def| Some((def, def.find_index(name).filter(|index| !index.primary || table.is_some())?)))
            .collect();
        let (def, index) = match found.as_slice() {
            [only] => *only,
            [] if if_exists => return Ok(None),
            [] => return Err(Error::not_found(format!("index '{name}' does not exist"))),
            _ => return Err(Error::invalid(format!("several tables have an index '{name}'; say which with ON table"))),
        };
        if index.primary {
            return Err(Error::invalid(format!("the primary key of table '{}' cannot be dropped", def.name)));
        }
        let segments = state.version.table(def.id)?.segments();
        dropped = segments.filter_map(|(_, segment)| Some((Arc::clone(segment.cold()?), index.id))).collect();
        Ok(Some(CatalogChange::DropIndex { table: def.id, index: index.id }))
    })?;
    // Not before: a query would have read the runs again meanwhile, for good.
    for (cold, index) in dropped.into_iter().filter(|_| done) {
        db.files.removal.remove_later(cold.drop_run(index));
    }
    Ok(done)
}
