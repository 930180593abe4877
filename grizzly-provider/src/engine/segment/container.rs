//! A segment file: opened by its footer, read blob by blob through the cache, checked byte by byte.

use std::error::Error as StdError;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use bytes::Bytes;

use super::{
    BuiltSegment, ChunkCache, EncodedColumn, Result, SegmentError, ZoneMap,
    cache::ChunkKey,
    footer::{self, BlobMeta, CHUNK_ROWS, HEADER_BYTES, SegmentFooter, TRAILER_BYTES, Trailer},
};

/// One read from the end that usually has the whole footer.
const TAIL_BYTES: u64 = 64 * 1024;

/// Bytes between two wanted blobs that cost less to read along than another read.
const WORTH_READING: u64 = 256 * 1024;

/// The storage below, as far as segments need it. Calls block.
pub(crate) trait BlobRead: fmt::Debug + Send + Sync {
    /// The bytes of `path` in `range`, exactly as many as asked for.
    ///
    /// # Errors
    /// If the file is missing, shorter, or cannot be read.
    fn get_range(&self, path: &str, range: Range<u64>) -> Result<Bytes, Box<dyn StdError + Send + Sync>>;

    /// Length of `path` in bytes.
    ///
    /// # Errors
    /// If the file is missing or cannot be read.
    fn size(&self, path: &str) -> Result<u64, Box<dyn StdError + Send + Sync>>;
}

/// An open segment file. Cloning shares it.
#[derive(Clone, Debug)]
pub(crate) struct SegmentFile {
    store: Arc<dyn BlobRead>,
    path: Arc<str>,
    schema: SchemaRef,
    footer: Arc<SegmentFooter>,
    cache: Arc<ChunkCache>,
    file: u64,
}

/// What [`SegmentFile::verify`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct VerifyReport {
    /// Blobs read and decoded.
    pub(crate) blobs: u64,
    /// Rows decoded, once per column.
    pub(crate) rows: u64,
    /// Bytes read.
    pub(crate) bytes: u64,
    /// What is wrong; empty if the file is intact.
    pub(crate) problems: Vec<Problem>,
}

/// One damaged place in a segment file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    /// The file.
    pub(crate) file: String,
    /// The column, if it is a blob that is damaged.
    pub(crate) column: Option<String>,
    /// The chunk, if it is a blob that is damaged.
    pub(crate) chunk: Option<usize>,
    /// What was expected and what was found.
    pub(crate) what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file)?;
        if let (Some(column), Some(chunk)) = (&self.column, self.chunk) {
            write!(f, ", column {column}, chunk {chunk}")?;
        }
        write!(f, ": {}", self.what)
    }
}

impl SegmentFile {
    /// Opens the file at `path`, whose columns are those of `schema`: reads its footer, no rows.
    ///
    /// # Errors
    /// [`SegmentError::Corrupt`] if it is damaged or has other columns, [`SegmentError::Unsupported`] if a newer
    /// program wrote it, [`SegmentError::Storage`] if it cannot be read.
    pub(crate) fn open(
        store: Arc<dyn BlobRead>,
        path: &str,
        schema: SchemaRef,
        cache: Arc<ChunkCache>,
    ) -> Result<Self> {
        let (_, footer) = read_footer(store.as_ref(), path)?;
        check_columns(&footer, &schema, path)?;
        let file = cache.new_file();
        Ok(Self { store, path: path.into(), schema, footer: Arc::new(footer), cache, file })
    }

    /// The file just written at `path` from `built`, its chunks going into the cache: nothing is read.
    pub(crate) fn from_built(
        store: Arc<dyn BlobRead>,
        path: &str,
        schema: SchemaRef,
        cache: Arc<ChunkCache>,
        built: BuiltSegment,
    ) -> Self {
        let file = cache.new_file();
        for (chunk, columns) in built.chunks.into_iter().enumerate() {
            for (column, encoded) in columns.into_iter().enumerate() {
                cache.keep(ChunkKey { file, column: column as u32, chunk: chunk as u32 }, encoded);
            }
        }
        Self { store, path: path.into(), schema, footer: Arc::new(built.footer), cache, file }
    }

    /// What the file says about itself.
    pub(crate) fn footer(&self) -> &SegmentFooter {
        &self.footer
    }

    /// Its columns.
    #[cfg(test)]
    pub(crate) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Rows in all chunks.
    #[cfg(test)]
    pub(crate) fn rows(&self) -> u64 {
        self.footer.rows
    }

    /// Number of chunks.
    #[cfg(test)]
    pub(crate) fn chunks(&self) -> usize {
        self.footer.chunks.len()
    }

