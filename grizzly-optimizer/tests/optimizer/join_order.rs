//! Join order on tables that are not Grizzly's: any table with statistics will do.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::{
    arrow::{
        array::{Int64Array, RecordBatch},
        datatypes::{DataType, Field, Schema, SchemaRef},
    },
    catalog::{Session, TableProvider},
    common::{ColumnStatistics, ScalarValue, Statistics, stats::Precision},
    datasource::MemTable,
    error::Result,
    execution::session_state::SessionStateBuilder,
    logical_expr::{Expr, TableType},
    physical_plan::ExecutionPlan,
    prelude::SessionContext,
};
use grizzly_optimizer::GrizzlyOptimizerExt;
use proptest::{
    prelude::*,
    strategy::ValueTree,
    test_runner::{Config, TestRunner},
};

use crate::rows::sorted_rows;

/// A MemTable that knows its size.
#[derive(Debug)]
struct Counted {
    rows: MemTable,
    statistics: Statistics,
}

#[async_trait]
impl TableProvider for Counted {
    fn schema(&self) -> SchemaRef {
        self.rows.schema()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        self.rows.scan(state, projection, filters, limit).await
    }

    fn statistics(&self) -> Option<Statistics> {
        Some(self.statistics.clone())
    }
}

/// A table of `rows` rows with columns `id` (unique), `k` and `v` (in `keys` values, some NULL).
fn table(rows: i64, keys: i64) -> Result<Counted> {
    let names = ["id", "k", "v"];
    let schema = Arc::new(Schema::new(names.map(|name| Field::new(name, DataType::Int64, true)).to_vec()));
    let column = |factor: i64| (0..rows).map(move |id| ((id * factor) % 7 != 3).then_some(id * factor % keys));
    let columns =
        [Int64Array::from_iter_values(0..rows), column(5).collect::<Int64Array>(), column(11).collect::<Int64Array>()];
    let batch = RecordBatch::try_new(Arc::clone(&schema), columns.map(|column| Arc::new(column) as _).to_vec())?;
    let known = |distinct: i64, most: i64| ColumnStatistics {
        distinct_count: Precision::Inexact(distinct.min(rows) as usize),
        min_value: Precision::Inexact(ScalarValue::Int64(Some(0))),
        max_value: Precision::Inexact(ScalarValue::Int64(Some(most))),
        ..ColumnStatistics::new_unknown()
    };
    let statistics = Statistics {
        num_rows: Precision::Inexact(rows as usize),
        total_byte_size: Precision::Absent,
        column_statistics: vec![known(rows, rows), known(keys, keys), known(keys, keys)],
    };
    Ok(Counted { rows: MemTable::try_new(schema, vec![vec![batch]])?, statistics })
}

/// Sessions with and without the rules over tables a (40 rows) to f, of very different sizes.
fn sessions() -> Result<(SessionContext, SessionContext)> {
    let with = SessionStateBuilder::new().with_default_features().with_grizzly_optimizer()?.build();
    let (with, without) = (SessionContext::new_with_state(with), SessionContext::new());
    for (name, rows, keys) in [("a", 40, 10), ("b", 300, 40), ("c", 5, 5), ("d", 120, 10), ("e", 60, 40), ("f", 10, 3)]
    {
        let table: Arc<dyn TableProvider> = Arc::new(table(rows, keys)?);
        with.register_table(name, Arc::clone(&table))?;
        without.register_table(name, table)?;
    }
    Ok((with, without))
}

