//! Several nodes over one database: any of them plans a query, all of them run it.
//!
//! A node tells the others where it is (`members`). A query that looks at many rows becomes stages
//! (datafusion-distributed cuts the plan, `distribute` says what a scan may do) whose tasks go to the nodes that
//! prefer their shards (`placement`). Scans travel as plain data (`codec`), to be read at one commit on every node
//! (`worker`), under a guard that lets no failure pass as an end (`guard`). What happens when a node fails is decided in one place (`exec`).

mod channel;
mod codec;
mod distribute;
mod exec;
mod guard;
mod members;
mod node;
mod nodes_table;
mod placement;
mod planner;
mod session;
mod suitable;
mod worker;

pub use members::NodeState;
pub use node::{Cluster, ClusterBuilder, Node, NodeSettings};
pub use session::GrizzlyClusterExt;
