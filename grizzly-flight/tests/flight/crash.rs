//! A process that commits from eight threads is killed with SIGKILL at a random moment, again and again.
//!
//! What each client does is a function of its number and of how many transactions it made before, so after a
//! restart its rows must be exactly those of `k` or `k + 1` transactions, `k` being the last one acknowledged: less
//! means a lost commit, anything else half a transaction. Every transaction writes to two tables.

use std::{
    collections::BTreeMap,
    error::Error,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use arrow::{
    array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringArray},
    datatypes::{DataType, Field, Int64Type, Schema, SchemaRef},
};
use grizzly_provider::{
    CommitOutcome, Grizzly, Settings, Snapshot, Transaction,
    access::{IndexDefinition, ScanRequest, TableDefinition},
};

const CLIENTS: i64 = 8;
const ROUNDS: u32 = 50;
/// Names the database folder to the child; its presence makes the test act as the child.
const FOLDER: &str = "GRIZZLY_CRASH_FOLDER";
/// How many transactions each client made already.
const DONE: &str = "GRIZZLY_CRASH_DONE";

type Outcome<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

#[test]
fn a_killed_process_loses_nothing_it_acknowledged() -> Outcome {
    match std::env::var(FOLDER) {
        Ok(folder) => commit_until_killed(&folder, &std::env::var(DONE)?),
        Err(_) => kill_and_check(),
    }
}

/// What one client's transaction does. All of it happens in both tables.
#[derive(Debug, Clone, Copy)]
enum Step {
    Insert { id: i64, value: i64 },
    Update { id: i64, value: i64 },
    Delete { id: i64 },
}

impl Step {
    /// The transaction that `client` makes after `done` others: of every eight, five insert, two update and one
    /// deletes a row that one of the five inserted.
    fn of(client: i64, done: i64) -> Self {
        let id = |number: i64| client * 1_000_000_000 + number;
        match (done % 8, done / 8) {
            (3, group) => Self::Update { id: id(group * 8), value: -done },
            (6, group) => Self::Update { id: id(group * 8 + 1), value: done * 2 },
            (7, group) => Self::Delete { id: id(group * 8 + 2) },
            _ => Self::Insert { id: id(done), value: done },
        }
    }

    fn apply(self, rows: &mut BTreeMap<i64, i64>) {
        match self {
            Self::Insert { id, value } | Self::Update { id, value } => {
                rows.insert(id, value);
            }
            Self::Delete { id } => {
                rows.remove(&id);
            }
        }
    }

    fn write(self, transaction: &mut Transaction, client: i64) -> Outcome {
        for table in ["left", "right"] {
            match self {
                Self::Insert { id, value } => transaction.insert(table, row(client, id, value)?)?,
                Self::Update { id, value } => transaction.put(table, row(client, id, value)?)?,
                Self::Delete { id } => {
                    let key: ArrayRef = Arc::new(Int64Array::from(vec![id]));
                    let (row, _) = transaction.find(table, &[key])?.ok_or_else(|| format!("{table} lost row {id}"))?;
                    transaction.delete(table, &[row])?
                }
            };
        }
        Ok(())
    }
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("client", DataType::Int64, false),
        Field::new("value", DataType::Int64, true),
        Field::new("text", DataType::Utf8, true),
    ]))
}

fn row(client: i64, id: i64, value: i64) -> Outcome<RecordBatch> {
    let number = |value| Arc::new(Int64Array::from(vec![value])) as ArrayRef;
    let text = Arc::new(StringArray::from(vec![format!("row {id} holds {value}")]));
    Ok(RecordBatch::try_new(schema(), vec![number(id), number(client), number(value), text])?)
}

fn open(folder: &Path) -> Outcome<Grizzly> {
    let url = format!("file://{}", folder.display());
    // Small, so that segments are written, merged and dropped while clients commit.
    let settings = Settings { flush_rows: 300, memory_bytes: 64 << 20, ..Settings::default() };
    Ok(Grizzly::builder(&url).settings(settings).open()?)
}

