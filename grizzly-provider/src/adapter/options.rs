//! Settings of a session: `SET grizzly.… = …`.

use datafusion::common::{config::ConfigExtension, extensions_options};

extensions_options! {
    /// What a session can set under the prefix `grizzly`.
    pub struct GrizzlyOptions {
        /// Whether the optimized plan of a statement is kept for when the same text comes again.
        pub plan_cache: bool, default = true
        /// Whether results of queries are taken from the result cache and kept in it, if the database has one.
        /// Needs `plan_cache`, too
        pub result_cache: bool, default = true
        /// The result of a query that looks at fewer rows than this is not kept
        pub result_cache_rows: u64, default = 10_000
        /// In a cluster, a query that looks at fewer rows than this stays on the node that was asked
        pub distribute_rows: u64, default = 500_000
    }
}

impl ConfigExtension for GrizzlyOptions {
    const PREFIX: &'static str = "grizzly";
}
