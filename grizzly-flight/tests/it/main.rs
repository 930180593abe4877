//! Grizzly through all its doors: one SQL corpus on every engine, and a process that is killed while it commits.

mod crash;
mod engine;
mod slt;
