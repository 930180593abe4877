//! Transactions and savepoints that a client opens with Flight SQL actions. Each transaction is its own session.

use std::sync::Arc;

use arrow_flight::sql::EndTransaction;
use bytes::Bytes;
use tonic::Status;
use uuid::Uuid;

use super::sessions::{Session, SessionKey, State};
use crate::error::invalid;

/// A savepoint: a name within a transaction.
#[derive(Debug)]
pub(crate) struct Savepoint {
    session: Arc<Session>,
    name: String,
}

impl Savepoint {
    pub(crate) fn session(&self) -> &Arc<Session> {
        &self.session
    }
}

/// Begins a transaction in a new session and returns its handle. It ends with the caller's connection.
pub(crate) async fn begin(state: &State, key: &SessionKey) -> Result<Bytes, Status> {
    let session = state.transaction_session(key)?;
    session.say("BEGIN").await?;
    let handle = state.transactions.insert(key.owner(), session)?;
    state.forget_if_gone(key);
    Ok(handle)
}

/// Commits or rolls back. The handle is void afterwards, also if the commit was refused.
pub(crate) async fn end(state: &State, handle: &[u8], action: i32) -> Result<(), Status> {
    let sql = match EndTransaction::try_from(action) {
        Ok(EndTransaction::Commit) => "COMMIT",
        Ok(EndTransaction::Rollback) => "ROLLBACK",
        _ => return Err(invalid("a transaction ends with commit or rollback")),
    };
    let session = Arc::clone(&*state.transactions.remove(handle)?);
    // One that was stopped between two transactions has nothing to roll back.
    let result = if session.has_ended() && sql == "ROLLBACK" { Ok(()) } else { session.say(sql).await };
    // A refused commit has ended the transaction as well; anything else still open is rolled back here.
    session.abandon();
    state.drop_ended();
    result
}

/// Marks the present state of a transaction.
pub(crate) async fn savepoint(state: &State, transaction: &[u8], name: &str) -> Result<Bytes, Status> {
    let session = Arc::clone(&*state.transactions.get(transaction)?);
    let name = if name.is_empty() { format!("sp_{}", Uuid::new_v4().simple()) } else { name.to_owned() };
    session.say(&format!("SAVEPOINT {}", quoted(&name))).await?;
    state.savepoints.insert(session.owner(), Savepoint { session, name })
}

/// Forgets a savepoint, or returns to it; after a rollback it stays.
pub(crate) async fn end_savepoint(state: &State, handle: &[u8], action: i32) -> Result<(), Status> {
    // The protocol's numbers: 1 releases, 2 rolls back.
    let savepoint = state.savepoints.get(handle)?;
    let name = quoted(&savepoint.name);
    match action {
        1 => {
            savepoint.session.say(&format!("RELEASE SAVEPOINT {name}")).await?;
            state.savepoints.remove(handle).map(drop)
        }
        2 => savepoint.session.say(&format!("ROLLBACK TO SAVEPOINT {name}")).await,
        _ => Err(invalid("a savepoint ends with release or rollback")),
    }
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
