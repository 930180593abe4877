//! Random statements over tables of all databases at once: joins of all kinds, conditions on either side, subqueries,
//! aggregates, first rows, set operations. Each must give what it gives where all tables are in one database.

use super::{
    queries::Dice,
    shop::{Outcome, Shop},
};
use crate::support::TestResult;

/// What queries say about a table; `@` stands for its alias.
struct Table {
    name: &'static str,
    alias: &'static str,
    /// Values of a row.
    values: &'static [&'static str],
    /// Values that can be grouped by: equal ones look alike.
    groups: &'static [&'static str],
    /// Aggregates over rows.
    totals: &'static [&'static str],
    conditions: &'static [&'static str],
}

const TABLES: [Table; 5] = [
    Table {
        name: "customers",
        alias: "c",
        values: &[
            "@.id",
            "@.name",
            "@.balance * 2",
            "@.since",
            "@.active",
            "CASE WHEN @.active THEN @.region ELSE -1 END",
            "CASE @.region WHEN 1 THEN 'one' WHEN 2 THEN @.name END",
            "upper(@.name)",
            "date_part('year', @.since)",
            "nullif(@.region, 3)",
            "CAST(@.balance AS BIGINT)",
            "(NOT @.active) IS NULL",
        ],
        groups: &["@.region", "@.name", "@.active", "coalesce(@.name, 'none')", "@.since", "@.id % 4"],
        totals: &[
            "count(@.name)",
            "sum(@.balance)",
            "min(@.since)",
            "max(@.name)",
            "count(DISTINCT @.region)",
            "bool_or(@.active)",
            "sum(CASE WHEN @.active THEN 1 ELSE 0 END)",
        ],
        conditions: &[
            "@.region < 3",
            "@.name = 'Ann'",
            "@.name IS NULL",
            "@.name LIKE '%n%'",
            "@.name NOT LIKE 'A__'",
            "@.name LIKE 'a\\_%'",
            "@.balance BETWEEN -300.00 AND 250.50",
            "@.balance + 1.5 > 100",
            "@.since >= DATE '2010-01-01'",
            "@.active IS NOT TRUE",
            "@.id IN (1, 2, 3, 30)",
            "@.region IS DISTINCT FROM 2",
            "lower(@.name) = 'ann'",
            "character_length(@.name) > 2",
        ],
    },
    Table {
        name: "orders",
        alias: "o",
        values: &[
            "@.id",
            "@.customer",
            "@.total - 1.50",
            "@.placed",
            "@.note",
            "@.weight",
            "CASE WHEN @.total > 50 THEN 'much' WHEN @.total > 20 THEN 'some' END",
            "date_trunc('month', @.placed)",
            "CAST(@.id AS VARCHAR)",
            "CAST(@.placed AS DATE)",
            "- @.id",
        ],
        groups: &["@.note", "@.customer", "@.total > 40", "date_trunc('month', @.placed)", "CAST(@.placed AS DATE)"],
        totals: &[
            "sum(@.total)",
            "avg(@.total)",
            "min(@.placed)",
            "max(@.total) - min(@.total)",
            "count(DISTINCT @.note)",
            "count(@.weight)",
            "sum(@.total) FILTER (WHERE @.note = 'fast')",
            "sum(@.id * 2)",
        ],
        conditions: &[
            "@.total < 50.00",
            "@.note <> 'fast'",
            "@.customer IS NOT NULL",
            "@.placed >= TIMESTAMP '2026-05-01T00:00:00'",
            "@.weight > 1.0",
            "@.weight IS NULL",
            "@.id % 3 = 1",
            "@.note IN ('fast', 'slow')",
            "@.note LIKE @.note",
            "date_part('month', @.placed) > 4",
            "CASE WHEN @.note = 'fast' THEN @.total > 40 ELSE @.id > 20 END",
        ],
    },
    Table {
        name: "items",
        alias: "i",
        values: &["@.id", "@.sku", "@.qty", "@.qty * 3 - 1", "@.qty / 2", "@.sku || '!'", "coalesce(@.sku, '?')"],
        groups: &["@.qty", "@.sku", "@.order_id % 5", "lower(@.sku)"],
        totals: &["sum(@.qty)", "max(@.qty)", "count(@.sku)", "min(@.sku)", "avg(@.qty)", "count(DISTINCT @.sku)"],
        conditions: &["@.qty > 2", "@.sku = 'A-1'", "@.sku IS NULL", "@.qty * 2 < 9", "@.sku ILIKE 'a%'", "@.id < 120"],
    },
    Table {
        name: "payments",
        alias: "p",
        values: &["@.id", "@.amount", "@.amount * @.amount", "round(@.amount)", "@.order_id"],
        groups: &["@.amount > 20", "@.order_id % 3"],
        totals: &["sum(@.amount)", "min(@.amount)", "avg(@.amount)", "count(@.id)"],
        conditions: &["@.amount > 12", "@.amount IS NOT NULL", "@.order_id < 90", "@.id % 2 = 0"],
    },
    Table {
        name: "regions",
        alias: "r",
        values: &["@.id", "@.name", "coalesce(@.name, '-')"],
        groups: &["@.name", "@.id"],
        totals: &["count(@.name)", "max(@.id)", "min(@.name)"],
        conditions: &["@.name IS NOT NULL", "@.id < 3", "@.name LIKE '%o%'"],
    },
];

