//! PostgreSQL's rows, in its binary format, as batches.

use std::{error::Error as StdError, sync::Arc};

use arrow::{
    array::{
        ArrayRef, BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array, Int16Array, Int32Array,
        Int64Array, RecordBatchOptions, StringArray, TimestampMicrosecondArray,
    },
    datatypes::{DataType, Field, SchemaRef, TimeUnit},
    record_batch::RecordBatch,
};
use tokio_postgres::{
    Row,
    types::{FromSql, Type},
};

/// From 1970, where Arrow counts from, to 2000, where PostgreSQL does.
const DAYS: i32 = 10_957;
const MICROSECONDS: i64 = 946_684_800_000_000;

/// The rows under `schema`; an error says which column does not fit, and why.
pub(super) fn batch(rows: &[Row], schema: &SchemaRef) -> Result<RecordBatch, String> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
    let columns = schema
        .fields()
        .iter()
        .enumerate()
        .map(|(at, field)| column(rows, at, field).map_err(|error| format!("column {}: {error}", field.name())));
    let columns = columns.collect::<Result<Vec<_>, _>>()?;
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options).map_err(|error| error.to_string())
}

fn column(rows: &[Row], at: usize, field: &Field) -> Result<ArrayRef, String> {
    Ok(match field.data_type() {
        DataType::Boolean => Arc::new(values::<bool>(rows, at)?.into_iter().collect::<BooleanArray>()),
        DataType::Int16 => Arc::new(integers::<i16>(rows, at)?.into_iter().collect::<Int16Array>()),
        DataType::Int32 => Arc::new(integers::<i32>(rows, at)?.into_iter().collect::<Int32Array>()),
        DataType::Int64 => Arc::new(integers::<i64>(rows, at)?.into_iter().collect::<Int64Array>()),
        DataType::Float32 => Arc::new(values::<f32>(rows, at)?.into_iter().collect::<Float32Array>()),
        DataType::Float64 => Arc::new(values::<f64>(rows, at)?.into_iter().collect::<Float64Array>()),
        data_type if data_type.is_string() => {
            let texts: ArrayRef = Arc::new(values::<&str>(rows, at)?.into_iter().collect::<StringArray>());
            arrow::compute::cast(&texts, data_type).map_err(|error| error.to_string())?
        }
        DataType::Date32 => {
            Arc::new(values::<Day>(rows, at)?.into_iter().map(|day| day.map(|d| d.0)).collect::<Date32Array>())
        }
        DataType::Timestamp(TimeUnit::Microsecond, None) => {
            let times = values::<Time>(rows, at)?.into_iter().map(|time| time.map(|time| time.0));
            Arc::new(times.collect::<TimestampMicrosecondArray>())
        }
        DataType::Decimal128(precision, scale) => {
            let numbers = values::<Numeric>(rows, at)?.into_iter();
            let numbers = numbers.map(|number| number.map(|number| number.scaled(*scale)).transpose());
            let numbers = numbers.collect::<Result<Decimal128Array, _>>()?;
            let numbers = numbers.with_precision_and_scale(*precision, *scale).map_err(|error| error.to_string())?;
            numbers.validate_decimal_precision(*precision).map_err(|error| error.to_string())?;
            Arc::new(numbers)
        }
        other => return Err(format!("PostgreSQL has no type for {other}")),
    })
}

fn values<'a, T: FromSql<'a>>(rows: &'a [Row], at: usize) -> Result<Vec<Option<T>>, String> {
    rows.iter().map(|row| value(row, at)).collect()
}

fn value<'a, T: FromSql<'a>>(row: &'a Row, at: usize) -> Result<Option<T>, String> {
    row.try_get::<_, Option<T>>(at).map_err(|error| {
        let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
        format!("{error}{cause}")
    })
}

/// Numbers of any width that fit.
fn integers<T: TryFrom<i64>>(rows: &[Row], at: usize) -> Result<Vec<Option<T>>, String> {
    let fit = |number: Whole| T::try_from(number.0).map_err(|_| format!("{} is out of range", number.0));
    rows.iter().map(|row| value::<Whole>(row, at)?.map(fit).transpose()).collect()
}

type Decoded<T> = Result<T, Box<dyn StdError + Sync + Send>>;

/// A whole number of any width.
struct Whole(i64);

