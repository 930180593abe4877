//! Places of backups.
#![no_main]

#[path = "../../grizzly-wal/tests/untrusted/backups.rs"]
#[allow(dead_code)]
mod backups;
#[path = "../../grizzly-wal/tests/untrusted/harness.rs"]
#[allow(dead_code)]
mod harness;

#[global_allocator]
static ALLOCATOR: harness::Counting = harness::Counting;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    backups::damaged(data);
});
