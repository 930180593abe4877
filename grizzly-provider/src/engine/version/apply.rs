//! What a log record does to a version of the database, and the only place that says so. The writer comes by here before it
//! appends a record, replay and followers when they read it: a database that is read again is what it was.

use std::{collections::HashSet, sync::Arc};

use super::{
    super::{
        catalog::{BEYOND, CatalogChange},
        files::Files,
        mvcc::{row_set::TableRows, tombstones::Tombstones},
        redo::{Change, KeyedRows, LoggedRows, RedoOp, Replace},
        segment::{
            cold::ColdSegment,
            meta::{OVERLAY, SegmentKey, SegmentMeta},
        },
        shard::hot::{HotIndexes, HotSegment},
    },
    DatabaseVersion, Segment, SegmentData, TableVersion,
};
use crate::{
    access::Csn,
    error::{Error, Result},
};

/// What a change leaves to be done, besides the version that it makes.
#[derive(Default)]
pub(crate) struct Effects {
    /// Entries of live indexes.
    pub(crate) entries: Vec<IndexEntries>,
    /// Segment files that the version names no more.
    pub(crate) gone: Vec<Arc<ColdSegment>>,
    /// Segment files that the record names.
    pub(crate) named: Vec<SegmentKey>,
    /// More than the number of any segment that the record names.
    pub(crate) next_segment: u32,
}

/// Entries for live indexes, which all versions of a hot segment share: they go in once the log has their rows.
pub(crate) struct IndexEntries {
    indexes: HotIndexes,
    first_row: u32,
    /// The index of each of the rows' keys.
    ids: Vec<u32>,
    rows: Arc<KeyedRows>,
}

/// Makes the change that commit `csn` consists of. If it fails, the version is of no use.
///
/// # Errors
/// `Corrupt` if the change does not fit the version: the writer has checked that it does, or reads what one has written.
pub(crate) fn apply(version: &mut DatabaseVersion, change: &Change, csn: Csn, files: &Files) -> Result<Effects> {
    if csn.0 >= BEYOND {
        return Err(Error::corrupt(format!("a record in the log is of commit {csn}, which no database reaches")));
    }
    let mut applying = Applying::new(version, csn, files);
    match change {
        Change::Commit(ops) => ops.iter().try_for_each(|op| applying.op(op))?,
        Change::Catalog(change) => applying.define(change)?,
        Change::Replace(replace) => applying.replace(replace)?,
    }
    Ok(applying.finish())
}

/// Makes a change of the catalog; returns the segment files that are gone by it.
pub(crate) fn define(version: &mut DatabaseVersion, change: &CatalogChange, csn: Csn) -> Result<Vec<Arc<ColdSegment>>> {
    let mut gone = Vec::new();
    version.catalog.check_change(change)?;
    version.catalog = Arc::new(version.catalog.with(change));
    match change {
        CatalogChange::CreateTable(def) => {
            version.tables.insert(def.id, Arc::new(TableVersion::new(Arc::new(def.clone()), csn)?));
        }
        CatalogChange::DropTable { table } => {
            if let Some(table) = version.tables.remove(table) {
                gone.extend(table.segments().filter_map(|(_, segment)| segment.cold().cloned()));
            }
        }
        CatalogChange::CreateIndex { table, .. } | CatalogChange::DropIndex { table, .. } => {
            let def = version.catalog.tables.get(table).cloned();
            let def =
                def.ok_or_else(|| Error::corrupt(format!("the log changes table number {table}, which is not there")))?;
            let table = version.change_table(*table, csn)?;
            table.redefine(def)?;
            // Later rows go to new hot segments, whose live indexes fit the changed definition.
            table.seal();
        }
        _ => {}
    }
    Ok(gone)
}

/// A commit that is applied piece by piece: where the writer puts rows depends on the pieces before.
pub(crate) struct Applying<'a> {
    version: &'a mut DatabaseVersion,
    csn: Csn,
    files: &'a Files,
    effects: Effects,
}

