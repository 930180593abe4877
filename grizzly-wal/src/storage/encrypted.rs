//! A storage whose objects are encrypted, around any other storage.
//!
//! An object is cut into blocks, each encrypted by itself, so that reading some bytes decrypts only the blocks they
//! lie in. The key of an object is derived from the user's key and a salt in its header. Every block is bound to the
//! header (which has the object's length), to the object's path and to its number in it: blocks cannot be exchanged,
//! moved, repeated or cut off. FORMAT.md draws the bytes.

use std::any::Any;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::memory::outside;
use super::{AppendFile, ObjectMeta, PutMode, Storage};
use crate::encryption::{EncryptionKey, FileCipher, KEY_ID, SALT, TAG, no_key, not_encrypted, random, wrong_key};
use crate::error::{Error, ErrorKind, Result};
use crate::world::Mutex;

/// The first bytes of every encrypted object.
const ENCRYPTED_MAGIC: [u8; 8] = *b"GRIZZENC";
const VERSION: u16 = 1;
const HEADER: usize = 64;
/// Plain bytes of a block; only the last one has fewer.
const BLOCK: usize = 64 * 1024;
/// Bytes of a full block as stored.
const STORED_BLOCK: usize = BLOCK + TAG;
/// More bytes than any object has.
const LARGEST: u64 = 1 << 62;
const PURPOSE: &[u8] = b"grizzly object";
/// Headers that are kept, so that most reads of a part need one call.
const KEPT_HEADERS: usize = 4096;

/// Objects encrypted with AES-256-GCM; paths and lengths are not hidden.
#[derive(Debug)]
pub struct EncryptedStorage {
    inner: Arc<dyn Storage>,
    key: EncryptionKey,
    headers: Mutex<HashMap<String, Arc<Opened>>>,
}

/// An object's header, and what follows from it.
#[derive(Debug)]
struct Opened {
    header: [u8; HEADER],
    len: u64,
    cipher: FileCipher,
}

impl EncryptedStorage {
    /// The storage `inner` through `key`. What is there without encryption is refused, not read.
    pub fn new(inner: Arc<dyn Storage>, key: EncryptionKey) -> Self {
        Self { inner, key, headers: Mutex::default() }
    }

