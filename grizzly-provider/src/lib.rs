//! Grizzly.

pub mod engine;
