//! The engine in a simulated world: one seed decides who runs when, how storage behaves, and when what is killed; a ledger
//! knows what must be there. CONTRIBUTING.md says how to run it for long and how to replay a seed.

mod disk;
mod ledger;
mod sessions;

use std::{env, process::Command, sync::Arc, time::Duration};

use grizzly_provider::{Grizzly, Result, Settings, Storage};
use grizzly_wal::world::{Simulation, Trace, sleep};

use self::{
    disk::{Disk, Kind, Mount, Weather},
    ledger::Shared,
    sessions::Load,
};

/// The seeds that a process of its own simulates: the first, and how many.
const SEEDS: &str = "GRIZZLY_SIMULATED_SEEDS";
/// For how many seconds to go on with new seeds; without it a few seeds are simulated that are always the same.
const SECONDS: &str = "GRIZZLY_SIMULATE_SECONDS";
/// So many seeds are simulated by one process.
const BATCH: u64 = 20;

/// How a process ends.
#[derive(Debug, Clone, Copy)]
enum End {
    Closed,
    Killed,
    PowerFailure,
}

fn settings() -> Settings {
    Settings { memory_bytes: 64 << 20, flush_rows: 200, ..Settings::default() }
}

/// A database's life: processes that open it one after the other, in weather that changes.
fn life(simulation: &Simulation, ledger: &Shared) {
    let kind = if simulation.roll(2) == 0 { Kind::Folder } else { Kind::Bucket };
    let disk = Disk::new(simulation, kind);
    let backups = Disk::new(simulation, Kind::Folder);
    in_calm(simulation, &disk, ledger, sessions::prepare);
    for _ in 0..1 + simulation.roll(4) {
        process(simulation, &disk, &backups, ledger);
        in_calm(simulation, &disk, ledger, |_| Ok(()));
        report(ledger);
    }
}

fn report(ledger: &Shared) {
    let ledger = ledger.lock();
    assert!(ledger.problems.is_empty(), "after {} commits: {:#?}", ledger.count(), ledger.problems);
}

/// Opens the database with nothing going on around it, and compares it with the ledger.
fn in_calm(
    simulation: &Simulation,
    disk: &Disk,
    ledger: &Shared,
    prepare: impl FnOnce(&Grizzly) -> Result<()> + Send + 'static,
) {
    let (mount, ledger) = (disk.mount(Weather::default()), Arc::clone(ledger));
    let checking = simulation.group().spawn("check", move || {
        let opened = open(&mount, Settings { background: false, ..settings() });
        match opened.and_then(|db| prepare(&db).map(|()| db)) {
            Ok(db) => {
                ledger::check(&db, &ledger);
                if let Err(error) = db.close() {
                    ledger.lock().problems.push(format!("in calm, close: {error}"));
                }
            }
            Err(error) => ledger.lock().problems.push(format!("in calm, the database does not open: {error}")),
        }
    });
    drop(checking.join());
}

fn open(mount: &Mount, settings: Settings) -> Result<Grizzly> {
    Grizzly::builder("simulated://").settings(settings).storage(Arc::new(mount.clone())).open()
}

/// A process that opens the database and works, until it ends or is ended.
fn process(simulation: &Simulation, disk: &Disk, backups: &Disk, ledger: &Shared) {
    let weather = weather(simulation);
    let mount = disk.mount(weather);
    let group = simulation.group();
    let load = Load { writers: 1 + simulation.roll(4) as i64, transactions: 20 + simulation.roll(200) };
    let working = group.spawn("process", {
        let (simulation, mount, ledger) = (simulation.clone(), mount.clone(), Arc::clone(ledger));
        let backups: Arc<dyn Storage> = Arc::new(backups.mount(Weather::default()));
        move || {
            for _ in 0..20 {
                if mount.is_dead() {
                    return;
                }
                match open(&mount, settings()) {
                    Ok(db) => {
                        sessions::run(&simulation, &db, &ledger, load, &backups);
                        drop(db.close());
                        return;
                    }
                    Err(_) => sleep(Duration::from_millis(100)),
                }
            }
        }
    });
    let end = [End::Closed, End::Killed, End::Killed, End::PowerFailure][simulation.roll(4) as usize];
    for _ in 0..simulation.roll(3) {
        sleep(Duration::from_micros(simulation.roll(400_000)));
        match simulation.roll(5) {
            0 => {
                disk.set_full(true);
                sleep(Duration::from_micros(simulation.roll(2_000_000)));
                disk.set_full(false);
            }
            1 => {
                group.freeze();
                sleep(Duration::from_micros(simulation.roll(3_000_000)));
                group.thaw();
            }
            2 => simulation.set_clock(simulation.roll(2) == 0, Duration::from_secs(simulation.roll(100_000))),
            _ => mount.set_weather(self::weather(simulation)),
        }
    }
    match end {
        End::Closed => mount.set_weather(Weather::default()),
        End::Killed | End::PowerFailure => {
            sleep(Duration::from_micros(simulation.roll(800_000)));
            mount.kill();
        }
    }
    drop(working.join());
    mount.kill();
    if matches!(end, End::PowerFailure) {
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
    for seed in first..first + count {
        let (trace, commits) = simulate(seed);
        println!("seed {seed}: {commits} commits, {} steps, {:?}, {:x}", trace.steps, trace.elapsed, trace.hash);
    }
}

/// Simulates some seeds in a process of its own; returns what it said, and whether all held.
fn child(first: u64, count: u64) -> (bool, String) {
    let binary = env::current_exe().expect("a test has a binary");
    let arguments = ["simulation::seeds", "--exact", "--nocapture"];
    let output = Command::new(binary).args(arguments).env(SEEDS, format!("{first} {count}")).output();
    let output = output.expect("the tests' own binary runs");
    let said = [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned());
    (output.status.success(), said.concat())
}

#[test]
fn some_lives_of_a_database_hold() {
    let seconds = env::var(SECONDS).ok().and_then(|seconds| seconds.parse().ok());
    let Some(seconds) = seconds.map(Duration::from_secs) else {
        let (held, said) = child(1, BATCH);
        assert!(held, "{said}");
        return;
    };
    // New ones each time, two processes at once.
    let first = std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_micros() as u64);
    let (began, next) = (std::time::Instant::now(), std::sync::atomic::AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while began.elapsed() < seconds {
                    let batch = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    let (held, said) = child(first + batch * BATCH, BATCH);
                    assert!(held, "{said}");
                }
            });
        }
    });
    println!("{} seeds simulated from {first} on", BATCH * next.into_inner());
}

#[test]
fn a_seed_always_does_the_same() {
    let (one, other) = (child(7, 3), child(7, 3));
    assert!(one.0, "{}", one.1);
    let traces =
        |said: &str| said.lines().filter(|line| line.starts_with("seed ")).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(traces(&one.1), traces(&other.1));
    assert_eq!(traces(&one.1).len(), 3, "{}", one.1);
}
