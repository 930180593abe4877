//! One column chunk, encoded: compressed in memory exactly as it is on disk, searched and read without unpacking it.
//!
//! Everything outside this folder sees Arrow arrays going in and coming out, of exactly the field's type. Dates, times,
//! timestamps and durations are encoded as the integers they are: the library's own temporal types refuse values out of
//! the calendar's range, and are slower to compare. Types the library does not represent exactly are kept as plain Arrow
//! and stored as Arrow IPC; only speed differs.
//!
//! A blob ends in one byte that says what it is: [`Form`]. The rest is the library's own serialisation (buffers first,
//! so that they can be used in place), or an Arrow IPC stream.

mod dictionary;
mod point;
mod search;
mod session;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod untrusted;

use arrow::array::{Array, ArrayRef, AsArray, ByteView, MAX_INLINE_VIEW_LEN, OffsetSizeTrait, RecordBatch, make_array};
use arrow::buffer::{BooleanBuffer, Buffer};
use arrow::compute;
use arrow::datatypes::{DataType, Field, Schema};
use arrow::error::ArrowError;
use arrow::ipc::writer::StreamWriter;
use bytes::Bytes;
use std::sync::{Arc, OnceLock};
use vortex_array::arrays::dict::DictArraySlotsExt;
use vortex_array::arrays::{Constant, Dict, PrimitiveArray};
use vortex_array::dtype::Nullability;
use vortex_array::serde::{SerializeOptions, SerializedArray};
use vortex_array::validity::Validity;
use vortex_array::{ArrayRef as VortexArray, ExecutionCtx, IntoArray};
use vortex_arrow::{ArrowExportOptions, ArrowSessionExt, CompactBuffers};
use vortex_buffer::{BitBuffer, Buffer as VortexBuffer, ByteBuffer};
use vortex_error::{VortexError, VortexResult};
use vortex_mask::Mask;

use super::{Result, SegmentError};
use crate::access::ColumnTest;
use crate::foreign::{guarded, ipc_stream};
pub(crate) use point::Gathered;
use point::ShortWay;
use session::{Encodings, encodings};

/// One column of one chunk, encoded. Cloning shares the bytes.
#[derive(Clone, Debug)]
pub(crate) struct EncodedColumn(Arc<Chunk>);

#[derive(Debug)]
struct Chunk {
    repr: Repr,
    nbytes: usize,
    /// Made when a single value is read first; `None` inside where that takes the encoding's own code.
    short_way: OnceLock<Option<ShortWay>>,
    /// The file and the chunk that it was read from.
    origin: Option<String>,
}

#[derive(Debug)]
enum Repr {
    Encoded(VortexArray),
    Plain(ArrayRef),
}

/// What an array of the library takes beside its buffers: itself, its statistics, the tables that some encodings have.
const NODE_BYTES: usize = 1024;

impl Repr {
    fn nbytes(&self) -> usize {
        match self {
            Self::Plain(array) => array.get_array_memory_size(),
            Self::Encoded(array) => {
                let buffers = usize::try_from(array.nbytes()).unwrap_or(usize::MAX);
                buffers.saturating_add(NODE_BYTES * array.depth_first_traversal().count())
            }
        }
    }
}

/// What a blob holds: its last byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Form {
    /// Arrow IPC stream of one column.
    Plain = 0,
    /// Encoded, without a null anywhere.
    Encoded = 1,
    /// Encoded, with nulls.
    EncodedNullable = 2,
}

impl Form {
    fn from_byte(byte: u8) -> Option<Self> {
        [Self::Plain, Self::Encoded, Self::EncodedNullable].into_iter().find(|form| *form as u8 == byte)
    }
}

impl EncodedColumn {
    fn new(repr: Repr) -> Self {
        Self::from_file(repr, None)
    }

    fn from_file(repr: Repr, origin: Option<String>) -> Self {
        let nbytes = repr.nbytes();
        Self(Arc::new(Chunk { repr, nbytes, short_way: OnceLock::new(), origin }))
    }

