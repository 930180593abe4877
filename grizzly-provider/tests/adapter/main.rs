//! Grizzly through DataFusion's public face: one binary, one module per theme.
#![cfg(feature = "datafusion")]
#![expect(clippy::disallowed_methods, reason = "tests run beside what they test")]

mod activity;
mod catalog;
mod ddl;
mod dml;
mod dynamic_filters;
mod fixtures;
mod memory;
mod predicates;
mod result_cache;
mod result_cache_model;
mod session;
mod statements;
mod support;
mod time_travel;
mod transactions;
