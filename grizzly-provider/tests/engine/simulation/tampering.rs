//! A database that is closed, and a file of which is exchanged for its sibling or taken away: whoever opens it is told, and
//! reads nothing that is wrong.

use std::{collections::BTreeSet, sync::Arc};

use arrow::{array::AsArray, datatypes::Int64Type};
use grizzly_provider::{
    Grizzly, Settings,
    storage::{PutMode, Result, Storage},
};
use grizzly_wal::world::Simulation;

use super::{
    super::tables::{key, pairs},
    disk::{Disk, Mount, Weather},
    ledger::Shared,
    open, settings,
};

/// Tampers with a database in which the objects `used` are in use.
pub(super) fn is_noticed(simulation: &Simulation, disk: &Disk, used: &BTreeSet<String>, ledger: &Shared) {
    let (mount, opened) = (disk.mount(Weather::default()), disk.mount(Weather::default()));
    let tampering = simulation.group().spawn("tampering", {
        let (simulation, used, ledger) = (simulation.clone(), used.clone(), Arc::clone(ledger));
        move || {
            let done = if simulation.roll(4) == 0 { take(&mount) } else { exchange(&simulation, &mount, &used) };
            let problem = match done {
                Ok(Some(what)) => notices(&opened, &what).err(),
                Ok(None) => None,
                Err(error) => Some(format!("tampering with files: {error}")),
            };
            if let Some(problem) = problem {
                ledger.lock().problem(problem);
            }
        }
    });
    drop(tampering.join());
}

/// Removes the newest file of the log; says so.
fn take(mount: &Mount) -> Result<Option<String>> {
    let Some(newest) = mount.list_append("log")?.pop() else { return Ok(None) };
    mount.remove_append(&newest)?;
    Ok(Some(format!("without {newest}")))
}

/// Puts one of the files in use in the place of another one of its kind; says so.
fn exchange(simulation: &Simulation, mount: &Mount, used: &BTreeSet<String>) -> Result<Option<String>> {
    let kind = [".idx", ".idx", ".seg"][simulation.roll(3) as usize];
    let mut files: Vec<&String> = used.iter().filter(|path| path.ends_with(kind)).collect();
    if files.len() < 2 {
        return Ok(None);
    }
    let place = files.remove(simulation.roll(files.len() as u64) as usize);
    let sibling = files.remove(simulation.roll(files.len() as u64) as usize);
    mount.put(place, &[mount.get(sibling)?], PutMode::Overwrite)?;
    Ok(Some(format!("with {sibling} in the place of {place}")))
}

/// Opens the database and uses it; an error if nothing is said, or something wrong.
fn notices(mount: &Mount, what: &str) -> std::result::Result<(), String> {
    let Ok(db) = open(mount, Settings { background: false, ..settings() }) else { return Ok(()) };
    let found = use_all(&db, what);
    let verified = db.verify();
    drop(db.close());
    match (found?, verified) {
        (false, Ok(report)) if report.problems.is_empty() => Err(format!("{what}, nothing is said")),
        _ => Ok(()),
    }
}

/// Looks each row up by its key; whether something was said, or an error if a wrong row was found, or none.
fn use_all(db: &Grizzly, what: &str) -> std::result::Result<bool, String> {
    let mut said = false;
    for table in ["t", "accounts", "marks", "counters", "codes"] {
        let Ok(rows) = pairs(&db.snapshot(), table, None) else {
            said = true;
            continue;
        };
        for (id, value) in rows {
            match db.get(table, &key(id)) {
                Err(_) => said = true,
                Ok(Some(row)) if row.column(1).as_primitive::<Int64Type>().value(0) == value => {}
                Ok(found) => {
                    let found = found.map(|row| row.column(1).as_primitive::<Int64Type>().value(0));
                    return Err(format!("{what}, {table} has {value} for {id}, and {found:?} is found by the key"));
                }
            }
        }
    }
    Ok(said)
}