    /// What `read` makes of its bytes. Where those come from a file, whatever the library does not take, and where it panics,
    /// is damage to the file.
    fn read<T>(&self, field: &Field, read: impl FnOnce() -> Result<T>) -> Result<T> {
        let found = guarded(read).unwrap_or_else(|panic| Err(SegmentError::internal("decoding", panic)));
        match (found, &self.0.origin) {
            (Err(SegmentError::Internal { what }), Some(origin)) => {
                Err(SegmentError::corrupt(format!("{origin}, column {}", field.name()), what))
            }
            (found, _) => found,
        }
    }

    /// Compresses `array`, whose type is `field`'s. Values come back bit by bit: `-0.0`, every NaN, trailing spaces.
    ///
    /// # Errors
    /// [`SegmentError::Internal`] if `array` is not of `field`'s type or an encoding fails.
    pub(crate) fn encode(array: &ArrayRef, field: &Field) -> Result<Self> {
        if array.data_type() != field.data_type() {
            let what = format!("column {} is {}, not {}", field.name(), field.data_type(), array.data_type());
            return Err(SegmentError::internal("encoding", what));
        }
        let Some(physical) = physical(array.data_type()).filter(|_| !array.is_empty()) else {
            return Ok(Self::new(Repr::Plain(Arc::clone(array))));
        };
        let encodings = encodings()?;
        let nullable = array.null_count() > 0;
        let array = relabel(array, &physical)?;
        let compress = || -> VortexResult<VortexArray> {
            let mut context = encodings.context();
            if let Some(dictionary) = dictionary::of_strings(encodings, &array, &mut context)? {
                return Ok(dictionary);
            }
            let plain = encodings.session.arrow().from_arrow_array(array, nullable)?;
            let compressed = encodings.compressor.compress(&plain, &mut context)?;
            dictionary::sorted(encodings, compressed, &mut context)
        };
        compress().map(|array| Self::new(Repr::Encoded(array))).map_err(failed("encoding", field))
    }

    /// All rows.
    ///
    /// # Errors
    /// [`SegmentError::Internal`] if `field` is not the one the column was encoded with.
    pub(crate) fn decode(&self, field: &Field) -> Result<ArrayRef> {
        match &self.0.repr {
            Repr::Plain(array) => Ok(Arc::clone(array)),
            Repr::Encoded(array) => self.read(field, || {
                let encodings = encodings()?;
                to_arrow(encodings, array.clone(), field, false, &mut encodings.context())
            }),
        }
    }

    /// The rows whose bit is set in `selection`, in order.
    ///
    /// # Errors
    /// [`SegmentError::Internal`] if `selection` is not one bit per row.
    pub(crate) fn filter(&self, field: &Field, selection: &BooleanBuffer) -> Result<ArrayRef> {
        self.check_rows(selection.len(), field)?;
        let selected = selection.count_set_bits();
        if selected == self.rows() {
            return self.decode(field);
        }
        match &self.0.repr {
            Repr::Plain(array) => Ok(compute::filter(array, &selection.clone().into())?),
            Repr::Encoded(array) => self.read(field, || {
                let encodings = encodings()?;
                let kept = array
                    .filter(Mask::from_buffer(BitBuffer::from(selection.clone())))
                    .map_err(failed("filtering", field))?;
                to_arrow(encodings, kept, field, true, &mut encodings.context())
            }),
        }
    }

    /// The rows at these positions, in this order; a position may be repeated.
    ///
    /// # Errors
    /// As [`Gathered::add`].
    #[cfg(test)]
    pub(crate) fn take(&self, field: &Field, rows: &[u32]) -> Result<ArrayRef> {
        let mut gathered = Gathered::new(field);
        gathered.add(self, rows)?;
        gathered.finish()
    }

    /// The rows for which `test` is TRUE, found on the encoded data; `None` if this test of this type has to be done
    /// on decoded values.
    ///
    /// # Errors
    /// [`SegmentError::Internal`] if the literal is not exactly of the column's type.
    #[cfg(test)]
    pub(crate) fn test(&self, field: &Field, test: &ColumnTest) -> Result<Option<BooleanBuffer>> {
        self.test_all(field, &[test])
    }

