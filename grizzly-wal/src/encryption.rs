//! Keys, and AES-256-GCM under keys derived from them: one for each file, so that a key and a nonce never meet twice.

use std::fmt;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::digest::{SHA256, digest};
use ring::hkdf;
use ring::rand::{SecureRandom, SystemRandom};

use crate::error::{Error, ErrorKind, Result};

/// Bytes of a key.
const KEY: usize = 32;
/// Bytes of the tag behind everything encrypted.
pub(crate) const TAG: usize = 16;
/// Bytes of the random salt from which the key of one file is derived.
pub(crate) const SALT: usize = 16;
/// Bytes that tell one key from another without saying anything about it.
pub(crate) const KEY_ID: usize = 8;

/// The user's key: 256 bits. It is never stored, logged or shown.
#[derive(Clone, PartialEq, Eq)]
pub struct EncryptionKey([u8; KEY]);

impl fmt::Debug for EncryptionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EncryptionKey(…)")
    }
}

impl EncryptionKey {
    /// The key with these bytes, which should be random.
    pub fn new(bytes: [u8; KEY]) -> Self {
        Self(bytes)
    }

    /// A new random key.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] if the system has no randomness to give.
    pub fn generate() -> Result<Self> {
        random().map(Self)
    }

    /// The key written as 64 hexadecimal digits, or as base64 of 32 bytes.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for anything else; the message does not repeat it.
    pub fn parse(text: &str) -> Result<Self> {
        let text = text.trim();
        let digits = text.len() == 2 * KEY && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let bytes = match digits {
            true => (0..KEY).filter_map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()).collect(),
            false => STANDARD.decode(text).or_else(|_| URL_SAFE.decode(text)).unwrap_or_default(),
        };
        let bytes = <[u8; KEY]>::try_from(bytes);
        bytes.map(Self).map_err(|_| Error::invalid("a key is 32 bytes, written as 64 hexadecimal digits or as base64"))
    }

    /// The key in a file: its text as [`parse`](Self::parse) takes it, or its 32 bytes.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] names a file that holds something else.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let bytes = std::fs::read(path).map_err(|error| Error::io("read", path.display(), error))?;
        if let Ok(bytes) = <[u8; KEY]>::try_from(bytes.as_slice()) {
            return Ok(Self(bytes));
        }
        let key = std::str::from_utf8(&bytes).ok().and_then(|text| Self::parse(text).ok());
        key.ok_or_else(|| {
            let what = "32 bytes, 64 hexadecimal digits or base64 are expected";
            Error::invalid(format!("{} does not hold a key: {what}", path.display()))
        })
    }

    /// Tells this key from others.
    pub(crate) fn id(&self) -> [u8; KEY_ID] {
        let mut named = b"grizzly key id".to_vec();
        named.extend_from_slice(&self.0);
        let mut id = [0; KEY_ID];
        id.copy_from_slice(&digest(&SHA256, &named).as_ref()[..KEY_ID]);
        id
    }

    /// The cipher of the file with this salt.
    pub(crate) fn cipher(&self, salt: &[u8; SALT], purpose: &[u8]) -> Result<FileCipher> {
        let failed = |_| Error::invalid("a key cannot be derived");
        let derived = hkdf::Salt::new(hkdf::HKDF_SHA256, salt).extract(&self.0);
        let info = [purpose];
        let key = derived.expand(&info, &AES_256_GCM).map_err(failed)?;
        Ok(FileCipher(LessSafeKey::new(UnboundKey::from(key))))
    }
}

/// Encrypts and decrypts the parts of one file, each under its number.
pub(crate) struct FileCipher(LessSafeKey);

impl fmt::Debug for FileCipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FileCipher(…)")
    }
}

impl FileCipher {
    /// Encrypts `data` in place and returns its tag. No two parts of a file have the same number.
    pub(crate) fn seal(&self, part: u64, bound: &[u8], data: &mut [u8]) -> Result<[u8; TAG]> {
        let sealed = self.0.seal_in_place_separate_tag(nonce(part), Aad::from(bound), data);
        let sealed = sealed.map_err(|_| Error::invalid("too much to encrypt at once"))?;
        let mut tag = [0; TAG];
        tag.copy_from_slice(sealed.as_ref());
        Ok(tag)
    }

    /// Decrypts `data`, which ends with its tag, in place; the plain bytes. `None` if data, number or what it is
    /// bound to are not what was encrypted.
    pub(crate) fn open<'d>(&self, part: u64, bound: &[u8], data: &'d mut [u8]) -> Option<&'d [u8]> {
        self.0.open_in_place(nonce(part), Aad::from(bound), data).ok().map(|plain| &*plain)
    }
}

fn nonce(part: u64) -> Nonce {
    let mut bytes = [0; 12];
    bytes[..8].copy_from_slice(&part.to_le_bytes());
    Nonce::assume_unique_for_key(bytes)
}

/// Bytes that nobody can guess.
pub(crate) fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| Error::new(ErrorKind::Io, "the system gives no random numbers"))?;
    Ok(bytes)
}

/// The error for something that was encrypted with another key.
pub(crate) fn wrong_key(path: &str) -> Error {
    Error::new(ErrorKind::Permission, format!("{path} is encrypted with another key than the one given"))
}

/// The error for something encrypted where no key was given.
pub(crate) fn no_key(path: &str) -> Error {
    Error::new(ErrorKind::Permission, format!("{path} is encrypted: a key is needed"))
}

/// The error for something plain where a key was given. It could be a forgery.
pub(crate) fn not_encrypted(path: &str) -> Error {
    let why = "it was written without one, or its first bytes are damaged";
    Error::invalid(format!("{path} is not encrypted, but a key was given: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_in_every_form_and_never_shown() {
        let bytes: [u8; KEY] = std::array::from_fn(|at| (at * 7) as u8);
        let key = EncryptionKey::new(bytes);
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        for text in [hex.clone(), hex.to_uppercase(), STANDARD.encode(bytes), format!("{hex}\n")] {
            assert_eq!(EncryptionKey::parse(&text).ok(), Some(key.clone()), "{text}");
        }
        let short = STANDARD.encode(&bytes[1..]);
        for text in ["", "abc", &hex[1..], short.as_str()] {
            let error = EncryptionKey::parse(text).expect_err("it is no key");
            assert!(text.is_empty() || !error.to_string().contains(text));
        }
        assert_eq!(format!("{key:?}"), "EncryptionKey(…)");
    }

    #[test]
    fn what_was_moved_or_changed_does_not_open() -> Result<()> {
        let key = EncryptionKey::generate()?;
        let cipher = key.cipher(&[1; SALT], b"test")?;
        let mut data = b"plain".to_vec();
        let tag = cipher.seal(7, b"here", &mut data)?;
        data.extend_from_slice(&tag);
        let opens = |cipher: &FileCipher, part, bound: &[u8], mut data: Vec<u8>| {
            cipher.open(part, bound, &mut data).map(<[u8]>::to_vec)
        };
        assert_eq!(opens(&cipher, 7, b"here", data.clone()).as_deref(), Some(b"plain".as_slice()));
        assert_eq!(opens(&cipher, 8, b"here", data.clone()), None);
        assert_eq!(opens(&cipher, 7, b"there", data.clone()), None);
        assert_eq!(opens(&key.cipher(&[2; SALT], b"test")?, 7, b"here", data.clone()), None);
        assert_eq!(opens(&EncryptionKey::generate()?.cipher(&[1; SALT], b"test")?, 7, b"here", data.clone()), None);
        data[0] ^= 1;
        assert_eq!(opens(&cipher, 7, b"here", data), None);
        Ok(())
    }
}
