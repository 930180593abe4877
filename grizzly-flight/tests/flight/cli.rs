//! The command as people run it.

use std::{
    io::{BufRead, BufReader},
    process::{Command, Output, Stdio},
};

use crate::support::TestResult;

fn grizzly(args: &[&str]) -> std::io::Result<Output> {
    Command::new(env!("CARGO_BIN_EXE_grizzly")).args(args).stdin(Stdio::null()).output()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn sql_import_and_verify_work_on_a_folder() -> TestResult {
    let folder = tempfile::tempdir()?;
    let db = folder.path().join("db").to_string_lossy().into_owned();
    let csv = folder.path().join("people.csv");
    std::fs::write(&csv, "id,name\n1,Ann\n2,\"Bo; or not\"\n3,Cy\n")?;
    let csv = csv.to_string_lossy().into_owned();
    let imported = grizzly(&["import", "--db", &db, "people", &csv, "--primary-key", "id", "--shards", "2"])?;
    assert!(imported.status.success(), "{}", text(&imported.stderr));
    assert!(text(&imported.stdout).starts_with("3 rows into people"), "{}", text(&imported.stdout));
    let script = "INSERT INTO people VALUES (4, 'Di;'); SELECT count(*) AS n, max(name) AS last FROM people";
    let run = grizzly(&["sql", "--db", &db, "-c", script])?;
    assert!(run.status.success(), "{}", text(&run.stderr));
    assert!(text(&run.stdout).contains("| 4 | Di;"), "{}", text(&run.stdout));
    let again = grizzly(&["import", "--db", &db, "people", &csv])?;
    assert!(!again.status.success());
    assert!(text(&again.stderr).contains("23505"), "{}", text(&again.stderr));
    let verified = grizzly(&["verify", "--db", &db])?;
    assert!(verified.status.success(), "{}", text(&verified.stdout));
    assert!(text(&verified.stdout).contains("no problems"));
    let missing = grizzly(&["verify", "--db", &folder.path().join("nosuch").to_string_lossy()])?;
    assert!(!missing.status.success());
    Ok(())
}

#[test]
fn import_takes_parquet_and_json_lines() -> TestResult {
    let folder = tempfile::tempdir()?;
    let path = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let (db, parquet, json, unnamed) = (path("db"), path("people.parquet"), path("people.jsonl"), path("more.txt"));
    let run = |args: &[&str]| -> Result<String, Box<dyn std::error::Error>> {
        let run = grizzly(args)?;
        match run.status.success() {
            true => Ok(text(&run.stdout)),
            false => Err(text(&run.stderr).into()),
        }
    };
    let people = "(1, 'Ann', 1.50, TIMESTAMP '2024-02-29 12:00:00'), (2, NULL, NULL, NULL)";
    let columns = "id, name, CAST(balance AS DECIMAL(12, 2)) AS balance, since";
    let copy = format!(
        "COPY (SELECT {columns} FROM (VALUES {people}) AS p (id, name, balance, since)) TO '{parquet}' STORED AS PARQUET"
    );
    run(&["sql", "-c", &copy])?;
    assert_eq!(&std::fs::read(&parquet)?[..4], b"PAR1");
    let imported = run(&["import", "--db", &db, "people", &parquet, "--primary-key", "id"])?;
    assert!(imported.starts_with("2 rows into people"), "{imported}");
    // Columns go by their names, and those that a file lacks are NULL.
    std::fs::write(
        &json,
        "{\"name\": \"Bo; \\\"or\\\" not\", \"id\": 3}\n{\"id\": 4, \"balance\": 7.5, \"name\": \"Zoë\"}\n",
    )?;
    let imported = run(&["import", "--db", &db, "people", &json])?;
    assert!(imported.starts_with("2 rows into people"), "{imported}");
    // Where the name does not say what a file is.
    std::fs::write(&unnamed, "{\"id\": 5}\n")?;
    assert!(run(&["import", "--db", &db, "people", &unnamed]).is_err());
    run(&["import", "--db", &db, "people", &unnamed, "--format", "json"])?;
    let line = "CAST(id AS VARCHAR) || '|' || coalesce(name, '-') || '|' || coalesce(CAST(balance AS VARCHAR), '-') \
                || '|' || coalesce(CAST(since AS VARCHAR), '-')";
    let found = run(&["sql", "--db", &db, "-c", &format!("SELECT {line} AS line FROM people ORDER BY id")])?;
    for line in ["1|Ann|1.50|2024-02-29T12:00:00", "2|-|-|-", "3|Bo; \"or\" not|-|-", "4|Zoë|7.50|-", "5|-|-|-"] {
        assert!(found.contains(line), "{line} in {found}");
    }
    // All rows or none.
    std::fs::write(&json, "{\"id\": 6}\n{\"id\": 1}\n")?;
    let refused = run(&["import", "--db", &db, "people", &json]).err().ok_or("there is a 1")?;
    assert!(refused.to_string().contains("23505"), "{refused}");
    assert!(run(&["sql", "--db", &db, "-c", "SELECT max(id) AS n FROM people"])?.contains("| 5 |"));
    assert!(run(&["verify", "--db", &db])?.contains("no problems"));
    Ok(())
}

#[test]
fn the_environment_gives_the_key() -> TestResult {
    let folder = tempfile::tempdir()?;
    let path = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let (db, file) = (path("db"), path("key"));
    std::fs::write(&file, "5a".repeat(32))?;
    let run = |key: Option<&str>, args: &[&str]| -> std::io::Result<Output> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_grizzly"));
        command.args(args).stdin(Stdio::null()).env_remove("GRIZZLY_KEY").envs(key.map(|key| ("GRIZZLY_KEY", key)));
        command.output()
    };
    let (hexadecimal, base64) = ("5a".repeat(32), "WlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlo=");
    let fill = "CREATE TABLE t (id BIGINT PRIMARY KEY); INSERT INTO t VALUES (1), (2)";
    let filled = run(Some(&hexadecimal), &["sql", "--db", &db, "-c", fill])?;
    assert!(filled.status.success(), "{}", text(&filled.stderr));
    let count: &[&str] = &["sql", "--db", &db, "-c", "SELECT count(*) AS n FROM t"];
    let by_file = [count, ["--key-file", file.as_str()].as_slice()].concat();
    let other = "00".repeat(32);
    // A file that is named comes first.
    for (key, args) in [
        (Some(hexadecimal.as_str()), count),
        (Some(base64), count),
        (None, by_file.as_slice()),
        (Some(other.as_str()), by_file.as_slice()),
    ] {
        let asked = run(key, args)?;
        assert!(text(&asked.stdout).contains("| 2 |"), "{key:?}: {}", text(&asked.stderr));
    }
    for (key, said) in [
        (None, "a key is needed"),
        (Some(""), "a key is needed"),
        (Some(other.as_str()), "another key"),
        (Some("5a5a"), "GRIZZLY_KEY"),
    ] {
        let refused = run(key, count)?;
        assert!(!refused.status.success(), "{key:?}: {}", text(&refused.stdout));
        assert!(text(&refused.stderr).contains(said), "{key:?}: {}", text(&refused.stderr));
    }
    let checked = run(Some(&hexadecimal), &["verify", "--db", &db])?;
    assert!(text(&checked.stdout).contains("no problems"), "{}", text(&checked.stderr));
    Ok(())
}