/// Which columns of which tables belong together.
const EDGES: [(usize, &str, usize, &str); 6] = [
    (0, "id", 1, "customer"),
    (1, "id", 2, "order_id"),
    (1, "id", 3, "order_id"),
    (0, "region", 4, "id"),
    (2, "order_id", 3, "order_id"),
    (2, "qty", 4, "id"),
];

/// Conditions on two tables at once.
const BETWEEN: [(usize, usize, &str); 5] = [
    (0, 1, "c.id <> o.id"),
    (0, 3, "p.amount < c.balance"),
    (1, 3, "p.amount <= o.total"),
    (2, 4, "i.qty >= r.id"),
    (0, 4, "c.name < r.name"),
];

/// A query while it is made up.
struct Writer<'a> {
    dice: &'a mut Dice,
    /// Tables in FROM.
    tables: Vec<usize>,
}

impl Writer<'_> {
    fn chance(&mut self, percent: usize) -> bool {
        self.dice.roll(100) < percent
    }

    /// One of what `of` says of one of the tables.
    fn some(&mut self, of: fn(&Table) -> &'static [&'static str]) -> String {
        let table = &TABLES[self.tables[self.dice.roll(self.tables.len())]];
        self.dice.pick(of(table)).replace('@', table.alias)
    }

    fn condition_on(&mut self, table: usize, alias: &str) -> String {
        self.dice.pick(TABLES[table].conditions).replace('@', alias)
    }

    /// Up to four tables, each joined with one of those before it.
    fn from(&mut self) -> String {
        self.tables = vec![self.dice.roll(TABLES.len())];
        let first = &TABLES[self.tables[0]];
        let mut from = format!("{} {}", first.name, first.alias);
        for _ in 0..[1, 2, 2, 2, 3][self.dice.roll(5)] {
            let open = |(left, _, right, _): &&(usize, &str, usize, &str)| {
                self.tables.contains(left) != self.tables.contains(right)
            };
            let edges: Vec<_> = EDGES.iter().filter(open).collect();
            let &(left, left_column, right, right_column) = edges[self.dice.roll(edges.len())];
            let new = if self.tables.contains(&left) { right } else { left };
            let kind = self.dice.pick(&["JOIN", "JOIN", "JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN"]);
            let (left_alias, right_alias) = (TABLES[left].alias, TABLES[right].alias);
            let Table { name, alias, .. } = TABLES[new];
            from.push_str(&format!(
                " {kind} {name} {alias} ON {left_alias}.{left_column} = {right_alias}.{right_column}"
            ));
            self.tables.push(new);
            if self.chance(25) {
                from.push_str(&format!(" AND {}", self.some(|table| table.conditions)));
            }
        }
        from
    }

    /// What rows must meet, if anything.
    fn filter(&mut self) -> String {
        let count = self.dice.roll(4);
        let mut parts: Vec<String> = (0..count).map(|_| self.condition()).collect();
        let within =
            |(left, right, _): &&(usize, usize, &str)| self.tables.contains(left) && self.tables.contains(right);
        let between: Vec<&str> = BETWEEN.iter().filter(within).map(|(_, _, condition)| *condition).collect();
        if !between.is_empty() && self.chance(20) {
            parts.push(self.dice.pick(&between).to_owned());
        }
        if parts.is_empty() { String::new() } else { format!(" WHERE {}", parts.join(" AND ")) }
    }

    fn condition(&mut self) -> String {
        match self.dice.roll(8) {
            0 => format!("({} OR {})", self.some(|t| t.conditions), self.some(|t| t.conditions)),
            1 => format!("NOT ({})", self.some(|t| t.conditions)),
            2 | 3 => self.subquery(),
            _ => self.some(|table| table.conditions),
        }
    }

    /// A condition about another table's rows, whether or not that table is in FROM as well.
    fn subquery(&mut self) -> String {
        let beside = |(left, _, right, _): &&(usize, &str, usize, &str)| {
            self.tables.contains(left) || self.tables.contains(right)
        };
        let edges: Vec<_> = EDGES.iter().filter(beside).collect();
        let &(left, left_column, right, right_column) = edges[self.dice.roll(edges.len())];
        let (own, own_column, other, column) = match self.tables.contains(&left) {
            true => (left, left_column, right, right_column),
            false => (right, right_column, left, left_column),
        };
        let (own, name) = (TABLES[own].alias, TABLES[other].name);
        let condition = self.condition_on(other, "s");
        match self.dice.roll(5) {
            0 => format!("{own}.{own_column} IN (SELECT s.{column} FROM {name} s WHERE {condition})"),
            1 => format!("{own}.{own_column} NOT IN (SELECT s.{column} FROM {name} s WHERE {condition})"),
            2 => format!("EXISTS (SELECT 1 FROM {name} s WHERE s.{column} = {own}.{own_column} AND {condition})"),
            3 => format!("NOT EXISTS (SELECT 1 FROM {name} s WHERE s.{column} = {own}.{own_column} AND {condition})"),
            _ => format!("{own}.{own_column} > (SELECT min(s.{column}) FROM {name} s WHERE {condition})"),
        }
    }

    /// The first rows in an order that leaves nothing open.
    fn first_rows(&mut self, columns: usize) -> String {
        let keys = (1..=columns)
            .map(|column| format!("{column}{}", self.dice.pick(&["", " DESC", " NULLS FIRST", " DESC NULLS LAST"])));
        let keys = keys.collect::<Vec<_>>().join(", ");
        let offset = if self.dice.roll(3) == 0 { " OFFSET 2" } else { "" };
        format!(" ORDER BY {keys} LIMIT {}{offset}", self.dice.roll(12) + 1)
    }

    fn rows(&mut self) -> String {
        let from = self.from();
        let distinct = self.chance(20);
        let count = self.dice.roll(4) + 2;
        let of: fn(&Table) -> &'static [&'static str] =
            if distinct { |table| table.groups } else { |table| table.values };
        let columns: Vec<String> = (0..count).map(|at| format!("{} AS x{at}", self.some(of))).collect();
        let distinct = if distinct { "DISTINCT " } else { "" };
        let mut sql = format!("SELECT {distinct}{} FROM {from}{}", columns.join(", "), self.filter());
        if self.chance(30) {
            sql.push_str(&self.first_rows(count));
        }
        sql
    }

    fn totals(&mut self) -> String {
        let from = self.from();
        let mut groups: Vec<String> = (0..self.dice.roll(3)).map(|_| self.some(|table| table.groups)).collect();
        groups.dedup();
        let totals = (0..self.dice.roll(3) + 1).map(|_| self.some(|table| table.totals));
        let mut columns: Vec<String> = groups.clone();
        columns.extend(totals);
        columns.push("count(*)".to_owned());
        let named: Vec<String> = columns.iter().enumerate().map(|(at, column)| format!("{column} AS x{at}")).collect();
        let mut sql = format!("SELECT {} FROM {from}{}", named.join(", "), self.filter());
        if !groups.is_empty() {
            sql.push_str(&format!(" GROUP BY {}", groups.join(", ")));
            if self.chance(25) {
                sql.push_str(&format!(" HAVING count(*) > {}", self.dice.roll(6)));
            }
        }
        if self.chance(25) {
            sql.push_str(&self.first_rows(columns.len()));
        }
        sql
    }

    /// Numbers and texts of two tables, as one.
    fn both(&mut self) -> String {
        let half = |writer: &mut Self| {
            let (table, key, text) = [
                ("customers", "id", "name"),
                ("orders", "id", "note"),
                ("items", "qty", "sku"),
                ("regions", "id", "name"),
            ][writer.dice.roll(4)];
            let at = TABLES.iter().position(|known| known.name == table).expect("one of the tables");
            format!("SELECT s.{key} AS k, s.{text} AS t FROM {table} s WHERE {}", writer.condition_on(at, "s"))
        };
        let kind = self.dice.pick(&["UNION", "UNION ALL", "EXCEPT", "INTERSECT"]).to_owned();
        let (left, right) = (half(self), half(self));
        match self.dice.roll(3) {
            0 => format!("{left} {kind} {right}"),
            1 => format!("SELECT u.t, count(*), sum(u.k) FROM ({left} {kind} {right}) u GROUP BY u.t"),
            _ => format!("SELECT u.k, r.name FROM ({left} {kind} {right}) u LEFT JOIN regions r ON r.id = u.k"),
        }
    }

    /// A query as a table of another one.
    fn nested(&mut self) -> String {
        let of_orders = self.condition_on(1, "o");
        let of_items = self.condition_on(2, "i");
        let limit = self.dice.roll(9) + 1;
        let kind = self.dice.pick(&["JOIN", "LEFT JOIN", "FULL JOIN"]);
        match self.dice.roll(5) {
            0 => format!(
                "SELECT x.id, x.total, i.qty FROM (SELECT o.id, o.total FROM orders o WHERE {of_orders} ORDER BY o.total \
                 DESC, o.id LIMIT {limit}) x {kind} items i ON i.order_id = x.id"
            ),
            1 => format!(
                "WITH w AS (SELECT o.customer AS k, sum(o.total) AS s, count(*) AS n FROM orders o WHERE {of_orders} \
                 GROUP BY o.customer) SELECT c.name, w.s, w.n FROM customers c {kind} w ON w.k = c.id WHERE w.n IS NULL \
                 OR w.n < {limit}"
            ),
            2 => format!(
                "SELECT c.id, (SELECT count(*) FROM items i JOIN orders o ON o.id = i.order_id WHERE o.customer = c.id \
                 AND {of_items}) AS n FROM customers c WHERE c.id < {}",
                limit * 4
            ),
            3 => format!(
                "SELECT y.name, sum(y.n) FROM (SELECT r.name, x.n FROM (SELECT c.region AS k, count(i.id) AS n FROM \
                 customers c JOIN orders o ON o.customer = c.id {kind} items i ON i.order_id = o.id AND {of_items} GROUP \
                 BY c.region) x JOIN regions r ON r.id = x.k) y GROUP BY y.name"
            ),
            _ => format!(
                "SELECT o.id, p.amount, row_number() OVER (PARTITION BY o.note ORDER BY o.id, p.id) AS n, sum(p.amount) \
                 OVER (PARTITION BY o.note) AS s FROM orders o JOIN payments p ON p.order_id = o.id WHERE {of_orders}"
            ),
        }
    }

    fn query(&mut self) -> String {
        match self.dice.roll(20) {
            0..9 => self.rows(),
            9..16 => self.totals(),
            16..18 => self.both(),
            _ => self.nested(),
        }
    }
}

