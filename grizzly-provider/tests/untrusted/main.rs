//! Bytes that nobody vouches for, where the engine expects files of its own: the whole database is opened, verified and
//! read, whichever file they stand in.

#![expect(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests run beside what they test")]

mod database;
mod forge;
#[path = "../../../grizzly-wal/tests/untrusted/harness.rs"]
mod harness;
mod odd;
mod reading;

use database::Kind;

#[global_allocator]
static ALLOCATOR: harness::Counting = harness::Counting;

#[test]
fn manifests() {
    harness::run("manifests", 150, |case| reading::damaged(Kind::Manifest, case));
}

#[test]
fn segments() {
    harness::run("segments", 200, |case| reading::damaged(Kind::Segment, case));
}

#[test]
fn index_runs() {
    harness::run("index_runs", 60, |case| reading::damaged(Kind::Run, case));
}

#[test]
fn lists_of_ended_rows() {
    harness::run("lists_of_ended_rows", 60, |case| reading::damaged(Kind::Ended, case));
}

#[test]
fn log_records() {
    harness::run("log_records", 200, |case| reading::damaged(Kind::Log, case));
}

#[test]
fn leases_and_positions_of_backups() {
    harness::run("leases_and_positions_of_backups", 60, |case| reading::damaged(Kind::Word, case));
}

#[test]
fn files_of_an_earlier_version() {
    harness::run("files_of_an_earlier_version", 80, reading::earlier);
}

#[test]
fn numbers_and_names_that_are_none() {
    harness::alone(|| {
        odd::numbers_of_manifests();
        odd::schemas();
        odd::names();
        odd::leases();
    });
}

#[test]
fn memory_and_panics_are_noticed() {
    harness::check_itself();
}
