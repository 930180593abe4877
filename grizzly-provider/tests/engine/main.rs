//! The engine through its public face, without DataFusion.

mod crash;
mod helpers;
mod history;
mod indexes;
mod model;
mod open;
mod rows;
mod transactions;
