//! The writes themselves: batches of a sink's input become calls of the transaction.
//!
//! A statement's changes take effect together: where one row may take a key that another row of the same statement
//! gives up, everything is collected first and written in one call per kind, deletions before updates before
//! insertions. Where keys stay as they are, batches are written as they come.

use std::collections::HashSet;

use arrow::{
    array::{Array, ArrayRef, AsArray, UInt64Array},
    compute::{concat_batches, take_record_batch},
    datatypes::{Int32Type, UInt64Type},
    record_batch::RecordBatch,
};
use datafusion::{
    error::Result as DfResult,
    execution::{
        SendableRecordBatchStream, TaskContext,
        memory_pool::{MemoryConsumer, MemoryReservation},
    },
};
use futures::StreamExt;

use super::{
    conform::conform,
    distinct::DistinctRows,
    merge::{MergeAction, Repeats, RowAction},
    scope::WriteScope,
    sink::Action,
    target::{Target, full_name},
};
use crate::{
    Error, ErrorKind, Result, TableSnapshot, Transaction,
    access::{RowId, ScanRequest, SystemColumn},
    adapter::busy::{MANY_ROWS, busy},
};

/// Within a transaction a statement hears at once of keys that are taken, as long as it writes no more rows than
/// this; of those beyond, the commit tells.
const CHECKED_ROWS: usize = 65_536;

/// A statement that writes to one table.
pub(super) struct Writer {
    target: Target,
    /// The table's present name, as the transaction wants it.
    name: String,
    table: TableSnapshot,
    scope: WriteScope,
    /// How many more rows have their keys checked before the transaction commits.
    unchecked: usize,
    /// Memory for what is collected before it can be written.
    collected: MemoryReservation,
}

impl Writer {
    /// Begins to write. `None` if the statement's table is there already and is to stay as it is.
    pub(super) fn new(mut target: Target, mut scope: WriteScope, context: &TaskContext) -> Result<Option<Self>> {
        let table = match &target.creates {
            Some(new) => {
                let created = |transaction: &mut Transaction| {
                    let created = transaction.create_table(new.definition.clone(), new.existing)?;
                    created.then(|| transaction.snapshot()?.table(&target.name)).transpose()
                };
                let Some(table) = scope.write(created)? else { return Ok(None) };
                (target.id, target.schema) = (table.id(), table.schema());
                table
            }
            None => target.at(scope.snapshot())?,
        };
        if table.schema() != target.schema {
            return Err(Error::invalid(format!("table {} has changed: prepare the statement again", target.name)));
        }
        let collected = MemoryConsumer::new(format!("GrizzlyDmlExec[{}]", target.name)).register(context.memory_pool());
        let unchecked = if scope.in_transaction() { CHECKED_ROWS } else { 0 };
        Ok(Some(Self { name: full_name(&table), target, table, scope, unchecked, collected }))
    }

    /// Ends the statement and commits it if it stands for itself.
    pub(super) async fn finish(self) -> Result<()> {
        self.scope.finish().await
    }

    fn insert(&mut self, columns: &[ArrayRef]) -> Result<u64> {
        let rows = conform(&self.target, columns)?;
        let count = self.scope.write(|transaction| transaction.insert(&self.name, rows.clone()))?;
        self.check_unique(&rows)?;
        Ok(count)
    }

    fn put(&mut self, columns: &[ArrayRef]) -> Result<u64> {
        let rows = conform(&self.target, columns)?;
        let count = self.scope.write(|transaction| transaction.put(&self.name, rows.clone()))?;
        self.check_unique(&rows)?;
        Ok(count)
    }

    fn check_unique(&mut self, rows: &RecordBatch) -> Result<()> {
        if rows.num_rows() > self.unchecked {
            self.unchecked = 0;
            return Ok(());
        }
        self.unchecked -= rows.num_rows();
        self.scope.write(|transaction| transaction.check_unique(&self.name, rows))
    }

    fn delete(&mut self, ids: &[RowId]) -> Result<u64> {
        if ids.is_empty() {
            return Ok(0);
        }
        self.scope.write(|transaction| transaction.delete(&self.name, ids))
    }

    fn update(&mut self, ids: &[RowId], rows: RecordBatch) -> Result<u64> {
        if ids.is_empty() {
            return Ok(0);
        }
        self.scope.write(|transaction| transaction.update(&self.name, ids, rows))
    }

    /// The same where keys may be new.
    fn update_keys(&mut self, ids: &[RowId], rows: RecordBatch) -> Result<u64> {
        let count = self.update(ids, rows.clone())?;
        self.check_unique(&rows)?;
        Ok(count)
    }

    /// Whether new values in these columns can collide with other rows.
    fn touches_unique_key(&self, assigned: &[usize]) -> bool {
        let mut unique = self.table.indexes().into_iter().filter(|index| index.unique);
        unique.any(|index| index.columns.iter().any(|column| assigned.contains(column)))
    }

    fn collect(&mut self, batch: &RecordBatch) -> DfResult<()> {
        self.collected.try_grow(batch.get_array_memory_size())
    }
}