    fn open(&self, path: &str, header: &[u8]) -> Result<Arc<Opened>> {
        if header.len() < HEADER || header[..8] != ENCRYPTED_MAGIC {
            return Err(not_encrypted(path));
        }
        let header: [u8; HEADER] = std::array::from_fn(|at| header[at]);
        if crc32c::crc32c(&header[..60]).to_le_bytes() != header[60..] {
            return Err(Error::corrupt(path, 0, "the checksum of its header is wrong"));
        }
        let version = u16::from_le_bytes([header[8], header[9]]);
        if version != VERSION || header[10..16] != layout()[..] {
            let message = format!("{path} is encrypted in format {version}; this build reads format {VERSION}");
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        if header[16..16 + KEY_ID] != self.key.id() {
            return Err(wrong_key(path));
        }
        let len = u64::from_le_bytes(std::array::from_fn(|at| header[24 + at]));
        if len > LARGEST {
            return Err(Error::corrupt(path, 24, format!("it says that it has {len} bytes")));
        }
        let salt: [u8; SALT] = std::array::from_fn(|at| header[32 + at]);
        Ok(Arc::new(Opened { header, len, cipher: self.key.cipher(&salt, PURPOSE)? }))
    }

    fn keep(&self, path: &str, opened: &Arc<Opened>) {
        let mut headers = self.headers.lock();
        if headers.len() >= KEPT_HEADERS {
            headers.clear();
        }
        headers.insert(path.to_owned(), Arc::clone(opened));
    }

    /// The header of an object, read if it is not known.
    fn header(&self, path: &str) -> Result<Arc<Opened>> {
        if let Some(known) = self.headers.lock().get(path) {
            return Ok(Arc::clone(known));
        }
        let start = self.inner.get_range(path, 0..HEADER as u64).map_err(|error| match error.kind() {
            ErrorKind::Invalid => not_encrypted(path).with_source(error),
            _ => error,
        })?;
        let opened = self.open(path, &start)?;
        self.keep(path, &opened);
        Ok(opened)
    }

    /// Some bytes of an object with this header.
    fn read(&self, path: &str, range: &Range<u64>, object: &Opened) -> Result<Bytes> {
        if range.start > range.end || range.end > object.len {
            return Err(outside(path, range, object.len));
        }
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let (first, last) = (range.start / BLOCK as u64, (range.end - 1) / BLOCK as u64);
        let start = HEADER as u64 + first * STORED_BLOCK as u64;
        let end = HEADER as u64 + last * STORED_BLOCK as u64 + (object.block_len(last) + TAG) as u64;
        let stored = self.inner.get_range(path, start..end).map_err(|error| match error.kind() {
            ErrorKind::Invalid => Error::corrupt(path, start, "its end is missing").with_source(error),
            _ => error,
        })?;
        let plain = Bytes::from(object.decrypt(path, first, &stored)?);
        let skipped = first * BLOCK as u64;
        Ok(plain.slice((range.start - skipped) as usize..(range.end - skipped) as usize))
    }

    fn forget(&self, path: &str) {
        self.headers.lock().remove(path);
    }
}

impl Opened {
    /// A header for `len` bytes, with a salt of its own.
    fn new(key: &EncryptionKey, len: u64) -> Result<Self> {
        let salt = random::<SALT>()?;
        let mut header = [0; HEADER];
        header[..8].copy_from_slice(&ENCRYPTED_MAGIC);
        header[8..10].copy_from_slice(&VERSION.to_le_bytes());
        header[10..16].copy_from_slice(&layout());
        header[16..16 + KEY_ID].copy_from_slice(&key.id());
        header[24..32].copy_from_slice(&len.to_le_bytes());
        header[32..32 + SALT].copy_from_slice(&salt);
        let crc = crc32c::crc32c(&header[..60]);
        header[60..].copy_from_slice(&crc.to_le_bytes());
        Ok(Self { header, len, cipher: key.cipher(&salt, PURPOSE)? })
    }

    /// An empty object has one block too: its tag proves that it is empty.
    fn blocks(&self) -> u64 {
        self.len.div_ceil(BLOCK as u64).max(1)
    }

    /// What the blocks are bound to, besides their number.
    fn bound(&self, path: &str) -> Vec<u8> {
        [self.header.as_slice(), path.as_bytes()].concat()
    }

    /// Plain bytes of block `number`.
    fn block_len(&self, number: u64) -> usize {
        (self.len - number * BLOCK as u64).min(BLOCK as u64) as usize
    }

    /// Decrypts consecutive blocks, the first of which has the number `first`.
    fn decrypt(&self, path: &str, first: u64, stored: &Bytes) -> Result<Vec<u8>> {
        let bound = self.bound(path);
        let mut stored = stored.to_vec();
        let mut plain = Vec::with_capacity(stored.len());
        for (number, block) in (first..).zip(stored.chunks_mut(STORED_BLOCK)) {
            let opened = self.cipher.open(number, &bound, block);
            let opened = opened.ok_or_else(|| {
                let offset = HEADER as u64 + number * STORED_BLOCK as u64;
                Error::corrupt(path, offset, "an encrypted block is not what was written there")
            })?;
            plain.extend_from_slice(opened);
        }
        Ok(plain)
    }
}

/// Bytes 10..16 of a header: flags, and the size of a block.
fn layout() -> [u8; 6] {
    let block = (BLOCK as u32).to_le_bytes();
    [0, 0, block[0], block[1], block[2], block[3]]
}

/// The length of an object that takes `stored` bytes.
fn plain_len(stored: u64) -> u64 {
    let body = stored.saturating_sub(HEADER as u64);
    body.saturating_sub(body.div_ceil(STORED_BLOCK as u64) * TAG as u64)
}

impl Storage for EncryptedStorage {
    fn put(&self, path: &str, parts: &[Bytes], mode: PutMode) -> Result<()> {
        let mut plain = parts.concat();
        let object = Opened::new(&self.key, plain.len() as u64)?;
        let bound = object.bound(path);
        let mut stored = Vec::with_capacity(HEADER + plain.len() + object.blocks() as usize * TAG);
        stored.extend_from_slice(&object.header);
        let mut rest = plain.as_mut_slice();
        for number in 0..object.blocks() {
            let (block, later) = rest.split_at_mut(object.block_len(number));
            let tag = object.cipher.seal(number, &bound, block)?;
            stored.extend_from_slice(block);
            stored.extend_from_slice(&tag);
            rest = later;
        }
        self.forget(path);
        let written = self.inner.put(path, &[stored.into()], mode);
        self.forget(path);
        written
    }

