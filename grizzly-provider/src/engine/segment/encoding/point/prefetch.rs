//! What the processor can be told about memory that will be read soon.

/// Fetches the cache line with the byte at `place`, if there is one, while the program goes on. Nothing else changes.
#[inline]
pub(super) fn prefetch(bytes: &[u8], place: usize) {
    #[cfg(target_arch = "x86_64")]
    if let Some(byte) = bytes.get(place) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: it is a hint, and the byte is there.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(byte).cast()) }
    }
    // The other processors' hints are not stable in Rust yet.
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (bytes, place);
}
