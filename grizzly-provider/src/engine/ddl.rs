//! Changes of the catalog. Each is one commit of its own, in the same log and the same order as all others.

use std::{collections::HashMap, sync::Arc};

use super::{
    catalog::{Catalog, CatalogChange, DEFAULT_SCHEMA, IndexDef, TableDef, ViewDef, split_name},
    database::Inner,
    index::IndexRun,
    maintenance::flush,
    redo::Change,
    rows,
    segment::{Charge, cold::ColdSegment},
    txn::{
        commit::{self, CommitState, Logged},
        conflict,
    },
    version::{Segment, TableVersion, apply::apply},
};
use crate::{
    access::{IndexDefinition, TableDefinition},
    error::{Error, ErrorKind, Result},
};

/// So many rows may be compared under the commit lock, for a new unique index.
const FEW: u64 = 4_096;
/// How often rows that came meanwhile are compared without it.
const CHECKS: usize = 16;

/// Makes a change under the commit lock: `make` looks at the newest catalog and says what to do, or nothing. Whether it did.
fn change(db: &Inner, make: impl FnOnce(&Catalog, &CommitState) -> Result<Option<CatalogChange>>) -> Result<bool> {
    db.begin_to_write();
    db.check_writable()?;
    let (logged, gone) = {
        let mut state = db.commit.lock();
        let Some(change) = make(&state.version.catalog, &state)? else { return Ok(false) };
        log(db, &mut state, change)?
    };
    logged.wait()?;
    db.retire(gone);
    Ok(true)
}

