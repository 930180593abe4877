//! Grizzly through DataFusion's public face.

mod catalog;
mod dynamic_filters;
mod fixtures;
mod predicates;
mod statements;
mod time_travel;