#[test]
fn backups_are_taken_listed_checked_and_restored() -> TestResult {
    let folder = tempfile::tempdir()?;
    let path = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let (db, backups, key) = (path("db"), path("backups"), path("key"));
    std::fs::write(&key, "5a".repeat(32))?;
    let run = |args: &[&str]| -> Result<String, Box<dyn std::error::Error>> {
        let run = grizzly(&[args, ["--key-file", key.as_str()].as_slice()].concat())?;
        match run.status.success() {
            true => Ok(text(&run.stdout)),
            false => Err(text(&run.stderr).into()),
        }
    };
    run(&["sql", "--db", &db, "-c", "CREATE TABLE t (id BIGINT PRIMARY KEY); INSERT INTO t VALUES (1), (2)"])?;
    let full = run(&["backup", "create", "--db", &db, "--to", &backups])?;
    assert!(full.starts_with("backup 000001: "), "{full}");
    let csn = full.split("up to commit ").nth(1).and_then(|rest| rest.split(',').next()).ok_or("no commit")?;
    run(&["sql", "--db", &db, "-c", "DELETE FROM t"])?;
    run(&["backup", "create", "--db", &db, "--to", &backups, "--incremental"])?;
    let listed = run(&["backup", "list", "--from", &backups])?;
    assert!(listed.contains("000002  000001"), "{listed}");
    assert!(run(&["backup", "verify", "--from", &backups])?.contains("no problems"));
    let (before, after) = (path("before"), path("after"));
    run(&["restore", "--from", &backups, "--into", &before, "--to-csn", csn])?;
    run(&["restore", "--from", &backups, "--into", &after])?;
    let count = "SELECT count(*) AS n FROM t";
    assert!(run(&["sql", "--db", &before, "-c", count])?.contains("| 2 |"));
    assert!(run(&["sql", "--db", &after, "-c", count])?.contains("| 0 |"));
    assert!(run(&["restore", "--from", &backups, "--into", &after]).is_err(), "it is not empty");
    assert!(run(&["backup", "release", "--db", &db])?.contains("for 1 chains"));
    assert!(run(&["verify", "--db", &before])?.contains("no problems"));
    let without = grizzly(&["verify", "--db", &db])?;
    assert!(text(&without.stderr).contains("a key is needed"), "{}", text(&without.stderr));
    Ok(())
}

