//! Finding the rows of an encoded column for which tests are TRUE, without decoding it where that can be avoided.
//!
//! Comparisons of integers, dates and decimals are ranges of integers, and ranges survive encoding: a frame of reference
//! shifts them, bit-packed blocks are compared as they are unpacked, and in a sorted dictionary a range of values is a
//! range of codes. Anything can be tested on a dictionary's few values. What is left is decoded by the caller.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::buffer::BooleanBuffer;
use arrow::datatypes::*;
use vortex_array::arrays::dict::DictArraySlotsExt;
use vortex_array::arrays::{Constant, ConstantArray, Dict, PrimitiveArray};
use vortex_array::builtins::ArrayBuiltins;
use vortex_array::dtype::{DType, Nullability, PType};
use vortex_array::scalar::{PValue, Scalar, ScalarValue};
use vortex_array::scalar_fn::fns::between::{BetweenOptions, StrictComparison};
use vortex_array::scalar_fn::fns::operators::Operator;
use vortex_array::{ArrayRef as VortexArray, ExecutionCtx, IntoArray, match_each_integer_ptype};
use vortex_arrow::ArrowSessionExt;
use vortex_decimal_byte_parts::{DecimalByteParts, DecimalBytePartsArraySlotsExt};
use vortex_error::{VortexResult, vortex_err};
use vortex_fastlanes::{
    BitPacked, BitPackedArrayExt, BitWidthsView, FoR, FoRArrayExt, FoRArraySlotsExt, FoRReferences,
};
use vortex_mask::Mask;

use super::super::arrow_test::test_array;
use super::session::Encodings;
use crate::access::{ColumnTest, CompareOp};

/// In-lists up to this length are searched value by value.
const SHORT_LIST: usize = 4;

/// Inclusive bounds of integers; none are within if `low > high`.
#[derive(Clone, Copy, Debug)]
struct Range {
    low: i128,
    high: i128,
}

const EVERYTHING: Range = Range { low: i128::MIN, high: i128::MAX };
const NOTHING: Range = Range { low: 1, high: 0 };

/// The rows for which all of `tests` are TRUE; `None` if they have to be tested on decoded values. Literals are of the
/// Arrow type `physical`, which the column is encoded as.
pub(super) fn search(
    encodings: &Encodings,
    array: &VortexArray,
    physical: &DataType,
    tests: &[ColumnTest],
    context: &mut ExecutionCtx,
) -> VortexResult<Option<BooleanBuffer>> {
    if let Some(dict) = array.as_opt::<Dict>()
        && !tests.iter().any(|test| matches!(test, ColumnTest::IsNull))
    {
        let values = encodings.session.arrow().execute_arrow(dict.values().clone(), Some(&field(physical)), context)?;
        let hits = test_values(&values, tests)?;
        return codes_within(dict.codes(), &hits, context).map(Some);
    }
    let mut range = EVERYTHING;
    let mut found: Option<BooleanBuffer> = None;
    for test in tests {
        let one = match test {
            ColumnTest::Compare { value, .. } if value.is_null(0) => Some(BooleanBuffer::new_unset(array.len())),
            ColumnTest::Compare { op, value } if *op != CompareOp::NotEq && integer(value, 0).is_some() => {
                range = range.intersect(Range::of(*op, integer(value, 0)));
                continue;
            }
            other => search_one(encodings, array, other, context)?,
        };
        let Some(one) = one else { return Ok(None) };
        found = Some(found.map_or_else(|| one.clone(), |found| &found & &one));
    }
    if range.low == i128::MIN && range.high == i128::MAX && found.is_some() {
        return Ok(found);
    }
    let Some(within) = within(array, range, context)? else { return Ok(None) };
    Ok(Some(found.map_or_else(|| within.clone(), |found| &found & &within)))
}

fn field(data_type: &DataType) -> Field {
    Field::new("", data_type.clone(), true)
}