    /// The rows for which all of `tests` are TRUE: two bounds of a range cost no more than one.
    ///
    /// # Errors
    /// As [`test`](Self::test).
    pub(crate) fn test_all(&self, field: &Field, tests: &[&ColumnTest]) -> Result<Option<BooleanBuffer>> {
        let (Repr::Encoded(array), Some(physical)) = (&self.0.repr, physical(field.data_type())) else {
            return Ok(None);
        };
        let tests: Vec<ColumnTest> = tests.iter().map(|test| relabel_literals(field, test)).collect::<Result<_>>()?;
        self.read(field, || {
            let encodings = encodings()?;
            let found = search::search(encodings, array, &physical, &tests, &mut encodings.context());
            found.map_err(failed("testing", field))
        })
    }

    /// The blob: parts to be written one after the other, at a file offset divisible by 64 for reading without copies.
    ///
    /// # Errors
    /// [`SegmentError::Internal`] if the column does not fit a blob (4 GiB).
    pub(crate) fn to_bytes(&self) -> Result<Vec<Bytes>> {
        let (mut parts, form) = match &self.0.repr {
            Repr::Plain(array) => (vec![ipc_bytes(array)?], Form::Plain),
            Repr::Encoded(array) => {
                let encodings = encodings()?;
                let options = SerializeOptions { offset: 0, include_padding: true };
                let parts = array
                    .serialize(&encodings.write, &encodings.session, &options)
                    .map_err(|e| SegmentError::internal("serialising a column", said(&e)))?;
                let nullable = array.dtype().is_nullable();
                let form = if nullable { Form::EncodedNullable } else { Form::Encoded };
                (parts.into_iter().filter(|part| !part.is_empty()).map(ByteBuffer::into_bytes).collect(), form)
            }
        };
        parts.push(Bytes::copy_from_slice(&[form as u8]));
        Ok(parts)
    }

    /// A column from its blob, using the bytes where they are if their alignment allows. `origin` says where the blob is,
    /// for messages.
    ///
    /// The bytes must be intact: check the blob's checksum first.
    ///
    /// # Errors
    /// [`SegmentError::Corrupt`] if the bytes are not a blob of `rows` rows of this type.
    pub(crate) fn from_bytes(bytes: Bytes, field: &Field, rows: usize, origin: String) -> Result<Self> {
        let corrupt = |what: String| SegmentError::corrupt(format!("{origin}, column {}", field.name()), what);
        let Some(last) = bytes.len().checked_sub(1) else { return Err(corrupt("empty blob".to_owned())) };
        let nullable = match Form::from_byte(bytes[last]) {
            Some(Form::Plain) => {
                let array = ipc_array(bytes.slice(..last)).map_err(|e| corrupt(e.to_string()))?;
                if array.len() != rows || array.data_type() != field.data_type() {
                    return Err(corrupt(format!("{} rows of {}", array.len(), array.data_type())));
                }
                return Ok(Self::from_file(Repr::Plain(array), Some(origin)));
            }
            Some(Form::Encoded) => Nullability::NonNullable,
            Some(Form::EncodedNullable) => Nullability::Nullable,
            None => return Err(corrupt(format!("unknown form {}", bytes[last]))),
        };
        let encodings = encodings()?;
        let Some(physical) = physical(field.data_type()) else {
            return Err(corrupt(format!("{} is never encoded", field.data_type())));
        };
        let open = || -> VortexResult<VortexArray> {
            let dtype = encodings.session.arrow().from_arrow_datatype(&physical, nullable)?;
            let parsed = SerializedArray::try_from(ByteBuffer::from(bytes.slice(..last)))?;
            parsed.decode(&dtype, rows, &encodings.read, &encodings.session)
        };
        let array = guarded(open).map_err(corrupt)?.map_err(|e| corrupt(said(&e)))?;
        match array.len() == rows {
            true => Ok(Self::from_file(Repr::Encoded(array), Some(origin))),
            false => Err(corrupt(format!("{} rows instead of {rows}", array.len()))),
        }
    }

