//! Transactions: what a session may write, and how it becomes visible to all.

mod commit;
pub(crate) mod conflict;
pub(crate) mod moved;
pub(crate) mod order;
pub(crate) mod outcome;
pub(crate) mod publish;
pub(crate) mod transaction;
mod writes;
