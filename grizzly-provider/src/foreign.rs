//! Other people's decoders on bytes that nobody vouches for. Some of what those take for impossible ends in a panic, or in a
//! buffer as large as a number in the bytes says; here it is an error.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use arrow::{array::RecordBatch, buffer::Buffer, datatypes::SchemaRef, error::ArrowError, ipc::reader::StreamDecoder};
use bytes::Bytes;

/// What `read` returns; if it panics, what it said.
///
/// Nothing that `read` changes may be used after a panic.
pub(crate) fn guarded<T>(read: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(read)).map_err(|panic| said(panic.as_ref()))
}

fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    format!("it cannot be decoded: {}", text.unwrap_or("the decoder gave up"))
}

/// An Arrow IPC stream up to its first batch: its schema, and that batch if there is one. Takes no more memory than the
/// stream has bytes, whatever lengths it names.
pub(crate) fn ipc_stream(bytes: Bytes) -> Result<(SchemaRef, Option<RecordBatch>), ArrowError> {
    let read = || {
        let mut rest = Buffer::from(bytes);
        let mut decoder = StreamDecoder::new();
        let mut batch = None;
        while batch.is_none() && !rest.is_empty() {
            batch = decoder.decode(&mut rest)?;
        }
        let schema = decoder.schema().ok_or_else(|| ArrowError::IpcError("a stream without a schema".to_owned()))?;
        Ok((schema, batch))
    };
    guarded(read).unwrap_or_else(|panic| Err(ArrowError::IpcError(panic)))
}
