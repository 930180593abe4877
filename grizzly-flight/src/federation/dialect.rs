//! What may be asked of a remote database, as plain data: the types, operators, functions, aggregates and casts that
//! mean there exactly what they mean here. What is not in the list stays here.

use arrow::datatypes::DataType;
use datafusion::logical_expr::Operator;

/// How far a remote compares values of a type as DataFusion does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Comparison {
    /// Not at all.
    None,
    /// The same values are equal; their order may be another one.
    Equal,
    /// The order is the same too.
    Ordered,
}

/// The SQL of one kind of database. Names are quoted with `"`.
#[derive(Debug, Clone, Copy)]
pub struct Dialect {
    /// How far values of a type are compared alike. Types that are not compared can still be returned.
    pub compares: fn(&DataType) -> Comparison,
    /// Whether an arithmetic operator with a result of this type gives the same value.
    pub calculates: fn(Operator, &DataType) -> bool,
    /// The cast of an SQL text to a type, if the remote has exactly this type.
    pub cast: fn(&str, &DataType) -> Option<String>,
    /// Whether values of the first type become the same values of the second.
    pub converts: fn(&DataType, &DataType) -> bool,
    /// Functions of DataFusion that have the same name and meaning there; `||` is text concatenation, `like` and
    /// `ilike` are pattern matching.
    pub functions: &'static [&'static str],
    /// Whether `\` means the same in any pattern, also at its end and where it escapes nothing.
    pub escapes_patterns: bool,
    /// Whether an aggregate function of DataFusion over values of this type gives the same value.
    pub aggregates: fn(&str, &DataType) -> bool,
    /// Whether a computed value of this type comes back as one.
    pub returns: fn(&DataType) -> bool,
    /// Whether an aggregate's result must be cast, as its type there is another one.
    pub casts_aggregates: bool,
    /// Whether aggregates may have a `FILTER (WHERE …)`.
    pub filters_aggregates: bool,
    /// Whether FULL JOIN works on any condition.
    pub full_joins: bool,
}

impl Dialect {
    /// Any Flight SQL server: what SQL itself defines for whole numbers, decimals, dates and equal texts.
    pub const STANDARD: Self = Self {
        compares: |data_type| match data_type {
            DataType::Boolean => Comparison::Equal,
            DataType::Date32 | DataType::Decimal128(..) => Comparison::Ordered,
            other if other.is_integer() => Comparison::Ordered,
            other if other.is_string() => Comparison::Equal,
            _ => Comparison::None,
        },
        calculates: |_, _| false,
        cast: standard_cast,
        converts: |_, _| false,
        functions: &["like"],
        escapes_patterns: false,
        aggregates: |name, data_type| match name {
            "count" => true,
            "min" | "max" => data_type.is_integer() || matches!(data_type, DataType::Date32 | DataType::Decimal128(..)),
            "sum" => data_type.is_integer(),
            _ => false,
        },
        returns: |_| true,
        casts_aggregates: false,
        filters_aggregates: false,
        full_joins: false,
    };

    /// Another Grizzly: the same engine, so everything that is deterministic and can be written down.
    pub const GRIZZLY: Self = Self {
        compares: |data_type| if is_simple(data_type) { Comparison::Ordered } else { Comparison::None },
        calculates: |_, data_type| data_type.is_numeric(),
        cast: grizzly_cast,
        converts: |from, to| is_simple(from) && is_simple(to),
        functions: &[
            "abs",
            "arrow_cast",
            "ascii",
            "bit_length",
            "btrim",
            "ceil",
            "character_length",
            "chr",
            "coalesce",
            "concat",
            "contains",
            "date_part",
            "date_trunc",
            "ends_with",
            "floor",
            "greatest",
            "ilike",
            "initcap",
            "least",
            "left",
            "like",
            "lower",
            "lpad",
            "ltrim",
            "nullif",
            "nvl",
            "octet_length",
            "repeat",
            "replace",
            "reverse",
            "right",
            "round",
            "rpad",
            "rtrim",
            "signum",
            "split_part",
            "starts_with",
            "strpos",
            "substr",
            "translate",
            "trunc",
            "upper",
            "||",
        ],
        escapes_patterns: true,
        aggregates: |name, data_type| match name {
            "count" => true,
            "min" | "max" => is_simple(data_type),
            "sum" | "avg" => data_type.is_numeric(),
            "bool_and" | "bool_or" => *data_type == DataType::Boolean,
            _ => false,
        },
        returns: |_| true,
        casts_aggregates: false,
        filters_aggregates: true,
        full_joins: true,
    };
}

/// Types with one value per row whose text says it exactly.
fn is_simple(data_type: &DataType) -> bool {
    match data_type {
        DataType::Boolean | DataType::Date32 | DataType::Timestamp(_, None) => true,
        DataType::Decimal128(_, scale) => *scale >= 0,
        DataType::Float16 => false,
        other => other.is_numeric() && !other.is_decimal() || other.is_string(),
    }
}

/// Types that every SQL database has, under names that it should know.
pub(super) fn standard_cast(sql: &str, to: &DataType) -> Option<String> {
    let name = match to {
        DataType::Boolean => "BOOLEAN",
        DataType::Int16 => "SMALLINT",
        DataType::Int32 => "INTEGER",
        DataType::Int64 => "BIGINT",
        DataType::Date32 => "DATE",
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "VARCHAR",
        DataType::Decimal128(precision, scale) if *scale >= 0 => {
            return Some(format!("CAST({sql} AS DECIMAL({precision},{scale}))"));
        }
        _ => return None,
    };
    Some(format!("CAST({sql} AS {name})"))
}

/// All simple types: those that SQL has no name for by their name in Arrow.
fn grizzly_cast(sql: &str, to: &DataType) -> Option<String> {
    let name = match to {
        DataType::Float64 => "DOUBLE",
        DataType::Float32 => "REAL",
        other if !is_simple(other) => return None,
        other => {
            return standard_cast(sql, other).or_else(|| Some(format!("arrow_cast({sql}, '{other}')")));
        }
    };
    Some(format!("CAST({sql} AS {name})"))
}
