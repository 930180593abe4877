//! Integration tests of grizzly-provider: one binary, one module per theme.
#![cfg(feature = "datafusion")]

mod ddl;
mod dml;
mod session;
mod support;
mod transactions;
