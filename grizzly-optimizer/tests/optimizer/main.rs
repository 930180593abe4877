//! Integration tests of grizzly-optimizer: one binary, one module per theme. Helpers are at the bottom of the list.

mod access_paths;
mod aggregates;
mod custom_rule;
mod equivalence;
mod join_order;
mod ranges;

mod database;
mod key_encoding;
mod rows;
