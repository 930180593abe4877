//! Cold segments: immutable files of encoded column chunks, and how they are searched.
//!
//! A segment holds rows in chunks of [`CHUNK_ROWS`]; every column of a chunk is one blob, compressed so that a filter
//! can run on the encoded form and a single value can be taken out of it. From the bottom up:
//!
//! - [`encoding`]: one column chunk, encoded. The only place that knows the compression library.
//! - [`predicate`]: evaluation of conditions on encoded columns or on Arrow batches.
//! - [`zone_map`]: smallest, largest and null count of a chunk, and what they say about a predicate.
//! - [`sketch`]: how many different values a column has, roughly.
//! - [`footer`]: what a file says about itself.
//! - [`builder`]: rows in, a file out.
//! - [`container`]: opening a file, reading it, checking it.
//! - [`cache`]: encoded chunks kept in memory under one budget.
//! - [`runs`]: index runs in memory, with a share of it.
//! - [`meta`]: what manifest and log say of a segment, and the names of its files.
//! - [`removal`]: files that nobody here reads any more.
//! - [`cold`]: a segment as the rest of the engine sees it: file, index runs, row stamps.

mod arrow_test;
mod bounds;
pub(crate) mod builder;
pub(crate) mod cache;
pub(crate) mod cold;
pub(crate) mod container;
pub(crate) mod encoding;
mod error;
pub(crate) mod footer;
mod hash;
mod hex;
pub(crate) mod meta;
pub(crate) mod predicate;
pub(crate) mod removal;
mod runs;
pub(crate) mod sketch;
#[cfg(test)]
mod tests;
pub(crate) mod zone_map;

pub(crate) use builder::{BuiltSegment, SegmentBuilder};
pub(crate) use cache::{Charge, ChunkCache};
pub(crate) use container::{BlobRead, SegmentFile};
pub(crate) use encoding::{EncodedColumn, Gathered};
pub(crate) use error::{Result, SegmentError};
pub(crate) use footer::CHUNK_ROWS;
pub(crate) use sketch::DistinctSketch;
pub(crate) use zone_map::ZoneMap;
