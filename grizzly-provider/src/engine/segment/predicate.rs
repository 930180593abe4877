//! Conditions as plain data, and the rows for which they are TRUE.
//!
//! A predicate keeps a row only if it is TRUE for it: where SQL says NULL, the row is not kept. There is no NOT (callers
//! push it down to the tests, where it is well defined). Comparisons are Arrow's: floats by total order, strings and
//! binaries by bytes.

use std::collections::BTreeMap;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::buffer::BooleanBuffer;
use arrow::datatypes::Schema;

use super::arrow_test::{compare, test_all, test_array};
use super::{EncodedColumn, Result, SegmentError};
use crate::access::{ColumnTest, CompareOp, Predicate};

/// Below one selected row in this many, a column is first reduced to the selected rows and only they are tested.
const SPARSE: usize = 24;

impl Predicate {
    /// The columns this predicate reads, ascending, each once.
    pub(crate) fn columns(&self) -> Vec<usize> {
        let mut columns = Vec::new();
        self.collect_columns(&mut columns);
        columns.sort_unstable();
        columns.dedup();
        columns
    }

    fn collect_columns(&self, columns: &mut Vec<usize>) {
        match self {
            Self::Test { column, .. } => columns.push(*column),
            Self::CompareColumns { left, right, .. } => columns.extend([*left, *right]),
            Self::And(all) | Self::Or(all) => all.iter().for_each(|one| one.collect_columns(columns)),
            Self::Constant(_) => {}
        }
    }

    /// Relative price per row, to put the cheap conditions of an AND first.
    fn cost(&self, schema: &Schema) -> u32 {
        match self {
            Self::Constant(_) => 0,
            Self::Test { column, test } => test.cost(schema, *column),
            Self::CompareColumns { .. } => 12,
            Self::And(all) | Self::Or(all) => all.iter().map(|one| one.cost(schema)).sum(),
        }
    }
}

impl ColumnTest {
    fn cost(&self, schema: &Schema, column: usize) -> u32 {
        let width = schema.fields().get(column).and_then(|field| field.data_type().primitive_width());
        let value = if width.is_some_and(|width| width <= 16) { 2 } else { 5 };
        match self {
            Self::IsNull | Self::IsNotNull => 1,
            Self::Compare { op: CompareOp::Eq, .. } => value,
            Self::Compare { .. } => value + 1,
            Self::InList { .. } => value * 2,
        }
    }
}

/// One step of an AND.
enum Step<'a> {
    Tests(usize, Vec<&'a ColumnTest>),
    Other(&'a Predicate),
}

/// Flattens an AND into tests by column and the rest.
fn split<'a>(
    all: &'a [Predicate],
    tests: &mut BTreeMap<usize, Vec<&'a ColumnTest>>,
    steps: &mut Vec<(u32, Step<'a>)>,
    schema: &Schema,
) {
    for one in all {
        match one {
            Predicate::And(inner) => split(inner, tests, steps, schema),
            Predicate::Test { column, test } => tests.entry(*column).or_default().push(test),
            other => steps.push((other.cost(schema), Step::Other(other))),
        }
    }
}

/// The rows of a chunk, of those in `selection` (all if `None`), for which `predicate` is TRUE.
///
/// `columns` gives the chunk's columns by their position in `schema`; it is asked only for columns that are needed, so
/// it may read them from storage.
///
/// # Errors
/// What `columns` returns; [`SegmentError::Unsupported`] for types that cannot be compared; [`SegmentError::Internal`]
/// for literals that are not of their column's type.
pub(crate) fn evaluate(
    predicate: &Predicate,
    columns: &mut dyn FnMut(usize) -> Result<EncodedColumn>,
    schema: &Schema,
    rows: usize,
    selection: Option<&BooleanBuffer>,
) -> Result<BooleanBuffer> {
    Chunk { columns, schema, rows }.evaluate(predicate, selection)
}

/// The rows of `batch` for which `predicate` is TRUE.
///
/// # Errors
/// [`SegmentError::Unsupported`] for types that cannot be compared; [`SegmentError::Internal`] for literals that are
/// not of their column's type.
pub(crate) fn evaluate_batch(predicate: &Predicate, batch: &RecordBatch) -> Result<BooleanBuffer> {
    let rows = batch.num_rows();
    match predicate {
        Predicate::Constant(true) => Ok(BooleanBuffer::new_set(rows)),
        Predicate::Constant(false) => Ok(BooleanBuffer::new_unset(rows)),
        Predicate::Test { column, test } => test_array(batch.column(*column), test),
        Predicate::CompareColumns { left, op, right } => compare(batch.column(*left), *op, batch.column(*right)),
        Predicate::And(all) => {
            let mut kept = BooleanBuffer::new_set(rows);
            for one in all {
                if kept.count_set_bits() == 0 {
                    break;
                }
                kept = &kept & &evaluate_batch(one, batch)?;
            }
            Ok(kept)
        }
        Predicate::Or(all) => {
            let mut kept = BooleanBuffer::new_unset(rows);
            for one in all {
                kept = &kept | &evaluate_batch(one, batch)?;
            }
            Ok(kept)
        }
    }
}

/// One chunk under evaluation. Every result is a subset of the selection it was given.
struct Chunk<'a> {
    columns: &'a mut dyn FnMut(usize) -> Result<EncodedColumn>,
    schema: &'a Schema,
    rows: usize,
}