fn create(folder: &Path) -> Outcome {
    let db = open(folder)?;
    for (name, shards) in [("left", 1), ("right", 4)] {
        let definition = TableDefinition {
            schema_name: "public".to_owned(),
            name: name.to_owned(),
            schema: schema(),
            primary_key: vec!["id".to_owned()],
            shards,
            shard_by: vec![],
            defaults: vec![],
            indexes: vec![],
        };
        db.create_table(definition, false)?;
        let columns = vec![("client".to_owned(), false), ("value".to_owned(), true)];
        db.create_index(name, IndexDefinition { name: format!("{name}_client"), columns, unique: false }, false)?;
    }
    db.close()?;
    Ok(())
}

/// The child: commits from eight threads, says so on its output, and never ends by itself.
fn commit_until_killed(folder: &str, done: &str) -> Outcome {
    let db = open(Path::new(folder))?;
    let done = done.split(',').map(str::parse).collect::<Result<Vec<i64>, _>>()?;
    thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .zip(done)
            .map(|(client, done)| {
                let db = db.clone();
                scope.spawn(move || run_client(&db, client, done))
            })
            .collect();
        for client in clients {
            let result = client.join().map_err(|_| "a client thread broke down")?;
            result.inspect_err(|error| say(&format!("failed {error}")))?;
        }
        Ok(())
    })
}

fn run_client(db: &Grizzly, client: i64, done: i64) -> Outcome {
    for number in done.. {
        let mut transaction = db.begin()?;
        Step::of(client, number).write(&mut transaction, client)?;
        match transaction.commit()? {
            CommitOutcome::Committed { .. } => say(&format!("ack {client} {}", number + 1)),
            CommitOutcome::Conflict(conflict) => {
                return Err(format!("client {client} met a conflict on its own rows: {conflict:?}").into());
            }
        }
    }
    Ok(())
}

/// One line in one write: a pipe keeps it whole, and keeps it after the writer's death.
fn say(line: &str) {
    let mut output = std::io::stdout().lock();
    let written = output.write_all(format!("{line}\n").as_bytes()).and_then(|()| output.flush());
    // Nobody listens any more: the parent has gone, and so should we.
    if written.is_err() {
        std::process::exit(1);
    }
}

/// The parent: starts the child, kills it, and checks what it left, round after round.
fn kill_and_check() -> Outcome {
    let place = tempfile::tempdir()?;
    let folder = place.path().join("db");
    create(&folder)?;
    let mut model: Vec<BTreeMap<i64, i64>> = vec![BTreeMap::new(); CLIENTS as usize];
    let mut done = vec![0_i64; CLIENTS as usize];
    let mut unacknowledged = 0;
    let mut delay = Delay::new()?;
    for round in 1..=ROUNDS {
        let acknowledged = run_child(&folder, &done, delay.next())?;
        let db = open(&folder).map_err(|error| format!("round {round}: {error}"))?;
        for (client, last) in acknowledged.into_iter().enumerate() {
            advance(&mut model[client], client as i64, &mut done[client], last);
        }
        unacknowledged += check(&db, &mut model, &mut done).map_err(|error| format!("round {round}: {error}"))?;
        let report = db.verify()?;
        if !report.problems.is_empty() {
            return Err(format!("round {round}: {}", report.problems.join("; ")).into());
        }
        db.close()?;
    }
    let total: i64 = done.iter().sum();
    println!("{ROUNDS} kills, {total} transactions, {unacknowledged} of them durable but not yet acknowledged");
    assert!(total > i64::from(ROUNDS) * CLIENTS, "too few transactions to mean anything: {total}");
    Ok(())
}

fn advance(rows: &mut BTreeMap<i64, i64>, client: i64, done: &mut i64, last: i64) {
    while *done < last {
        Step::of(client, *done).apply(rows);
        *done += 1;
    }
}

/// Starts the child, waits for its first commit and `delay` more, kills it, and returns each client's last
/// acknowledged transaction.
fn run_child(folder: &Path, done: &[i64], delay: Duration) -> Outcome<Vec<i64>> {
    let starts: Vec<_> = done.iter().map(i64::to_string).collect();
    let mut child = Command::new(std::env::current_exe()?)
        .args(["--exact", "crash::a_killed_process_loses_nothing_it_acknowledged", "--nocapture"])
        .env(FOLDER, folder)
        .env(DONE, starts.join(","))
        .stdout(Stdio::piped())
        .spawn()?;
    let result = listen(&mut child, done, delay);
    // Already dead in the good case.
    let _ = child.kill();
    child.wait()?;
    result
}

