//! Pushed-down conditions against DataFusion's own evaluation on the same rows: type x operator x NULL x NaN, on rows
//! in memory and on rows in segment files.

use std::{ops::Not, sync::Arc};

use arrow::{
    array::{
        ArrayRef, BinaryArray, BinaryViewArray, BooleanArray, Date32Array, Date64Array, Decimal128Array,
        DurationMicrosecondArray, Float32Array, Float64Array, Int8Array, Int16Array, Int32Array, Int64Array,
        LargeBinaryArray, LargeStringArray, StringArray, StringViewArray, Time32SecondArray, Time64MicrosecondArray,
        TimestampMicrosecondArray, TimestampNanosecondArray, UInt8Array, UInt16Array, UInt32Array, UInt64Array,
    },
    compute::take,
    datatypes::{DataType, Field, Schema},
    record_batch::RecordBatch,
};
use datafusion::{
    common::ScalarValue,
    logical_expr::{BinaryExpr, Expr, Operator},
    prelude::{SessionContext, cast, col, lit, try_cast},
};
use grizzly_provider::Grizzly;

use super::fixtures::{TestResult, lines, memory_context, store, table_context};

/// The values of each type, edges included, always with NULLs.
fn types() -> Vec<ArrayRef> {
    let nan = f64::NAN;
    vec![
        Arc::new(Int8Array::from(vec![Some(i8::MIN), Some(-1), Some(0), Some(1), Some(i8::MAX), None])),
        Arc::new(Int16Array::from(vec![Some(i16::MIN), Some(-1), Some(0), Some(1), Some(i16::MAX), None])),
        Arc::new(Int32Array::from(vec![Some(i32::MIN), Some(-1), Some(0), Some(1), Some(i32::MAX), None])),
        Arc::new(Int64Array::from(vec![Some(i64::MIN), Some(-1), Some(0), Some(1), Some(i64::MAX), None])),
        Arc::new(UInt8Array::from(vec![Some(0), Some(1), Some(2), Some(254), Some(u8::MAX), None])),
        Arc::new(UInt16Array::from(vec![Some(0), Some(1), Some(2), Some(300), Some(u16::MAX), None])),
        Arc::new(UInt32Array::from(vec![Some(0), Some(1), Some(2), Some(300), Some(u32::MAX), None])),
        Arc::new(UInt64Array::from(vec![Some(0), Some(1), Some(2), Some(300), Some(u64::MAX), None])),
        Arc::new(Float32Array::from(vec![
            Some(f32::NEG_INFINITY),
            Some(-1.5),
            Some(-0.0),
            Some(0.0),
            Some(2.5),
            Some(f32::INFINITY),
            Some(f32::NAN),
            None,
        ])),
        Arc::new(Float64Array::from(vec![
            Some(f64::NEG_INFINITY),
            Some(-1.5),
            Some(-0.0),
            Some(0.0),
            Some(0.1),
            Some(f64::INFINITY),
            Some(nan),
            Some(-nan),
            None,
        ])),
        Arc::new(BooleanArray::from(vec![Some(true), Some(false), None])),
        Arc::new(StringArray::from(vec![
            Some(""),
            Some("a"),
            Some("ab"),
            Some("abc"),
            Some("b"),
            Some("\u{10FFFF}x"),
            Some("\u{D7FF}"),
            None,
        ])),
        Arc::new(LargeStringArray::from(vec![Some(""), Some("a"), Some("ab"), Some("abc"), Some("Z"), None])),
        Arc::new(StringViewArray::from(vec![
            Some(""),
            Some("a"),
            Some("ab"),
            Some("a string longer than twelve bytes"),
            Some("b"),
            None,
        ])),
        Arc::new(BinaryArray::from(vec![Some(&b""[..]), Some(b"\0"), Some(b"a"), Some(b"ab"), Some(b"\xff"), None])),
        Arc::new(Date32Array::from(vec![Some(i32::MIN / 400), Some(-1), Some(0), Some(19_000), None])),
        Arc::new(Date64Array::from(vec![Some(-86_400_000), Some(0), Some(86_400_000), None])),
        Arc::new(Time64MicrosecondArray::from(vec![Some(0), Some(1), Some(86_399_999_999), None])),
        Arc::new(TimestampMicrosecondArray::from(vec![Some(-1), Some(0), Some(1), Some(1_700_000_000_000_000), None])),
        Arc::new(
            TimestampNanosecondArray::from(vec![Some(-1), Some(0), Some(1), Some(1_700_000_000_000_000_001), None])
                .with_timezone("UTC"),
        ),
        Arc::new(decimals(vec![Some(-10_050), Some(-1), Some(0), Some(1), Some(10_050), None])),
        Arc::new(LargeBinaryArray::from(vec![Some(&b""[..]), Some(b"a"), Some(b"\xff"), None])),
        Arc::new(BinaryViewArray::from(vec![Some(&b""[..]), Some(b"more than twelve bytes"), Some(b"\xff"), None])),
        Arc::new(Time32SecondArray::from(vec![Some(0), Some(1), Some(86_399), None])),
        Arc::new(DurationMicrosecondArray::from(vec![Some(-1), Some(0), Some(i64::MAX), None])),
    ]
}

