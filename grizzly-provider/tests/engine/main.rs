//! The engine through its public face, without DataFusion.

mod backup;
mod changes;
mod cluster;
mod crash;
mod exchanged;
mod followers;
mod full;
mod gate;
mod golden;
mod history;
mod indexes;
mod large;
mod links;
mod maintenance;
mod model;
mod open;
mod rows;
mod tables;
mod transactions;
mod unsynced;
mod windows;
