//! Parameters of prepared statements: what a plan wants, and rows of values made to fit.

use std::{collections::HashMap, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, RecordBatchOptions},
    compute::{CastOptions, cast_with_options, kernels::cmp::not_distinct},
    datatypes::{DataType, Field, Schema, SchemaRef},
    record_batch::RecordBatch,
};
use datafusion::{common::ParamValues, logical_expr::LogicalPlan, scalar::ScalarValue};
use tonic::Status;

use crate::error::{invalid, query_status};

/// More parameters than this no statement has. PostgreSQL's limit.
const MOST: usize = 65_535;

/// The parameters of a plan, in the order in which a client gives them.
#[derive(Debug, Clone)]
pub(crate) struct Parameters {
    /// Whether they are `$1`, `$2`…, as opposed to names.
    positional: bool,
    /// One field per parameter, named without `$`; of type Null where the plan leaves the type open.
    schema: SchemaRef,
}

impl Parameters {
    /// No parameters.
    pub(crate) fn none() -> Self {
        Self { positional: true, schema: Arc::new(Schema::empty()) }
    }

    /// The parameters `plan` mentions. Numbers are ordered as numbers, names by name.
    pub(crate) fn of(plan: &LogicalPlan) -> Result<Self, Status> {
        let types = plan.get_parameter_types().map_err(|error| query_status(&error))?;
        let mut types: HashMap<_, _> =
            types.into_iter().map(|(name, kind)| (name.trim_start_matches('$').to_owned(), kind)).collect();
        let numbers: Option<Vec<usize>> = types.keys().map(|name| name.parse().ok()).collect();
        // `$4000000000` alone stands for as many.
        if numbers.iter().flatten().any(|number| *number > MOST) {
            return Err(invalid(format!("a statement has at most {MOST} parameters")));
        }
        let names: Vec<String> = match &numbers {
            Some(numbers) => (1..=numbers.iter().copied().max().unwrap_or(0)).map(|n| n.to_string()).collect(),
            None => {
                let mut names: Vec<_> = types.keys().cloned().collect();
                names.sort();
                names
            }
        };
        let fields: Vec<Field> = names
            .into_iter()
            .map(|name| {
                let kind = types.remove(&name).flatten().unwrap_or(DataType::Null);
                Field::new(name, kind, true)
            })
            .collect();
        Ok(Self { positional: numbers.is_some(), schema: Arc::new(Schema::new(fields)) })
    }

    /// What the client is told; types left open are announced as Null.
    pub(crate) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.schema.fields().is_empty()
    }

    /// Whether they are numbered; otherwise they have names.
    pub(crate) fn is_positional(&self) -> bool {
        self.positional
    }

    /// Rows of values, in the plan's types. Columns are taken by position, or by name for named parameters.
    /// Values that do not fit their type are an error.
    pub(crate) fn fit(&self, given: &RecordBatch) -> Result<RecordBatch, Status> {
        let wanted = self.schema.fields().len();
        if given.num_columns() != wanted {
            return Err(invalid(format!("the statement has {wanted} parameters, {} were given", given.num_columns())));
        }
        let mut fields = Vec::with_capacity(wanted);
        let mut columns = Vec::with_capacity(wanted);
        for (at, field) in self.schema.fields().iter().enumerate() {
            let by_name = if self.positional { None } else { column_named(given, field.name()) };
            let column = fit_column(by_name.unwrap_or_else(|| given.column(at)), field)?;
            fields.push(Field::new(field.name(), column.data_type().clone(), true));
            columns.push(column);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(given.num_rows()));
        RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)
            .map_err(|error| invalid(format!("parameters: {error}")))
    }

    /// One row of fitted values, for [`LogicalPlan::with_param_values`].
    pub(crate) fn row(&self, fitted: &RecordBatch, row: usize) -> Result<ParamValues, Status> {
        let mut values = Vec::with_capacity(fitted.num_columns());
        for column in fitted.columns() {
            values.push(ScalarValue::try_from_array(column, row).map_err(|error| query_status(&error))?);
        }
        if self.positional {
            return Ok(ParamValues::from(values));
        }
        let names = self.schema.fields().iter().map(|field| field.name().clone());
        Ok(ParamValues::from(names.zip(values).collect::<Vec<_>>()))
    }
}

