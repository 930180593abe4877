//! Arrays of a predicate as bytes, for serde: an Arrow IPC stream of one batch with one column.

use std::sync::Arc;

use arrow::{
    array::ArrayRef,
    datatypes::{Field, Schema},
    error::ArrowError,
    ipc::writer::StreamWriter,
    record_batch::RecordBatch,
};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};

use crate::foreign::ipc_stream;

pub(super) fn serialize<S: Serializer>(array: &ArrayRef, serializer: S) -> Result<S::Ok, S::Error> {
    encode(array).map_err(ser::Error::custom)?.serialize(serializer)
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ArrayRef, D::Error> {
    decode(Vec::deserialize(deserializer)?).map_err(de::Error::custom)
}

fn encode(array: &ArrayRef) -> Result<Vec<u8>, ArrowError> {
    let field = Field::new("values", array.data_type().clone(), true);
    let batch = RecordBatch::try_new(Arc::new(Schema::new(vec![field])), vec![Arc::clone(array)])?;
    let mut writer = StreamWriter::try_new(Vec::new(), batch.schema_ref())?;
    writer.write(&batch)?;
    writer.into_inner()
}

fn decode(bytes: Vec<u8>) -> Result<ArrayRef, ArrowError> {
    let (_, batch) = ipc_stream(bytes.into())?;
    let missing = || ArrowError::IpcError("a stream of one batch with one column is expected".to_owned());
    batch.ok_or_else(missing)?.columns().first().cloned().ok_or_else(missing)
}
