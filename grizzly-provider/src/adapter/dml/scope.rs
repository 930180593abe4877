//! The transaction around one writing statement: the session's open one, in which the statement is all or nothing, or
//! one of its own, committed at the end.

use std::sync::Arc;

use datafusion::execution::TaskContext;
use tokio::sync::OwnedMutexGuard;

use crate::{
    Error, Grizzly, Result, Snapshot, Transaction,
    adapter::{
        SessionHandle, interrupt,
        statement::{bind_to, same_database},
        task_context,
    },
};

/// A writing statement while it runs. Dropped before [`WriteScope::finish`], it leaves nothing behind.
pub(super) struct WriteScope {
    transaction: Scope,
    snapshot: Snapshot,
    /// What the statement's input runs under: its scans read [`WriteScope::snapshot`].
    context: Arc<TaskContext>,
}

enum Scope {
    Own(Option<Box<Transaction>>),
    Session { session: Arc<SessionHandle>, mark: Option<usize>, _writer: OwnedMutexGuard<()> },
}

impl WriteScope {
    /// Begins a statement on `db` in the session that `context` belongs to.
    pub(super) async fn open(db: &Grizzly, context: &TaskContext) -> Result<Self> {
        let session = context.session_config().get_extension::<SessionHandle>();
        let session = session.filter(|session| same_database(session.db(), db));
        if let Some(session) = session {
            let writer = session.lock_writer().await;
            if let Some((mark, snapshot)) = session.begin_statement()? {
                let transaction = Scope::Session { session, mark: Some(mark), _writer: writer };
                return Self::bound(db, context, transaction, snapshot);
            }
        }
        let transaction = db.begin()?;
        let snapshot = transaction.snapshot()?;
        Self::bound(db, context, Scope::Own(Some(Box::new(transaction))), snapshot)
    }

    /// The input gets a context of its own, so that what was bound under the caller's, perhaps by an earlier
    /// statement, is never what this one reads.
    fn bound(db: &Grizzly, context: &TaskContext, transaction: Scope, snapshot: Snapshot) -> Result<Self> {
        let context = task_context(context, context.session_config().clone(), context.runtime_env());
        bind_to(db, &context, &snapshot)?;
        Ok(Self { transaction, snapshot, context })
    }

    /// What the statement reads: all of it, from before its first write to its end.
    pub(super) fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// What the statement's input runs under.
    pub(super) fn context(&self) -> &Arc<TaskContext> {
        &self.context
    }

    /// Writes.
    pub(super) fn write<R>(&mut self, f: impl FnOnce(&mut Transaction) -> Result<R>) -> Result<R> {
        match &mut self.transaction {
            Scope::Own(Some(transaction)) => f(transaction),
            Scope::Session { session, .. } => session.with_transaction(f).unwrap_or_else(|| Err(ended())),
            Scope::Own(None) => Err(ended()),
        }
    }

    /// Whether the statement is one of several of an open transaction.
    pub(super) fn in_transaction(&self) -> bool {
        matches!(self.transaction, Scope::Session { .. })
    }

    /// Ends the statement well: commits it if the transaction is its own.
    pub(super) async fn finish(mut self) -> Result<()> {
        match &mut self.transaction {
            Scope::Own(transaction) => {
                let transaction = transaction.take().ok_or_else(ended)?;
                interrupt::commit(*transaction).await?.into_result()?;
            }
            Scope::Session { session, mark, .. } => {
                if let Some(mark) = mark.take() {
                    session.end_statement(mark)?;
                }
            }
        }
        Ok(())
    }
}

impl Drop for WriteScope {
    fn drop(&mut self) {
        if let Scope::Session { session, mark: Some(mark), .. } = &self.transaction {
            session.fail_statement(*mark);
        }
    }
}

fn ended() -> Error {
    Error::internal("the transaction of a running statement has ended")
}
