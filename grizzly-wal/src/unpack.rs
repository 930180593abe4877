//! Zstd frames that may say anything of themselves: neither the size that one claims nor its window decides how much memory
//! reading it takes.

use std::io::Read;

/// The binary logarithm of the largest window that is allowed. Levels 1 to 3, which is what is written, have at most 2^21
/// bytes; the library alone would reserve 2^27 for a frame of a few.
const WINDOW: u32 = 23;

/// The content of a zstd frame of at most `most` bytes. Of one with more, that many and one: enough to notice it.
///
/// # Errors
/// If it is not a zstd frame, or one that was not written by any version of this.
pub fn unpack(frame: &[u8], most: u64) -> std::io::Result<Vec<u8>> {
    let mut decoder = zstd::stream::read::Decoder::with_buffer(frame)?;
    decoder.window_log_max(WINDOW)?;
    let mut content = Vec::new();
    decoder.take(most.saturating_add(1)).read_to_end(&mut content)?;
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_content_of_every_level_in_use_is_read() {
        // Nothing that shrinks much: windows are as large as they get.
        let mut state = 1_u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 40) as u8
        };
        let content: Vec<u8> = (0..12 << 20).map(|_| next() & 0x3F).collect();
        for level in 1..=3 {
            let frame = zstd::bulk::compress(&content, level).expect("it can be compressed");
            assert!(unpack(&frame, content.len() as u64).is_ok_and(|again| again == content), "level {level}");
        }
    }

    #[test]
    fn what_a_frame_claims_is_not_taken() {
        let frame = zstd::bulk::compress(&vec![0; 1 << 20], 3).expect("it can be compressed");
        assert!(frame.len() < 200);
        assert_eq!(unpack(&frame, 10).map(|content| content.len()).ok(), Some(11));
        // Magic; no single segment, no size; a window of 2^41 bytes, then of 2^27; a last block of 4 bytes.
        for window in [0xF8, 17 << 3] {
            let claims = [&[0x28, 0xB5, 0x2F, 0xFD, 0x00, window, 0x21, 0x00, 0x00][..], b"abcd"].concat();
            assert!(unpack(&claims, 4).is_err(), "{window}");
        }
        // The same with a window of 2^20.
        let modest = [&[0x28, 0xB5, 0x2F, 0xFD, 0x00, 10 << 3, 0x21, 0x00, 0x00][..], b"abcd"].concat();
        assert_eq!(unpack(&modest, 4).ok().as_deref(), Some(&b"abcd"[..]));
    }
}
