//! Scalar functions that refuse to make too much at once.

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{Array, ArrayRef},
        compute::concat,
        datatypes::{DataType, FieldRef},
    },
    common::tree_node::{Transformed, TreeNode},
    config::ConfigOptions,
    error::{DataFusionError, Result},
    logical_expr::{
        ColumnarValue, Documentation, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
        simplify::{ExprSimplifyResult, SimplifyContext},
        sort_properties::{ExprProperties, SortProperties},
    },
};

use super::growth::{Bytes, Growth};
use crate::batch::value_bytes;

/// A function of DataFusion's that refuses to make too much at once.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Bounded {
    inner: ScalarUDF,
    growth: Growth,
    most: usize,
}

/// `function`, which makes no more than `most` bytes at once if its results can be much larger than its arguments.
pub(in crate::adapter) fn bounded(function: &Arc<ScalarUDF>, most: usize) -> Arc<ScalarUDF> {
    let Some(growth) = Growth::of(function.name()) else { return Arc::clone(function) };
    Arc::new(ScalarUDF::from(Bounded { inner: function.as_ref().clone(), growth, most }))
}

/// Whether a function is such a one.
pub(super) fn is_bounded(function: &ScalarUDF) -> bool {
    function.inner().is::<Bounded>()
}

impl Bounded {
    fn refused(&self, bytes: u64) -> DataFusionError {
        self.growth.refused(self.name(), bytes, self.most)
    }

    /// The result in pieces, each for as many rows as must fit; what they really take is added up.
    fn in_pieces(&self, args: &ScalarFunctionArgs, bytes: &Bytes, most: u64) -> Result<ColumnarValue> {
        let (mut pieces, mut made, mut begin) = (Vec::new(), 0, 0);
        while begin < args.number_rows {
            let mut end = begin;
            let mut at_most = 0_u64;
            while end < args.number_rows {
                let mut row = bytes.of_row(end);
                if row > most {
                    row = self.growth.exactly(&args.args, end)?.unwrap_or(row);
                }
                if row > most {
                    return Err(self.refused(row));
                }
                if end > begin && at_most.saturating_add(row) > most {
                    break;
                }
                at_most = at_most.saturating_add(row);
                end += 1;
            }
            let piece = self.inner.inner().invoke_with_args(rows(args, begin, end - begin))?;
            let piece = piece.into_array(end - begin)?;
            made += value_bytes(&piece) as u64;
            if made > most {
                return Err(self.refused(made));
            }
            pieces.push(piece);
            begin = end;
        }
        let pieces: Vec<&dyn Array> = pieces.iter().map(AsRef::as_ref).collect();
        Ok(ColumnarValue::Array(concat(&pieces)?))
    }
}

/// One and a half times what the arguments hold, each column counted once: rows of a batch that is there, with something added to
/// each, are no excess, however wide they are. To double them is, as a statement can do that again and again.
fn held(args: &ScalarFunctionArgs) -> u64 {
    let mut columns: Vec<&ArrayRef> = Vec::new();
    for value in &args.args {
        if let ColumnarValue::Array(array) = value
            && !columns.iter().any(|known| Arc::ptr_eq(known, array))
        {
            columns.push(array);
        }
    }
    let bytes: usize = columns.into_iter().map(value_bytes).sum();
    (bytes + bytes / 2) as u64
}

/// Some rows of arguments.
fn rows(args: &ScalarFunctionArgs, begin: usize, count: usize) -> ScalarFunctionArgs {
    let of_rows = |value: &ColumnarValue| match value {
        ColumnarValue::Array(array) => ColumnarValue::Array(array.slice(begin, count)),
        scalar @ ColumnarValue::Scalar(_) => scalar.clone(),
    };
    let mut some = args.clone();
    some.args = args.args.iter().map(of_rows).collect();
    some.number_rows = count;
    some
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
        let (all, most) = (bytes.all(), self.growth.most(self.most));
        // Mostly it is little, and nobody need know what the arguments hold.
        let most = if all <= most { most } else { most.max(held(&args)) };
        if all <= most {
            self.inner.inner().invoke_with_args(args)
        } else if self.growth.is_rough() {
            self.in_pieces(&args, &bytes, most)
        } else {
            Err(self.refused(all))
        }
    }

    fn simplify(&self, args: Vec<Expr>, info: &SimplifyContext) -> Result<ExprSimplifyResult> {
        // What it becomes may be a function that nobody has bounded.
        let bounds = |expr: Expr| match expr {
            Expr::ScalarFunction(mut function) if !function.func.inner().is::<Self>() => {
                function.func = bounded(&function.func, self.most);
                Ok(Transformed::yes(Expr::ScalarFunction(function)))
            }
            other => Ok(Transformed::no(other)),
        };
        Ok(match self.inner.inner().simplify(args, info)? {
            ExprSimplifyResult::Simplified(expr) => ExprSimplifyResult::Simplified(expr.transform_up(bounds)?.data),
            original => original,
        })
    }

    fn short_circuits(&self) -> bool {
        self.inner.short_circuits()
    }

    fn is_strict(&self) -> bool {
        self.inner.inner().is_strict()
    }

    fn output_ordering(&self, inputs: &[ExprProperties]) -> Result<SortProperties> {
        self.inner.inner().output_ordering(inputs)
    }

    fn preserves_lex_ordering(&self, inputs: &[ExprProperties]) -> Result<bool> {
        self.inner.inner().preserves_lex_ordering(inputs)
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.inner().coerce_types(arg_types)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.inner.documentation()
    }
}
