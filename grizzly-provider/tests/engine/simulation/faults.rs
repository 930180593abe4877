//! A fault at every call of storage: one piece of work is done again and again, each time with something that goes wrong
//! with another call. Whatever it is, what was acknowledged stays.

use std::{
    env,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::SystemTime,
};

use grizzly_provider::{Grizzly, Settings, Storage};
use grizzly_wal::world::{Simulation, sleep};

use super::{
    disk::{Disk, Fault, Kind, Weather},
    in_calm,
    ledger::Shared,
    open, report, restored, sessions, settings,
};

/// Which faults a process of its own puts in: the place, the fault, the first call, and the distance to the next.
const FAULTS: &str = "GRIZZLY_SIMULATED_FAULTS";
/// The distance between two calls with which something goes wrong: 1 for all of them.
const EVERY: &str = "GRIZZLY_FAULTS_EVERY";
/// Unless that says otherwise: a prime, so that rounds of the work are hit at different places.
const USUALLY: usize = 97;
/// What is always done.
const SEED: u64 = 11;
/// The least number of calls that the work makes.
const LEAST: usize = 1000;

const FAULT_KINDS: [Fault; 8] = [
    Fault::Refused,
    Fault::Unheard,
    Fault::Full,
    Fault::Short,
    Fault::Killed,
    Fault::KilledAfter,
    Fault::PowerFailure,
    Fault::PowerFailureAfter,
];

/// Whether the fault makes a difference to a call.
fn concerns(fault: Fault, call: &str) -> bool {
    match fault {
        Fault::Short => call == "get",
        Fault::Full => ["put", "create", "append", "sync"].contains(&call),
        // Nobody can tell it from one that comes before the next call.
        Fault::KilledAfter | Fault::PowerFailureAfter => !["get", "list", "read"].contains(&call),
        _ => true,
    }
}

/// What is done, always in the same order: one session, and nothing beside it but the log's thread.
fn work(simulation: &Simulation, db: &Grizzly, ledger: &Shared, backups: &Arc<dyn Storage>) {
    for round in 0..18 {
        sessions::write(simulation, db, ledger, 1, 8);
        sessions::define(simulation, db, ledger, 2);
        sessions::maintain(simulation, db, ledger, backups, 2);
        if round % 3 == 0 {
            drop(db.flush());
        }
    }
}

/// Does the work with a fault, or without; returns what it called.
fn run(kind: Kind, fault: Option<(usize, Fault)>) -> Vec<&'static str> {
    let calls = Arc::new(Mutex::new(Vec::new()));
    let made = Arc::clone(&calls);
    let ledger = Shared::default();
    Simulation::run(SEED, move |simulation| {
        let disk = Disk::new(simulation, kind);
        let backups = Disk::new(simulation, Kind::Folder);
        in_calm(simulation, &disk, &ledger, sessions::prepare);
        let mount = disk.mount(Weather::default());
        if let Some((at, fault)) = fault {
            mount.set_fault(at, fault);
        }
        ledger.lock().alone = Some(mount.clone());
        let working = simulation.group().spawn("process", {
            let (simulation, mount, ledger) = (simulation.clone(), mount.clone(), Arc::clone(&ledger));
            let backups: Arc<dyn Storage> = Arc::new(backups.mount(Weather::default()));
            move || {
                for _ in 0..3 {
                    if let Ok(db) = open(&mount, Settings { background: false, ..settings() }) {
                        work(&simulation, &db, &ledger, &backups);
                        drop(db.close());
                        return;
                    }
                    sleep(std::time::Duration::from_millis(100));
                }
            }
        });
        drop(working.join());
        mount.kill();
        ledger.lock().alone = None;
        disk.set_full(false);
        if matches!(fault, Some((_, Fault::PowerFailure | Fault::PowerFailureAfter))) {
            disk.power_failure();
        }
        in_calm(simulation, &disk, &ledger, |_| Ok(()));
        report(&ledger);
        restored(simulation, &backups, &ledger);
        report(&ledger);
        *made.lock().expect("nobody panicked") = mount.calls();
    });
    Arc::into_inner(calls).and_then(|calls| calls.into_inner().ok()).unwrap_or_default()
}

fn kind(name: &str) -> Kind {
    if name == "Folder" { Kind::Folder } else { Kind::Bucket }
}

/// The faults that [`FAULTS`] names, which is how others start it as a process of its own.
#[test]
fn some() {
    let Ok(named) = env::var(FAULTS) else { return };
    let parts: Vec<&str> = named.split(' ').collect();
    let [place, fault, first, every] = parts.try_into().expect("four parts");
    let chosen = FAULT_KINDS.into_iter().find(|known| format!("{known:?}") == fault).expect("a kind of fault");
    let calls = run(kind(place), None);
    assert!(calls.len() >= LEAST, "only {} calls", calls.len());
    let (first, every): (usize, usize) = (first.parse().expect("a number"), every.parse().expect("a number"));
    let mut count = 0;
    for at in (first..calls.len()).step_by(every).filter(|at| concerns(chosen, calls[*at])) {
        println!("{FAULTS}=\"{place} {fault} {at} 1000000\": {}", calls[at]);
        run(kind(place), Some((at, chosen)));
        count += 1;
    }
    println!("{count} faults");
}

#[test]
fn a_fault_at_any_call_loses_nothing() {
    let every = env::var(EVERY).ok().and_then(|every| every.parse().ok()).unwrap_or(USUALLY);
    let now = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_micros() as usize);
    let jobs: Vec<(Kind, Fault)> =
        [Kind::Folder, Kind::Bucket].into_iter().flat_map(|kind| FAULT_KINDS.map(|fault| (kind, fault))).collect();
    let (next, count) = (AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some((kind, fault)) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let (held, said) = super::child(
                        "simulation::faults::some",
                        FAULTS,
                        &format!("{kind:?} {fault:?} {} {every}", now % every),
                    );
                    assert!(held, "{said}");
                    let done = said.lines().filter_map(|line| line.strip_suffix(" faults")?.parse::<usize>().ok());
                    count.fetch_add(done.sum(), Ordering::Relaxed);
                }
            });
        }
    });
    println!("{} faults, each {every}th call", count.into_inner());
}
