//! Functions whose results are large where their arguments are small: `repeat('x', 500000000)`. They build a result as a
//! whole, before any memory pool hears of it, so what it will take is computed first and refused where that is too much.

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{Array, AsArray},
        compute::{cast, kernels::length::length},
        datatypes::{DataType, FieldRef, Int64Type},
    },
    common::ScalarValue,
    config::ConfigOptions,
    error::{DataFusionError, Result},
    execution::memory_pool::{MemoryLimit, human_readable_size},
    logical_expr::{
        ColumnarValue, Documentation, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
        simplify::{ExprSimplifyResult, SimplifyContext},
    },
};

use crate::batch::value_bytes;

/// Bytes that one call may make where memory has no bound: a gibibyte, as a value of PostgreSQL.
const MOST: usize = 1 << 30;

/// What the size of a result follows from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Growth {
    /// A text, so often.
    Repeat,
    /// A text of so many characters.
    Pad,
    /// The numbers between two.
    Range,
    /// A value, so often.
    RepeatElement,
}

impl Growth {
    fn of(function: &str) -> Option<Self> {
        Some(match function {
            "repeat" => Self::Repeat,
            "lpad" | "rpad" => Self::Pad,
            "range" | "generate_series" => Self::Range,
            "array_repeat" => Self::RepeatElement,
            _ => return None,
        })
    }

    /// The bytes of a result, about.
    fn bytes(self, args: &ScalarFunctionArgs) -> Result<u64> {
        let (values, rows) = (&args.args, args.number_rows);
        match (self, values.as_slice()) {
            (Self::Repeat, [text, count, ..]) => {
                Ok(sum(rows, [&lengths(text)?, &numbers(count)?], |[text, count]| text * count))
            }
            (Self::Pad, [_, length, ..]) => Ok(sum(rows, [&numbers(length)?], |[length]| length)),
            (Self::RepeatElement, [element, count, ..]) => {
                let size = size_of_one(element);
                Ok(sum(rows, [&numbers(count)?], |[count]| count * size))
            }
            (Self::Range, [stop]) => Ok(sum(rows, [&numbers(stop)?], |[stop]| 8 * stop)),
            (Self::Range, [start, stop]) => {
                Ok(sum(rows, [&numbers(start)?, &numbers(stop)?], |[start, stop]| 8 * (stop - start)))
            }
            (Self::Range, [start, stop, step, ..]) => {
                let numbers = [&numbers(start)?, &numbers(stop)?, &numbers(step)?];
                Ok(sum(rows, numbers, |[start, stop, step]| if step == 0 { 0 } else { 8 * ((stop - start) / step) }))
            }
            _ => Ok(0),
        }
    }
}

/// An argument as numbers; what is no integer counts as nothing.
enum Numbers {
    Same(Option<i64>),
    Each(Arc<dyn Array>),
}

impl Numbers {
    fn get(&self, row: usize) -> Option<i128> {
        match self {
            Self::Same(value) => value.map(i128::from),
            Self::Each(values) => {
                let values = values.as_primitive::<Int64Type>();
                (row < values.len() && values.is_valid(row)).then(|| i128::from(values.value(row)))
            }
        }
    }
}

fn numbers(value: &ColumnarValue) -> Result<Numbers> {
    if !value.data_type().is_integer() {
        return Ok(Numbers::Same(None));
    }
    Ok(match value {
        ColumnarValue::Array(array) => Numbers::Each(cast(array, &DataType::Int64)?),
        ColumnarValue::Scalar(scalar) => match scalar.cast_to(&DataType::Int64)? {
            ScalarValue::Int64(number) => Numbers::Same(number),
            _ => Numbers::Same(None),
        },
    })
}

/// The lengths of texts, in bytes.
fn lengths(value: &ColumnarValue) -> Result<Numbers> {
    Ok(match value {
        ColumnarValue::Array(array) => Numbers::Each(cast(&length(array)?, &DataType::Int64)?),
        ColumnarValue::Scalar(scalar) => {
            let text = scalar.try_as_str().flatten();
            Numbers::Same(text.and_then(|text| i64::try_from(text.len()).ok()))
        }
    })
}

fn size_of_one(value: &ColumnarValue) -> i128 {
    match value {
        ColumnarValue::Array(array) => (value_bytes(array) / array.len().max(1)) as i128,
        ColumnarValue::Scalar(scalar) => scalar.size() as i128,
    }
}

/// Adds `bytes` up over all rows without a NULL; what is negative is nothing.
fn sum<const N: usize>(rows: usize, arguments: [&Numbers; N], bytes: impl Fn([i128; N]) -> i128) -> u64 {
    let of_row = |row: usize| {
        let mut values = [0; N];
        for (value, argument) in values.iter_mut().zip(arguments) {
            *value = argument.get(row)?;
        }
        u64::try_from(bytes(values).max(0)).ok()
    };
    (0..rows).filter_map(of_row).fold(0, u64::saturating_add)
}

/// A function of DataFusion's that refuses to make too much at once.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Bounded {
    inner: ScalarUDF,
    growth: Growth,
    most: usize,
}

/// How much one call may make where queries have so much memory.
pub(super) fn most_at_once(memory: &MemoryLimit) -> usize {
    match memory {
        MemoryLimit::Finite(bytes) => (bytes / 4).min(MOST),
        _ => MOST,
    }
}

/// `function`, which makes no more than `most` bytes at once if its results can be much larger than its arguments.
pub(super) fn bounded(function: &Arc<ScalarUDF>, most: usize) -> Arc<ScalarUDF> {
    let Some(growth) = Growth::of(function.name()) else { return Arc::clone(function) };
    Arc::new(ScalarUDF::from(Bounded { inner: function.as_ref().clone(), growth, most }))
}

impl ScalarUDFImpl for Bounded {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        self.inner.inner().schema_name(args)
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        self.inner.inner().return_type(arg_types)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        self.inner.inner().return_field_from_args(args)
    }

    fn with_updated_config(&self, config: &ConfigOptions) -> Option<ScalarUDF> {
        let inner = self.inner.inner().with_updated_config(config)?;
        Some(ScalarUDF::from(Self { inner, growth: self.growth, most: self.most }))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let bytes = self.growth.bytes(&args)?;
        if bytes > self.most as u64 {
            let bytes = human_readable_size(usize::try_from(bytes).unwrap_or(usize::MAX));
            return Err(DataFusionError::ResourcesExhausted(format!(
                "{} would make {bytes} at once; {} are allowed",
                self.name(),
                human_readable_size(self.most)
            )));
        }
        self.inner.inner().invoke_with_args(args)
    }

    fn simplify(&self, args: Vec<Expr>, info: &SimplifyContext) -> Result<ExprSimplifyResult> {
        self.inner.inner().simplify(args, info)
    }

    fn short_circuits(&self) -> bool {
        self.inner.short_circuits()
    }

    fn is_strict(&self) -> bool {
        self.inner.inner().is_strict()
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.inner().coerce_types(arg_types)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.inner.documentation()
    }
}
