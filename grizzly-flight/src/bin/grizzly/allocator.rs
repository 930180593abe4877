//! The command's allocator, which returns memory to the system soon where there is to be little. Left to itself, mimalloc
//! keeps what a query has given back for a second: little beside gigabytes, half of what a server takes that may use
//! 256 MB. It uses no huge pages (its feature `no_thp`), of which hardly ever one is free as a whole.

use std::ffi::{c_int, c_long};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// `mi_option_purge_delay` of mimalloc's versions 2 and 3 (`mimalloc.h`), in milliseconds.
const PURGE_DELAY: c_int = 15;

const PURGE_AFTER: c_long = 10;

unsafe extern "C" {
    /// Sets an option unless the environment has done so (`MIMALLOC_PURGE_DELAY`).
    fn mi_option_set_default(option: c_int, value: c_long);
}

/// Below so many bytes for database and queries, what is free is returned after ten milliseconds. That makes queries
/// slower by a tenth, since memory that comes back is cleared.
const LITTLE: usize = 1 << 30;

/// Prepares for a process that may take `memory` bytes. Call it before there are other threads.
pub(crate) fn prepare(memory: Option<usize>) {
    if memory.is_none_or(|memory| memory >= LITTLE) {
        return;
    }
    // SAFETY: mimalloc, which is linked as this binary's allocator, writes a number into its table of options; no other
    // thread is there to read them meanwhile.
    unsafe { mi_option_set_default(PURGE_DELAY, PURGE_AFTER) };
}
