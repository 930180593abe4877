//! The operands of a comparison, and how a literal becomes a value of a column's own type without changing what
//! the comparison means.

use arrow::datatypes::{DataType, Schema};
use datafusion::{common::ScalarValue, logical_expr_common::casts::try_cast_literal_to_type};

/// An operand.
#[derive(Debug, Clone)]
pub(super) enum Term {
    /// A column of the table.
    Column(usize),
    /// A constant.
    Literal(ScalarValue),
    /// A cast of another operand.
    Cast(Box<Term>, DataType),
    /// Anything else.
    Opaque,
}

impl Term {
    /// The column below any casts that keep values apart, in order and not NULL.
    pub(super) fn column(&self, schema: &Schema) -> Option<usize> {
        match self {
            Self::Column(column) => Some(*column),
            Self::Cast(inner, to) => {
                let column = inner.column(schema)?;
                keeps_comparisons(&inner.data_type(schema)?, to).then_some(column)
            }
            Self::Literal(_) | Self::Opaque => None,
        }
    }

    fn data_type(&self, schema: &Schema) -> Option<DataType> {
        match self {
            Self::Column(column) => Some(schema.fields().get(*column)?.data_type().clone()),
            Self::Literal(value) => Some(value.data_type()),
            Self::Cast(_, to) => Some(to.clone()),
            Self::Opaque => None,
        }
    }

    /// The column and `value` as one of the column's own type; `None` if there is no such value or the engine
    /// does not compare such columns. `value` must not be NULL.
    pub(super) fn column_and_value(&self, value: &ScalarValue, schema: &Schema) -> Option<(usize, ScalarValue)> {
        let column = self.column(schema)?;
        let to = schema.fields().get(column)?.data_type();
        comparable(to).then(|| exact_value(value, to).map(|value| (column, value)))?
    }
}

/// The types whose values the engine compares. The others can only be tested for NULL: floats among them, since the
/// kernels order -0.0 below 0.0 and DataFusion does not.
pub(super) fn comparable(data_type: &DataType) -> bool {
    use DataType as T;
    data_type.is_integer()
        || data_type.is_decimal()
        || matches!(data_type, T::Boolean | T::Date32 | T::Date64 | T::Time32(_) | T::Time64(_))
        || matches!(data_type, T::Timestamp(..) | T::Duration(_) | T::FixedSizeBinary(_))
        || is_text(data_type)
        || matches!(data_type, T::Binary | T::LargeBinary | T::BinaryView)
}

/// Whether values are strings.
pub(super) fn is_text(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

/// Whether a cast never fails, never makes a NULL and maps different values to different ones in the same order, so
/// that it can be taken off a column and put on the value it is compared with.
fn keeps_comparisons(from: &DataType, to: &DataType) -> bool {
    if from == to {
        return true;
    }
    match (from, to) {
        (DataType::Float32, DataType::Float64) => true,
        (from, to) if is_text(from) => is_text(to),
        (DataType::Decimal128(p, s), DataType::Decimal128(to_p, to_s)) => holds((*p, *s), (*to_p, *to_s)),
        (from, DataType::Decimal128(p, s)) => {
            integer_digits(from).is_some_and(|digits| *s >= 0 && holds((digits, 0), (*p, *s)))
        }
        (from, to) => match (integer_bits(from), integer_bits(to)) {
            (Some((signed, bits)), Some((to_signed, to_bits))) => {
                to_bits > bits && (to_signed || !signed) || to_bits == bits && signed == to_signed
            }
            _ => false,
        },
    }
}

/// Whether every decimal of one precision and scale is one of the other.
fn holds((precision, scale): (u8, i8), (to_precision, to_scale): (u8, i8)) -> bool {
    let whole = |precision: u8, scale: i8| i16::from(precision) - i16::from(scale);
    to_scale >= scale && whole(to_precision, to_scale) >= whole(precision, scale)
}

fn integer_bits(data_type: &DataType) -> Option<(bool, u8)> {
    Some(match data_type {
        DataType::Int8 => (true, 8),
        DataType::Int16 => (true, 16),
        DataType::Int32 => (true, 32),
        DataType::Int64 => (true, 64),
        DataType::UInt8 => (false, 8),
        DataType::UInt16 => (false, 16),
        DataType::UInt32 => (false, 32),
        DataType::UInt64 => (false, 64),
        _ => return None,
    })
}

fn integer_digits(data_type: &DataType) -> Option<u8> {
    Some(match integer_bits(data_type)? {
        (_, 8) => 3,
        (_, 16) => 5,
        (_, 32) => 10,
        (true, _) => 19,
        (false, _) => 20,
    })
}

/// `value` as a value of type `to`, if it is exactly one.
fn exact_value(value: &ScalarValue, to: &DataType) -> Option<ScalarValue> {
    let from = value.data_type();
    if from == *to {
        return Some(value.clone());
    }
    match (value, to) {
        (ScalarValue::Dictionary(_, inner), _) => exact_value(inner, to),
        (ScalarValue::Float64(Some(value)), DataType::Float32) => {
            #[expect(clippy::cast_possible_truncation, reason = "compared with the original below")]
            let narrow = *value as f32;
            (f64::from(narrow).to_bits() == value.to_bits()).then_some(ScalarValue::Float32(Some(narrow)))
        }
        _ => {
            let numbers = |data_type: &DataType| data_type.is_integer() || data_type.is_decimal();
            let convertible = numbers(&from) && numbers(to) || is_text(&from) && is_text(to);
            convertible.then(|| try_cast_literal_to_type(value, to))?
        }
    }
}