    fn get(&self, path: &str) -> Result<Bytes> {
        let stored = self.inner.get(path)?;
        let object = self.open(path, &stored)?;
        let expected = object.len + HEADER as u64 + object.blocks() * TAG as u64;
        if stored.len() as u64 != expected {
            let what = format!("it has {} bytes instead of {expected}", stored.len());
            return Err(Error::corrupt(path, stored.len() as u64, what));
        }
        Ok(object.decrypt(path, 0, &stored.slice(HEADER..))?.into())
    }

    fn get_range(&self, path: &str, range: Range<u64>) -> Result<Bytes> {
        let object = self.header(path)?;
        let read = self.read(path, &range, &object);
        match &read {
            // Another handle may have replaced the object since its header was read.
            Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Invalid) => {
                self.forget(path);
                let fresh = self.header(path)?;
                if fresh.header == object.header { read } else { self.read(path, &range, &fresh) }
            }
            _ => read,
        }
    }

    fn list(&self, prefix: &str) -> Result<Vec<ObjectMeta>> {
        let stored = self.inner.list(prefix)?.into_iter();
        Ok(stored.map(|object| ObjectMeta { size: plain_len(object.size), ..object }).collect())
    }

    fn remove(&self, path: &str) -> Result<()> {
        self.forget(path);
        self.inner.remove(path)
    }

    fn create_append(&self, path: &str, preallocate: u64) -> Result<Box<dyn AppendFile>> {
        self.inner.create_append(path, preallocate)
    }

    fn read_append(&self, path: &str) -> Result<Bytes> {
        self.inner.read_append(path)
    }

    fn read_append_from(&self, path: &str, offset: u64) -> Result<Bytes> {
        self.inner.read_append_from(path, offset)
    }

    fn peek_append(&self, path: &str, len: usize) -> Result<Bytes> {
        self.inner.peek_append(path, len)
    }

    fn has_begun(&self, path: &str) -> Result<bool> {
        self.inner.has_begun(path)
    }

    fn size_append(&self, path: &str) -> Result<u64> {
        self.inner.size_append(path)
    }

    fn seal_append(&self, path: &str) -> Result<Bytes> {
        self.inner.seal_append(path)
    }

    fn list_append(&self, prefix: &str) -> Result<Vec<String>> {
        self.inner.list_append(prefix)
    }

    fn remove_append(&self, path: &str) -> Result<()> {
        self.inner.remove_append(path)
    }

    fn lock(&self) -> Result<Box<dyn Any + Send + Sync>> {
        self.inner.lock()
    }

    fn lock_shared(&self) -> Result<Box<dyn Any + Send + Sync>> {
        self.inner.lock_shared()
    }

    fn lock_excludes(&self) -> bool {
        self.inner.lock_excludes()
    }

    fn seal_shuts_out(&self) -> bool {
        self.inner.seal_shuts_out()
    }

    fn url(&self) -> String {
        self.inner.url()
    }

    fn key(&self) -> Option<&EncryptionKey> {
        Some(&self.key)
    }
}

