//! Batches under exactly the schema that was announced for them.

use std::sync::Arc;

use arrow::{
    array::RecordBatchOptions, compute::cast, datatypes::SchemaRef, error::ArrowError, record_batch::RecordBatch,
};

/// The same rows under `schema`: plans and peers may differ from what was announced in nullability, metadata and the
/// representation of strings. Columns are taken by position.
pub(crate) fn conform(batch: RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    if batch.schema_ref() == schema {
        return Ok(batch);
    }
    if batch.num_columns() != schema.fields().len() {
        let (found, wanted) = (batch.num_columns(), schema.fields().len());
        return Err(ArrowError::SchemaError(format!("{found} columns where {wanted} were announced")));
    }
    let columns = batch.columns().iter().zip(schema.fields());
    let columns = columns.map(|(column, field)| {
        if column.data_type() == field.data_type() { Ok(Arc::clone(column)) } else { cast(column, field.data_type()) }
    });
    let columns = columns.collect::<Result<Vec<_>, _>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)
}

#[cfg(test)]
mod tests {
    use arrow::{
        array::{Array, StringArray},
        datatypes::{DataType, Field, Schema},
    };

    use super::*;

    #[test]
    fn representation_and_nullability_are_adapted_but_not_the_number_of_columns() {
        let texts = Arc::new(StringArray::from(vec!["a", "b"])) as _;
        let batch = RecordBatch::try_from_iter([("x", texts)]).expect("one column");
        let views = Arc::new(Schema::new(vec![Field::new("x", DataType::Utf8View, true)]));
        let conformed = conform(batch.clone(), &views).expect("a cast exists");
        assert_eq!(conformed.column(0).data_type(), &DataType::Utf8View);
        assert_eq!(conformed.schema_ref(), &views);
        assert!(conform(batch, &Arc::new(Schema::empty())).is_err());
    }
}
