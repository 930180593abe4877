//! Many writers, few syncs.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use grizzly_wal::{ErrorKind, FsStorage, Lsn, MemoryStorage, NewRecord, Result, Storage, WalOptions, open};

use super::{DIR, append, commit, reopen, reopen_with};

#[test]
fn sixteen_threads_share_syncs_and_keep_their_order() -> Result<()> {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let storage: Arc<dyn Storage> = Arc::new(FsStorage::new(folder.path())?);
    let published = Arc::new(AtomicU64::new(0));
    let on_durable = {
        let published = Arc::clone(&published);
        move |lsn: Lsn| assert!(published.swap(lsn.0, Ordering::SeqCst) < lsn.0, "durable numbers only grow")
    };
    let options =
        WalOptions { segment_bytes: 64 * 1024, on_durable: Some(Box::new(on_durable)), ..WalOptions::default() };
    let wal = Arc::new(open(Arc::clone(&storage), DIR, Lsn::FIRST, options)?.into_writer()?);
    let (threads, each) = (16, 100);
    let client = |thread: u64| {
        for number in 0..each {
            let payload = format!("{thread}/{number}").into();
            let lsn = wal.append(NewRecord { txn: thread, commit_ts: number, kind: 0, payload })?;
            wal.wait_durable(lsn)?;
            assert!(published.load(Ordering::SeqCst) >= lsn.0, "published before the waiter woke up");
            assert!(wal.durable_lsn() >= lsn);
        }
        Ok::<_, grizzly_wal::Error>(())
    };
    thread::scope(|scope| {
        let client = &client;
        let clients: Vec<_> = (0..threads).map(|thread| scope.spawn(move || client(thread))).collect();
        clients.into_iter().try_for_each(|client| client.join().expect("no client panics"))
    })?;
    let stats = wal.stats();
    assert_eq!(stats.records, threads * each);
    assert!(stats.syncs < stats.records && stats.largest_group > 1, "{stats:?}");
    wal.close()?;

    let mut next = [0; 16];
    for record in open(storage, DIR, Lsn::FIRST, WalOptions::default())? {
        let record = record?;
        let thread = record.header.txn as usize;
        assert_eq!(record.header.commit_ts, next[thread]);
        assert_eq!(record.payload, format!("{thread}/{}", next[thread]));
        next[thread] += 1;
    }
    assert_eq!(next, [each; 16]);
    Ok(())
}

#[test]
fn tasks_wait_without_blocking() -> Result<()> {
    let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
    let (_, wal) = reopen(&storage, Lsn::FIRST)?;
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime for the test");
    runtime.block_on(async {
        let mut waits = Vec::new();
        for _ in 0..100 {
            waits.push(tokio::spawn(wal.durable(append(&wal)?)));
        }
        for wait in waits {
            wait.await.expect("no task panics")?;
        }
        drop(wal.durable(append(&wal)?));
        let error = wal.durable(Lsn(1000)).await.expect_err("was never appended");
        assert_eq!(error.kind(), ErrorKind::Invalid);
        Ok(())
    })
}

#[test]
fn a_full_buffer_makes_writers_wait() -> Result<()> {
    let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
    let options = WalOptions { buffer_bytes: 1000, compress_above: usize::MAX, ..WalOptions::default() };
    let (_, wal) = reopen_with(&storage, Lsn::FIRST, options)?;
    thread::scope(|scope| {
        let writers: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    // Also records larger than the whole buffer.
                    for len in (0..200).map(|number| number * 20) {
                        wal.append(NewRecord { payload: vec![1; len].into(), ..NewRecord::default() })?;
                    }
                    Ok::<_, grizzly_wal::Error>(())
                })
            })
            .collect();
        writers.into_iter().try_for_each(|writer| writer.join().expect("no writer panics"))
    })?;
    wal.wait_durable(Lsn(800))?;
    assert_eq!(wal.stats().records, 800);
    Ok(())
}

#[test]
fn large_records_come_back() -> Result<()> {
    let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
    let mut noise = 1_u64;
    let mut random = || {
        noise = noise.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (noise >> 56) as u8
    };
    let payloads = [vec![42; 5 << 20], (0..3 << 20).map(|_| random()).collect(), Vec::new()];
    let (_, wal) = reopen(&storage, Lsn::FIRST)?;
    for payload in &payloads {
        wal.append(NewRecord { payload: payload.clone().into(), ..NewRecord::default() })?;
    }
    wal.close()?;
    let records = open(Arc::clone(&storage), DIR, Lsn::FIRST, WalOptions::default())?.collect::<Result<Vec<_>>>()?;
    assert!(records.iter().zip(&payloads).all(|(record, payload)| record.payload == *payload));
    assert_eq!(records.len(), 3);
    Ok(())
}

#[test]
fn a_closed_log_says_so() -> Result<()> {
    let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
    let (_, wal) = reopen(&storage, Lsn::FIRST)?;
    let last = commit(&wal)?;
    let unsynced = append(&wal)?;
    Arc::clone(&wal).close()?;
    assert_eq!(append(&wal).expect_err("it is closed").kind(), ErrorKind::Closed);
    assert_eq!(wal.rotate().expect_err("it is closed").kind(), ErrorKind::Closed);
    wal.wait_durable(last)?;
    wal.wait_durable(unsynced)?;
    Arc::clone(&wal).close()
}