fn decimals(values: Vec<Option<i128>>) -> Decimal128Array {
    let decimals = Decimal128Array::from(values);
    decimals.with_data_type(DataType::Decimal128(12, 2))
}

/// Every pair of values: `id`, `a`, `b`.
fn pairs(values: &ArrayRef) -> TestResult<RecordBatch> {
    let n = values.len() as u64;
    let first: UInt64Array = (0..n * n).map(|i| i / n).collect();
    let second: UInt64Array = (0..n * n).map(|i| i % n).collect();
    let id = Int64Array::from_iter_values(0..i64::try_from(n * n)?);
    let schema = Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("a", values.data_type().clone(), true),
        Field::new("b", values.data_type().clone(), true),
    ]);
    let columns = vec![Arc::new(id) as ArrayRef, take(values, &first, None)?, take(values, &second, None)?];
    Ok(RecordBatch::try_new(Arc::new(schema), columns)?)
}

fn binary(left: Expr, op: Operator, right: Expr) -> Expr {
    Expr::BinaryExpr(BinaryExpr::new(Box::new(left), op, Box::new(right)))
}

const COMPARISONS: [Operator; 8] = [
    Operator::Eq,
    Operator::NotEq,
    Operator::Lt,
    Operator::LtEq,
    Operator::Gt,
    Operator::GtEq,
    Operator::IsDistinctFrom,
    Operator::IsNotDistinctFrom,
];

fn literals(values: &ArrayRef) -> TestResult<Vec<Expr>> {
    let scalars = (0..values.len()).map(|i| ScalarValue::try_from_array(values, i));
    Ok(scalars.collect::<Result<Vec<_>, _>>()?.into_iter().map(lit).collect())
}

/// Conditions that are comparisons and memberships, each by itself.
fn simple(literals: &[Expr]) -> Vec<Expr> {
    let mut all = vec![col("a").is_null(), col("a").is_not_null(), col("b").is_null()];
    for op in COMPARISONS {
        all.push(binary(col("a"), op, col("b")));
        for literal in literals {
            all.push(binary(col("a"), op, literal.clone()));
            all.push(binary(literal.clone(), op, col("a")));
        }
    }
    for (i, low) in literals.iter().enumerate() {
        let high = &literals[(i * 2 + 1) % literals.len()];
        all.push(col("a").between(low.clone(), high.clone()));
        all.push(col("a").not_between(low.clone(), high.clone()));
        // Lists of one, some with NULL (the last literal is NULL), long ones.
        for list in [literals[i..=i].to_vec(), literals[i..].to_vec(), literals[..=i].to_vec()] {
            all.push(col("a").in_list(list.clone(), false));
            all.push(col("a").in_list(list, true));
        }
    }
    all
}

/// The same conditions in every way SQL can ask for them, and in pairs.
fn compound(simple: &[Expr]) -> Vec<Expr> {
    let mut all = Vec::new();
    for (i, condition) in simple.iter().enumerate() {
        let other = &simple[(i * 7 + 3) % simple.len()];
        let third = &simple[(i * 5 + 1) % simple.len()];
        all.push(condition.clone().not());
        all.push(match i % 6 {
            0 => condition.clone().is_true(),
            1 => condition.clone().is_not_true(),
            2 => condition.clone().is_false(),
            3 => condition.clone().is_not_false(),
            4 => condition.clone().is_unknown(),
            _ => condition.clone().is_not_unknown(),
        });
        all.push(condition.clone().and(other.clone()).or(third.clone().not()));
        all.push(condition.clone().or(other.clone()).not().and(third.clone()));
        all.push(condition.clone().and(other.clone()).is_null());
        all.push(condition.clone().or(other.clone()).is_unknown().or(third.clone().is_null()));
    }
    all
}

/// Runs each condition on both; where DataFusion has an answer, Grizzly must have the same.
async fn assert_same(grizzly: &SessionContext, memory: &SessionContext, conditions: &[Expr]) -> TestResult {
    for condition in conditions {
        let ids = |context: &SessionContext| {
            let (context, condition) = (context.clone(), condition.clone());
            async move {
                let frame = context.table("t").await?.filter(condition)?;
                lines(frame.select_columns(&["id"])?.sort(vec![col("id").sort(true, false)])?).await
            }
        };
        let Ok(expected) = ids(memory).await else { continue };
        let found = ids(grizzly).await.map_err(|error| format!("{condition}: {error}"))?;
        assert_eq!(found, expected, "{condition}");
    }
    Ok(())
}

async fn check(values: &ArrayRef, conditions: &[Expr]) -> TestResult {
    let batch = pairs(values)?;
    let memory = memory_context("t", &batch, 1)?;
    let db = Grizzly::open("memory://")?;
    store(&db, "t", &batch, &[], 1)?;
    let grizzly = table_context(&db, "t", 1)?;
    let context = |place: &str, error| format!("{} {place}: {error}", values.data_type());
    assert_same(&grizzly, &memory, conditions).await.map_err(|error| context("in memory", error))?;
    db.flush()?;
    assert_same(&grizzly, &memory, conditions).await.map_err(|error| context("on storage", error))?;
    Ok(())
}

