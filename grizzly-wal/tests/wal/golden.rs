//! A log file written by the first version of the format, kept to be read forever.

use std::sync::Arc;

use grizzly_wal::{Lsn, MemoryStorage, Result, Storage, WalOptions, open};

use super::{DIR, plant};

const FORMAT_1: &[u8] = include_bytes!("../golden/format-1.log");

#[test]
fn format_1_stays_readable() -> Result<()> {
    let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
    plant(storage.as_ref(), &format!("{DIR}/0000000001.log"), FORMAT_1)?;
    let mut replay = open(storage, DIR, Lsn(7), WalOptions::default())?;
    let records = replay.by_ref().collect::<Result<Vec<_>>>()?;
    let expected = [(1, "first".to_owned()), (2, String::new()), (255, "abc".repeat(100))];
    assert_eq!(records.len(), expected.len());
    for ((record, (kind, payload)), lsn) in records.iter().zip(expected).zip(7..) {
        assert_eq!(record.header.lsn, Lsn(lsn));
        assert_eq!(record.header.txn, 0x1122_3344_5566_7788);
        assert_eq!(record.header.commit_ts, 1_700_000_000_000_000 + u64::from(kind));
        assert_eq!(record.header.kind, kind);
        assert_eq!(record.payload, payload);
    }
    assert_eq!(replay.into_writer()?.next_lsn(), Lsn(10));
    Ok(())
}