impl<'a> Applying<'a> {
    pub(crate) fn new(version: &'a mut DatabaseVersion, csn: Csn, files: &'a Files) -> Self {
        Self { version, csn, files, effects: Effects::default() }
    }

    /// The version as far as it is made.
    pub(crate) fn version(&self) -> &DatabaseVersion {
        self.version
    }

    pub(crate) fn finish(self) -> Effects {
        self.version.csn = self.version.csn.max(self.csn);
        self.effects
    }

    /// Makes one piece of a commit.
    pub(crate) fn op(&mut self, op: &RedoOp) -> Result<()> {
        match op {
            RedoOp::Define(change) => self.define(change),
            RedoOp::Delete { table, rows } => end_rows(self.version.change_table(*table, self.csn)?, rows, self.csn),
            RedoOp::Attach(attach) => {
                let table = self.version.change_table(attach.table, self.csn)?;
                let segment = opened(self.files, attach.file.as_ref(), &attach.meta, table)?;
                check_ended(&segment, &attach.ended)?;
                table.shard_mut(attach.shard)?.push(SegmentData::Cold(segment), attach.ended.clone());
                self.effects.name(&attach.meta);
                Ok(())
            }
            RedoOp::Insert { table, shard, segment, first_row, versions, rows } => {
                let table = self.version.change_table(*table, self.csn)?;
                let rows = keyed(rows, table)?;
                let ids = table.codecs.keys.iter().map(|(index, _)| index.id).collect();
                let def = Arc::clone(&table.def);
                let hot = growing(table, *shard, *segment)?;
                if hot.rows != *first_row {
                    return Err(Error::corrupt(format!(
                        "the log adds row {first_row} to segment {segment} of table '{}', which has {} rows",
                        def.name, hot.rows
                    )));
                }
                let entries = IndexEntries { indexes: Arc::clone(&hot.indexes), first_row: hot.rows, ids, rows };
                if hot.rows.checked_add(entries.rows.batch.num_rows() as u32).is_none() {
                    return Err(Error::corrupt(format!("the log adds more rows to segment {segment} than one has")));
                }
                hot.append(&entries.rows.batch, self.csn.0, versions)?;
                self.effects.entries.push(entries);
                self.effects.next_segment = self.effects.next_segment.max(segment + 1);
                Ok(())
            }
        }
    }

    fn define(&mut self, change: &CatalogChange) -> Result<()> {
        let gone = define(self.version, change, self.csn)?;
        self.effects.gone.extend(gone);
        Ok(())
    }

    /// Exchanges segments of a shard for one that has their rows. No row changes.
    fn replace(&mut self, replace: &Replace) -> Result<()> {
        let table = self.version.table_mut(replace.table)?;
        let added = match &replace.added {
            Some(meta) => {
                self.effects.name(meta);
                Some(opened(self.files, replace.file.as_ref(), meta, table)?)
            }
            None => None,
        };
        if let Some(added) = &added {
            check_ended(added, &replace.ended)?;
        }
        if replace.history_from >= BEYOND {
            return Err(Error::corrupt("a merge of segments in the log lets go of history that there is not yet"));
        }
        let removed: HashSet<u32> = replace.removed.iter().copied().collect();
        self.effects.gone.extend(removed.iter().filter_map(|id| table.segment(*id)?.cold().cloned()));
        exchange(table, replace.shard, &removed, added, replace.ended.clone())?;
        self.version.compactions += 1;
        self.version.history_from = Csn(replace.history_from);
        Ok(())
    }
}

impl Effects {
    fn name(&mut self, meta: &SegmentMeta) {
        self.named.push(meta.key());
        self.next_segment = self.next_segment.max(meta.id + 1);
    }
}

