//! Queries over tables in several databases give what they give over the same tables in one.

use grizzly_flight::FlightSqlConnection;

use super::shop::{Outcome, Shop, Wire, attach, rows};
use crate::support::TestResult;

/// A sequence of numbers that is the same in each run.
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % sides as u64).expect("fewer than sides")
    }

    pub(super) fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.roll(from.len())]
    }
}

/// Conditions on customers `c`.
const OF_CUSTOMERS: [&str; 12] = [
    "c.region < 3",
    "c.name = 'Ann'",
    "c.name IS NULL",
    "lower(c.name) = 'ann'",
    "c.balance > 100.00",
    "c.balance BETWEEN -300.00 AND 250.50",
    "c.since >= DATE '2010-01-01'",
    "c.active IS NOT TRUE",
    "NOT c.active",
    "c.name LIKE '%a%'",
    "c.id IN (1, 2, 3, 30)",
    "(c.region = 1 OR c.balance IS NULL)",
];

/// Conditions on orders `o`.
const OF_ORDERS: [&str; 11] = [
    "o.total < 50.00",
    "o.note <> 'fast'",
    "o.customer IS NOT NULL",
    "o.placed >= TIMESTAMP '2026-05-01T00:00:00'",
    "o.weight = 0.0",
    "o.weight > 1.0",
    "o.weight IS NULL",
    "o.id % 3 = 1",
    "upper(o.note) = 'FAST'",
    "o.note NOT IN ('fast', 'slow')",
    "date_part('month', o.placed) > 4",
];

const OF_ITEMS: [&str; 4] = ["i.qty > 2", "i.sku = 'A-1'", "i.sku IS NULL", "i.qty * 2 < 9"];

const KINDS: [&str; 4] = ["JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN"];

const TOTALS: [&str; 8] = [
    "count(*)",
    "sum(o.total)",
    "min(o.placed)",
    "max(c.name)",
    "avg(o.total)",
    "count(DISTINCT o.note)",
    "sum(o.total) FILTER (WHERE o.note = 'fast')",
    "max(o.total) - min(o.total)",
];

fn query(dice: &mut Dice) -> String {
    let customer = dice.pick(&OF_CUSTOMERS);
    let order = dice.pick(&OF_ORDERS);
    let item = dice.pick(&OF_ITEMS);
    let kind = dice.pick(&KINDS);
    let total = dice.pick(&TOTALS);
    let limit = dice.roll(9) + 1;
    let joined = format!("customers c {kind} orders o ON c.id = o.customer");
    match dice.roll(16) {
        0 => format!("SELECT c.id, c.name, c.balance * 2 AS twice FROM customers c WHERE {customer} AND c.id <> 5"),
        1 => format!("SELECT o.* FROM orders o WHERE {order} ORDER BY o.placed DESC, o.id LIMIT {limit}"),
        2 => format!("SELECT c.id, o.id, c.name, o.note FROM {joined} WHERE {customer}"),
        3 => format!("SELECT c.id, o.id, o.weight FROM {joined} AND {order} WHERE c.region IS NOT NULL OR o.id > 100"),
        4 => format!("SELECT c.region, {total} FROM {joined} WHERE {order} GROUP BY c.region"),
        5 => format!("SELECT c.name, {total} AS t FROM {joined} GROUP BY c.name HAVING count(*) > {limit}"),
        6 => format!("SELECT {total} FROM {joined} WHERE {customer} AND {order}"),
        7 => format!("SELECT c.id FROM customers c WHERE c.id IN (SELECT o.customer FROM orders o WHERE {order})"),
        8 => format!("SELECT c.id FROM customers c WHERE c.id NOT IN (SELECT o.customer FROM orders o WHERE {order})"),
        9 => format!(
            "SELECT c.id, c.name FROM customers c WHERE {}EXISTS (SELECT 1 FROM orders o WHERE o.customer = c.id AND \
             {order})",
            dice.pick(&["", "NOT "])
        ),
        10 => format!(
            "SELECT r.name, {total} FROM regions r JOIN customers c ON c.region = r.id JOIN orders o ON o.customer = \
             c.id WHERE {customer} GROUP BY r.name"
        ),
        11 => format!(
            "SELECT c.name, p.amount, o.note FROM payments p JOIN orders o ON o.id = p.order_id LEFT JOIN customers c \
             ON c.id = o.customer WHERE {order}"
        ),
        12 => format!(
            "SELECT o.note, sum(i.qty) FROM orders o JOIN items i ON i.order_id = o.id WHERE {item} AND {order} GROUP \
             BY o.note"
        ),
        13 => format!(
            "SELECT c.id AS n, c.name AS t FROM customers c WHERE {customer} UNION {} SELECT o.id, o.note FROM orders o \
             WHERE {order}",
            dice.pick(&["", "ALL"])
        ),
        14 => format!(
            "SELECT x.id, x.total, c.name FROM (SELECT o.id, o.customer, o.total FROM orders o ORDER BY o.total DESC, \
             o.id LIMIT {limit}) x JOIN customers c ON c.id = x.customer"
        ),
        _ => format!(
            "SELECT DISTINCT CASE WHEN o.total > 50.00 THEN 'much' ELSE coalesce(o.note, '?') END AS k, \
             date_trunc('month', o.placed) FROM orders o WHERE o.total > (SELECT avg(o.total) FROM orders o WHERE \
             {order})"
        ),
    }
}

