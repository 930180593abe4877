//! Queries over tables of several databases.

mod failures;
mod mixed;
#[cfg(feature = "postgres")]
mod postgres;
mod queries;
mod shop;
#[cfg(feature = "sqlite")]
mod sqlite;
mod statements;