impl Chunk<'_> {
    fn evaluate(&mut self, predicate: &Predicate, selection: Option<&BooleanBuffer>) -> Result<BooleanBuffer> {
        match predicate {
            Predicate::Constant(true) => Ok(self.all(selection)),
            Predicate::Constant(false) => Ok(BooleanBuffer::new_unset(self.rows)),
            Predicate::And(all) => self.and(all, selection),
            Predicate::Or(all) => self.or(all, selection),
            Predicate::Test { column, test } => self.test(*column, &[test], selection),
            Predicate::CompareColumns { left, op, right } => self.compare_columns(*left, *op, *right, selection),
        }
    }

    fn compare_columns(
        &mut self,
        left: usize,
        op: CompareOp,
        right: usize,
        selection: Option<&BooleanBuffer>,
    ) -> Result<BooleanBuffer> {
        if let Some(few) = self.worth_reducing(selection, 8) {
            let (left, right) = (self.values(left, Some(few))?, self.values(right, Some(few))?);
            return Ok(expand(&compare(&left, op, &right)?, few));
        }
        let (left, right) = (self.values(left, None)?, self.values(right, None)?);
        Ok(within(compare(&left, op, &right)?, selection))
    }

    /// Cheap conditions first, all tests of one column together, until no row is left.
    fn and(&mut self, all: &[Predicate], selection: Option<&BooleanBuffer>) -> Result<BooleanBuffer> {
        let mut tests: BTreeMap<usize, Vec<&ColumnTest>> = BTreeMap::new();
        let mut steps: Vec<(u32, Step<'_>)> = Vec::new();
        split(all, &mut tests, &mut steps, self.schema);
        for (column, tests) in tests {
            let cost = tests.iter().map(|test| test.cost(self.schema, column)).min().unwrap_or_default();
            steps.push((cost, Step::Tests(column, tests)));
        }
        steps.sort_by_key(|(cost, _)| *cost);
        let mut kept: Option<BooleanBuffer> = None;
        for (_, step) in steps {
            let so_far = kept.as_ref().or(selection);
            if so_far.is_some_and(|so_far| so_far.count_set_bits() == 0) {
                return Ok(BooleanBuffer::new_unset(self.rows));
            }
            kept = Some(match step {
                Step::Tests(column, tests) => self.test(column, &tests, so_far)?,
                Step::Other(one) => self.evaluate(one, so_far)?,
            });
        }
        Ok(kept.unwrap_or_else(|| self.all(selection)))
    }

    fn or(&mut self, all: &[Predicate], selection: Option<&BooleanBuffer>) -> Result<BooleanBuffer> {
        let mut kept = BooleanBuffer::new_unset(self.rows);
        let mut open = self.all(selection);
        for one in all {
            if open.count_set_bits() == 0 {
                break;
            }
            let found = self.evaluate(one, Some(&open))?;
            kept = &kept | &found;
            open = &open & &!&found;
        }
        Ok(kept)
    }

    fn test(
        &mut self,
        column: usize,
        tests: &[&ColumnTest],
        selection: Option<&BooleanBuffer>,
    ) -> Result<BooleanBuffer> {
        if let Some(few) = self.worth_reducing(selection, SPARSE) {
            let values = self.values(column, Some(few))?;
            return Ok(expand(&test_all(&values, tests)?, few));
        }
        let found = match self.column(column)?.test_all(self.schema.field(column), tests)? {
            Some(found) => found,
            None => test_all(&self.values(column, None)?, tests)?,
        };
        Ok(within(found, selection))
    }

    /// The selection, if it is so sparse that reducing columns to it first costs less.
    fn worth_reducing<'s>(&self, selection: Option<&'s BooleanBuffer>, factor: usize) -> Option<&'s BooleanBuffer> {
        selection.filter(|selection| selection.count_set_bits().saturating_mul(factor) < self.rows)
    }

    fn values(&mut self, column: usize, selection: Option<&BooleanBuffer>) -> Result<ArrayRef> {
        let encoded = self.column(column)?;
        let field = self.schema.field(column);
        match selection {
            Some(selection) => encoded.filter(field, selection),
            None => encoded.decode(field),
        }
    }

    fn column(&mut self, column: usize) -> Result<EncodedColumn> {
        if column >= self.schema.fields().len() {
            return Err(SegmentError::internal("evaluating a predicate", format!("no column {column}")));
        }
        (self.columns)(column)
    }

    fn all(&self, selection: Option<&BooleanBuffer>) -> BooleanBuffer {
        selection.cloned().unwrap_or_else(|| BooleanBuffer::new_set(self.rows))
    }
}

fn within(found: BooleanBuffer, selection: Option<&BooleanBuffer>) -> BooleanBuffer {
    match selection {
        Some(selection) => &found & selection,
        None => found,
    }
}

/// Bits for the selected rows only, back to bits for all rows.
fn expand(found: &BooleanBuffer, selection: &BooleanBuffer) -> BooleanBuffer {
    let mut bits = vec![0_u8; selection.len().div_ceil(8)];
    for (nth, row) in selection.set_indices().enumerate() {
        if found.value(nth) {
            bits[row / 8] |= 1 << (row % 8);
        }
    }
    BooleanBuffer::new(bits.into(), 0, selection.len())
}