/// `SELECT … FROM` some of the tables, each joined to one before it, with more conditions across and on them.
fn query() -> impl Strategy<Value = String> {
    let tables = Just(vec!["a", "b", "c", "d", "e", "f"]).prop_shuffle();
    (tables, 3..6_usize, prop::collection::vec(any::<u8>(), 40)).prop_map(|(tables, count, bytes)| {
        let tables = &tables[..count];
        let mut bytes = bytes.into_iter().cycle();
        let mut pick = |choices: &[&'static str]| choices[usize::from(bytes.next().unwrap_or(0)) % choices.len()];
        let columns = ["id", "k", "v"];
        let mut conditions = vec![];
        for at in 1..count {
            let (left, right) = (pick(&tables[..at]), tables[at]);
            conditions.push(format!("{left}.{} = {right}.{}", pick(&columns), pick(&columns)));
        }
        for _ in 0..2 {
            let (left, right) = (pick(tables), pick(tables));
            let more = match pick(&["equal", "less", "one", "in", "or", "sum", "none"]) {
                "equal" => format!("{left}.{} = {right}.{}", pick(&columns), pick(&columns)),
                "less" => format!("{left}.{} < {right}.{}", pick(&columns), pick(&columns)),
                "one" => format!("{left}.{} < 4", pick(&columns)),
                "in" => format!("{left}.{} IN (SELECT k FROM f GROUP BY k HAVING sum(v) > 2)", pick(&columns)),
                "or" => format!("({left}.v = 1 AND {right}.v = 2 OR {left}.k = 2)"),
                "sum" => format!("{left}.v + {right}.k = {right}.v"),
                _ => continue,
            };
            conditions.push(more);
        }
        let outputs: Vec<_> = tables.iter().map(|table| format!("sum({table}.v), max({table}.id)")).collect();
        format!("SELECT count(*), {} FROM {} WHERE {}", outputs.join(", "), tables.join(", "), conditions.join(" AND "))
    })
}

#[tokio::test]
async fn random_joins_give_the_same_rows_in_any_order() -> Result<()> {
    let (with, without) = sessions()?;
    let mut runner = TestRunner::new(Config { failure_persistence: None, ..Config::default() });
    let mut reordered = 0;
    for _ in 0..200 {
        let sql = query().new_tree(&mut runner).expect("nothing is rejected").current();
        assert_eq!(sorted_rows(&with, &sql).await?, sorted_rows(&without, &sql).await?, "{sql}");
        reordered += u32::from(optimized(&with, &sql).await? != optimized(&without, &sql).await?);
    }
    assert!(reordered > 20, "only {reordered} of 200 queries were reordered");
    Ok(())
}

async fn optimized(ctx: &SessionContext, sql: &str) -> Result<String> {
    Ok(ctx.sql(sql).await?.into_optimized_plan()?.display_indent().to_string())
}

/// Outer joins, limits and aggregates are moved as a whole; columns keep their order and names.
#[tokio::test]
async fn what_is_not_an_inner_join_keeps_its_meaning() -> Result<()> {
    let (with, without) = sessions()?;
    for sql in [
        "SELECT * FROM b JOIN a ON a.k = b.k JOIN c ON c.id = a.v JOIN f ON f.id = c.id",
        "SELECT * FROM b LEFT JOIN a ON a.k = b.k JOIN c ON c.id = b.v JOIN f ON f.id = c.id",
        "SELECT b.id FROM b, (SELECT * FROM d ORDER BY id LIMIT 3) d, c, f WHERE b.k = d.k AND c.id = b.v AND f.k = c.k",
        "SELECT b.k, n FROM b, (SELECT k, count(*) AS n FROM d GROUP BY k) d, c WHERE b.k = d.k AND c.id = b.v",
        "SELECT x.id, y.id FROM a x, a y, b, c WHERE x.k = b.k AND y.k = b.k AND c.id = x.v AND x.v = y.v",
        "SELECT a.* FROM a, b, c WHERE a.k = b.k AND b.k = a.v AND c.id = b.k",
        "SELECT count(*) FROM b, a, c WHERE b.k = a.k AND a.v = c.id AND b.id NOT IN (SELECT v FROM f WHERE v IS NOT NULL)",
        "SELECT count(*) FROM b, a, c WHERE b.k = a.k AND a.v = c.id AND b.id NOT IN (SELECT v FROM f)",
        "SELECT count(*) FROM b, a, c WHERE b.k = a.k AND a.v = c.id AND EXISTS (SELECT 1 FROM f WHERE f.id = b.id AND f.v < a.v)",
        "SELECT count(*) FROM b, a, c WHERE (b.k IS NOT DISTINCT FROM a.k) AND a.v = c.id",
        "SELECT count(*) FROM b, a, c, d WHERE b.k = a.k AND a.v = (SELECT max(v) FROM c) AND c.id = d.id",
    ] {
        assert_eq!(sorted_rows(&with, sql).await?, sorted_rows(&without, sql).await?, "{sql}");
    }
    Ok(())
}

/// The large table is not joined before the small ones have been.
#[tokio::test]
async fn a_selective_table_comes_first() -> Result<()> {
    let (with, _) = sessions()?;
    let sql = "SELECT count(*) FROM b, d, a WHERE b.v = d.id AND d.k = a.k AND a.id = 3";
    let plan = optimized(&with, sql).await?;
    let depth = |table: &str| {
        let line = plan.lines().find(|line| line.trim_start().starts_with(&format!("TableScan: {table}")));
        line.map(|line| line.len() - line.trim_start().len())
    };
    assert!(depth("a") > depth("b"), "{plan}");
    assert!(depth("d") > depth("b"), "{plan}");
    Ok(())
}

/// What a HAVING drops is not known; the rows that IN drops are looked for below the joins all the same, where there are
/// fewer of them.
#[tokio::test]
async fn a_semi_join_moves_down_where_it_sees_fewer_rows() -> Result<()> {
    let (with, _) = sessions()?;
    let sql = "SELECT count(*) FROM a, b WHERE b.v = a.id AND a.id IN (SELECT v FROM b GROUP BY v HAVING sum(k) > 3)";
    let plan = optimized(&with, sql).await?;
    let line = |what: &str| plan.lines().position(|line| line.trim_start().starts_with(what));
    assert!(line("Inner Join") < line("LeftSemi Join"), "{plan}");
    Ok(())
}
