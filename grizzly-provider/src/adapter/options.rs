//! Settings of a session: `SET grizzly.… = …`.

use datafusion::common::{config::ConfigExtension, extensions_options};

extensions_options! {
    /// What a session can set under the prefix `grizzly`.
    pub struct GrizzlyOptions {
        /// Whether the optimized plan of a statement is kept for when the same text comes again.
        pub plan_cache: bool, default = true
        /// In a cluster, a query that looks at fewer rows than this stays on the node that was asked
        pub distribute_rows: u64, default = 500_000
    }
}

impl ConfigExtension for GrizzlyOptions {
    const PREFIX: &'static str = "grizzly";
}
