//! The engine through its public face, without DataFusion.

mod helpers;
mod crash;
mod history;
mod indexes;
mod model;
mod open;
mod rows;
mod transactions;