impl IndexEntries {
    /// Adds the entries.
    pub(crate) fn insert(self) {
        for (id, keys) in self.ids.iter().zip(&self.rows.keys) {
            if let Some((_, live)) = self.indexes.iter().find(|(index, _)| index == id) {
                for (row, key) in (self.first_row..).zip(keys.iter()) {
                    live.insert(key, row);
                }
            }
        }
    }
}

/// The rows of a record as rows of their table. The writer has them at hand.
fn keyed(rows: &LoggedRows, table: &TableVersion) -> Result<Arc<KeyedRows>> {
    if let Some(keyed) = &rows.keyed {
        return Ok(Arc::clone(keyed));
    }
    let batch = rows.encoded.decode(&table.def.schema)?;
    Ok(Arc::new(KeyedRows { keys: table.index_keys(&batch)?, batch }))
}

/// The writer has its segment at hand.
fn opened(
    files: &Files,
    at_hand: Option<&Arc<ColdSegment>>,
    meta: &SegmentMeta,
    table: &TableVersion,
) -> Result<Arc<ColdSegment>> {
    check_number(meta.id, meta.epoch)?;
    at_hand.map_or_else(|| files.open(meta, table), |segment| Ok(Arc::clone(segment)))
}

/// An error for the number of a segment that no writer gives.
fn check_number(segment: u32, epoch: u64) -> Result<()> {
    match segment < OVERLAY && epoch < BEYOND {
        true => Ok(()),
        false => Err(Error::corrupt(format!("the log names segment {segment} of epoch {epoch}, which cannot be"))),
    }
}

/// An error if rows are to have ended that a segment does not have.
fn check_ended(segment: &ColdSegment, ended: &Tombstones) -> Result<()> {
    match ended.last().is_none_or(|row| row < segment.meta.rows) {
        true => Ok(()),
        false => Err(Error::corrupt(format!("the log ends rows that '{}' does not have", segment.meta.path()))),
    }
}

/// The hot segment with this number, made if it is named for the first time; earlier ones grow no more.
fn growing(table: &mut TableVersion, shard: u32, segment: u32) -> Result<&mut HotSegment> {
    let def = Arc::clone(&table.def);
    if table.shard(shard)?.growing().is_none_or(|hot| hot.id != segment) {
        check_number(segment, 0)?;
        if table.segment(segment).is_some() {
            let table = def.display_name();
            return Err(Error::corrupt(format!(
                "the log adds rows to segment {segment} of table '{table}', which has ended"
            )));
        }
    }
    let version = table.shard_mut(shard)?;
    if version.growing().is_none_or(|hot| hot.id != segment) {
        if let Some(before) = version.growing_mut() {
            before.sealed = true;
        }
        version.push_hot(HotSegment::new(segment, def.indexes.iter().map(|index| index.id)));
    }
    let missing = || Error::internal(format!("table '{}' has no growing segment in shard {shard}", def.name));
    version.growing_mut().ok_or_else(missing)
}

fn end_rows(table: &mut TableVersion, rows: &TableRows, csn: Csn) -> Result<()> {
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

/// Puts `added` in the place of the segments `removed`.
fn exchange(
    table: &mut TableVersion,
    shard: u32,
    removed: &HashSet<u32>,
    added: Option<Arc<ColdSegment>>,
    ended: Tombstones,
) -> Result<()> {
    let name = table.def.name.clone();
    let shard = table.shard_mut(shard)?;
    let at = shard.segments.iter().position(|segment| removed.contains(&segment.id()));
    let there = shard.segments.iter().filter(|segment| removed.contains(&segment.id())).count();
    let at = at.filter(|_| there == removed.len());
    let at = at.ok_or_else(|| Error::corrupt(format!("segments of table '{name}' vanished under a merge")))?;
    shard.segments.retain(|segment| !removed.contains(&segment.id()));
    if let Some(added) = added {
        let segment = Segment { data: SegmentData::Cold(added), tombstones: ended };
        shard.segments.insert(at.min(shard.segments.len()), Arc::new(segment));
    }
    Ok(())
}
