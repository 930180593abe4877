//! A real PostgreSQL, with a folder and a port of its own, in the place of the other Grizzly. Where its programs are
//! not installed the tests say so and pass, as the README's commands need only cargo and a C compiler; `.ci/run` sets
//! `GRIZZLY_POSTGRES=required`, and there it is an error.

use std::{
    io::Write,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use grizzly_provider::{ErrorKind, Grizzly, adapter::grizzly_error};
use tokio_postgres::NoTls;

use super::{
    mixed,
    queries::{compare, mistakes},
    shop::{Outcome, Shop, Wire, attach, rows, session},
};
use crate::support::{TestResult, numbers};

/// A server that ends with its folder.
struct Postgres {
    server: Child,
    port: u16,
    _folder: tempfile::TempDir,
}

impl Postgres {
    fn start() -> Outcome<Option<Self>> {
        let Some(bin) = programs() else { return absent() };
        let folder = tempfile::tempdir()?;
        let data = folder.path().join("data");
        // It refuses to be run by root.
        let root = Command::new("id").arg("-u").output()?.stdout.starts_with(b"0\n");
        if root {
            let given = Command::new("chown").arg("postgres").arg(folder.path()).status()?;
            assert!(given.success(), "there is no user postgres: apt-get install postgresql");
        }
        let made =
            command(&bin, "initdb", root).args(["-A", "trust", "-U", "me", "-E", "UTF8", "-D"]).arg(&data).output()?;
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut server = command(&bin, "postgres", root);
        server.arg("-D").arg(&data).args(["-p", &port.to_string(), "-c", "listen_addresses=127.0.0.1"]);
        server.args(["-c", "unix_socket_directories=", "-c", "fsync=off"]).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Some(Self { server: server.spawn()?, port, _folder: folder }))
    }

    fn url(&self) -> String {
        format!("postgres://me@127.0.0.1:{}/postgres", self.port)
    }

    async fn connect(&self) -> Outcome<tokio_postgres::Client> {
        let started = Instant::now();
        loop {
            match tokio_postgres::connect(&self.url(), NoTls).await {
                Ok((client, connection)) => {
                    tokio::spawn(connection);
                    return Ok(client);
                }
                Err(error) if started.elapsed() > Duration::from_secs(20) => return Err(error.into()),
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }

    async fn shop(&self) -> Outcome<Shop> {
        let client = self.connect().await?;
        let fill =
            async |statement: &str| Ok(client.batch_execute(&statement.replace("DOUBLE", "DOUBLE PRECISION")).await?);
        Shop::with(&self.url(), fill, vec![]).await
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // Stopped, not killed: its own processes end with it.
        let _ = Command::new("kill").args(["-INT", &self.server.id().to_string()]).status();
        let _ = self.server.wait();
    }
}

fn command(bin: &Path, program: &str, root: bool) -> Command {
    let program = bin.join(program);
    if !root {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "--"]).arg(program).current_dir("/");
    command
}

/// Where Debian, or whoever set GRIZZLY_POSTGRES_BIN, keeps the server's programs.
fn programs() -> Option<PathBuf> {
    if let Some(set) = std::env::var_os("GRIZZLY_POSTGRES_BIN") {
        return Some(PathBuf::from(set));
    }
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?;
    versions.flatten().map(|version| version.path().join("bin")).find(|bin| bin.join("initdb").exists())
}

/// Says that a test was left out, past the harness, which keeps what passing tests print to itself.
fn absent() -> Outcome<Option<Postgres>> {
    let remedy = "apt-get install postgresql, or set GRIZZLY_POSTGRES_BIN to the folder of initdb";
    if std::env::var_os("GRIZZLY_POSTGRES").is_some_and(|value| value == "required") {
        return Err(format!("PostgreSQL is missing: {remedy}").into());
    }
    writeln!(std::io::stderr(), "left out, PostgreSQL is missing: {remedy}")?;
    Ok(None)
}

#[tokio::test(flavor = "multi_thread")]
async fn generated_queries_over_postgresql_equal_those_over_grizzly() -> TestResult {
    let Some(server) = Postgres::start()? else { return Ok(()) };
    let shop = server.shop().await?;
    let (joined, grouped) = compare(&shop, 120).await?;
    assert!(joined > 10 && grouped > 5, "joins sent: {joined}, groups sent: {grouped}");
    mistakes(&shop).await?;
    let plan = shop.explain("SELECT c.region, count(*) FROM customers c GROUP BY c.region").await?;
    assert!(plan.contains("CAST(count(*) AS BIGINT)") && plan.contains("postgres://127.0.0.1"), "{plan}");
    assert!(!plan.contains("me@"), "{plan}");
    Ok(())
}

/// Customers and orders in PostgreSQL, items in another Grizzly, payments and regions here.
#[tokio::test(flavor = "multi_thread")]
async fn random_queries_over_postgresql_another_grizzly_and_this_one_equal_those_over_one() -> TestResult {
    let Some(server) = Postgres::start()? else { return Ok(()) };
    let compared = mixed::compare(&server.shop().await?, 250).await?;
    assert!(compared.is_telling(), "{compared:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_aggregate_over_postgresql_moves_only_its_result() -> TestResult {
    let Some(server) = Postgres::start()? else { return Ok(()) };
    let client = server.connect().await?;
    client
        .batch_execute(
            "CREATE TABLE many (id BIGINT PRIMARY KEY, k BIGINT, t TEXT, d NUMERIC(12, 2)); INSERT INTO many SELECT n, n \
             % 4, 'row number ' || n, n / 100.0 FROM generate_series(1, 50000) n",
        )
        .await?;
    let here = session(&Grizzly::open("memory://")?)?;
    let wire = Wire::to(&format!("127.0.0.1:{}", server.port)).await?;
    attach(&here, "far", &format!("{}/postgres", wire.url.replace("grpc://", "postgres://me@"))).await?;
    here.execute("CREATE TABLE names (k BIGINT NOT NULL, name VARCHAR, PRIMARY KEY (k))").await?;
    here.execute("INSERT INTO names VALUES (1, 'one'), (2, 'two')").await?;
    wire.received();
    let all = here.execute("SELECT * FROM far.public.many").await?;
    assert_eq!(all.iter().map(arrow::array::RecordBatch::num_rows).sum::<usize>(), 50_000);
    let whole = wire.received();
    let cases = [
        ("SELECT k, count(*), sum(d) FROM far.public.many WHERE id > 10 GROUP BY k", 4),
        ("SELECT count(*) FROM far.public.many", 1),
        ("SELECT id, d FROM far.public.many ORDER BY d DESC, id LIMIT 5", 5),
        (
            "SELECT n.name, m.s FROM names n JOIN (SELECT k, sum(id) AS s FROM far.public.many GROUP BY k) m ON m.k = \
             n.k",
            2,
        ),
    ];
    for (sql, count) in cases {
        let result = here.execute(sql).await?;
        assert_eq!(result.iter().map(arrow::array::RecordBatch::num_rows).sum::<usize>(), count, "{sql}");
        let moved = wire.received();
        assert!(whole > 1_000_000 && moved < 5_000, "{sql}: {whole} bytes for the table, {moved} for this");
    }
    wire.cut_after(500_000);
    let cut = here.execute("SELECT * FROM far.public.many").await.err().ok_or("half a table is none")?;
    let inner = grizzly_error(&cut).ok_or_else(|| cut.to_string())?;
    assert!(inner.kind() == ErrorKind::Unavailable && inner.message().contains("postgres://127.0.0.1"), "{inner:?}");
    wire.cut_after(u64::MAX);
    assert_eq!(numbers(&here.execute("SELECT count(*) FROM far.public.many").await?), [50_000]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn postgresql_that_is_away_slow_or_changed_is_named() -> TestResult {
    let Some(server) = Postgres::start()? else { return Ok(()) };
    let client = server.connect().await?;
    client
        .batch_execute(
            "CREATE TABLE t (id BIGINT PRIMARY KEY, n NUMERIC(10, 2)); INSERT INTO t VALUES (1, -0.05), (2, NULL)",
        )
        .await?;
    client.batch_execute("CREATE VIEW slow AS SELECT id FROM t, pg_sleep(30)").await?;
    client.batch_execute("CREATE TABLE odd (id BIGINT, place POINT)").await?;
    let here = session(&Grizzly::open("memory://")?)?;
    let create = |name: &str, options: &str| {
        format!("CREATE EXTERNAL TABLE {name} STORED AS POSTGRES LOCATION '{}' {options}", server.url())
    };
    here.execute(&create("t", "")).await?;
    assert_eq!(rows(&here.execute("SELECT id, n FROM t").await?)?, ["1|-0.05", "2|NULL"]);
    here.execute(&create("slow", "OPTIONS ('postgres.timeout' '500ms')")).await?;
    let cases = [
        ("SELECT id FROM slow", vec![ErrorKind::Unavailable, ErrorKind::Cancelled]),
        ("INSERT INTO t VALUES (3, 1)", vec![ErrorKind::Unsupported]),
        ("DELETE FROM t WHERE id = 1", vec![ErrorKind::Unsupported]),
    ];
    let named = format!("postgres://127.0.0.1:{}", server.port);
    for (sql, kinds) in cases {
        let started = Instant::now();
        let error = here.execute(sql).await.err().ok_or(sql)?;
        let inner = grizzly_error(&error).ok_or_else(|| error.to_string())?;
        assert!(kinds.contains(&inner.kind()) && inner.message().contains(&named), "{sql}: {inner:?}");
        assert!(started.elapsed() < Duration::from_secs(5), "{sql}");
    }
    let odd = here.execute(&create("odd", "")).await.err().ok_or("a type without counterpart")?;
    assert!(odd.to_string().contains("column place"), "{odd}");
    client.batch_execute("ALTER TABLE t ALTER n TYPE TEXT").await?;
    let changed = here.execute("SELECT n FROM t").await.err().ok_or("another type")?;
    assert!(changed.to_string().contains("columns have changed") && changed.to_string().contains(&named), "{changed}");
    assert_eq!(numbers(&here.execute("SELECT count(*) FROM t").await?), [2]);
    drop(client);
    drop(server);
    let away = here.execute("SELECT id FROM t").await.err().ok_or("nobody is there")?;
    let inner = grizzly_error(&away).ok_or_else(|| away.to_string())?;
    assert!(matches!(inner.kind(), ErrorKind::Unavailable | ErrorKind::Closed), "{inner:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_in_postgresql_that_casts_is_readable() -> TestResult {
    let Some(server) = Postgres::start()? else { return Ok(()) };
    let client = server.connect().await?;
    let here = session(&Grizzly::open("memory://")?)?;
    attach(&here, "pg", &server.url()).await?;
    let uuid = "9f0c2d3e-0000-4000-8000-000000000001";
    for (column, value, cast, read) in [
        ("uuid", uuid, "text", uuid),
        ("json", "{\"a\": 1}", "text", "{\"a\": 1}"),
        ("char(4)", "ab", "text", "ab"),
        ("numeric", "1.5", "numeric(12, 2)", "1.50"),
        ("point", "(1,2)", "text", "(1,2)"),
    ] {
        client
            .batch_execute(&format!(
                "CREATE TABLE odd (id BIGINT, x {column}); INSERT INTO odd VALUES (1, '{value}'), (2, NULL); CREATE \
                 VIEW readable AS SELECT id, x::{cast} AS x FROM odd"
            ))
            .await?;
        let odd = here.execute("SELECT id FROM pg.public.odd").await.err().ok_or(column)?;
        let inner = grizzly_error(&odd).ok_or_else(|| odd.to_string())?;
        assert_eq!(inner.kind(), ErrorKind::Unsupported, "{column}: {inner}");
        assert!(inner.message().contains("column x") && inner.message().contains("view"), "{column}: {inner}");
        let found = rows(&here.execute("SELECT id, x FROM pg.public.readable").await?)?;
        assert_eq!(found, [format!("1|{read}"), "2|NULL".to_owned()], "{column}");
        let chosen = format!("SELECT id FROM pg.public.readable WHERE x = '{read}'");
        assert_eq!(numbers(&here.execute(&chosen).await?), [1], "{column}");
        client.batch_execute("DROP VIEW readable; DROP TABLE odd").await?;
    }
    Ok(())
}