fn column_named<'a>(given: &'a RecordBatch, name: &str) -> Option<&'a ArrayRef> {
    given
        .schema_ref()
        .fields()
        .iter()
        .position(|field| field.name().trim_start_matches('$') == name)
        .map(|at| given.column(at))
}

/// The column in the parameter's type. A number that a whole-number type cannot hold is refused, not rounded.
fn fit_column(column: &ArrayRef, field: &Field) -> Result<ArrayRef, Status> {
    let plain = match column.data_type() {
        DataType::Dictionary(_, values) => values.as_ref(),
        other => other,
    };
    let target = if field.data_type() == &DataType::Null { plain } else { field.data_type() };
    if column.data_type() == target {
        return Ok(Arc::clone(column));
    }
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    let refuse = |why: String| invalid(format!("parameter ${} does not fit {target}: {why}", field.name()));
    let fitted = cast_with_options(column, target, &strict).map_err(|error| refuse(error.to_string()))?;
    if target.is_integer() && column.data_type().is_numeric() && !column.data_type().is_integer() {
        let back =
            cast_with_options(&fitted, column.data_type(), &strict).map_err(|error| refuse(error.to_string()))?;
        let same = not_distinct(&back, column).map_err(|error| refuse(error.to_string()))?;
        if same.true_count() != column.len() {
            return Err(refuse("it has a fraction".to_owned()));
        }
    }
    Ok(fitted)
}

#[cfg(test)]
mod tests {
    use arrow::{
        array::{Float64Array, Int64Array, StringArray},
        compute::cast,
    };

    use super::*;

    fn parameters(types: &[DataType]) -> Parameters {
        let fields = types.iter().enumerate().map(|(at, kind)| Field::new((at + 1).to_string(), kind.clone(), true));
        Parameters { positional: true, schema: Arc::new(Schema::new(fields.collect::<Vec<_>>())) }
    }

    fn batch(columns: Vec<ArrayRef>) -> RecordBatch {
        RecordBatch::try_from_iter(columns.into_iter().enumerate().map(|(at, c)| (format!("c{at}"), c)))
            .expect("columns of one length")
    }

    #[test]
    fn values_are_cast_to_the_types_of_the_plan() {
        let wanted = parameters(&[DataType::Int32, DataType::Date32, DataType::Null]);
        let given = batch(vec![
            Arc::new(Int64Array::from(vec![7])),
            Arc::new(StringArray::from(vec!["2026-01-02"])),
            Arc::new(StringArray::from(vec!["as it is"])),
        ]);
        let fitted = wanted.fit(&given).expect("all fit");
        let types: Vec<_> = fitted.columns().iter().map(|column| column.data_type().clone()).collect();
        assert_eq!(types, [DataType::Int32, DataType::Date32, DataType::Utf8]);
        let back = cast(fitted.column(1), &DataType::Utf8).expect("dates print");
        assert_eq!(back.as_ref(), given.column(1).as_ref());
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let wanted = parameters(&[DataType::Int32]);
        let too_large = batch(vec![Arc::new(Int64Array::from(vec![1_i64 << 40]))]);
        let fraction = batch(vec![Arc::new(Float64Array::from(vec![1.5]))]);
        let whole = batch(vec![Arc::new(Float64Array::from(vec![Some(2.0), None]))]);
        assert!(wanted.fit(&too_large).is_err());
        assert!(wanted.fit(&fraction).expect_err("rounds").message().contains("fraction"));
        assert_eq!(wanted.fit(&whole).expect("whole").column(0).null_count(), 1);
        assert!(wanted.fit(&RecordBatch::new_empty(Arc::new(Schema::empty()))).is_err());
    }
}
