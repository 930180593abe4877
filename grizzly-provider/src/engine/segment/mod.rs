//! Cold segments: immutable files of encoded column chunks, and how they are searched.
//!
//! A segment holds rows in chunks of [`CHUNK_ROWS`]; every column of a chunk is one blob, compressed so that a filter
//! can run on the encoded form and a single value can be taken out of it. From the bottom up:
//!
//! - [`encoding`]: one column chunk, encoded. The only place that knows the compression library.
//! - [`predicate`]: conditions as plain data, and their evaluation on encoded columns or on Arrow batches.
//! - [`zone_map`]: smallest, largest and null count of a chunk, and what they say about a predicate.
//! - [`sketch`]: how many different values a column has, roughly.
//! - [`footer`]: what a file says about itself.
//! - [`builder`]: rows in, a file out.
//! - [`container`]: opening a file, reading it, checking it.
//! - [`cache`]: encoded chunks kept in memory under one budget.
//!
//! There are no tombstones, versions or transactions here: system columns are just columns.

pub mod cache;
pub mod container;
pub mod encoding;
mod arrow_test;
mod bounds;
pub mod builder;
mod error;
pub mod footer;
mod hash;
pub mod predicate;
pub mod sketch;
#[cfg(test)]
mod tests;
pub mod zone_map;

pub use cache::{CacheStats, ChunkCache};
pub use builder::{BuiltSegment, SegmentBuilder};
pub use container::{BlobRead, CHUNK_ROWS, Problem, SegmentFile, VerifyReport};
pub use encoding::EncodedColumn;
pub use error::{Result, SegmentError};
pub use footer::{BlobMeta, ChunkMeta, ColumnSummary, SegmentFooter};
pub use predicate::{ColumnTest, CompareOp, Predicate, evaluate, evaluate_batch};
pub use sketch::DistinctSketch;
pub use zone_map::{Verdict, ZoneMap, may_match};
