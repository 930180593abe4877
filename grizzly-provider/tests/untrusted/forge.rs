//! Files that are damaged behind their checksums: what is found there was never looked at by the writer.

use serde_json::Value;

use crate::database::Kind;
use crate::harness::{Choices, damage};

/// Damages a file so that every checksum in it fits. `None` if nothing like that file is left.
pub(crate) fn forge(kind: Kind, bytes: &[u8], other: &[u8], choices: &mut Choices<'_>) -> Option<Vec<u8>> {
    match kind {
        Kind::Manifest | Kind::Word => json(bytes, other, choices),
        Kind::Segment => segment(bytes, other, choices),
        Kind::Run => labelled(bytes, |content| run(content, other, choices)),
        Kind::Ended => labelled(bytes, |content| ended(content, other, choices)),
        Kind::Log => log(bytes, other, choices),
    }
}

fn json(bytes: &[u8], other: &[u8], choices: &mut Choices<'_>) -> Option<Vec<u8>> {
    let mut json = bytes.get(..bytes.len().checked_sub(9)?)?.to_vec();
    damage(&mut json, other, choices);
    patient(&mut json);
    Some(checksummed(&json))
}

/// JSON, and its checksum in a line of its own.
pub(crate) fn checksummed(json: &[u8]) -> Vec<u8> {
    [json, format!("\n{:08x}", crc32c::crc32c(json)).as_bytes()].concat()
}

/// A lease that was not released is waited for, which a test has no time for unless that is absurd.
fn patient(json: &mut Vec<u8>) {
    let Ok(mut lease) = serde_json::from_slice::<Value>(json) else { return };
    if lease.get("released") == Some(&Value::Bool(false))
        && lease["millis"].as_u64().is_some_and(|millis| millis < 1 << 24)
    {
        lease["millis"] = 20.into();
        *json = lease.to_string().into_bytes();
    }
}

/// Bytes 0..8 of the place where a segment's trailer says things are.
fn number(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..at + 8)?.first_chunk::<8>().map(|bytes| u64::from_le_bytes(*bytes))
}

/// Damages a blob, the footer or the trailer of a segment.
fn segment(bytes: &[u8], other: &[u8], choices: &mut Choices<'_>) -> Option<Vec<u8>> {
    let trailer = bytes.len().checked_sub(40)?;
    let (offset, len) = (number(bytes, trailer)? as usize, number(bytes, trailer + 8)? as usize);
    let json = zstd::stream::decode_all(bytes.get(offset..offset + len)?).ok()?;
    let mut footer: Value = serde_json::from_slice(&json).ok()?;
    let mut blobs = bytes[..offset].to_vec();
    let what = choices.byte() % 8;
    if what < 5 {
        let chunks = footer["chunks"].as_array_mut()?;
        let columns = chunks.get_mut(0)?["columns"].as_array_mut()?;
        let at = choices.below(columns.len());
        let blob = columns.get_mut(at)?;
        let (from, size) = (blob["o"].as_u64()? as usize, blob["l"].as_u64()? as usize);
        let mut content = blobs.get(from..from + size)?.to_vec();
        // The end of a blob tells how the rest is to be read.
        let tail = content.len().saturating_sub(if choices.bit() { 256 } else { size });
        let mut end = content.split_off(tail);
        let form = end.pop()?;
        let before = end.len();
        damage(&mut end, other, choices);
        // It takes the place that it had. Mostly it is damaged in place: what is shifted is not read at all.
        end.truncate(before);
        if choices.byte() > 64 {
            end.resize(before, 0);
        }
        end.push(if choices.byte() < 8 { choices.byte() % 4 } else { form });
        content.extend_from_slice(&end);
        blobs[from..from + content.len()].copy_from_slice(&content);
        blobs[from + content.len()..from + size].fill(0);
        blob["l"] = content.len().into();
        blob["c"] = crc32c::crc32c(&content).into();
    }
    let mut json = serde_json::to_vec(&footer).ok()?;
    if what >= 5 {
        damage(&mut json, other, choices);
    }
    let mut unpacked = json.len() as u64;
    if what == 7 {
        unpacked = choices.odd_number(json.len());
    }
    let packed = match what == 6 && choices.bit() {
        true => bomb(&json),
        false => zstd::bulk::compress(&json, 3).ok()?,
    };
    let mut out = blobs;
    let mut trailer = Vec::new();
    trailer.extend_from_slice(&(out.len() as u64).to_le_bytes());
    trailer.extend_from_slice(&(packed.len() as u64).to_le_bytes());
    trailer.extend_from_slice(&unpacked.to_le_bytes());
    trailer.extend_from_slice(&crc32c::crc32c(&packed).to_le_bytes());
    let crc = crc32c::crc32c(&trailer);
    trailer.extend_from_slice(&crc.to_le_bytes());
    out.extend_from_slice(&packed);
    out.extend_from_slice(&trailer);
    out.extend_from_slice(b"\r\nSEGGRZ");
    Some(out)
}

/// Much more than a footer, in few bytes.
fn bomb(json: &[u8]) -> Vec<u8> {
    let content = [json, &vec![b' '; 64 << 20]].concat();
    zstd::bulk::compress(&content, 3).unwrap_or_default()
}