#[tokio::test]
async fn comparisons_agree_with_datafusion() -> TestResult {
    for values in types() {
        check(&values, &simple(&literals(&values)?)).await?;
    }
    Ok(())
}

#[tokio::test]
async fn connectives_agree_with_datafusion() -> TestResult {
    for values in types() {
        check(&values, &compound(&simple(&literals(&values)?))).await?;
    }
    Ok(())
}

#[tokio::test]
async fn boolean_columns_are_conditions() -> TestResult {
    let values: ArrayRef = Arc::new(BooleanArray::from(vec![Some(true), Some(false), None]));
    let conditions = [
        col("a"),
        col("a").not(),
        col("a").and(col("b")),
        col("a").or(col("b").not()),
        col("a").is_true(),
        col("a").is_not_true(),
        col("a").and(col("b")).is_unknown(),
        col("a").or(col("b")).is_false(),
        col("a").not().or(lit(ScalarValue::Boolean(None))),
        col("a").and(lit(ScalarValue::Boolean(None))).is_null(),
    ];
    check(&values, &conditions).await
}

#[tokio::test]
async fn patterns_agree_with_datafusion() -> TestResult {
    let texts = || {
        vec![
            Some(""),
            Some("a"),
            Some("ab"),
            Some("abc"),
            Some("abd"),
            Some("ac"),
            Some("a%"),
            Some("a_c"),
            Some("A"),
            Some("\u{D7FF}z"),
            Some("\u{E000}"),
            Some("\u{10FFFF}"),
            Some("\u{10FFFF}\u{10FFFF}"),
            None,
        ]
    };
    let patterns =
        ["a%", "ab%", "ab", "", "%", "%b", "a%c", "a_c", "a\\%", "\u{D7FF}%", "\u{10FFFF}%", "_", "ab_", "a%%"];
    let arrays: [ArrayRef; 3] = [
        Arc::new(StringArray::from(texts())),
        Arc::new(LargeStringArray::from(texts())),
        Arc::new(StringViewArray::from(texts())),
    ];
    for values in arrays {
        let like = patterns.iter().flat_map(|pattern| {
            let pattern = || lit(*pattern);
            [
                col("a").like(pattern()),
                col("a").not_like(pattern()),
                col("a").like(pattern()).not().or(col("b").like(pattern())),
                col("a").like(pattern()).is_unknown(),
                col("a").ilike(pattern()),
            ]
        });
        check(&values, &like.collect::<Vec<_>>()).await?;
    }
    Ok(())
}

#[tokio::test]
async fn casts_agree_with_datafusion() -> TestResult {
    let wider = [
        DataType::Int16,
        DataType::Int64,
        DataType::UInt64,
        DataType::Float64,
        DataType::Decimal128(25, 4),
        DataType::Utf8,
        DataType::LargeUtf8,
    ];
    for values in types() {
        let mut conditions = Vec::new();
        for to in &wider {
            for literal in literals(&values)? {
                let literal = try_cast(literal, to.clone());
                for op in COMPARISONS {
                    conditions.push(binary(cast(col("a"), to.clone()), op, literal.clone()));
                    conditions.push(binary(literal.clone(), op, try_cast(col("a"), to.clone())));
                }
                conditions.push(try_cast(col("a"), to.clone()).is_null());
                conditions.push(cast(col("a"), to.clone()).in_list(vec![literal.clone(), literal], true));
            }
        }
        check(&values, &conditions).await?;
    }
    Ok(())
}

#[tokio::test]
async fn what_is_pushed_down_is_not_evaluated_again() -> TestResult {
    let values: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), Some("b"), None]));
    let db = Grizzly::open("memory://")?;
    store(&db, "t", &pairs(&values)?, &["id"], 1)?;
    let context = table_context(&db, "t", 1)?;
    let exact = [
        "id = 3",
        "3 < id",
        "id BETWEEN 2 AND 5",
        "a IN ('a', 'b', 'c', 'd', 'e')",
        "a NOT IN ('a', 'x', 'y', 'z')",
        "a IS NULL",
        "NOT (a = 'a' OR b > 'a')",
        "a = b",
        "a LIKE 'a%'",
        "a NOT LIKE 'a%'",
        "(a = 'a') IS UNKNOWN",
        "id = 1 OR (id > 5 AND a <> 'b')",
    ];
    for condition in exact {
        let plan = super::fixtures::plan(&context, &format!("SELECT id FROM t WHERE {condition}")).await?;
        assert!(!plan.contains("FilterExec"), "{condition} is evaluated twice:\n{plan}");
        assert!(plan.contains("predicate="), "{condition} is not pushed down:\n{plan}");
    }
    let inexact = super::fixtures::plan(&context, "SELECT id FROM t WHERE a LIKE 'a%c' AND id + 1 = 4").await?;
    assert!(inexact.contains("FilterExec") && inexact.contains("predicate=a >= a AND a < b"), "{inexact}");
    Ok(())
}