/// What was compared.
#[derive(Debug, Default)]
pub(super) struct Compared {
    /// Queries in all.
    pub(super) queries: usize,
    /// Those that both refuse, since DataFusion does.
    pub(super) refused: usize,
    /// Those that returned rows.
    pub(super) with_rows: usize,
    /// Those that read tables of both remotes, and those that read tables of this database as well.
    pub(super) two_remotes: usize,
    pub(super) all_three: usize,
    /// Those of which a remote was asked for a join, or for an aggregate.
    pub(super) joined: usize,
    pub(super) grouped: usize,
}

/// Compares `queries` queries; another number, or another beginning, by GRIZZLY_QUERIES and GRIZZLY_SEED.
pub(super) async fn compare(shop: &Shop, queries: usize) -> Outcome<Compared> {
    let set = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let queries = set("GRIZZLY_QUERIES").and_then(|queries| usize::try_from(queries).ok()).unwrap_or(queries);
    let mut dice = Dice(set("GRIZZLY_SEED").unwrap_or(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut compared = Compared { queries, ..Compared::default() };
    for _ in 0..queries {
        let sql = Writer { dice: &mut dice, tables: Vec::new() }.query();
        let (spread, whole) = match shop.ask_both(&sql).await {
            (Ok(spread), Ok(whole)) => (spread, whole),
            (Err(_), Err(_)) => {
                compared.refused += 1;
                continue;
            }
            (spread, whole) => return Err(format!("{sql}\nspread: {spread:?}\nwhole: {whole:?}").into()),
        };
        let plan = shop.explain(&sql).await?;
        assert_eq!(spread, whole, "{sql}\n{plan}");
        let sent: Vec<&str> = plan.lines().filter(|line| line.contains("RemoteScanExec")).collect();
        let of = |url: &str| sent.iter().any(|line| line.contains(&format!("remote={url},")));
        let two = of(&shop.named) && of(&shop.b);
        compared.with_rows += usize::from(!whole.is_empty());
        compared.two_remotes += usize::from(two);
        compared.all_three += usize::from(two && plan.contains("GrizzlyScanExec"));
        compared.joined += usize::from(sent.iter().any(|line| line.contains(" JOIN ") || line.contains("EXISTS (")));
        compared.grouped += usize::from(sent.iter().any(|line| line.contains("GROUP BY") || line.contains("count(*)")));
    }
    Ok(compared)
}

impl Compared {
    /// Equal answers would be no news if nothing was read, sent or mixed.
    pub(super) fn is_telling(&self) -> bool {
        let share = |part: usize, percent: usize| part * 100 >= self.queries * percent;
        !share(self.refused, 3)
            && share(self.with_rows, 70)
            && share(self.two_remotes, 40)
            && share(self.all_three, 20)
            && share(self.joined, 8)
            && share(self.grouped, 3)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn random_queries_over_three_databases_equal_those_over_one() -> TestResult {
    let compared = compare(&Shop::open().await?, 200).await?;
    assert!(compared.is_telling(), "{compared:?}");
    Ok(())
}