impl<'a> FromSql<'a> for Whole {
    fn from_sql(kind: &Type, raw: &'a [u8]) -> Decoded<Self> {
        Ok(Self(match *kind {
            Type::INT2 => i16::from_sql(kind, raw)?.into(),
            Type::INT4 => i32::from_sql(kind, raw)?.into(),
            _ => i64::from_sql(kind, raw)?,
        }))
    }

    fn accepts(kind: &Type) -> bool {
        matches!(*kind, Type::INT2 | Type::INT4 | Type::INT8)
    }
}

/// Days since 1970.
struct Day(i32);

impl<'a> FromSql<'a> for Day {
    fn from_sql(_kind: &Type, raw: &'a [u8]) -> Decoded<Self> {
        let days = i32::from_be_bytes(raw.try_into()?);
        let finite = days != i32::MAX && days != i32::MIN;
        Ok(Self(finite.then(|| days.checked_add(DAYS)).flatten().ok_or("the date is infinite")?))
    }

    fn accepts(kind: &Type) -> bool {
        *kind == Type::DATE
    }
}

/// Microseconds since 1970.
struct Time(i64);

impl<'a> FromSql<'a> for Time {
    fn from_sql(_kind: &Type, raw: &'a [u8]) -> Decoded<Self> {
        let time = i64::from_be_bytes(raw.try_into()?);
        let finite = time != i64::MAX && time != i64::MIN;
        Ok(Self(finite.then(|| time.checked_add(MICROSECONDS)).flatten().ok_or("the time is infinite")?))
    }

    fn accepts(kind: &Type) -> bool {
        *kind == Type::TIMESTAMP
    }
}

/// A decimal: groups of four digits, the first of which counts `10000^weight`.
struct Numeric {
    negative: bool,
    weight: i16,
    groups: Vec<i16>,
}

impl Numeric {
    /// As a number of `10^-scale`; an error if that is not exact.
    fn scaled(&self, scale: i8) -> Result<i128, String> {
        let mut sum: i128 = 0;
        for (at, group) in (0_i32..).zip(&self.groups) {
            let exponent = 4 * (i32::from(self.weight) - at) + i32::from(scale);
            let power = 10_i128.checked_pow(exponent.unsigned_abs()).ok_or("a decimal of too many digits")?;
            let group = i128::from(*group);
            let part = match exponent {
                0.. => group.checked_mul(power),
                _ if group % power == 0 => Some(group / power),
                _ => return Err(format!("a decimal has more than {scale} digits behind the point")),
            };
            sum = part.and_then(|part| sum.checked_add(part)).ok_or("a decimal of too many digits")?;
        }
        Ok(if self.negative { -sum } else { sum })
    }
}

impl<'a> FromSql<'a> for Numeric {
    fn from_sql(_kind: &Type, raw: &'a [u8]) -> Decoded<Self> {
        let words: Vec<i16> = raw.chunks_exact(2).map(|pair| i16::from_be_bytes([pair[0], pair[1]])).collect();
        let [count, weight, sign, _digits, groups @ ..] = words.as_slice() else {
            return Err("a decimal is cut off".into());
        };
        let negative = match *sign {
            0 => false,
            0x4000 => true,
            _ => return Err("NaN or infinity is no decimal".into()),
        };
        if usize::try_from(*count) != Ok(groups.len()) {
            return Err("a decimal is cut off".into());
        }
        Ok(Self { negative, weight: *weight, groups: groups.to_vec() })
    }

    fn accepts(kind: &Type) -> bool {
        *kind == Type::NUMERIC
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_keep_every_digit_or_are_refused() {
        let number = |negative, weight, groups: &[i16]| Numeric { negative, weight, groups: groups.to_vec() };
        assert_eq!(number(false, 0, &[12, 3400]).scaled(2), Ok(1234));
        assert_eq!(number(true, 1, &[1, 2345, 6700]).scaled(4), Ok(-123_456_700));
        assert_eq!(number(false, -1, &[500]).scaled(2), Ok(5));
        assert_eq!(number(false, 0, &[]).scaled(2), Ok(0));
        assert!(number(false, 0, &[1, 2345]).scaled(2).is_err());
        assert!(number(false, 30, &[1]).scaled(2).is_err());
    }
}
