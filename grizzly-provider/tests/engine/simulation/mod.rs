//! The engine in a simulated world: one seed decides who runs when, how storage behaves, and when what is killed; a ledger
//! knows what must be there. CONTRIBUTING.md says how to run it for long and how to replay a seed.

mod append;
mod disk;
mod faults;
mod ledger;
mod sessions;
mod store;
mod tampering;

use std::{
    collections::BTreeSet,
    env, fs,
    process::Command,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant, SystemTime},
};

use grizzly_provider::{
    Backups, ClusterSettings, EncryptionKey, Grizzly, RestoreTo, Result, Settings, Storage, access::Csn,
};
use grizzly_wal::world::{Group, JoinHandle, Simulation, Trace, sleep};

use self::{
    disk::{Disk, Fault, Kind, Mount, Weather},
    ledger::Shared,
    sessions::Load,
};

/// The seeds that a process of its own simulates: the first, and how many.
const SEEDS: &str = "GRIZZLY_SIMULATED_SEEDS";
/// For how many seconds to go on with new seeds.
const SECONDS: &str = "GRIZZLY_SIMULATE_SECONDS";
/// Whether what happens is printed.
const TOLD: &str = "GRIZZLY_SIMULATION_TOLD";
/// So many seeds are simulated by one process.
const BATCH: u64 = 20;

/// How a process ends.
#[derive(Debug, Clone, Copy)]
enum End {
    Closed,
    Killed,
    /// Killed while it sends an object, if it does so soon.
    KilledSending,
    PowerFailure,
}

/// Prints what happens, if somebody wants to know.
fn told(simulation: &Simulation, what: impl FnOnce() -> String) {
    static WANTED: LazyLock<bool> = LazyLock::new(|| env::var_os(TOLD).is_some());
    if *WANTED {
        println!("{:?} {}", simulation.elapsed(), what());
    }
}

fn settings() -> Settings {
    Settings { memory_bytes: 64 << 20, flush_rows: 200, ..Settings::default() }
}

/// A database's life: processes that open it one after the other, in weather that changes.
fn life(simulation: &Simulation, ledger: &Shared) {
    let kind = [Kind::Folder, Kind::Folder, Kind::Bucket, Kind::Store][simulation.roll(4) as usize];
    let mut disk = Disk::new(simulation, kind);
    disk.encrypted = simulation.roll(3) == 0;
    let backups = Disk::new(simulation, Kind::Folder);
    let mut used = in_calm(simulation, &disk, ledger, sessions::prepare);
    for _ in 0..1 + simulation.roll(4) {
        processes(simulation, &disk, &backups, ledger);
        used = in_calm(simulation, &disk, ledger, |_| Ok(()));
        report(ledger);
    }
    let copy = disk.copy();
    if copy.hurry() {
        // What those have sent who are gone must do no harm, however late it arrives.
        in_calm(simulation, &copy, ledger, |_| Ok(()));
    } else {
        tampering::is_noticed(simulation, &copy, &used, ledger);
    }
    report(ledger);
    restored(simulation, &backups, ledger);
    report(ledger);
}

/// Restores the newest backup, and compares what comes of it with the ledger; a restore that is killed leaves nothing that
/// can be taken for a database.
fn restored(simulation: &Simulation, backups: &Disk, ledger: &Shared) {
    let from: Arc<dyn Storage> = Arc::new(backups.mount(Weather::default()));
    let from = Backups::new(from);
    let newest = match from.list() {
        Ok(list) => list.into_iter().next_back(),
        Err(error) => return ledger.lock().problems.push(format!("listing backups: {error}")),
    };
    let Some(newest) = newest else { return };
    let to = match simulation.roll(2) {
        0 => newest.csn,
        _ => Csn(newest.from.0 + simulation.roll(newest.csn.0 - newest.from.0 + 1)),
    };
    // How many calls of storage a whole one makes.
    let mut calls = 0;
    for killed in [false, true, true] {
        let disk = Disk::new(simulation, Kind::Folder);
        let mount = disk.mount(Weather::default());
        if killed {
            mount.set_fault(simulation.roll(calls) as usize, Fault::Killed);
        }
        let restoring = simulation.group().spawn("restore", {
            let (from, mount, ledger) = (from.clone(), mount.clone(), Arc::clone(ledger));
            move || {
                let into: Arc<dyn Storage> = Arc::new(mount.clone());
                let done = from.restore_into(&into, RestoreTo::Csn(to), &mut |_, _| {});
                if let Err(error) = done
                    && !mount.is_dead()
                {
                    ledger.lock().problems.push(format!("restoring as of {to}: {error}"));
                }
            }
        });
        drop(restoring.join());
        calls = calls.max(mount.calls().len() as u64);
        let whole = Settings { create: false, background: false, ..settings() };
        let opening = simulation.group().spawn("restored", {
            let (mount, ledger) = (disk.mount(Weather::default()), Arc::clone(ledger));
            move || match open(&mount, whole) {
                Ok(db) => {
                    ledger::check_as_of(&db.snapshot(), &ledger, to, "restored as of");
                    drop(db.close());
                }
                // Refused since the restore was not whole.
                Err(_) if killed => {}
                Err(error) => ledger.lock().problems.push(format!("a restored database does not open: {error}")),
            }
        });
        drop(opening.join());
    }
}

