//! Encrypted objects, and texts that name places and keys.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use grizzly_wal::storage::check_plain;
use grizzly_wal::{EncryptedStorage, EncryptionKey, FsStorage, MemoryStorage, PutMode, Storage};

use crate::harness::{Choices, damage, holds};

/// Objects of one key and one path may stand for each other; these have paths of their own.
const PATHS: [&str; 4] = ["data/a", "data/b", "data/c", "data/d"];
const LENGTHS: [usize; 4] = [2 * BLOCK + 100, BLOCK, 10, 0];
const BLOCK: usize = 64 * 1024;

fn key() -> EncryptionKey {
    EncryptionKey::new([3; 32])
}

/// Two contents of some blocks, and what is stored of them.
fn objects() -> &'static [(Bytes, Bytes)] {
    static OBJECTS: OnceLock<Vec<(Bytes, Bytes)>> = OnceLock::new();
    OBJECTS.get_or_init(|| {
        let stored = std::array::from_fn::<_, 4, _>(|at| {
            let (path, len) = (PATHS[at], LENGTHS[at]);
            let inner: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
            let content: Bytes = (0..len).map(|at| (at / 7) as u8).collect();
            let storage = EncryptedStorage::new(Arc::clone(&inner), key());
            storage.put(path, std::slice::from_ref(&content), PutMode::Create).expect("memory takes it");
            (content, inner.get(path).expect("it is there"))
        });
        stored.into()
    })
}

/// An object that is not what was encrypted is never read, whatever its header says and whether its checksum fits.
pub(crate) fn encrypted(case: &[u8]) {
    let mut choices = Choices::new(case);
    let which = choices.below(objects().len());
    let ((content, stored), path) = (&objects()[which], PATHS[which]);
    let fixed = choices.bit();
    let mut bytes = stored.to_vec();
    match choices.byte() % 8 {
        0 => bytes = choices.rest().to_vec(),
        1..=3 => {
            // Most of an object's bytes are ciphertext; the header has all that there is to believe.
            let mut header = bytes.drain(..64).collect::<Vec<_>>();
            damage(&mut header, &objects()[(which + 1) % 4].1, &mut choices);
            bytes.splice(..0, header);
        }
        _ => damage(&mut bytes, &objects()[(which + 1) % 4].1, &mut choices),
    }
    if fixed && bytes.len() >= 64 {
        let crc = crc32c::crc32c(&bytes[..60]);
        bytes[60..64].copy_from_slice(&crc.to_le_bytes());
    }
    let same = bytes == stored.as_ref();
    let inner: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
    let storage = EncryptedStorage::new(Arc::clone(&inner), key());
    let input = bytes.len();
    inner.put(path, &[bytes.into()], PutMode::Create).expect("memory takes it");
    holds(input, || {
        let read = storage.get(path);
        assert!(if same { read.is_ok() } else { true });
        assert!(read.is_err() || read.is_ok_and(|read| read == content), "something else was read");
        let ends = [0, 1, content.len() / 2, content.len()].map(|end| end as u64);
        let odd = [u64::MAX, u64::MAX - 1, 1 << 63, 1 << 48, choices.odd_number(content.len())];
        for start in ends.into_iter().chain(odd) {
            for end in ends.into_iter().chain(odd).filter(|end| *end >= start) {
                let Ok(read) = storage.get_range(path, start..end) else { continue };
                let wanted = content.get(start as usize..end as usize);
                // Nothing of an object is nothing, wherever in it.
                let fits = read.is_empty() && start == end || wanted == Some(read.as_ref());
                assert!(fits, "bytes {start}..{end} are others");
            }
        }
        assert!(storage.list("").is_ok());
        drop(check_plain(path, &inner.get(path).unwrap_or_default()));
    });
}

/// No path leads out of a folder, and texts that are no keys are refused.
pub(crate) fn names_and_keys(case: &[u8]) {
    let mut choices = Choices::new(case);
    let mut name = b"data/a".to_vec();
    damage(&mut name, b"/../.\\\0x/a//LOCK", &mut choices);
    let name = String::from_utf8_lossy(&name).into_owned();
    let outer = tempfile::tempdir().expect("a temporary folder");
    let inner = outer.path().join("inner");
    let storage = FsStorage::new(&inner).expect("a folder can be used");
    holds(case.len(), || {
        let put = storage.put(&name, &[Bytes::from_static(b"x")], PutMode::Create);
        let outside = std::fs::read_dir(outer.path()).map(Iterator::count);
        assert!(outside.is_ok_and(|count| count <= 1), "{name:?} lies outside");
        assert!(put.is_err() || storage.get(&name).is_ok_and(|read| read == "x"));
        drop(storage.get_range(&name, 0..u64::MAX));
        drop(storage.list(&name));
        drop(storage.remove(&name));
        drop(EncryptionKey::parse(&String::from_utf8_lossy(case)));
        drop(grizzly_wal::open_storage(&format!("memory://{}", String::from_utf8_lossy(case))));
    });
}

/// Lengths at the end of their range, in a header whose checksum fits.
pub(crate) fn odd_lengths() {
    let stored = &objects()[0].1;
    for len in [1 << 62, u64::MAX - 1, u64::MAX, u64::MAX - 63] {
        let mut bytes = stored.to_vec();
        bytes[24..32].copy_from_slice(&u64::to_le_bytes(len));
        let crc = crc32c::crc32c(&bytes[..60]);
        bytes[60..64].copy_from_slice(&crc.to_le_bytes());
        let inner: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
        inner.put(PATHS[0], &[bytes.into()], PutMode::Create).expect("memory takes it");
        let storage = EncryptedStorage::new(inner, key());
        holds(stored.len(), || {
            assert!(storage.get(PATHS[0]).is_err());
            for range in [0..len, len - 1..len, 1 << 61..1 << 62, 0..1 << 40] {
                assert!(storage.get_range(PATHS[0], range).is_err());
            }
        });
    }
}