    /// The chunk that has this row of the segment, and the row's position in it.
    #[cfg(test)]
    pub(crate) fn locate(&self, row: u64) -> Option<(usize, u32)> {
        let chunk = self.footer.chunks.partition_point(|chunk| chunk.first_row <= row).checked_sub(1)?;
        let meta = self.footer.chunks.get(chunk)?;
        let within = u32::try_from(row - meta.first_row).ok().filter(|within| *within < meta.rows)?;
        Some((chunk, within))
    }

    /// One column of one chunk, through the cache.
    ///
    /// # Errors
    /// [`SegmentError::Corrupt`] naming file, column and chunk; [`SegmentError::Storage`] if it cannot be read.
    pub(crate) fn column(&self, chunk: usize, column: usize) -> Result<EncodedColumn> {
        self.cache.get_or_read(self.key(chunk, column), || self.read(chunk, column))
    }

    /// Several columns of one chunk, in the order asked for. Blobs that are not in the cache and lie near each other are
    /// read at once: on an object store every read is a round trip.
    ///
    /// # Errors
    /// As [`column`](Self::column).
    pub(crate) fn columns(&self, chunk: usize, columns: &[usize]) -> Result<Vec<EncodedColumn>> {
        let mut found: Vec<Option<EncodedColumn>> =
            columns.iter().map(|column| self.cache.get(self.key(chunk, *column))).collect();
        let mut missing: Vec<(usize, BlobMeta)> = Vec::new();
        for (place, column) in columns.iter().enumerate().filter(|(place, _)| found[*place].is_none()) {
            missing.push((place, self.blob(chunk, *column)?));
        }
        missing.sort_by_key(|(_, blob)| blob.offset);
        for run in missing.chunk_by(|(_, a), (_, b)| b.offset <= a.offset + a.len + WORTH_READING) {
            let (Some((_, first)), Some((_, last))) = (run.first(), run.last()) else { continue };
            let bytes = read_range(self.store.as_ref(), &self.path, first.offset..last.offset + last.len)?;
            for (place, blob) in run {
                let start = (blob.offset - first.offset) as usize;
                let mut part = bytes.slice(start..start + blob.len as usize);
                if run.len() > 1 {
                    // A part of a larger read would keep all of it in memory as long as it is cached.
                    part = Bytes::copy_from_slice(&part);
                }
                let column = self.parse(chunk, columns[*place], part)?;
                self.cache.keep(self.key(chunk, columns[*place]), column.clone());
                found[*place] = Some(column);
            }
        }
        Ok(found.into_iter().flatten().collect())
    }

    /// Where its chunks are kept in memory.
    pub(crate) fn cache(&self) -> &Arc<ChunkCache> {
        &self.cache
    }

    /// What the cache knows it by.
    pub(crate) fn number(&self) -> u64 {
        self.file
    }

    fn key(&self, chunk: usize, column: usize) -> ChunkKey {
        ChunkKey { file: self.file, column: column as u32, chunk: chunk as u32 }
    }

    fn blob(&self, chunk: usize, column: usize) -> Result<BlobMeta> {
        let blob = self.footer.chunks.get(chunk).and_then(|meta| meta.columns.get(column));
        blob.copied()
            .ok_or_else(|| SegmentError::internal("reading a segment", format!("no column {column} in chunk {chunk}")))
    }

    fn read(&self, chunk: usize, column: usize) -> Result<EncodedColumn> {
        let blob = self.blob(chunk, column)?;
        let bytes = read_range(self.store.as_ref(), &self.path, blob.offset..blob.offset + blob.len)?;
        self.parse(chunk, column, bytes)
    }

    fn parse(&self, chunk: usize, column: usize, bytes: Bytes) -> Result<EncodedColumn> {
        let (blob, field) = (self.blob(chunk, column)?, self.schema.field(column));
        let place = || format!("{}, column {}, chunk {chunk}", self.path, field.name());
        check_blob(&bytes, blob).map_err(|what| SegmentError::corrupt(place(), what))?;
        let rows = self.footer.chunks[chunk].rows as usize;
        EncodedColumn::from_bytes(bytes, field, rows, format!("{}, chunk {chunk}", self.path))
    }

