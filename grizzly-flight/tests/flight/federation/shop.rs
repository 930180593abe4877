//! One shop's tables in three databases, two of them served, and the same tables in one.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use arrow::{
    array::RecordBatch,
    util::display::{ArrayFormatter, FormatOptions},
};
use datafusion::{error::DataFusionError, execution::SessionStateBuilder};
use grizzly_flight::{FederationExt, federation, federation::Location};
use grizzly_optimizer::GrizzlyOptimizerExt;
use grizzly_provider::{
    Grizzly,
    adapter::{GrizzlySession, GrizzlySessionExt},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::support::Served;

pub(super) type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// Where each table is: in the served databases `a` and `b`, or here.
const PLACES: [(&str, &str); 5] = [
    ("customers", "a.public.customers"),
    ("orders", "a.public.orders"),
    ("items", "b.public.items"),
    ("regions", "regions"),
    ("payments", "payments"),
];

/// The shop spread over three databases.
pub(super) struct Shop {
    /// Address of the database with customers and orders, and the name under which it is shown.
    pub(super) a: String,
    pub(super) named: String,
    /// Address of the database with items.
    pub(super) b: String,
    /// Has both other databases attached.
    pub(super) spread: GrizzlySession,
    /// Has all tables itself.
    pub(super) whole: GrizzlySession,
    _served: Vec<Served>,
}

impl Shop {
    /// Customers and orders are in another Grizzly.
    pub(super) async fn open() -> Outcome<Self> {
        let a = Served::start().await?;
        let connection = a.connect().await?;
        let fill = async |statement: &str| {
            connection.update(statement).await?;
            Ok(())
        };
        let url = a.url.clone();
        Self::with(&url, fill, vec![a]).await
    }

    /// Customers and orders are in the database at `url`, where `fill` runs the statements that make them.
    pub(super) async fn with(
        url: &str,
        fill: impl AsyncFn(&str) -> Outcome<()>,
        mut served: Vec<Served>,
    ) -> Outcome<Self> {
        let b = Served::start().await?;
        let whole = GrizzlySession::new(&Grizzly::open("memory://")?);
        let spread = session(&Grizzly::open("memory://")?)?;
        let items = b.connect().await?;
        for (table, statements) in tables() {
            for statement in statements {
                whole.execute(&statement).await?;
                match table {
                    "customers" | "orders" => fill(&statement).await?,
                    "items" => drop(items.update(&statement).await?),
                    _ => drop(spread.execute(&statement).await?),
                }
            }
        }
        attach(&spread, "a", url).await?;
        attach(&spread, "b", &b.url).await?;
        let (named, b_url) = (Location::parse(url)?.url().to_owned(), b.url.clone());
        served.push(b);
        Ok(Self { a: url.to_owned(), named, b: b_url, spread, whole, _served: served })
    }

    /// Rows of a query over the tables, in no order, from the spread and from the whole shop.
    pub(super) async fn ask(&self, sql: &str) -> Outcome<(Vec<String>, Vec<String>)> {
        let (spread, whole) = self.ask_both(sql).await;
        Ok((spread?, whole?))
    }

    /// The same where either may fail.
    pub(super) async fn ask_both(&self, sql: &str) -> (Outcome<Vec<String>>, Outcome<Vec<String>>) {
        let spread = self.spread.execute(&spread_out(sql)).await;
        let whole = self.whole.execute(sql).await;
        (
            spread.map_err(Into::into).and_then(|spread| rows(&spread)),
            whole.map_err(Into::into).and_then(|whole| rows(&whole)),
        )
    }

    /// EXPLAIN of a query over the spread tables.
    pub(super) async fn explain(&self, sql: &str) -> Outcome<String> {
        let plan = self.spread.execute(&format!("EXPLAIN {}", spread_out(sql))).await?;
        Ok(rows(&plan)?.join("\n"))
    }
}

/// A session that federates.
pub(super) fn session(db: &Grizzly) -> Result<GrizzlySession, DataFusionError> {
    let builder = SessionStateBuilder::new().with_default_features().with_grizzly(db).with_grizzly_optimizer()?;
    Ok(GrizzlySession::with_state(builder.with_federation().build())?)
}

pub(super) async fn attach(session: &GrizzlySession, name: &str, url: &str) -> Outcome<()> {
    let catalog = Arc::new(federation::attach(url).await?);
    session.context().register_catalog(name, catalog);
    Ok(())
}

/// The tables' names where they are.
pub(super) fn spread_out(sql: &str) -> String {
    let places = BTreeMap::from(PLACES);
    let mut spread = String::new();
    let mut word = String::new();
    for c in sql.chars().chain([' ']) {
        if c.is_alphanumeric() || c == '_' {
            word.push(c);
            continue;
        }
        // A column's qualifier is the table's alias, which all queries give.
        let place = places.get(word.as_str()).filter(|_| c != '.');
        spread.push_str(place.copied().unwrap_or(&word));
        spread.push(c);
        word.clear();
    }
    spread.trim_end().to_owned()
}

/// All rows as texts, sorted.
pub(super) fn rows(batches: &[RecordBatch]) -> Outcome<Vec<String>> {
    let options = FormatOptions::new().with_null("NULL");
    let mut rows = Vec::new();
    for batch in batches {
        let columns = batch.columns().iter().map(|column| ArrayFormatter::try_new(column.as_ref(), &options));
        let columns = columns.collect::<Result<Vec<_>, _>>()?;
        rows.extend((0..batch.num_rows()).map(|row| {
            let cells: Vec<String> = columns.iter().map(|column| column.value(row).to_string()).collect();
            cells.join("|")
        }));
    }
    rows.sort();
    Ok(rows)
}

/// The statements that make and fill each table: with NULLs, quotes, letters of both cases, and odd floats.
fn tables() -> Vec<(&'static str, Vec<String>)> {
    let create = |table: &str, columns: &str| format!("CREATE TABLE {table} ({columns}, PRIMARY KEY (id))");
    let fill = |table: &str, rows: Vec<String>| format!("INSERT INTO {table} VALUES {}", rows.join(", "));
    let customers = (0..40).map(|id| {
        let name = ["'Ann'", "'ann'", "'O''Hara'", "NULL", "'Zoë'", "''", "'a_%'"][id % 7];
        let balance = if id % 9 == 0 { "NULL".to_owned() } else { format!("{}.{:02}", id as i64 * 37 - 500, id % 100) };
        let since = format!("DATE '20{:02}-0{}-15'", id % 26, id % 9 + 1);
        format!("({id}, {name}, {}, {balance}, {since}, {})", id % 5, ["true", "false", "NULL"][id % 3])
    });
    let orders = (0..150).map(|id| {
        let customer = if id % 11 == 0 { "NULL".to_owned() } else { (id * 7 % 45).to_string() };
        let placed = format!("TIMESTAMP '2026-0{}-{:02}T0{}:30:00.123'", id % 9 + 1, id % 28 + 1, id % 10);
        let note = ["'fast'", "NULL", "'Fast'", "'x''y'"][id % 4];
        let weight = ["1.5", "'NaN'", "'-0.0'", "0.0", "NULL", "2.25"][id % 6];
        let weight = if weight.starts_with('\'') { format!("CAST({weight} AS DOUBLE)") } else { weight.to_owned() };
        format!("({id}, {customer}, {}.{:02}, {placed}, {note}, {weight})", id * 13 % 97, id % 100)
    });
    let items = (0..300).map(|id| {
        let sku = ["'A-1'", "'a-1'", "'B-2'", "NULL"][id % 4];
        format!("({id}, {}, {sku}, {})", id * 5 % 160, id % 7)
    });
    let payments = (0..90).map(|id| format!("({id}, {}, {}.50)", id * 3 % 170, id % 40));
    let regions = ["(0, 'north')", "(1, 'south')", "(2, NULL)", "(3, 'East')", "(7, 'none')"].map(str::to_owned);
    let customer = "id BIGINT NOT NULL, name VARCHAR, region INT, balance DECIMAL(12,2), since DATE, active BOOLEAN";
    let order =
        "id BIGINT NOT NULL, customer BIGINT, total DECIMAL(12,2), placed TIMESTAMP, note VARCHAR, weight DOUBLE";
    let made = |table: &str, columns: &str, rows: Vec<String>| vec![create(table, columns), fill(table, rows)];
    vec![
        ("customers", made("customers", customer, customers.collect())),
        ("orders", made("orders", order, orders.collect())),
        ("items", made("items", "id BIGINT NOT NULL, order_id BIGINT, sku VARCHAR, qty INT", items.collect())),
        ("payments", made("payments", "id BIGINT NOT NULL, order_id BIGINT, amount DECIMAL(12,2)", payments.collect())),
        ("regions", made("regions", "id INT NOT NULL, name VARCHAR", regions.to_vec())),
    ]
}

/// Between a client and a server: counts what the server sends, can hold it back, and can be cut.
pub(super) struct Wire {
    pub(super) url: String,
    state: Arc<WireState>,
}

struct WireState {
    bytes: AtomicU64,
    stalled: AtomicBool,
    /// Connections end when the server has sent more than this.
    left: AtomicU64,
}

impl Wire {
    pub(super) async fn to(url: &str) -> Outcome<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let left = AtomicU64::new(u64::MAX);
        let state = Arc::new(WireState { bytes: AtomicU64::new(0), stalled: AtomicBool::new(false), left });
        let wire = Self { url: format!("grpc://{}", listener.local_addr()?), state: Arc::clone(&state) };
        let server = url.trim_start_matches("grpc://").to_owned();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if let Ok(server) = TcpStream::connect(&server).await {
                    tokio::spawn(pass_on(client, server, Arc::clone(&state)));
                }
            }
        });
        Ok(wire)
    }

    /// Bytes that came from the server since this was last asked.
    pub(super) fn received(&self) -> u64 {
        self.state.bytes.swap(0, Ordering::SeqCst)
    }

    /// From now on nothing comes from the server any more.
    pub(super) fn stall(&self) {
        self.state.stalled.store(true, Ordering::SeqCst);
    }

    /// Connections end when the server has sent so many more bytes.
    pub(super) fn cut_after(&self, bytes: u64) {
        self.state.left.store(bytes, Ordering::SeqCst);
    }
}

async fn pass_on(client: TcpStream, server: TcpStream, state: Arc<WireState>) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let there = tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_server).await });
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(length @ 1..) = from_server.read(&mut buffer).await {
        state.bytes.fetch_add(length as u64, Ordering::SeqCst);
        while state.stalled.load(Ordering::SeqCst) {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        let left = state.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(length as u64));
        if left.is_err() || to_client.write_all(&buffer[..length]).await.is_err() {
            break;
        }
    }
    there.abort();
}
