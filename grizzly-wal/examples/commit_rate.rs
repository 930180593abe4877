//! How many durable commits per second a folder takes: `commit_rate [folder] [seconds]`.
//!
//! Each thread appends one small record and waits until it is durable, over and over, as a database does whose
//! clients commit one row at a time.

#![expect(clippy::disallowed_methods, reason = "it measures the time of the machine")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use grizzly_wal::{FsStorage, Lsn, NewRecord, Wal, WalOptions, open};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let temporary = tempfile::tempdir()?;
    let folder = arguments.next().map_or_else(|| temporary.path().to_owned(), Into::into);
    let seconds = arguments.next().map_or(Ok(3), |text| text.parse())?;
    let storage = Arc::new(FsStorage::new(folder)?);
    for threads in [1, 2, 4, 16, 64] {
        let mut replay = open(storage.clone(), "wal", Lsn::FIRST, WalOptions::default())?;
        for record in &mut replay {
            record?;
        }
        let wal = Arc::new(replay.into_writer()?);
        let (commits, elapsed) = run(&wal, threads, Duration::from_secs(seconds))?;
        let (rate, stats) = (commits as f64 / elapsed.as_secs_f64(), wal.stats());
        println!(
            "{threads:3} threads: {rate:9.0} commits/s, {:7.1} us each, {:5.1} per sync, {:6.0} syncs/s",
            1e6 * f64::from(threads) / rate,
            stats.mean_group(),
            stats.syncs as f64 / elapsed.as_secs_f64(),
        );
        wal.close()?;
    }
    Ok(())
}

fn run(wal: &Wal, threads: u32, duration: Duration) -> grizzly_wal::Result<(u64, Duration)> {
    let (stop, commits, start) = (AtomicBool::new(false), AtomicU64::new(0), Instant::now());
    let client = |number: u32| {
        while !stop.load(Ordering::Relaxed) {
            let payload = [number as u8; 120].to_vec().into();
            let lsn = wal.append(NewRecord { txn: u64::from(number), commit_ts: 0, kind: 1, payload })?;
            wal.wait_durable(lsn)?;
            commits.fetch_add(1, Ordering::Relaxed);
        }
        Ok::<_, grizzly_wal::Error>(())
    };
    thread::scope(|scope| {
        let client = &client;
        let clients: Vec<_> = (0..threads).map(|number| scope.spawn(move || client(number))).collect();
        thread::sleep(duration);
        stop.store(true, Ordering::Relaxed);
        clients.into_iter().try_for_each(|client| client.join().unwrap_or(Ok(())))
    })?;
    Ok((commits.load(Ordering::Relaxed), start.elapsed()))
}