    /// Reads the whole file, not through the cache: every checksum, every gap, every value against its zone map.
    ///
    /// # Errors
    /// Only if the file cannot be read; damage is in the report.
    pub(crate) fn verify(&self) -> Result<VerifyReport> {
        let mut report = VerifyReport::default();
        let mut problem = |column: Option<usize>, chunk: Option<usize>, what: String| {
            let column = column.map(|column| self.schema.field(column).name().clone());
            report.problems.push(Problem { file: self.path.to_string(), column, chunk, what });
        };
        let mut bytes = 0;
        let footer_offset = match self.verify_ends() {
            Ok(offset) => Some(offset),
            Err(SegmentError::Corrupt { what, .. } | SegmentError::Unsupported { what }) => {
                problem(None, None, what);
                None
            }
            Err(other) => return Err(other),
        };
        let mut end = HEADER_BYTES as u64;
        let (mut blobs, mut rows) = (0, 0);
        for (chunk, meta) in self.footer.chunks.iter().enumerate() {
            for (column, blob) in meta.columns.iter().enumerate() {
                if has_bytes(self.store.as_ref(), &self.path, end..blob.offset)? {
                    problem(Some(column), Some(chunk), "the bytes before the blob are not zero".to_owned());
                }
                match self.verify_blob(chunk, column) {
                    Ok(()) => rows += u64::from(meta.rows),
                    Err(SegmentError::Storage { file, source }) => return Err(SegmentError::Storage { file, source }),
                    Err(SegmentError::Corrupt { what, .. }) => problem(Some(column), Some(chunk), what),
                    Err(other) => problem(Some(column), Some(chunk), other.to_string()),
                }
                blobs += 1;
                bytes += blob.len;
                end = blob.offset + blob.len;
            }
        }
        if footer_offset.is_some_and(|offset| offset != end) {
            problem(None, None, "there are bytes between the last blob and the footer".to_owned());
        }
        Ok(VerifyReport { blobs, rows, bytes, ..report })
    }

    /// Header, trailer and footer as stored; the footer's offset.
    fn verify_ends(&self) -> Result<u64> {
        let header = read_range(self.store.as_ref(), &self.path, 0..HEADER_BYTES as u64)?;
        footer::check_header(&header, &self.path)?;
        let (trailer, stored) = read_footer(self.store.as_ref(), &self.path)?;
        if stored != *self.footer {
            return Err(SegmentError::corrupt(
                self.path.as_ref(),
                "the footer is not the one this file was opened with",
            ));
        }
        Ok(trailer.footer_offset)
    }

    fn verify_blob(&self, chunk: usize, column: usize) -> Result<()> {
        let field = self.schema.field(column);
        let meta = &self.footer.chunks[chunk];
        let values = self.read(chunk, column)?.decode(field)?;
        // Decoders trust what was encoded: text that is none, and places behind the end, are found here.
        values.to_data().validate_full().map_err(|error| SegmentError::corrupt(self.path.as_ref(), error))?;
        let found = ZoneMap::of(&values)?;
        if found != meta.zones[column] {
            let what = format!("its values are not those of its zone map: {found:?}, not {:?}", meta.zones[column]);
            return Err(SegmentError::corrupt(self.path.as_ref(), what));
        }
        Ok(())
    }
}

/// Whether the bytes between two blobs are anything but zeros.
fn has_bytes(store: &dyn BlobRead, path: &str, gap: Range<u64>) -> Result<bool> {
    if gap.is_empty() {
        return Ok(gap.start > gap.end);
    }
    Ok(read_range(store, path, gap)?.iter().any(|byte| *byte != 0))
}

fn check_blob(bytes: &Bytes, blob: BlobMeta) -> Result<(), String> {
    let crc = crc32c::crc32c(bytes);
    if bytes.len() as u64 != blob.len || crc != blob.crc {
        return Err(format!(
            "the checksum of {} bytes at {} is {crc:08x}, not {:08x}",
            bytes.len(),
            blob.offset,
            blob.crc
        ));
    }
    Ok(())
}

fn read_range(store: &dyn BlobRead, path: &str, range: Range<u64>) -> Result<Bytes> {
    let wanted = range.end - range.start;
    let bytes = store.get_range(path, range.clone()).map_err(|source| match source.downcast::<SegmentError>() {
        Ok(error) => *error,
        Err(source) => SegmentError::Storage { file: path.to_owned(), source },
    })?;
    if bytes.len() as u64 != wanted {
        return Err(SegmentError::corrupt(path, format!("{} bytes at {}, not {wanted}", bytes.len(), range.start)));
    }
    Ok(bytes)
}

