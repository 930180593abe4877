//! The engine through its public face, without DataFusion.

mod backup;
mod changes;
mod cluster;
mod crash;
mod gate;
mod history;
mod indexes;
mod large;
mod maintenance;
mod model;
mod open;
mod pauses;
mod rows;
mod tables;
mod transactions;
mod windows;