/// Writes all of `rows`; returns how many rows it inserted, replaced and deleted.
pub(super) async fn write(writer: &mut Writer, action: &Action, rows: SendableRecordBatchStream) -> DfResult<u64> {
    match action {
        Action::Append => each(rows, |batch| writer.insert(batch.columns())).await,
        Action::Put => each(rows, |batch| writer.put(batch.columns())).await,
        Action::Overwrite => {
            delete_all(writer)?;
            each(rows, |batch| writer.insert(batch.columns())).await
        }
        Action::AppendDistinct { keys } => {
            let mut distinct = DistinctRows::new(&writer.target.schema, keys)?;
            each(rows, |batch| {
                let batch = distinct.filter(&conform(&writer.target, batch.columns())?)?;
                writer.insert(batch.columns())
            })
            .await
        }
        Action::Delete => each(rows, |batch| writer.delete(&row_ids(batch, 0)?)).await,
        Action::Update { assigned } if writer.touches_unique_key(assigned) => update_at_once(writer, rows).await,
        Action::Update { .. } => {
            each(rows, |batch| {
                let new = conform(&writer.target, &batch.columns()[1..])?;
                writer.update(&row_ids(batch, 0)?, new)
            })
            .await
        }
        Action::Merge(merge) => merge_at_once(writer, merge, rows).await,
    }
}

async fn each(
    mut rows: SendableRecordBatchStream,
    mut write: impl FnMut(&RecordBatch) -> Result<u64>,
) -> DfResult<u64> {
    let mut count = 0;
    while let Some(batch) = rows.next().await {
        let batch = batch?;
        count += match batch.num_rows() {
            0 => 0,
            MANY_ROWS.. => busy(|| write(&batch))?,
            _ => write(&batch)?,
        };
    }
    Ok(count)
}

async fn update_at_once(writer: &mut Writer, mut rows: SendableRecordBatchStream) -> DfResult<u64> {
    let (mut ids, mut new) = (Vec::new(), Vec::new());
    while let Some(batch) = rows.next().await {
        let batch = batch?;
        writer.collect(&batch)?;
        ids.extend(row_ids(&batch, 0)?);
        new.push(conform(&writer.target, &batch.columns()[1..])?);
    }
    let new = concat_batches(&writer.target.schema, &new)?;
    Ok(writer.update_keys(&ids, new)?)
}

/// What the rows of a MERGE come to.
#[derive(Default)]
struct Changes {
    deleted: Vec<RowId>,
    updated: Vec<RowId>,
    new: Vec<RecordBatch>,
    inserted: Vec<RecordBatch>,
    seen: HashSet<RowId>,
}

async fn merge_at_once(writer: &mut Writer, merge: &MergeAction, mut rows: SendableRecordBatchStream) -> DfResult<u64> {
    let mut changes = Changes::default();
    while let Some(batch) = rows.next().await {
        let batch = batch?;
        writer.collect(&batch)?;
        changes.add(&writer.target, merge, &batch)?;
    }
    let mut count = writer.delete(&changes.deleted)?;
    let new = concat_batches(&writer.target.schema, &changes.new)?;
    count += writer.update_keys(&changes.updated, new)?;
    for batch in &changes.inserted {
        count += writer.insert(batch.columns())?;
    }
    Ok(count)
}

impl Changes {
    /// Sorts the rows of one batch by what is to be done with them.
    fn add(&mut self, target: &Target, merge: &MergeAction, batch: &RecordBatch) -> Result<()> {
        let clauses = batch.column(0).as_primitive::<Int32Type>();
        let ids = batch.column(1).as_primitive::<UInt64Type>();
        let (mut updated, mut inserted) = (Vec::new(), Vec::new());
        for row in 0..batch.num_rows() {
            let clause = usize::try_from(clauses.value(row)).ok().and_then(|clause| merge.clauses.get(clause));
            let Some(action) = clause.filter(|_| clauses.is_valid(row)) else {
                return Err(Error::internal("a row of a MERGE belongs to no clause"));
            };
            if *action == RowAction::Insert {
                inserted.push(row as u64);
                continue;
            }
            let id = row_id(ids, row)?;
            if !self.seen.insert(id) {
                match merge.repeats {
                    Repeats::Ignored => continue,
                    Repeats::Refused => return Err(repeated(target)),
                }
            }
            match action {
                RowAction::Delete => self.deleted.push(id),
                _ => {
                    self.updated.push(id);
                    updated.push(row as u64);
                }
            }
        }
        let values = batch.project(&(2..batch.num_columns()).collect::<Vec<_>>())?;
        for (rows, into) in [(updated, &mut self.new), (inserted, &mut self.inserted)] {
            if !rows.is_empty() {
                let taken = take_record_batch(&values, &UInt64Array::from(rows))?;
                into.push(conform(target, taken.columns())?);
            }
        }
        Ok(())
    }
}

fn repeated(target: &Target) -> Error {
    let message = format!("a row of table {} matches several source rows: it cannot be changed twice", target.name);
    Error::new(ErrorKind::Cardinality, message)
}

/// Deletes every row the statement sees.
fn delete_all(writer: &mut Writer) -> Result<()> {
    let row_id = writer.table.schema().fields().len() + SystemColumn::RowId as usize;
    let scan = writer.table.scan(&ScanRequest { projection: vec![row_id], ..ScanRequest::default() })?;
    for morsel in scan.morsels() {
        if let Some(batch) = scan.read(morsel, None)? {
            writer.delete(&row_ids(&batch, 0)?)?;
        }
    }
    Ok(())
}

fn row_ids(batch: &RecordBatch, column: usize) -> Result<Vec<RowId>> {
    let ids = batch.column(column).as_primitive_opt::<UInt64Type>();
    let ids = ids.ok_or_else(|| Error::internal("row ids are not UInt64"))?;
    (0..ids.len()).map(|row| row_id(ids, row)).collect()
}

fn row_id(ids: &UInt64Array, row: usize) -> Result<RowId> {
    if ids.is_null(row) {
        return Err(Error::internal("a row to change has no id"));
    }
    Ok(RowId(ids.value(row)))
}
