//! A planned scan and its units of work.

use arrow::{datatypes::SchemaRef, record_batch::RecordBatch};

use crate::{
    access::Predicate,
    error::{Error, Result},
};

/// A unit of work of a scan, at most 65,536 rows of a segment or one batch of index lookups.
#[derive(Debug, Clone)]
pub struct Morsel {}

/// A planned scan: any thread may read any morsel, in any order.
#[derive(Debug, Clone)]
pub struct TableScan {}

impl TableScan {
    /// Schema of the batches.
    pub fn schema(&self) -> SchemaRef {
        std::sync::Arc::new(arrow::datatypes::Schema::empty())
    }
    /// Units of work.
    pub fn morsels(&self) -> &[Morsel] {
        &[]
    }
    /// Reads one morsel. `extra` narrows the result further (a dynamic filter); rows for which it is not true
    /// may or may not be left out. `None` if nothing matches.
    pub fn read(&self, _morsel: &Morsel, _extra: Option<&Predicate>) -> Result<Option<RecordBatch>> {
        Err(Error::internal("skeleton"))
    }
}
