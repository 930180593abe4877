//! The layout against arbitrary records, arbitrary bytes and hostile lengths.

use proptest::prelude::*;

use super::*;

const SALT: u64 = 0x5EED;

fn header(lsn: u64) -> RecordHeader {
    RecordHeader { lsn: Lsn(lsn), txn: lsn * 7, commit_ts: lsn * 11, kind: lsn as u8 }
}

fn group(payloads: &[Bytes], first: u64, compress_above: usize) -> Result<Vec<u8>> {
    let mut frames = Vec::new();
    for (payload, lsn) in payloads.iter().zip(first..) {
        Packed::new(payload.clone(), compress_above, false)?.encode(&header(lsn), &mut frames);
    }
    assert_eq!(finish_group(&mut frames, SALT, None)?, payloads.len() as u64);
    Ok(frames)
}

fn read_all(file: &Bytes) -> Result<Vec<Record>> {
    let (mut records, mut offset) = (Vec::new(), 0);
    while let Frame::Record(record, next) = read_frame(file, offset, SALT) {
        records.push(record.unpack(None)?);
        offset = next;
    }
    Ok(records)
}

proptest! {
    #[test]
    fn records_come_back(
        payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 1..20),
        compress_above in 0_usize..300,
        first in 1_u64..1 << 60,
    ) {
        let payloads: Vec<Bytes> = payloads.into_iter().map(Bytes::from).collect();
        let mut file = group(&payloads, first, compress_above)?;
        file.extend_from_slice(&seal_frame(Lsn(first + payloads.len() as u64), SALT, SealKind::Closed)?);
        file.resize(file.len() + 100, 0);
        let records = read_all(&file.into())?;
        prop_assert_eq!(records.len(), payloads.len());
        for ((record, payload), lsn) in records.into_iter().zip(payloads).zip(first..) {
            prop_assert_eq!(record.header.lsn, Lsn(lsn));
            prop_assert_eq!(record.header.kind, lsn as u8);
            prop_assert_eq!(record.payload, payload);
        }
    }

    #[test]
    fn arbitrary_bytes_are_never_a_record(bytes in prop::collection::vec(any::<u8>(), 0..200), offset in 0_usize..250) {
        let file = Bytes::from(bytes);
        prop_assert!(!matches!(read_frame(&file, offset, SALT), Frame::Record(..) | Frame::Seal(..)));
        prop_assert!(!proves_durable(&file, offset, SALT, Lsn(0)));
        prop_assert!(!is_sealed(&file, 64, SALT));
        prop_assert!(FileHeader::decode(&file).is_err());
    }

    #[test]
    fn a_flipped_bit_never_passes(payload in prop::collection::vec(any::<u8>(), 0..100), bit in any::<prop::sample::Index>()) {
        let mut file = group(&[payload.into()], 1, usize::MAX)?;
        let bit = bit.index(file.len() * 8);
        file[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(matches!(read_frame(&file.into(), 0, SALT), Frame::Bad(_)));
    }

    #[test]
    fn file_headers_come_back(
        number in any::<u64>(), first in any::<u64>(), salt in any::<u64>(), epoch in 0..9_u64,
        encryption in proptest::option::of((any::<[u8; 8]>(), any::<[u8; FILE_KEY_ID]>())),
        place in proptest::option::of((any::<u128>(), any::<u64>())),
        bit in any::<prop::sample::Index>(),
    ) {
        let encryption = encryption.map(|(salt, key_id)| FileEncryption { salt, key_id });
        let place = place.map(|(owner, previous)| FilePlace { owner, previous });
        let header = FileHeader { number, first_lsn: Lsn(first), salt, epoch, encryption, place };
        let mut bytes = header.encode();
        prop_assert_eq!(bytes.len(), header.len());
        prop_assert_eq!(FileHeader::decode(&bytes).ok(), Some(header));
        let bit = bit.index(bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(FileHeader::decode(&bytes).is_err(), "bit {}", bit);
    }
}

#[test]
fn compression_is_used_where_it_pays() -> Result<()> {
    let zeros = Packed::new(vec![0; 100_000].into(), 4096, false)?;
    assert!(zeros.frame_len() < 1000);
    assert_eq!(Packed::new(vec![0; 4096].into(), 4096, false)?.frame_len(), FRAME_HEADER + 4096);
    assert!(Packed::new(vec![0; MAX_PAYLOAD + 1].into(), usize::MAX, false).is_err());
    Ok(())
}

#[test]
fn a_payload_that_unpacks_to_more_than_it_declares_is_damage() -> Result<()> {
    let bomb = zstd::bulk::compress(&vec![0; 50 << 20], 1).map_err(|error| Error::io("compress", "a bomb", error))?;
    for declared in [0, 10, (50 << 20) - 1, (50 << 20) + 1] {
        let record = StoredRecord {
            header: header(1),
            bound: [0; 40],
            stored: bomb.clone().into(),
            raw_len: declared,
            flags: FLAG_ZSTD,
        };
        assert_eq!(record.unpack(None).map_err(|error| error.kind()), Err(ErrorKind::Corrupt), "{declared}");
    }
    Ok(())
}

#[test]
fn frames_of_another_log_are_not_ours() -> Result<()> {
    let file: Bytes = group(&["payload".into()], 1, 4096)?.into();
    assert!(matches!(read_frame(&file, 0, SALT), Frame::Record(..)));
    assert!(matches!(read_frame(&file, 0, SALT + 1), Frame::Bad(_)));
    Ok(())
}

#[test]
fn only_a_later_group_proves_that_a_record_was_durable() -> Result<()> {
    let mut file = group(&["1".into(), "2".into(), "3".into()], 1, 4096)?;
    let third = file.len() / 3 * 2;
    assert!(!proves_durable(&file.clone().into(), 0, SALT, Lsn(1)), "a group is written at once");
    file.extend(group(&["4".into()], 4, 4096)?);
    assert!(proves_durable(&file.clone().into(), 0, SALT, Lsn(1)));
    assert!(proves_durable(&file.clone().into(), third, SALT, Lsn(3)));
    assert!(!proves_durable(&file.into(), third, SALT, Lsn(4)));
    Ok(())
}

#[test]
fn encrypted_records_open_in_their_file_only() -> Result<()> {
    use crate::encryption::EncryptionKey;
    let key = EncryptionKey::generate()?;
    let (cipher, other) = (key.cipher(&[1; 16], b"log")?, key.cipher(&[2; 16], b"log")?);
    let payloads = [Bytes::new(), Bytes::from_static(b"secret"), vec![9; 9_000].into()];
    let mut frames = Vec::new();
    for (payload, lsn) in payloads.iter().zip(5..) {
        Packed::new(payload.clone(), 4096, true)?.encode(&header(lsn), &mut frames);
    }
    assert_eq!(finish_group(&mut frames, SALT, Some(&cipher))?, 3);
    assert!(!frames.windows(6).any(|window| window == b"secret"));
    let file = Bytes::from(frames.clone());
    let mut offset = 0;
    for payload in &payloads {
        let read = || match read_frame(&file, offset, SALT) {
            Frame::Record(record, next) => Some((record, next)),
            _ => None,
        };
        let (record, next) = read().expect("it is a record");
        assert_eq!(record.unpack(Some(&cipher))?.payload, payload);
        let kind = |cipher| read().map(|(record, _)| record.unpack(cipher).map_err(|error| error.kind()));
        assert_eq!(kind(None), Some(Err(ErrorKind::Permission)));
        assert_eq!(kind(Some(&other)), Some(Err(ErrorKind::Corrupt)));
        offset = next;
    }
    // A header that was changed and given a right checksum does not pass for the record either.
    frames[16] ^= 1;
    finish_group_headers(&mut frames, SALT);
    match read_frame(&frames.into(), 0, SALT) {
        Frame::Record(record, _) => {
            assert_eq!(record.unpack(Some(&cipher)).map_err(|error| error.kind()), Err(ErrorKind::Corrupt));
        }
        other => unreachable!("its checksums are right: {other:?}"),
    }
    Ok(())
}

/// Gives the first frame a right header checksum.
fn finish_group_headers(frames: &mut [u8], salt: u64) {
    let crc = header_crc(&frames[..FRAME_HEADER], salt);
    frames[..4].copy_from_slice(&crc.to_le_bytes());
}
