//! DEFAULT expressions, from the SQL text the engine keeps to what DataFusion's INSERT planning asks for.

use std::sync::LazyLock;

use arrow::datatypes::DataType;
use datafusion::{
    common::DFSchema,
    error::Result as DataFusionResult,
    execution::{SessionState, SessionStateBuilder},
    logical_expr::{Expr, ExprSchemable},
};

/// Parses with every built-in function and no tables: a default may not read any.
static PARSER: LazyLock<SessionState> = LazyLock::new(|| SessionStateBuilder::new().with_default_features().build());

/// The expression that `text` means, cast to the column's type. An error says why it is none.
pub(crate) fn parse_default(text: &str, data_type: &DataType) -> DataFusionResult<Expr> {
    let schema = DFSchema::empty();
    PARSER.create_logical_expr(text, &schema)?.cast_to(data_type, &schema)
}
