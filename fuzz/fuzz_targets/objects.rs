//! Encrypted objects.
#![no_main]

#[path = "../../grizzly-wal/tests/untrusted/objects.rs"]
#[allow(dead_code)]
mod objects;
#[path = "../../grizzly-wal/tests/untrusted/harness.rs"]
#[allow(dead_code)]
mod harness;

#[global_allocator]
static ALLOCATOR: harness::Counting = harness::Counting;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    objects::encrypted(data);
});