    /// Its different values, where the encoding lists them anyway: each at least once in the column, no NULL.
    ///
    /// # Errors
    /// [`SegmentError::Internal`] if `field` is not the one the column was encoded with.
    pub(crate) fn distinct_values(&self, field: &Field) -> Result<Option<ArrayRef>> {
        let Repr::Encoded(array) = &self.0.repr else { return Ok(None) };
        self.read(field, || {
            let values = if let Some(dict) = array.as_opt::<Dict>() {
                dict.values().clone()
            } else if array.is::<Constant>() {
                array.slice(0..1).map_err(failed("reading values of", field))?
            } else {
                return Ok(None);
            };
            let encodings = encodings()?;
            let values = to_arrow(encodings, values, field, true, &mut encodings.context())?;
            Ok(Some(values).filter(|values| values.null_count() == 0))
        })
    }

    /// Bytes of memory this column holds on to.
    pub(crate) fn nbytes(&self) -> usize {
        self.0.nbytes
    }

    /// Number of rows.
    pub(crate) fn rows(&self) -> usize {
        match &self.0.repr {
            Repr::Plain(array) => array.len(),
            Repr::Encoded(array) => array.len(),
        }
    }

    /// The tree of encodings, for people tuning them.
    #[cfg(test)]
    pub(crate) fn describe(&self) -> String {
        match &self.0.repr {
            Repr::Plain(array) => format!("arrow {}", array.data_type()),
            Repr::Encoded(array) => describe(array),
        }
    }

    fn check_rows(&self, bits: usize, field: &Field) -> Result<()> {
        if bits == self.rows() {
            return Ok(());
        }
        let what = format!("{bits} bits for {} rows of column {}", self.rows(), field.name());
        Err(SegmentError::internal("filtering", what))
    }
}

#[cfg(test)]
fn describe(array: &VortexArray) -> String {
    let name = array.encoding_id().to_string();
    let children: Vec<String> = array.children().iter().map(describe).collect();
    let name = name.trim_start_matches("vortex.").trim_start_matches("fastlanes.");
    if children.is_empty() { name.to_owned() } else { format!("{name}({})", children.join(", ")) }
}

/// The type a column is encoded as, `None` for types that stay plain Arrow. The round-trip tests prove each.
fn physical(data_type: &DataType) -> Option<DataType> {
    use DataType::*;
    match data_type {
        Boolean | Int8 | Int16 | Int32 | Int64 | UInt8 | UInt16 | UInt32 | UInt64 | Float32 | Float64 => {}
        Utf8 | LargeUtf8 | Utf8View | Binary | LargeBinary | BinaryView | Decimal128(..) | Decimal256(..) => {}
        Date32 | Time32(_) => return Some(Int32),
        Date64 | Time64(_) | Timestamp(..) | Duration(_) => return Some(Int64),
        _ => return None,
    }
    Some(data_type.clone())
}

/// The same values under another type of the same layout.
fn relabel(array: &ArrayRef, data_type: &DataType) -> Result<ArrayRef> {
    if array.data_type() == data_type {
        return Ok(Arc::clone(array));
    }
    Ok(make_array(array.to_data().into_builder().data_type(data_type.clone()).build()?))
}

fn failed(doing: &'static str, field: &Field) -> impl Fn(VortexError) -> SegmentError {
    move |e| SegmentError::internal(doing, format!("column {}: {}", field.name(), said(&e)))
}

/// What the library said, without the backtrace it may add.
fn said(error: &VortexError) -> String {
    let text = error.to_string();
    text.split("\nBacktrace:").next().unwrap_or_default().to_owned()
}

/// Arrow of exactly `field`'s type. `compact` drops string bytes that no row refers to any more.
fn to_arrow(
    encodings: &Encodings,
    array: VortexArray,
    field: &Field,
    compact: bool,
    context: &mut ExecutionCtx,
) -> Result<ArrayRef> {
    let physical = physical(field.data_type()).unwrap_or_else(|| field.data_type().clone());
    let target = Field::new("", physical, array.dtype().is_nullable());
    let options = ArrowExportOptions::default().with(CompactBuffers(compact));
    let arrow = encodings.session.arrow().exporter(&options).execute_arrow(array, Some(&target), context);
    let arrow = arrow.map_err(failed("decoding", field))?;
    if !has_places(&arrow) {
        return Err(SegmentError::internal("decoding", format!("column {}: values behind the end", field.name())));
    }
    relabel(&arrow, field.data_type())
}

