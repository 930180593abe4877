//! Functions whose results are large where their arguments are small: `repeat('x', 500000000)`. They build a result as a
//! whole, before any memory pool hears of it, so what it will take is computed first and refused where that is too much.
//!
//! `growth` says what a result takes, `scalar` and `aggregate` are functions that ask it, `concat` is the operator `||` as
//! such a function, and `plan` puts them where a plan has others.

mod aggregate;
mod concat;
mod growth;
mod plan;
mod scalar;
mod sizes;

use datafusion::{
    error::DataFusionError,
    execution::memory_pool::{MemoryLimit, human_readable_size},
};

pub(super) use aggregate::bounded_aggregate;
pub(super) use concat::string_concat;
pub(super) use plan::BoundedPlans;
pub(super) use scalar::bounded;

/// Bytes that one call may make where memory has no bound: a gibibyte, as a value of PostgreSQL.
const MOST: usize = 1 << 30;

/// How much one call may make where queries have so much memory.
pub(super) fn most_at_once(memory: &MemoryLimit) -> usize {
    match memory {
        MemoryLimit::Finite(bytes) => (bytes / 4).min(MOST),
        _ => MOST,
    }
}

/// The error of a call that would make so many bytes.
fn refused(function: &str, bytes: u64, most: usize) -> DataFusionError {
    let bytes = human_readable_size(usize::try_from(bytes).unwrap_or(usize::MAX));
    let most = human_readable_size(most);
    DataFusionError::ResourcesExhausted(format!("{function} would make {bytes} at once; {most} are allowed"))
}
