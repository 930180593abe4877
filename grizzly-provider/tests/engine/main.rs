//! The engine through its public face, without DataFusion.

mod backup;
mod changes;
mod cluster;
mod crash;
mod gate;
mod history;
mod indexes;
mod links;
mod model;
mod open;
mod rows;
mod tables;
mod transactions;
mod windows;