/// Whether all values of strings or binaries are where there are bytes. The library takes offsets and views from a blob as they
/// are, and Arrow reads there without looking. Whether texts are texts is for `verify` to find: it takes too long here.
fn has_places(array: &ArrayRef) -> bool {
    fn offsets<T: OffsetSizeTrait>(offsets: &[T], bytes: usize) -> bool {
        let last = offsets.last().map_or(0, |last| last.as_usize());
        offsets.is_sorted() && offsets.first().is_none_or(|first| *first >= T::zero()) && last <= bytes
    }
    fn views(views: &[u128], buffers: &[Buffer]) -> bool {
        views.iter().filter(|view| **view as u32 > MAX_INLINE_VIEW_LEN).all(|view| {
            let view = ByteView::from(*view);
            let end = view.offset as usize + view.length as usize;
            buffers.get(view.buffer_index as usize).is_some_and(|buffer| end <= buffer.len())
        })
    }
    match array.data_type() {
        DataType::Utf8 => offsets(array.as_string::<i32>().value_offsets(), array.as_string::<i32>().values().len()),
        DataType::LargeUtf8 => {
            offsets(array.as_string::<i64>().value_offsets(), array.as_string::<i64>().values().len())
        }
        DataType::Binary => offsets(array.as_binary::<i32>().value_offsets(), array.as_binary::<i32>().values().len()),
        DataType::LargeBinary => {
            offsets(array.as_binary::<i64>().value_offsets(), array.as_binary::<i64>().values().len())
        }
        DataType::Utf8View => views(array.as_string_view().views(), array.as_string_view().data_buffers()),
        DataType::BinaryView => views(array.as_binary_view().views(), array.as_binary_view().data_buffers()),
        _ => true,
    }
}

fn take_encoded(encodings: &Encodings, array: &VortexArray, field: &Field, rows: &[u32]) -> Result<ArrayRef> {
    let mut context = encodings.context();
    let read = point::one_by_one(array, field.data_type(), rows, &mut context);
    if let Some(read) = read.map_err(failed("reading rows", field))? {
        return Ok(read);
    }
    let positions = PrimitiveArray::new(VortexBuffer::<u32>::copy_from(rows), Validity::NonNullable);
    let taken = array.take(positions.into_array()).map_err(failed("taking rows", field))?;
    to_arrow(encodings, taken, field, true, &mut context)
}

/// `test` with literals of the type the column is encoded as.
fn relabel_literals(field: &Field, test: &ColumnTest) -> Result<ColumnTest> {
    let relabelled = |literals: &ArrayRef| -> Result<ArrayRef> {
        if literals.data_type() != field.data_type() {
            let what = format!("column {} is {}, not {}", field.name(), field.data_type(), literals.data_type());
            return Err(SegmentError::internal("testing", what));
        }
        match physical(field.data_type()) {
            Some(physical) => relabel(literals, &physical),
            None => Ok(Arc::clone(literals)),
        }
    };
    Ok(match test {
        ColumnTest::IsNull => ColumnTest::IsNull,
        ColumnTest::IsNotNull => ColumnTest::IsNotNull,
        ColumnTest::Compare { op, value } => ColumnTest::Compare { op: *op, value: relabelled(value)? },
        ColumnTest::InList { values, negated } => ColumnTest::InList { values: relabelled(values)?, negated: *negated },
    })
}

fn ipc_bytes(array: &ArrayRef) -> Result<Bytes> {
    let field = Field::new("", array.data_type().clone(), true);
    let schema = Arc::new(Schema::new(vec![field]));
    let mut writer = StreamWriter::try_new(Vec::new(), &schema)?;
    writer.write(&RecordBatch::try_new(schema, vec![Arc::clone(array)])?)?;
    Ok(Bytes::from(writer.into_inner()?))
}

fn ipc_array(bytes: Bytes) -> Result<ArrayRef, ArrowError> {
    let (_, batch) = ipc_stream(bytes)?;
    let column = batch.and_then(|batch| batch.columns().first().cloned());
    column.ok_or_else(|| ArrowError::IpcError("a stream without rows".to_owned()))
}