fn report(ledger: &Shared) {
    let ledger = ledger.lock();
    assert!(ledger.problems.is_empty(), "after {} commits: {:#?}", ledger.count(), ledger.problems);
}

/// Opens the database with nothing going on around it, and compares it with the ledger; returns the objects that are in use.
fn in_calm(
    simulation: &Simulation,
    disk: &Disk,
    ledger: &Shared,
    prepare: impl FnOnce(&Grizzly) -> Result<()> + Send + 'static,
) -> BTreeSet<String> {
    let (mount, ledger) = (disk.mount(Weather::default()), Arc::clone(ledger));
    let mounted = mount.clone();
    let checking = simulation.group().spawn("check", move || {
        let opened = open(&mount, Settings { background: false, ..settings() });
        match opened.and_then(|db| prepare(&db).map(|()| db)) {
            Ok(db) => {
                // Replaying a log may read files that are not used any more.
                drop(mount.take_read());
                ledger::check(&db, &ledger);
                if let Err(error) = db.close() {
                    ledger.lock().problems.push(format!("in calm, close: {error}"));
                }
            }
            Err(error) => ledger.lock().problems.push(format!("in calm, the database does not open: {error}")),
        }
    });
    drop(checking.join());
    mounted.take_read()
}

fn open(mount: &Mount, settings: Settings) -> Result<Grizzly> {
    let builder = Grizzly::builder("simulated://").settings(settings).storage(Arc::new(mount.clone()));
    let builder = if mount.disk.encrypted { builder.key(EncryptionKey::new([7; 32])) } else { builder };
    builder.open()
}

/// A process that opens the database and works.
struct Process {
    mount: Mount,
    group: Group,
    working: JoinHandle,
    end: End,
}

/// Starts a process; with a `node` it is one of a cluster.
fn start(simulation: &Simulation, (disk, backups): (&Disk, &Disk), ledger: &Shared, node: Option<i64>) -> Process {
    let (mount, group) = (disk.mount(weather(simulation)), simulation.group());
    let load = Load {
        first: 10 * node.unwrap_or(0),
        writers: 1 + simulation.roll(4) as i64,
        transactions: 20 + simulation.roll(200),
        is_alone: node.is_none(),
    };
    let cluster = node.map(|node| ClusterSettings {
        node: format!("node {node}"),
        lease: Duration::from_millis(300),
        grace: Duration::from_secs(2),
        ..ClusterSettings::default()
    });
    let working = group.spawn("process", {
        let (simulation, mount, ledger) = (simulation.clone(), mount.clone(), Arc::clone(ledger));
        let backups: Arc<dyn Storage> = Arc::new(backups.mount(Weather::default()));
        move || {
            for _ in 0..20 {
                if mount.is_dead() {
                    return;
                }
                match open(&mount, Settings { cluster: cluster.clone(), ..settings() }) {
                    Ok(db) => {
                        sessions::run(&simulation, &db, &ledger, load, &backups);
                        if let Err(error) = db.close() {
                            ledger.lock().told(&error);
                        }
                        return;
                    }
                    Err(_) => sleep(Duration::from_millis(100)),
                }
            }
        }
    });
    let end = [End::Closed, End::Killed, End::KilledSending, End::PowerFailure][simulation.roll(4) as usize];
    Process { mount, group, working, end }
}

/// A process, or those of a cluster, from their start to their end.
fn processes(simulation: &Simulation, disk: &Disk, backups: &Disk, ledger: &Shared) {
    let nodes = if simulation.roll(3) == 0 { 2 + simulation.roll(2) as i64 } else { 0 };
    let mut running = Vec::new();
    match nodes {
        0 => {
            running.push(start(simulation, (disk, backups), ledger, None));
            ledger.lock().alone = Some(running[0].mount.clone());
        }
        nodes => running.extend((0..nodes).map(|node| start(simulation, (disk, backups), ledger, Some(node)))),
    }
    for _ in 0..simulation.roll(3) + nodes as u64 {
        sleep(Duration::from_micros(simulation.roll(400_000)));
        let process = &running[simulation.roll(running.len() as u64) as usize];
        let event = simulation.roll(6);
        told(simulation, || format!("event {event} for {:?}", process.mount));
        match event {
            0 => {
                disk.set_full(true);
                sleep(Duration::from_micros(simulation.roll(2_000_000)));
                disk.set_full(false);
            }
            1 => {
                process.group.freeze();
                sleep(Duration::from_micros(simulation.roll(3_000_000)));
                process.group.thaw();
            }
            2 => simulation.set_clock(simulation.roll(2) == 0, Duration::from_secs(simulation.roll(100_000))),
            3 if nodes > 0 => process.mount.kill(),
            4 => process.mount.lose_answers(3),
            _ => process.mount.set_weather(weather(simulation)),
        }
    }
    for process in &running {
        match process.end {
            End::Closed => process.mount.set_weather(Weather::default()),
            End::Killed | End::KilledSending | End::PowerFailure => {
                if matches!(process.end, End::KilledSending) {
                    process.mount.kill_while_sending(simulation.roll(4));
                }
                sleep(Duration::from_micros(simulation.roll(800_000)));
                process.mount.kill();
            }
        }
    }
    told(simulation, || format!("the end: {:?}", running.iter().map(|process| process.end).collect::<Vec<_>>()));
    let power_failure = running.iter().all(|process| matches!(process.end, End::PowerFailure));
    for process in running {
        drop(process.working.join());
        process.mount.kill();
    }
    ledger.lock().alone = None;
    if power_failure {
        disk.power_failure();
    }
}

