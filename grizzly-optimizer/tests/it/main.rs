//! Integration tests of grizzly-optimizer: one binary, one module per theme.

mod key_encoding;
mod ranges;