#[test]
fn errors_end_a_script_with_their_sqlstate() -> TestResult {
    let run = grizzly(&["sql", "-c", "SELECT 1; SELEC 2; SELECT 3"])?;
    assert!(!run.status.success());
    assert!(text(&run.stderr).contains("error [42"), "{}", text(&run.stderr));
    assert!(!text(&run.stdout).contains("| 3"), "{}", text(&run.stdout));
    Ok(())
}

#[cfg(unix)]
#[test]
fn serve_says_where_and_stops_when_told() -> TestResult {
    let folder = tempfile::tempdir()?;
    let db = folder.path().to_string_lossy().into_owned();
    let mut server = Command::new(env!("CARGO_BIN_EXE_grizzly"))
        .args(["serve", "--db", &db])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let stdout = server.stdout.take().ok_or("no output")?;
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line)?;
    let url = line.trim().strip_prefix("listening on ").ok_or("it must say where it listens")?;
    assert!(url.starts_with("grpc://127.0.0.1:"), "{line}");
    let script = "CREATE TABLE t (id BIGINT NOT NULL, PRIMARY KEY (id)); BEGIN; INSERT INTO t VALUES (1), (2); \
                  COMMIT; SELECT count(*) AS n FROM t";
    let run = grizzly(&["sql", "--connect", url, "-c", script])?;
    let stopped = Command::new("kill").args(["-TERM", &server.id().to_string()]).status()?;
    assert!(stopped.success());
    let status = server.wait()?;
    assert!(run.status.success(), "{}", text(&run.stderr));
    assert!(text(&run.stdout).contains("| 2 |"), "{}", text(&run.stdout));
    assert!(status.success(), "it ends in good order: {status}");
    let kept = grizzly(&["sql", "--db", &db, "-c", "SELECT count(*) AS n FROM t"])?;
    assert!(text(&kept.stdout).contains("| 2 |"), "{}", text(&kept.stdout));
    Ok(())
}

#[test]
fn a_served_database_keeps_results_unless_told_not_to() -> TestResult {
    let fill = "CREATE TABLE t (id BIGINT); INSERT INTO t SELECT value FROM generate_series(1, 50000)";
    let ask = "SELECT sum(id) AS total FROM t";
    let totals = "SELECT 'hits: ' || hits AS h FROM grizzly.cache_totals";
    let serving = Serving::start(&["--db", "memory://"])?;
    let run = |sql: &str| grizzly(&["sql", "--connect", &serving.url, "-c", sql]);
    assert!(run(fill)?.status.success());
    for _session in 0..3 {
        assert!(text(&run(ask)?.stdout).contains("1250025000"));
    }
    assert!(text(&run(totals)?.stdout).contains("hits: 2"), "{}", text(&run(totals)?.stdout));
    assert!(run("DELETE FROM t WHERE id = 1")?.status.success());
    assert!(text(&run(ask)?.stdout).contains("1250024999"));

    let serving = Serving::start(&["--db", "memory://", "--result-cache", "0"])?;
    let refused = grizzly(&["sql", "--connect", &serving.url, "-c", totals])?;
    assert!(!refused.status.success(), "{}", text(&refused.stdout));
    Ok(())
}

/// `grizzly serve` with these arguments, and the address it says; it ends when dropped.
struct Serving {
    process: std::process::Child,
    url: String,
}

