//! The command's allocator, which returns memory to the system soon. Left to itself, mimalloc keeps what a query has given
//! back for a second, in huge pages of which it hardly ever can return one (hence the feature `no_thp`), and `--memory` would
//! bound the half of what the operating system counts.

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

/// Makes the allocator return what is free after ten milliseconds. Call it before there are other threads.
pub(crate) fn return_memory_soon() {
    // SAFETY: mimalloc, which is linked as this binary's allocator, writes a number into its table of options; no other
    // thread is there to read them meanwhile.
    unsafe { mi_option_set_default(PURGE_DELAY, PURGE_AFTER) };
}
