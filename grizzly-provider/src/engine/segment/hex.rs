//! Optional bytes as hexadecimal text: half the size of a JSON list of numbers, and readable. For serde's `with`.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serializer};

pub(crate) fn serialize<S: Serializer>(bytes: &Option<Vec<u8>>, serializer: S) -> Result<S::Ok, S::Error> {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let Some(bytes) = bytes else { return serializer.serialize_none() };
    let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble)]);
    let text: String = bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect();
    serializer.serialize_some(&text)
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<u8>>, D::Error> {
    let Some(text) = Option::<String>::deserialize(deserializer)? else { return Ok(None) };
    let nibble = |digit: u8| char::from(digit).to_digit(16).map(|n| n as u8);
    let pairs = text.as_bytes().chunks(2);
    let byte = |pair: &[u8]| match pair {
        [high, low] => Some(nibble(*high)? << 4 | nibble(*low)?),
        _ => None,
    };
    pairs.map(|pair| byte(pair).ok_or_else(|| D::Error::custom("not hexadecimal"))).collect::<Result<_, _>>().map(Some)
}