impl Serving {
    fn start(args: &[&str]) -> Result<Self, Box<dyn std::error::Error>> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_grizzly"));
        let mut process = command.arg("serve").args(args).stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        BufReader::new(process.stdout.take().ok_or("no output")?).read_line(&mut line)?;
        let url = line.trim().strip_prefix("listening on ").unwrap_or_default().to_owned();
        Ok(Self { process, url })
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn a_served_database_is_backed_up_and_old_backups_are_pruned() -> TestResult {
    let folder = tempfile::tempdir()?;
    let path = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let (db, backups, copy) = (path("db"), path("backups"), path("copy"));
    let run = |args: &[&str]| -> Result<String, Box<dyn std::error::Error>> {
        let run = grizzly(args)?;
        match run.status.success() {
            true => Ok(text(&run.stdout)),
            false => Err(text(&run.stderr).into()),
        }
    };
    let server = Serving::start(&["--db", &db, "--token", "secret"])?;
    let create = |more: &[&str]| {
        let args = ["backup", "create", "--connect", &server.url, "--token", "secret"];
        run(&[&args, more].concat())
    };
    let sql = |text: &str| run(&["sql", "--connect", &server.url, "--token", "secret", "-c", text]);
    sql("CREATE TABLE t (id BIGINT PRIMARY KEY); INSERT INTO t VALUES (1), (2)")?;
    let taken = create(&["--to", &backups])?;
    assert!(taken.starts_with("backup 000001: ") && taken.contains("up to commit "), "{taken}");
    sql("INSERT INTO t VALUES (3)")?;
    create(&["--to", &backups, "--incremental"])?;
    create(&["--to", &backups])?;
    sql("INSERT INTO t VALUES (4)")?;
    assert!(create(&["--to", &backups, "--incremental"])?.starts_with("backup 000004: "));
    let relative = create(&["--to", "backups"]).err().ok_or("relative to what?")?;
    assert!(relative.to_string().contains("relative"), "{relative}");
    let refused = create(&["--to", &db]).err().ok_or("that is no place for backups")?;
    assert!(refused.to_string().contains("[42"), "{refused}");
    let none = run(&["backup", "create", "--to", &backups]).err().ok_or("of which database?")?;
    assert!(none.to_string().contains("--db"), "{none}");

    let prune = |more: &[&str]| run(&[&["backup", "prune", "--from", &backups], more].concat());
    assert!(prune(&["--keep", "2"])?.contains("0 backups removed"));
    assert!(prune(&["--keep", "0"]).is_err());
    let planned = prune(&["--keep", "1", "--dry-run"])?;
    assert!(planned.contains("000002  000001") && planned.contains("2 backups would be removed"), "{planned}");
    assert!(run(&["backup", "list", "--from", &backups])?.contains("000001"));
    assert!(prune(&["--keep", "1"])?.contains("2 backups removed"));
    let listed = run(&["backup", "list", "--from", &backups])?;
    assert!(!listed.contains("000001") && listed.contains("000004  000003"), "{listed}");
    assert!(run(&["backup", "verify", "--from", &backups])?.contains("no problems"));
    run(&["restore", "--from", &backups, "--into", &copy])?;
    assert!(run(&["sql", "--db", &copy, "-c", "SELECT count(*) AS n FROM t"])?.contains("| 4 |"));
    Ok(())
}

#[test]
fn attached_servers_are_catalogs_of_every_session() -> TestResult {
    let far = Serving::start(&["--db", "memory://"])?;
    let fill = "CREATE TABLE t (id BIGINT NOT NULL, PRIMARY KEY (id)); INSERT INTO t VALUES (1), (2), (4)";
    assert!(grizzly(&["sql", "--connect", &far.url, "-c", fill])?.status.success());
    let attach = format!("far={}", far.url);
    let asked = grizzly(&["sql", "--attach", &attach, "-c", "SELECT sum(id) AS total FROM far.public.t"])?;
    assert!(asked.status.success() && text(&asked.stdout).contains("| 7 "), "{}", text(&asked.stderr));

    let near = Serving::start(&["--db", "memory://", "--attach", &attach])?;
    for _session in 0..2 {
        let asked = grizzly(&["sql", "--connect", &near.url, "-c", "SELECT count(*) AS n FROM far.public.t"])?;
        assert!(text(&asked.stdout).contains("| 3 "), "{}", text(&asked.stderr));
    }
    for (attach, said) in
        [("far=grpc://127.0.0.1:1", "127.0.0.1:1"), ("grizzly=grpc://h:1", "grizzly"), ("x", "NAME=URL")]
    {
        let refused = grizzly(&["sql", "--attach", attach, "-c", "SELECT 1"])?;
        assert!(!refused.status.success() && text(&refused.stderr).contains(said), "{}", text(&refused.stderr));
    }
    Ok(())
}