/// Writes a change to the log; returns the segment files that are gone by it, too.
fn log(db: &Inner, state: &mut CommitState, change: CatalogChange) -> Result<(Logged, Vec<Arc<ColdSegment>>)> {
    let mut next = state.version.as_ref().clone();
    let (csn, change) = (db.next_csn(next.csn), Change::Catalog(change));
    let effects = apply(&mut next, &change, csn, &db.files)?;
    let logged = commit::append(db, state, next, change.record(0, csn)?, || ())?;
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

pub(super) fn create_view(db: &Inner, name: &str, sql: &str, or_replace: bool) -> Result<()> {
    let (schema_name, view) = split_name(name);
    let view = ViewDef { schema_name: schema_name.to_owned(), name: view.to_owned(), sql: sql.to_owned() };
    change(db, |catalog, _| {
        if !(or_replace && catalog.find_view(name).is_some()) {
            catalog.check_free(name)?;
        }
        Ok(Some(CatalogChange::CreateView(view)))
    })?;
    Ok(())
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

pub(super) fn create_index(db: &Inner, table: &str, definition: &IndexDefinition, if_not_exists: bool) -> Result<bool> {
    for attempt in 0.. {
        let ready = prepare_index(db, table, definition)?;
        match define_index(db, table, definition, if_not_exists, ready.as_ref(), attempt < CHECKS) {
            Ok(Defined::Made(table, index)) => {
                complete_index(db, table, &index)?;
                return Ok(true);
            }
            other => {
                if let Some(ready) = ready {
                    ready.abandon(db);
                }
                match other? {
                    Defined::Exists => return Ok(false),
                    Defined::Behind | Defined::Made(..) => {}
                }
            }
        }
    }
    Err(Error::internal("an index was made neither now nor later"))
}

/// An index that does not exist yet, with its runs of a table's files.
struct ReadyIndex {
    table: u64,
    index: IndexDef,
    files: Vec<Arc<ColdSegment>>,
    /// The runs, where all rows were compared.
    runs: Runs,
}

/// What came of the attempt to put an index in force.
enum Defined {
    Made(u64, IndexDef),
    Exists,
    /// Too many rows have come to files since they were compared.
    Behind,
}

impl ReadyIndex {
    /// Lets its runs go: nobody will ask for them, since its number is not used again.
    fn abandon(self, db: &Inner) {
        for file in self.files {
            db.files.removal.remove_later(file.drop_run(self.index.id));
        }
    }
}

/// Gives all files of a table their runs of an index that is to be, and checks that no two rows share a key if it is unique.
/// All that takes long is done before the index is in force: from then on each commit looks for its keys in them. `None` if
/// the index cannot be: whoever tries says why.
fn prepare_index(db: &Inner, table: &str, definition: &IndexDefinition) -> Result<Option<ReadyIndex>> {
    db.begin_to_write();
    db.check_writable()?;
    let version = Arc::clone(&db.commit.lock().version);
    let Some(def) = version.catalog.find_table(table) else { return Ok(None) };
    let Ok(mut index) = def.new_index(definition) else { return Ok(None) };
    index.id = db.next_index_id(def);
    let runs = match index.unique {
        true => match check_rows(db, table, definition)?.filter(|(id, _)| *id == def.id) {
            Some((_, runs)) => runs,
            None => return Ok(None),
        },
        false => Runs::new(),
    };
    let mut ready = ReadyIndex { table: def.id, index, files: Vec::new(), runs };
    match add_runs(db, &mut ready) {
        Ok(()) => Ok(Some(ready)),
        Err(error) => {
            ready.abandon(db);
            Err(error)
        }
    }
}

fn add_runs(db: &Inner, ready: &mut ReadyIndex) -> Result<()> {
    let version = Arc::clone(&db.commit.lock().version);
    let Some(table) = version.tables.get(&ready.table) else { return Ok(()) };
    for (_, segment) in table.segments() {
        let Some(cold) = segment.cold() else { continue };
        let run = match ready.runs.get(&segment.id()) {
            Some(made) => made.run.as_ref().clone(),
            None => rows::segment_run(table, segment, &ready.index)?,
        };
        ready.files.push(Arc::clone(cold));
        // One that a crash has left under this name is not of this index.
        cold.add_run(ready.index.id, run)?;
    }
    Ok(())
}

/// Puts an index in force, if few rows have come to files since they were compared, or there is no `later`.
fn define_index(
    db: &Inner,
    table: &str,
    definition: &IndexDefinition,
    if_not_exists: bool,
    ready: Option<&ReadyIndex>,
    later: bool,
) -> Result<Defined> {
    let mut made = Defined::Exists;
    change(db, |catalog, state| {
        let def = catalog.table(table)?;
        if if_not_exists && def.find_index(&definition.name).is_some() {
            return Ok(None);
        }
        let mut index = def.new_index(definition)?;
        let ready = ready.filter(|ready| ready.table == def.id);
        index.id = ready.map_or_else(|| db.next_index_id(def), |ready| ready.index.id);
        if index.unique {
            let (rows, known) = (state.version.table(def.id)?, ready.map(|ready| &ready.runs));
            if later && new_in_files(rows, known) > FEW {
                made = Defined::Behind;
                return Ok(None);
            }
            check_unique(rows, &index, known.unwrap_or(&HashMap::new()))?;
        }
        made = Defined::Made(def.id, index.clone());
        Ok(Some(CatalogChange::CreateIndex { table: def.id, index }))
    })?;
    Ok(made)
}

/// Rows of files whose keys are not known.
fn new_in_files(table: &TableVersion, known: Option<&Runs>) -> u64 {
    let files = table.segments().filter(|(_, segment)| segment.cold().is_some());
    let new = files.filter(|(_, segment)| known.is_none_or(|known| !known.contains_key(&segment.id())));
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
    if let Some(table) =
        version.tables.get(&table).filter(|table| table.def.indexes.iter().all(|known| known.id != index.id))
    {
        table
            .segments()
            .filter_map(|(_, segment)| segment.cold())
            .for_each(|cold| drop_unknown_runs(db, &table.def, cold));
    }
    Ok(())
}

/// Gives every segment file that lacks it its run of an index.
pub(super) fn build_runs(db: &Inner, table: u64, index: &IndexDef) -> Result<()> {
    let version = Arc::clone(&db.commit.lock().version);
    let Some(table) = version.tables.get(&table) else { return Ok(()) };
    table.segments().try_for_each(|(_, segment)| build_run(table, segment, index))
}

/// Gives a segment its run of an index, if it is a file that lacks it.
pub(super) fn build_run(table: &TableVersion, segment: &Segment, index: &IndexDef) -> Result<()> {
    let Some(cold) = segment.cold() else { return Ok(()) };
    if cold.run(index.id)?.is_none() {
        cold.add_run(index.id, rows::segment_run(table, segment, index)?)?;
    }
    Ok(())
}

/// Runs of segments, by an index that does not exist yet.
pub(super) type Runs = HashMap<u32, MadeRun>;

/// A run that is not its segment's yet, with the share of the memory budget that it takes.
#[derive(Clone)]
pub(super) struct MadeRun {
    run: Arc<IndexRun>,
    _charge: Arc<Charge>,
}

/// Checks that no two live rows of a table share a key of a new unique index; returns the table's number and the runs of
/// its files. Until few rows came meanwhile, it looks at those. `None` if there is nothing to check: whoever asks again
/// under the lock says why.
fn check_rows(db: &Inner, table: &str, definition: &IndexDefinition) -> Result<Option<(u64, Runs)>> {
    let mut checked: Option<(u64, Runs)> = None;
    for _ in 0..CHECKS {
        let newest = Arc::clone(&db.commit.lock().version);
        let Some(def) = newest.catalog.find_table(table) else { return Ok(None) };
        let Ok(index) = def.new_index(definition) else { return Ok(None) };
        let known = checked.take().filter(|(id, _)| *id == def.id).map(|(_, runs)| runs).unwrap_or_default();
        let rows = newest.table(def.id)?;
        if rows.segments().filter_map(|(_, segment)| segment.hot()).map(|hot| u64::from(hot.rows)).sum::<u64>() > FEW {
            // In files they are compared once, and not again under the lock.
            flush::checkpoint(db)?;
            checked = Some((def.id, known));
            continue;
        }
        let known = check_unique(rows, &index, &known)?;
        let now = Arc::clone(&db.commit.lock().version);
        let new = now.tables.get(&def.id).into_iter().flat_map(|table| table.segments());
        let new = new.filter(|(_, segment)| !known.contains_key(&segment.id()));
        let few = new.map(|(_, segment)| u64::from(segment.rows())).sum::<u64>() <= FEW;
        checked = Some((def.id, known));
        if few {
            break;
        }
    }
    Ok(checked)
}

/// Checks that no two live rows share a key of a new unique index, where not both are in segments that are `known` to have
/// different keys. Returns the keys of all segment files.
fn check_unique(table: &TableVersion, index: &IndexDef, known: &Runs) -> Result<Runs> {
    let encoder = table.def.key_encoder(index)?;
    let (mut runs, mut files) = (Vec::new(), HashMap::new());
    for (_, segment) in table.segments() {
        let run = match known.get(&segment.id()).filter(|_| segment.cold().is_some()) {
            Some(made) => Arc::clone(&made.run),
            None => Arc::new(rows::segment_run(table, segment, index)?),
        };
        if let Some(cold) = segment.cold() {
            let charge = Arc::new(cold.file.cache().charge(run.nbytes()));
            files.insert(segment.id(), MadeRun { run: Arc::clone(&run), _charge: charge });
        }
        let is_known = segment.cold().is_some() && known.contains_key(&segment.id());
        runs.push((run, segment.tombstones.clone(), is_known));
    }
    // Those that are new first: each pair is looked at from its first member.
    runs.sort_by_key(|(_, _, is_known)| *is_known);
    let new = runs.iter().filter(|(_, _, is_known)| !is_known).count();
    let runs: Vec<_> = runs.into_iter().map(|(run, ended, _)| (run, ended)).collect();
    conflict::check_first(table, index, &encoder, &runs, new)?;
    Ok(files)
}

/// Removes from a new segment the runs of indexes that were dropped while it was written.
pub(super) fn drop_unknown_runs(db: &Inner, def: &TableDef, segment: &ColdSegment) {
    for file in segment.drop_runs(|index| def.indexes.iter().any(|known| known.id == index)) {
        db.files.removal.remove_later(file);
    }
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
