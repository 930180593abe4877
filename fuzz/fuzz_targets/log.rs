//! Files of a log, plain, encrypted and of an earlier version.
#![no_main]

#[path = "../../grizzly-wal/tests/untrusted/log.rs"]
#[allow(dead_code)]
mod log;
#[path = "../../grizzly-wal/tests/untrusted/harness.rs"]
#[allow(dead_code)]
mod harness;

#[global_allocator]
static ALLOCATOR: harness::Counting = harness::Counting;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    match data.split_first() {
        Some((0, case)) => log::encrypted(case),
        Some((1, case)) => log::earlier(case),
        _ => log::plain(data),
    };
});