/// Compares that many queries and counts those of which a join, and those of which an aggregate, was sent.
pub(super) async fn compare(shop: &Shop, queries: usize) -> Outcome<(usize, usize)> {
    let mut dice = Dice(0x5eed_1234_abcd_0001);
    let (mut joined, mut grouped) = (0, 0);
    for _ in 0..queries {
        let sql = query(&mut dice);
        let (spread, whole) = shop.ask(&sql).await.map_err(|error| format!("{sql}: {error}"))?;
        assert_eq!(spread, whole, "{sql}\n{}", shop.explain(&sql).await?);
        let plan = shop.explain(&sql).await?;
        let sent = plan.lines().filter(|line| line.contains("RemoteScanExec"));
        let sent: Vec<&str> = sent.collect();
        joined += usize::from(sent.iter().any(|line| line.contains("JOIN") || line.contains("EXISTS (")));
        grouped += usize::from(sent.iter().any(|line| line.contains("GROUP BY") || line.contains("count(*)")));
    }
    Ok((joined, grouped))
}

#[tokio::test(flavor = "multi_thread")]
async fn generated_queries_over_several_databases_equal_those_over_one() -> TestResult {
    let (joined, grouped) = compare(&Shop::open().await?, 80).await?;
    // Equal answers would be no news if nothing was sent.
    assert!(joined > 15 && grouped > 8, "joins sent: {joined}, groups sent: {grouped}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn names_values_and_nulls_that_invite_mistakes() -> TestResult {
    mistakes(&Shop::open().await?).await
}

pub(super) async fn mistakes(shop: &Shop) -> TestResult {
    let queries = [
        // Columns of equal names, aliases of other columns' names, names with upper case and quotes.
        "SELECT c.id, o.id, c.id + o.id AS id2 FROM customers c JOIN orders o ON c.id = o.customer",
        "SELECT a.id AS customer, a.customer AS id FROM orders a JOIN orders b ON a.customer = b.id WHERE b.id < 20",
        "SELECT \"My\"\"Col\", \"my\" FROM (SELECT c.name AS \"My\"\"Col\", c.region AS \"my\", count(*) FROM customers \
         c GROUP BY c.name, c.region) x WHERE \"my\" > 1",
        // A group and an order by what looks like a position.
        "SELECT 1, count(*) FROM orders o GROUP BY 1",
        "SELECT 2 AS k, o.id FROM orders o ORDER BY k, o.id LIMIT 3",
        // NULLs of the missing side, and expressions over them.
        "SELECT c.id, coalesce(x.n, 'none') FROM customers c LEFT JOIN (SELECT o.customer, coalesce(o.note, 'null') AS \
         n FROM orders o WHERE o.total < 30.00) x ON x.customer = c.id WHERE x.n IS NULL OR x.n <> 'fast'",
        "SELECT count(*), count(x.k) FROM customers c FULL JOIN (SELECT o.customer, 1 AS k FROM orders o) x ON \
         x.customer = c.id",
        "SELECT c.id FROM customers c WHERE c.name IS NOT DISTINCT FROM NULL",
        "SELECT c.id FROM customers c WHERE (NOT c.active) IS NULL",
        "SELECT c.id FROM customers c WHERE c.id NOT IN (SELECT o.customer FROM orders o WHERE o.customer IS NOT NULL)",
        "SELECT o.id, - (- o.id), o.id - -3 FROM orders o WHERE - o.id < -140",
        // Floats, decimals and times.
        "SELECT o.id FROM orders o WHERE o.weight = -0.0 OR o.weight > 1e300",
        "SELECT min(o.weight), max(o.weight), count(o.weight) FROM orders o WHERE o.weight < 100",
        "SELECT a.id, b.id FROM orders a JOIN orders b ON a.weight = b.weight WHERE a.id < 12 AND b.id < 12",
        "SELECT o.id FROM orders o WHERE o.total = 13.01 OR o.total * 1.5 > 140.00",
        "SELECT o.placed, count(*) FROM orders o WHERE o.placed = TIMESTAMP '2026-01-01T00:30:00.123' GROUP BY o.placed",
        // Numbers that fit here and not in what a remote may take their text for; patterns with a backslash.
        "SELECT c.id, CASE WHEN c.active THEN 1 ELSE 2 END * 2000000000 FROM customers c",
        "SELECT o.id, x.k * x.j FROM orders o JOIN (SELECT 50000 AS k, count(*) * 0 + 60000 AS j FROM customers c) x ON \
         o.id = x.k / 1000",
        "SELECT c.id FROM customers c WHERE c.name LIKE 'a\\_%' OR c.name LIKE '%\\'",
        "SELECT c.id FROM customers c WHERE c.name LIKE c.name || '\\'",
        // No columns at all, nothing at all, everything.
        "SELECT count(*) FROM orders o, customers c",
        "SELECT c.id FROM customers c JOIN orders o ON c.id = o.customer WHERE false",
        "SELECT count(*) FROM (SELECT o.id FROM orders o LIMIT 7) x",
        "SELECT o.id FROM orders o WHERE o.id > (SELECT max(c.id) FROM customers c) ORDER BY o.id OFFSET 3 LIMIT 4",
        // What is not the same each time, and what only this session knows, stays here.
        "SELECT count(*) FROM orders o WHERE random() < 2",
        "SELECT c.name, row_number() OVER (ORDER BY c.id) FROM customers c",
    ];
    for sql in queries {
        let (spread, whole) = shop.ask(sql).await.map_err(|error| format!("{sql}: {error}"))?;
        assert_eq!(spread, whole, "{sql}\n{}", shop.explain(sql).await?);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_order_of_the_first_rows_is_kept() -> TestResult {
    let shop = Shop::open().await?;
    let sql = "SELECT o.id, o.total FROM a.public.orders o ORDER BY o.total DESC NULLS LAST, o.id LIMIT 5";
    let plan = shop.spread.execute(&format!("EXPLAIN {sql}")).await?;
    assert!(rows(&plan)?.join("\n").contains("LIMIT 5"), "{:?}", rows(&plan)?);
    let batches = shop.spread.execute(sql).await?;
    let whole = shop.whole.execute("SELECT o.id, o.total FROM orders o ORDER BY o.total DESC NULLS LAST, o.id LIMIT 5");
    let printed = |batches: &[_]| arrow::util::pretty::pretty_format_batches(batches).map(|table| table.to_string());
    assert_eq!(printed(&batches)?, printed(&whole.await?)?);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_aggregate_moves_only_its_result() -> TestResult {
    let shop = Shop::open().await?;
    let there = FlightSqlConnection::connect(&shop.a).await?;
    there.update("CREATE TABLE many (id BIGINT NOT NULL, k BIGINT, t VARCHAR, PRIMARY KEY (id))").await?;
    let fill = "INSERT INTO many SELECT value, value % 4, concat('row number ', value) FROM generate_series(1, 50000)";
    there.update(fill).await?;
    let wire = Wire::to(&shop.a).await?;
    attach(&shop.spread, "w", &wire.url).await?;
    wire.received();
    let all = shop.spread.execute("SELECT * FROM w.public.many").await?;
    assert_eq!(all.iter().map(arrow::array::RecordBatch::num_rows).sum::<usize>(), 50_000);
    let whole = wire.received();
    let sql = "SELECT k, count(*), max(t) FROM w.public.many WHERE id > 10 GROUP BY k ORDER BY k";
    let totals = shop.spread.execute(sql).await?;
    assert_eq!(totals.iter().map(arrow::array::RecordBatch::num_rows).sum::<usize>(), 4);
    let result = wire.received();
    assert!(whole > 500_000 && result < 5_000, "{whole} bytes for the table, {result} for the aggregate");
    Ok(())
}