/// Changes the content of a file that ends with a label.
fn labelled(bytes: &[u8], change: impl FnOnce(&mut Vec<u8>) -> Option<()>) -> Option<Vec<u8>> {
    let end = bytes.len().checked_sub(16)?;
    let label = u32::from_le_bytes(*bytes.get(end..)?.first_chunk::<4>()?) as usize;
    let (content, label) = bytes[..end].split_at_checked(end.checked_sub(label)?)?;
    let mut out = content.to_vec();
    change(&mut out)?;
    let size = label.len() as u32;
    out.extend_from_slice(label);
    out.extend_from_slice(&size.to_le_bytes());
    let crc = crc32c::crc32c(&out);
    out.extend_from_slice(&crc.to_le_bytes());
    out.extend_from_slice(b"GZLABEL1");
    Some(out)
}

fn run(content: &mut Vec<u8>, other: &[u8], choices: &mut Choices<'_>) -> Option<()> {
    damage(content, other, choices);
    if content.len() >= 20 {
        let crc = crc32c::crc32c_append(crc32c::crc32c(&content[..16]), &content[20..]);
        content[16..20].copy_from_slice(&crc.to_le_bytes());
    }
    Some(())
}

fn ended(content: &mut Vec<u8>, other: &[u8], choices: &mut Choices<'_>) -> Option<()> {
    content.truncate(content.len().checked_sub(4)?);
    damage(content, other, choices);
    let crc = crc32c::crc32c(content);
    content.extend_from_slice(&crc.to_le_bytes());
    Some(())
}

/// The checksum that a list of ended rows has, for the manifest that names it.
pub(crate) fn checksum_of_list(bytes: &[u8]) -> Option<u32> {
    let end = bytes.len().checked_sub(16)?;
    let label = u32::from_le_bytes(*bytes.get(end..)?.first_chunk::<4>()?) as usize;
    let at = end.checked_sub(label)?.checked_sub(4)?;
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk::<4>()?))
}

/// Records of kinds and forms that older versions wrote, or that this one seldom does.
const RECORDS: [(u8, &str); 7] = [
    (5, r#"{"table":1,"shard":0,"removed":[1,2],"added":null,"history_from":9}"#),
    (
        5,
        r#"{"table":1,"shard":0,"removed":[1],"added":{"id":1,"epoch":1,"rows":300,"file_bytes":9000,"created":4,"row_version":1},"history_from":9}"#,
    ),
    (3, r#"{"table":1,"shard":1,"removed":[],"added":null,"ended":[[1,70],[4294967295,71]],"history_from":9}"#),
    (2, r#"{"DropTable":{"table":2}}"#),
    (
        2,
        r#"{"CreateIndex":{"table":1,"index":{"id":9,"name":"n","columns":[0,13],"descending":[false,true],"unique":true,"primary":false}}}"#,
    ),
    (2, r#"{"DropIndex":{"table":1,"index":1}}"#),
    (4, r#"{"table":1,"shard":1,"meta":{"id":8,"rows":9,"file_bytes":5,"created":4,"row_version":1},"ended":[2,6]}"#),
];

/// A record in the form in which its kind has JSON.
fn odd_record(choice: u8) -> (u8, Vec<u8>) {
    let (kind, json) = RECORDS[usize::from(choice) % RECORDS.len()];
    let mut payload = Vec::new();
    if kind == 4 {
        payload.push(3);
    }
    if kind != 2 && kind != 3 {
        payload.extend_from_slice(&(json.len() as u32).to_le_bytes());
    }
    payload.extend_from_slice(json.as_bytes());
    if kind == 5 {
        payload.extend_from_slice(&0_u32.to_le_bytes());
    }
    (kind, payload)
}

/// Damages what a record of a log file says.
fn log(bytes: &[u8], other: &[u8], choices: &mut Choices<'_>) -> Option<Vec<u8>> {
    let mut records = Vec::new();
    let mut at = 128;
    while let Some(header) = bytes.get(at..at + 48).filter(|header| header.iter().any(|byte| *byte != 0)) {
        let stored = u32::from_le_bytes(*header[4..].first_chunk()?) as usize;
        let payload = bytes.get(at + 48..at + 48 + stored)?;
        let payload = if header[45] & 1 != 0 { zstd::stream::decode_all(payload).ok()? } else { payload.to_vec() };
        records.push((header.to_vec(), payload));
        at += (48 + stored).next_multiple_of(8);
    }
    let which = choices.below(records.len());
    let (header, payload) = records.get_mut(which)?;
    match choices.byte() % 8 {
        0 => header[44] = choices.byte() % 6,
        1 => header[24..32].copy_from_slice(&choices.odd_number(0).to_le_bytes()),
        2 => (header[44], *payload) = odd_record(choices.byte()),
        _ => {}
    }
    damage(payload, other, choices);
    let mut out = bytes[..128].to_vec();
    let salt = bytes[32..40].to_vec();
    for (mut header, payload) in records {
        let size = (payload.len() as u32).to_le_bytes();
        header[4..8].copy_from_slice(&size);
        if header[45] & 2 == 0 {
            header[36..40].copy_from_slice(&size);
        }
        header[45] &= !1;
        header[40..44].copy_from_slice(&crc32c::crc32c(&payload).to_le_bytes());
        let crc = crc32c::crc32c_append(crc32c::crc32c(&salt), &header[4..48]);
        header[..4].copy_from_slice(&crc.to_le_bytes());
        out.extend_from_slice(&header);
        out.extend_from_slice(&payload);
        out.resize(out.len().next_multiple_of(8), 0);
    }
    Some(out)
}