fn weather(simulation: &Simulation) -> Weather {
    let often = |most: u64| if simulation.roll(2) == 0 { 0 } else { simulation.roll(most) };
    Weather {
        refused: often(20),
        unheard: often(20),
        slow: often(300),
        delay: Duration::from_millis(simulation.roll(200)),
    }
}

/// Simulates one seed; returns how many commits were acknowledged, too.
fn simulate(seed: u64) -> (Trace, usize) {
    let ledger = Shared::default();
    let trace = Simulation::run(seed, |simulation| life(simulation, &ledger));
    let commits = ledger.lock().count();
    (trace, commits)
}

/// The seeds that [`SEEDS`] names, which is how others start it as a process of its own. By itself it simulates one.
#[test]
fn seeds() {
    let seeds = env::var(SEEDS).unwrap_or_default();
    let mut numbers = seeds.split(' ').filter_map(|number| number.parse::<u64>().ok());
    let (first, count) = (numbers.next().unwrap_or(1), numbers.next().unwrap_or(1));
    let current = Arc::new(AtomicU64::new(0));
    thread::spawn({
        let current = Arc::clone(&current);
        move || watch(&current)
    });
    for seed in first..first + count {
        current.store(seed, Ordering::Relaxed);
        let (trace, commits) = simulate(seed);
        println!("seed {seed}: {commits} commits, {} steps, {:?}, {:x}", trace.steps, trace.elapsed, trace.hash);
    }
    current.store(u64::MAX, Ordering::Relaxed);
}

/// Ends the process if a seed stands still: its threads wait for each other where the simulation does not see it. On a machine
/// that has no time for it, it is slow, and uses what it gets.
fn watch(current: &AtomicU64) {
    loop {
        let before = (current.load(Ordering::Relaxed), time_used());
        thread::sleep(Duration::from_secs(120));
        if before.0 != u64::MAX && (current.load(Ordering::Relaxed), time_used()) == before {
            eprintln!("simulation with seed {} failed: it stands still", before.0);
            std::process::exit(102);
        }
    }
}

/// The processor time that this process has used, in the words of the system, if it says so.
fn time_used() -> Option<String> {
    let said = fs::read_to_string("/proc/self/stat").ok()?;
    let fields: Vec<&str> = said.rsplit(')').next()?.split_whitespace().collect();
    Some(fields.get(11..13)?.join(" "))
}

/// Runs a test in a process of its own, with a variable; returns what it said, and whether all held.
fn child(test: &str, variable: &str, value: &str) -> (bool, String) {
    let binary = env::current_exe().expect("a test has a binary");
    let output = Command::new(binary).args([test, "--exact", "--nocapture"]).env(variable, value).output();
    let output = output.expect("the tests' own binary runs");
    let said = [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned());
    (output.status.success(), said.concat())
}

/// Simulates some seeds in a process of its own.
fn lives(first: u64, count: u64) -> (bool, String) {
    child("simulation::seeds", SEEDS, &format!("{first} {count}"))
}

/// Some that are always the same, or new ones, two processes at once, for as long as [`SECONDS`] says.
#[test]
fn lives_of_a_database_hold() {
    let seconds = env::var(SECONDS).ok().and_then(|seconds| seconds.parse().ok());
    let Some(seconds) = seconds else {
        let (held, said) = lives(1, BATCH);
        assert!(held, "{said}");
        return;
    };
    let first = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_micros() as u64);
    let (began, next) = (Instant::now(), AtomicU64::new(0));
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while began.elapsed() < Duration::from_secs(seconds) {
                    let batch = next.fetch_add(1, Ordering::Relaxed);
                    let (held, said) = lives(first + batch * BATCH, BATCH);
                    assert!(held, "{said}");
                }
            });
        }
    });
    println!("{} lives simulated, with the seeds from {first} on", BATCH * next.into_inner());
}

#[test]
fn a_seed_always_does_the_same() {
    let (one, other) = (lives(7, 3), lives(7, 3));
    assert!(one.0, "{}", one.1);
    let traces =
        |said: &str| said.lines().filter(|line| line.starts_with("seed ")).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(traces(&one.1), traces(&other.1));
    assert_eq!(traces(&one.1).len(), 3, "{}", one.1);
}