fn read_footer(store: &dyn BlobRead, path: &str) -> Result<(Trailer, SegmentFooter)> {
    let size = store.size(path).map_err(|source| SegmentError::Storage { file: path.to_owned(), source })?;
    let tail_start = size.saturating_sub(TAIL_BYTES);
    let tail = read_range(store, path, tail_start..size)?;
    let trailer = Trailer::from_bytes(&tail[tail.len().saturating_sub(TRAILER_BYTES)..], size, path)?;
    let end = trailer.footer_offset + trailer.footer_bytes;
    let packed = match trailer.footer_offset.checked_sub(tail_start) {
        Some(start) => tail.slice(start as usize..(end - tail_start) as usize),
        None => read_range(store, path, trailer.footer_offset..end)?,
    };
    let footer = SegmentFooter::from_bytes(&packed, &trailer, path)?;
    check_footer(&footer, trailer.footer_offset).map_err(|what| SegmentError::corrupt(path, what))?;
    Ok((trailer, footer))
}

/// A file in memory.
#[derive(Debug)]
struct Whole(Bytes);

impl BlobRead for Whole {
    fn get_range(&self, path: &str, range: Range<u64>) -> Result<Bytes, Box<dyn StdError + Send + Sync>> {
        match range.start <= range.end && range.end <= self.size(path)? {
            true => Ok(self.0.slice(range.start as usize..range.end as usize)),
            false => Err(Box::new(SegmentError::corrupt(path, format!("there are no bytes {range:?}")))),
        }
    }

    fn size(&self, _path: &str) -> Result<u64, Box<dyn StdError + Send + Sync>> {
        Ok(self.0.len() as u64)
    }
}

/// Checks all that a segment file says of itself, but for what its values are; returns its footer.
///
/// # Errors
/// What is damaged.
pub(crate) fn check_file(path: &str, file: &Bytes) -> Result<SegmentFooter> {
    let whole = Whole(file.clone());
    footer::check_header(&read_range(&whole, path, 0..HEADER_BYTES as u64)?, path)?;
    let (trailer, footer) = read_footer(&whole, path)?;
    let mut end = HEADER_BYTES as u64;
    for blob in footer.chunks.iter().flat_map(|chunk| &chunk.columns) {
        if has_bytes(&whole, path, end..blob.offset)? {
            return Err(SegmentError::corrupt(path, "the bytes before a blob are not zero"));
        }
        end = blob.offset + blob.len;
        let bytes = read_range(&whole, path, blob.offset..end)?;
        check_blob(&bytes, *blob).map_err(|what| SegmentError::corrupt(path, what))?;
    }
    match end == trailer.footer_offset {
        true => Ok(footer),
        false => Err(SegmentError::corrupt(path, "there are bytes between the last blob and the footer")),
    }
}

/// Whether a footer is consistent in itself, so that nothing read later can be out of bounds.
fn check_footer(footer: &SegmentFooter, footer_offset: u64) -> Result<(), &'static str> {
    let mut rows = 0_u64;
    let mut end = HEADER_BYTES as u64;
    for chunk in &footer.chunks {
        if chunk.first_row != rows {
            return Err("the footer's chunks do not follow each other");
        }
        // Rows are found by their numbers: all chunks are full but the last.
        if chunk.rows == 0 || chunk.rows as usize > CHUNK_ROWS || !rows.is_multiple_of(CHUNK_ROWS as u64) {
            return Err("a chunk of the footer has an impossible number of rows");
        }
        rows += u64::from(chunk.rows);
        if chunk.columns.len() != footer.columns.len() || chunk.zones.len() != footer.columns.len() {
            return Err("the footer's chunks have different numbers of columns");
        }
        if chunk.zones.iter().any(|zone| zone.rows != chunk.rows || zone.nulls > zone.rows) {
            return Err("a zone map of the footer has other rows than its chunk");
        }
        for blob in &chunk.columns {
            if blob.offset < end {
                return Err("the footer's blobs overlap");
            }
            end = blob.offset.checked_add(blob.len).ok_or("a blob of the footer has no end")?;
        }
    }
    let nulls = |column: usize| footer.chunks.iter().map(|chunk| u64::from(chunk.zones[column].nulls)).sum::<u64>();
    let summed = footer.columns.iter().enumerate().all(|(column, summary)| summary.nulls == nulls(column));
    if rows != footer.rows || end > footer_offset || !summed {
        return Err("the footer's totals are not those of its chunks");
    }
    Ok(())
}

fn check_columns(footer: &SegmentFooter, schema: &SchemaRef, path: &str) -> Result<()> {
    let stored: Vec<&str> = footer.columns.iter().map(|column| column.data_type.as_str()).collect();
    let wanted: Vec<String> = schema.fields().iter().map(|field| field.data_type().to_string()).collect();
    if stored != wanted {
        return Err(SegmentError::corrupt(path, format!("its columns are {stored:?}, not {wanted:?}")));
    }
    Ok(())
}
