//! Bytes that nobody vouches for, where the log, its backups and its encrypted objects expect their own.

#![expect(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests run beside what they test")]

mod backups;
mod harness;
mod log;
mod objects;

#[global_allocator]
static ALLOCATOR: harness::Counting = harness::Counting;

#[test]
fn log_files() {
    harness::run("log_files", 1_500, log::plain);
}

#[test]
fn encrypted_log_files() {
    harness::run("encrypted_log_files", 800, log::encrypted);
}

#[test]
fn log_files_of_an_earlier_version() {
    harness::run("log_files_of_an_earlier_version", 500, log::earlier);
}

#[test]
fn backups() {
    harness::run("backups", 1_500, backups::damaged);
}

#[test]
fn encrypted_objects() {
    harness::run("encrypted_objects", 1_500, objects::encrypted);
}

#[test]
fn names_and_keys() {
    harness::run("names_and_keys", 100, objects::names_and_keys);
}

#[test]
fn numbers_at_the_ends_of_their_ranges() {
    harness::alone(|| {
        log::odd_numbers();
        backups::odd_numbers();
        objects::odd_lengths();
    });
}

#[test]
fn memory_and_panics_are_noticed() {
    harness::check_itself();
}