fn listen(child: &mut Child, done: &[i64], delay: Duration) -> Outcome<Vec<i64>> {
    let mut lines = BufReader::new(child.stdout.take().ok_or("the child has no output")?).lines();
    let mut acknowledged = done.to_vec();
    let mut deadline: Option<Instant> = None;
    while let Some(line) = lines.next().transpose()? {
        if let Some(failure) = line.strip_prefix("failed ") {
            return Err(format!("the child gave up: {failure}").into());
        }
        let Some((client, number)) = line.strip_prefix("ack ").and_then(|ack| ack.split_once(' ')) else { continue };
        acknowledged[client.parse::<usize>()?] = number.parse()?;
        // The pipe is read on to its end: what was acknowledged before the kill counts.
        let due = *deadline.get_or_insert_with(|| Instant::now() + delay);
        if Instant::now() >= due {
            child.kill()?;
        }
    }
    if deadline.is_none() {
        return Err("the child ended without a single commit".into());
    }
    Ok(acknowledged)
}

/// Compares both tables with the model. A client may be one transaction further than it was told; then the model
/// follows. Returns how many were.
fn check(db: &Grizzly, model: &mut [BTreeMap<i64, i64>], done: &mut [i64]) -> Outcome<usize> {
    let snapshot = db.snapshot();
    let left = read(&snapshot, "left")?;
    let right = read(&snapshot, "right")?;
    let mut further = 0;
    let found = left.iter().zip(&right);
    for (client, ((left, right), (model, done))) in found.zip(model.iter_mut().zip(done.iter_mut())).enumerate() {
        if left != right {
            return Err(format!("client {client}: half a transaction: {}", differences(left, right)).into());
        }
        if *left != *model {
            let next = *done + 1;
            advance(model, client as i64, done, next);
            further += 1;
        }
        if *left != *model {
            let differences = differences(model, left);
            return Err(format!("client {client} after {done} transactions: {differences}").into());
        }
    }
    Ok(further)
}

fn differences(expected: &BTreeMap<i64, i64>, found: &BTreeMap<i64, i64>) -> String {
    let lost = expected.iter().filter(|(id, value)| found.get(id) != Some(value));
    let extra = found.iter().filter(|(id, value)| expected.get(id) != Some(value));
    format!("expected {:?}, found {:?}", lost.take(5).collect::<Vec<_>>(), extra.take(5).collect::<Vec<_>>())
}

/// Every visible row's id and value, per client.
fn read(snapshot: &Snapshot, table: &str) -> Outcome<Vec<BTreeMap<i64, i64>>> {
    let mut rows = vec![BTreeMap::new(); CLIENTS as usize];
    let request = ScanRequest { projection: vec![0, 1, 2, 3], ..ScanRequest::default() };
    let scan = snapshot.table(table)?.scan(&request)?;
    for morsel in scan.morsels() {
        let Some(batch) = scan.read(morsel, None)? else { continue };
        let column = |number: usize| batch.column(number).as_primitive::<Int64Type>().values().to_vec();
        let texts = batch.column(3).as_string::<i32>();
        for (position, ((id, client), value)) in column(0).into_iter().zip(column(1)).zip(column(2)).enumerate() {
            if texts.value(position) != format!("row {id} holds {value}") {
                return Err(format!("{table} row {id} is torn: {} beside {value}", texts.value(position)).into());
            }
            if rows[client as usize].insert(id, value).is_some() {
                return Err(format!("{table} holds row {id} twice").into());
            }
        }
    }
    Ok(rows)
}

/// Random times until the kill.
struct Delay(u64);

impl Delay {
    fn new() -> Outcome<Self> {
        let seed = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos() as u64 | 1;
        println!("seed {seed}");
        Ok(Self(seed))
    }

    /// Up to a quarter of a second, half of them below 20 ms.
    fn next(&mut self) -> Duration {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        let micros = if self.0 & 1 == 0 { self.0 % 20_000 } else { self.0 % 250_000 };
        Duration::from_micros(micros)
    }
}