/// One test that is not a range.
fn search_one(
    encodings: &Encodings,
    array: &VortexArray,
    test: &ColumnTest,
    context: &mut ExecutionCtx,
) -> VortexResult<Option<BooleanBuffer>> {
    let is_float = matches!(array.dtype(), DType::Primitive(ptype, _) if ptype.is_float());
    match test {
        ColumnTest::IsNotNull => valid(array, context).map(Some),
        ColumnTest::IsNull => Ok(Some(!&valid(array, context)?)),
        // Total order decides -0.0 and NaN in Arrow; some float encodings compare in their own way.
        _ if is_float => Ok(None),
        ColumnTest::Compare { op, value } => {
            if let Some(value) = integer(value, 0) {
                let equal = within(array, Range { low: value, high: value }, context)?;
                let Some(equal) = equal else { return Ok(None) };
                return Ok(Some(&!&equal & &valid(array, context)?));
            }
            compare(array, literal(encodings, value, context)?, *op, context).map(Some)
        }
        ColumnTest::InList { values, negated } if values.len() <= SHORT_LIST => {
            let mut found = BooleanBuffer::new_unset(array.len());
            for row in 0..values.len() {
                let one = match integer(values, row) {
                    Some(value) => within(array, Range { low: value, high: value }, context)?,
                    None => {
                        let literal = literal(encodings, &values.slice(row, 1), context)?;
                        Some(compare(array, literal, CompareOp::Eq, context)?)
                    }
                };
                let Some(one) = one else { return Ok(None) };
                found = &found | &one;
            }
            // `x NOT IN ()` is TRUE for every x, even NULL.
            Ok(Some(match negated {
                true if values.is_empty() => BooleanBuffer::new_set(array.len()),
                true => &!&found & &valid(array, context)?,
                false => found,
            }))
        }
        ColumnTest::InList { .. } => Ok(None),
    }
}

impl Range {
    fn of(op: CompareOp, value: Option<i128>) -> Self {
        let Some(value) = value else { return EVERYTHING };
        match op {
            CompareOp::Eq => Self { low: value, high: value },
            CompareOp::Lt => value.checked_sub(1).map_or(NOTHING, |high| Self { high, ..EVERYTHING }),
            CompareOp::LtEq => Self { high: value, ..EVERYTHING },
            CompareOp::Gt => value.checked_add(1).map_or(NOTHING, |low| Self { low, ..EVERYTHING }),
            CompareOp::GtEq => Self { low: value, ..EVERYTHING },
            CompareOp::NotEq => EVERYTHING,
        }
    }

    fn intersect(self, other: Self) -> Self {
        Self { low: self.low.max(other.low), high: self.high.min(other.high) }
    }

    fn is_empty(self) -> bool {
        self.low > self.high
    }

    fn shifted_down(self, by: i128) -> Self {
        // Bounds far away stay far away: they are cut to the type's own bounds later.
        Self { low: self.low.saturating_sub(by), high: self.high.saturating_sub(by) }
    }

    fn contains(self, value: i128) -> bool {
        self.low <= value && value <= self.high
    }
}

/// A literal as the integer its column is made of; `None` for NULL and for types that are not integers inside.
fn integer(literal: &ArrayRef, row: usize) -> Option<i128> {
    if literal.is_null(row) {
        return None;
    }
    Some(match literal.data_type() {
        DataType::Int8 => literal.as_primitive::<Int8Type>().value(row).into(),
        DataType::Int16 => literal.as_primitive::<Int16Type>().value(row).into(),
        DataType::Int32 => literal.as_primitive::<Int32Type>().value(row).into(),
        DataType::Int64 => literal.as_primitive::<Int64Type>().value(row).into(),
        DataType::UInt8 => literal.as_primitive::<UInt8Type>().value(row).into(),
        DataType::UInt16 => literal.as_primitive::<UInt16Type>().value(row).into(),
        DataType::UInt32 => literal.as_primitive::<UInt32Type>().value(row).into(),
        DataType::UInt64 => literal.as_primitive::<UInt64Type>().value(row).into(),
        DataType::Decimal128(..) => literal.as_primitive::<Decimal128Type>().value(row),
        _ => return None,
    })
}

