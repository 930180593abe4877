//! The engine: everything a table is made of, without DataFusion.

pub mod segment;
