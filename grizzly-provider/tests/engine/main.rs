//! The engine through its public face, without DataFusion.

#![expect(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests run beside what they test")]

mod backup;
mod beside_indexes;
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
mod simulation;
mod tables;
mod transactions;
mod unsynced;
mod windows;
