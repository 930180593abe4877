//! A process that is killed while it commits: all it was told is there.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::Arc;

use grizzly_wal::{FsStorage, Lsn, Result, Storage};

use super::{append, reopen};

const FOLDER: &str = "GRIZZLY_WAL_KILL_FOLDER";

/// Not a test of its own: the process to be killed. Does nothing when run with the others.
#[test]
fn victim() -> Result<()> {
    let Ok(folder) = std::env::var(FOLDER) else {
        return Ok(());
    };
    let storage: Arc<dyn Storage> = Arc::new(FsStorage::new(folder)?);
    let _guard = storage.lock()?;
    let (_, wal) = reopen(&storage, Lsn::FIRST)?;
    let turns = parking_lot::Mutex::new(());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    // The payload depends on the number, which must not change in between.
                    let turn = turns.lock();
                    let Ok(lsn) = append(&wal) else { return };
                    drop(turn);
                    if wal.wait_durable(lsn).is_err() {
                        return;
                    }
                    println!("confirmed {lsn}");
                }
            });
        }
    });
    Ok(())
}

#[test]
fn what_a_killed_process_was_told_is_there() -> Result<()> {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let storage: Arc<dyn Storage> = Arc::new(FsStorage::new(folder.path())?);
    let mut confirmed = 0;
    for _ in 0..5 {
        let program = std::env::current_exe().expect("the test's own program");
        let mut child = Command::new(program)
            .args(["--exact", "kill::victim", "--nocapture"])
            .env(FOLDER, folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let output = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut lines = output.lines().map_while(std::io::Result::ok);
        let told = |line: String| line.strip_prefix("confirmed ")?.parse::<u64>().ok();
        let until = lines.by_ref().filter_map(told).take(200).max();
        child.kill().expect("it runs");
        child.wait().expect("it was killed");
        // What it had written to the pipe before it died was confirmed too.
        let rest = lines.filter_map(told).max();
        confirmed = [confirmed, until.unwrap_or(0), rest.unwrap_or(0)].into_iter().max().unwrap_or(0);
        let guard = storage.lock()?;
        let (last, wal) = reopen(&storage, Lsn::FIRST)?;
        assert!(last.0 >= confirmed, "{confirmed} was confirmed, only {last} is there");
        drop(wal);
        drop(guard);
    }
    assert!(confirmed >= 1000);
    Ok(())
}
