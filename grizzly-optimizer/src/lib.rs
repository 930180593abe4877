//! Grizzly.