/// Refuses an object that was encrypted, for those who read it without a key.
///
/// # Errors
/// [`ErrorKind::Permission`] names it.
pub fn check_plain(path: &str, object: &[u8]) -> Result<()> {
    match object.starts_with(&ENCRYPTED_MAGIC) {
        true => Err(no_key(path)),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::{MemoryStorage, conformance};

    fn storage() -> Result<(Arc<dyn Storage>, EncryptedStorage)> {
        let inner: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
        let encrypted = EncryptedStorage::new(Arc::clone(&inner), EncryptionKey::generate()?);
        Ok((inner, encrypted))
    }

    #[test]
    fn it_is_a_storage_like_any_other() {
        assert_eq!(conformance::run(&|| Arc::new(storage().expect("there is randomness").1)), Ok(()));
    }

    #[test]
    fn every_range_reads_back_and_sizes_are_those_of_the_content() -> Result<()> {
        let (inner, encrypted) = storage()?;
        for len in [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK, 3 * BLOCK + 17] {
            let content: Bytes = (0..len).map(|at| (at * 31 / 7) as u8).collect();
            encrypted.put("a/b", &[content.slice(..len / 2), content.slice(len / 2..)], PutMode::Overwrite)?;
            assert_eq!(encrypted.get("a/b")?, content);
            assert_eq!(encrypted.list("a")?, [ObjectMeta { path: "a/b".into(), size: len as u64 }]);
            assert!(len < 64 || !inner.get("a/b")?.windows(64).any(|window| window == &content[..64]));
            for start in [0, 1, BLOCK - 1, BLOCK, len / 2, len] {
                for end in [start, start + 1, BLOCK + 1, len].into_iter().filter(|end| start <= *end && *end <= len) {
                    assert_eq!(encrypted.get_range("a/b", start as u64..end as u64)?, content.slice(start..end));
                }
            }
            assert!(encrypted.get_range("a/b", 0..len as u64 + 1).is_err());
        }
        Ok(())
    }

    #[test]
    fn whatever_is_changed_exchanged_or_cut_is_found() -> Result<()> {
        let (inner, encrypted) = storage()?;
        let content = Bytes::from(vec![5; 2 * BLOCK + 100]);
        encrypted.put("a", std::slice::from_ref(&content), PutMode::Create)?;
        encrypted.put("b", std::slice::from_ref(&content), PutMode::Create)?;
        let stored = inner.get("a")?;
        let second = HEADER + STORED_BLOCK;
        let mut forged = vec![stored.slice(..stored.len() - 1), stored.slice(..second), inner.get("b")?];
        forged.push([&stored[..HEADER], &stored[second..second + STORED_BLOCK], &stored[second..]].concat().into());
        for at in (0..stored.len()).step_by(997).chain(0..HEADER) {
            let mut bytes = stored.to_vec();
            bytes[at] ^= 4;
            forged.push(bytes.into());
        }
        for forgery in forged {
            inner.put("a", &[forgery], PutMode::Overwrite)?;
            assert!(encrypted.get("a").is_err_and(|error| error.message().contains('a')));
        }
        inner.put("a", &[stored], PutMode::Overwrite)?;
        assert_eq!(encrypted.get("a")?, content);
        Ok(())
    }

    #[test]
    fn an_object_that_another_handle_replaced_is_read_anew() -> Result<()> {
        let (inner, encrypted) = storage()?;
        let other = EncryptedStorage::new(inner, encrypted.key.clone());
        for content in ["first", "the second one", "3"] {
            other.put("a", &[content.into()], PutMode::Overwrite)?;
            assert_eq!(encrypted.get_range("a", 0..content.len() as u64)?, content);
        }
        Ok(())
    }

    #[test]
    fn another_key_and_plain_objects_are_refused() -> Result<()> {
        let (inner, encrypted) = storage()?;
        encrypted.put("a", &["secret".into()], PutMode::Create)?;
        let other = EncryptedStorage::new(Arc::clone(&inner), EncryptionKey::generate()?);
        assert_eq!(other.get("a").map_err(|error| error.kind()), Err(ErrorKind::Permission));
        assert_eq!(other.get_range("a", 0..1).map_err(|error| error.kind()), Err(ErrorKind::Permission));
        inner.put("b", &["plain".into()], PutMode::Create)?;
        assert_eq!(encrypted.get("b").map_err(|error| error.kind()), Err(ErrorKind::Invalid));
        assert_eq!(check_plain("a", &inner.get("a")?).map_err(|error| error.kind()), Err(ErrorKind::Permission));
        Ok(())
    }
}
