//! Random queries give the same rows with the rules, without them, and over a MemTable.

use datafusion::error::Result;
use proptest::{
    prelude::*,
    strategy::ValueTree,
    test_runner::{Config, TestRunner},
};

use crate::{
    database::{ROWS, database, in_memory, with_rules, without_rules},
    rows::sorted_rows,
};

fn integer(column: &'static str, values: std::ops::Range<i64>) -> BoxedStrategy<String> {
    let ops = prop::sample::select(vec!["=", "<", "<=", ">", ">=", "<>"]);
    let compare = (ops, values.clone()).prop_map(move |(op, value)| format!("{column} {op} {value}"));
    let list = (any::<bool>(), prop::collection::vec(values.clone(), 1..6)).prop_map(move |(not, values)| {
        let values: Vec<_> = values.iter().map(i64::to_string).collect();
        format!("{column} {}IN ({})", if not { "NOT " } else { "" }, values.join(", "))
    });
    let between = (values.clone(), values).prop_map(move |(low, high)| format!("{column} BETWEEN {low} AND {high}"));
    prop_oneof![4 => compare, 2 => list, 1 => between].boxed()
}

fn condition() -> impl Strategy<Value = String> {
    let null = prop::sample::select(vec!["part", "day", "price", "name"])
        .prop_flat_map(|column| any::<bool>().prop_map(move |not| null_test(column, not)));
    let price =
        (prop::sample::select(vec!["=", "<", ">="]), prop::sample::select(vec!["-1.5", "-0.0", "0.0", "'NaN'"]))
            .prop_map(|(op, value)| format!("price {op} {value}"));
    let name = (prop::sample::select(vec!["=", "<", ">"]), prop::sample::select(vec!["", "a", "ab", "b", "zz"]))
        .prop_map(|(op, value)| format!("name {op} '{value}'"));
    let leaf = prop_oneof![
        3 => integer("id", -5..ROWS),
        3 => integer("part", -5..5005),
        2 => integer("day", -5..105),
        1 => price,
        1 => name,
        1 => null,
    ];
    leaf.prop_recursive(2, 6, 3, |inner| {
        (prop::collection::vec(inner, 2..4), prop::sample::select(vec![" AND ", " AND ", " OR "]))
            .prop_map(|(conditions, operator)| format!("({})", conditions.join(operator)))
    })
}

fn null_test(column: &str, not: bool) -> String {
    format!("{column} IS {}NULL", if not { "NOT " } else { "" })
}

#[tokio::test]
async fn random_conditions_give_the_same_rows_with_and_without_rules() -> Result<()> {
    let db = database()?;
    let (with, without, memory) = (with_rules(&db, vec![])?, without_rules(&db)?, in_memory()?);
    let mut runner = TestRunner::new(Config { failure_persistence: None, ..Config::default() });
    for _ in 0..150 {
        let condition = condition().new_tree(&mut runner).expect("nothing is rejected").current();
        let sql = format!("SELECT id, part, day, price, name FROM t WHERE {condition}");
        let expected = sorted_rows(&memory, &sql).await?;
        assert_eq!(sorted_rows(&without, &sql).await?, expected, "without rules: {sql}");
        assert_eq!(sorted_rows(&with, &sql).await?, expected, "with rules: {sql}");
        let sql = format!("SELECT count(*), min(id), max(part) FROM t WHERE {condition}");
        assert_eq!(sorted_rows(&with, &sql).await?, sorted_rows(&memory, &sql).await?, "{sql}");
    }
    Ok(())
}
