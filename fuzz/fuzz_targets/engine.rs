//! Files of a database: the first byte says of which kind.
#![no_main]

#[path = "../../grizzly-provider/tests/untrusted/database.rs"]
#[allow(dead_code)]
mod database;
#[path = "../../grizzly-provider/tests/untrusted/forge.rs"]
#[allow(dead_code)]
mod forge;
#[path = "../../grizzly-wal/tests/untrusted/harness.rs"]
#[allow(dead_code)]
mod harness;
#[path = "../../grizzly-provider/tests/untrusted/reading.rs"]
#[allow(dead_code)]
mod reading;

use database::Kind;

#[global_allocator]
static ALLOCATOR: harness::Counting = harness::Counting;

const KINDS: [Kind; 6] = [Kind::Manifest, Kind::Segment, Kind::Run, Kind::Ended, Kind::Log, Kind::Word];

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Some((kind, case)) = data.split_first() {
        reading::damaged(KINDS[usize::from(*kind) % KINDS.len()], case);
    }
});