/// Rows that are not NULL and whose integer is in `range`; `None` if the encoding hides its integers.
fn within(array: &VortexArray, range: Range, context: &mut ExecutionCtx) -> VortexResult<Option<BooleanBuffer>> {
    if range.is_empty() {
        return Ok(Some(BooleanBuffer::new_unset(array.len())));
    }
    if let Some(constant) = array.as_opt::<Constant>() {
        let hit = match constant.scalar().value() {
            None => false,
            Some(ScalarValue::Primitive(value)) => range.contains(whole(value)?),
            Some(ScalarValue::Decimal(value)) => match value.cast::<i128>() {
                Some(value) => range.contains(value),
                None => return Ok(None),
            },
            Some(_) => return Ok(None),
        };
        return Ok(Some(BooleanBuffer::collect_bool(array.len(), |_| hit)));
    }
    if let Some(parts) = array.as_opt::<DecimalByteParts>() {
        return if parts.lower_parts().is_empty() { within(parts.msp(), range, context) } else { Ok(None) };
    }
    if let Some(dict) = array.as_opt::<Dict>() {
        let Some(hits) = within(dict.values(), range, context)? else { return Ok(None) };
        return codes_within(dict.codes(), &hits, context).map(Some);
    }
    let DType::Primitive(ptype, _) = array.dtype() else { return Ok(None) };
    if !ptype.is_int() {
        return Ok(None);
    }
    if let Some(frame) = array.as_opt::<FoR>()
        && let FoRReferences::Global(reference) = frame.references()
        && let Some(ScalarValue::Primitive(reference)) = reference.value()
        && is_never_negative(frame.encoded(), context)?
    {
        return within(frame.encoded(), range.shifted_down(whole(reference)?), context);
    }
    if array.is::<BitPacked>() {
        return packed_within(array, *ptype, range, context).map(Some);
    }
    values_within(array, range, context).map(Some)
}

fn whole(value: &PValue) -> VortexResult<i128> {
    Ok(match value {
        PValue::I8(v) => i128::from(*v),
        PValue::I16(v) => i128::from(*v),
        PValue::I32(v) => i128::from(*v),
        PValue::I64(v) => i128::from(*v),
        PValue::U8(v) => i128::from(*v),
        PValue::U16(v) => i128::from(*v),
        PValue::U32(v) => i128::from(*v),
        PValue::U64(v) => i128::from(*v),
        PValue::F16(_) | PValue::F32(_) | PValue::F64(_) => {
            return Err(vortex_err!("a float where an integer belongs"));
        }
    })
}

/// Whether the differences to a frame of reference are the numbers they look like: differences wider than a signed type
/// wrap around to negative numbers.
fn is_never_negative(differences: &VortexArray, context: &mut ExecutionCtx) -> VortexResult<bool> {
    let Some(packed) = differences.as_opt::<BitPacked>() else { return Ok(false) };
    let (DType::Primitive(ptype, _), BitWidthsView::Global(width)) = (differences.dtype(), packed.bit_widths()) else {
        return Ok(false);
    };
    if usize::from(width) >= ptype.bit_width() {
        return Ok(ptype.is_unsigned_int());
    }
    let Some(patches) = packed.patches() else { return Ok(true) };
    let values = patches.values().clone().execute::<PrimitiveArray>(context)?;
    Ok(match_each_integer_ptype!(values.ptype(), |T| {
        values.as_slice::<T>().iter().all(|value| *value >= T::default())
    }))
}

/// Bit-packed values in `range`, compared block by block as they are unpacked.
fn packed_within(
    array: &VortexArray,
    ptype: PType,
    range: Range,
    context: &mut ExecutionCtx,
) -> VortexResult<BooleanBuffer> {
    let mut all = match_each_integer_ptype!(ptype, |T| { Range { low: T::MIN as i128, high: T::MAX as i128 } });
    if let Some(packed) = array.as_opt::<BitPacked>()
        && let BitWidthsView::Global(width) = packed.bit_widths()
        && packed.patches().is_none()
        && usize::from(width) < ptype.bit_width()
    {
        all = Range { low: 0, high: (1_i128 << width) - 1 };
    }
    let range = range.intersect(all);
    if range.is_empty() {
        return Ok(BooleanBuffer::new_unset(array.len()));
    }
    let constant = |value: i128| {
        let scalar = match_each_integer_ptype!(ptype, |T| { Scalar::primitive(value as T, Nullability::NonNullable) });
        ConstantArray::new(scalar, array.len()).into_array()
    };
    let found = match (range.low == all.low, range.high == all.high) {
        (true, true) => return valid(array, context),
        _ if range.low == range.high => array.binary(constant(range.low), Operator::Eq)?,
        (true, false) => array.binary(constant(range.high), Operator::Lte)?,
        (false, true) => array.binary(constant(range.low), Operator::Gte)?,
        (false, false) => {
            let inclusive = StrictComparison::NonStrict;
            let options = BetweenOptions { lower_strict: inclusive, upper_strict: inclusive };
            array.clone().between(constant(range.low), constant(range.high), options)?
        }
    };
    is_true(found, context)
}

