//! Settings of a session: `SET grizzly.… = …`.

use datafusion::common::{config::ConfigExtension, extensions_options};

extensions_options! {
    /// What a session can set under the prefix `grizzly`.
    pub struct GrizzlyOptions {
        /// Whether the optimized plan of a statement is kept for when the same text comes again.
        pub plan_cache: bool, default = true
    }
}

impl ConfigExtension for GrizzlyOptions {
    const PREFIX: &'static str = "grizzly";
}