/// Values in `range`, decoded.
fn values_within(array: &VortexArray, range: Range, context: &mut ExecutionCtx) -> VortexResult<BooleanBuffer> {
    let values = array.clone().execute::<PrimitiveArray>(context)?;
    let found = match_each_integer_ptype!(values.ptype(), |T| {
        let range = range.intersect(Range { low: T::MIN as i128, high: T::MAX as i128 });
        if range.is_empty() {
            return Ok(BooleanBuffer::new_unset(array.len()));
        }
        let (low, high) = (range.low as T, range.high as T);
        let values = values.as_slice::<T>();
        BooleanBuffer::collect_bool(values.len(), |row| (values[row] >= low) & (values[row] <= high))
    });
    Ok(if array.dtype().is_nullable() { &found & &valid(array, context)? } else { found })
}

/// The values of a dictionary for which all tests are TRUE, by Arrow's own kernels.
fn test_values(values: &ArrayRef, tests: &[ColumnTest]) -> VortexResult<BooleanBuffer> {
    let mut hits = BooleanBuffer::new_set(values.len());
    for test in tests {
        hits = &hits & &test_array(values, test).map_err(|e| vortex_err!("{e}"))?;
    }
    Ok(hits)
}

/// Rows whose code is a hit. Dictionaries are sorted, so hits are mostly one run of codes.
fn codes_within(codes: &VortexArray, hits: &BooleanBuffer, context: &mut ExecutionCtx) -> VortexResult<BooleanBuffer> {
    let (first, last) = (hits.set_indices().next(), hits.set_indices().last());
    let (Some(first), Some(last)) = (first, last) else { return Ok(BooleanBuffer::new_unset(codes.len())) };
    if hits.count_set_bits() == hits.len() {
        return valid(codes, context);
    }
    if hits.count_set_bits() == last - first + 1 {
        let run = Range { low: first as i128, high: last as i128 };
        return within(codes, run, context)?.ok_or_else(|| vortex_err!("dictionary codes are integers"));
    }
    let is_hit: Vec<bool> = hits.iter().collect();
    let values = codes.clone().execute::<PrimitiveArray>(context)?;
    let found = match_each_integer_ptype!(values.ptype(), |T| {
        let values = values.as_slice::<T>();
        BooleanBuffer::collect_bool(values.len(), |row| is_hit.get(values[row] as usize).copied().unwrap_or(false))
    });
    Ok(if codes.dtype().is_nullable() { &found & &valid(codes, context)? } else { found })
}

/// Rows where `array op literal` is TRUE: a NULL row is not.
fn compare(
    array: &VortexArray,
    literal: Scalar,
    op: CompareOp,
    context: &mut ExecutionCtx,
) -> VortexResult<BooleanBuffer> {
    let operator = match op {
        CompareOp::Eq => Operator::Eq,
        CompareOp::NotEq => Operator::NotEq,
        CompareOp::Lt => Operator::Lt,
        CompareOp::LtEq => Operator::Lte,
        CompareOp::Gt => Operator::Gt,
        CompareOp::GtEq => Operator::Gte,
    };
    is_true(array.binary(ConstantArray::new(literal, array.len()).into_array(), operator)?, context)
}

fn literal(encodings: &Encodings, value: &ArrayRef, context: &mut ExecutionCtx) -> VortexResult<Scalar> {
    encodings.session.arrow().from_arrow_array(value.clone(), false)?.execute_scalar(0, context)
}

fn is_true(array: VortexArray, context: &mut ExecutionCtx) -> VortexResult<BooleanBuffer> {
    let array = if array.dtype().is_nullable() { array.fill_null(false)? } else { array };
    Ok(bits(array.execute::<Mask>(context)?))
}

fn valid(array: &VortexArray, context: &mut ExecutionCtx) -> VortexResult<BooleanBuffer> {
    Ok(bits(array.validity()?.execute_mask(array.len(), context)?))
}

fn bits(mask: Mask) -> BooleanBuffer {
    BooleanBuffer::from(mask.into_bit_buffer())
}
