//! BEGIN, COMMIT, ROLLBACK, SAVEPOINT and SET TRANSACTION.
//!
//! Every transaction runs under snapshot isolation, which gives at least what READ UNCOMMITTED, READ COMMITTED and
//! REPEATABLE READ ask for. SERIALIZABLE asks for more and is refused.

use datafusion::{
    error::Result,
    sql::sqlparser::ast::{Ident, Set, Statement, TransactionAccessMode, TransactionIsolationLevel, TransactionMode},
};

use crate::{Error, adapter::SessionHandle};

/// Carries out a statement about transactions; `None` if `statement` is none.
pub(super) async fn run(session: &SessionHandle, statement: &Statement) -> Option<Result<()>> {
    let done = match statement {
        Statement::StartTransaction { modes, modifier, statements, exception, .. } => {
            if modifier.is_some() || !statements.is_empty() || exception.is_some() {
                return Some(Err(Error::unsupported(format!("{statement} is not supported")).into()));
            }
            begin(session, modes).await
        }
        Statement::Commit { chain, .. } => commit(session, *chain).await,
        Statement::Rollback { chain, savepoint: None } => rollback(session, *chain).await,
        Statement::Rollback { savepoint: Some(name), .. } => session.rollback_to_savepoint(&folded(name)).await,
        Statement::Savepoint { name } => session.savepoint(&folded(name)).await,
        Statement::ReleaseSavepoint { name } => session.release_savepoint(&folded(name)).await,
        Statement::Set(Set::SetTransaction { modes, snapshot, session: whole_session }) => {
            if snapshot.is_some() || *whole_session {
                return Some(Err(Error::unsupported(format!("{statement} is not supported")).into()));
            }
            set(session, modes)
        }
        _ => return None,
    };
    Some(done.map_err(Into::into))
}

async fn begin(session: &SessionHandle, modes: &[TransactionMode]) -> crate::Result<()> {
    session.begin(read_only(modes)?.unwrap_or(false)).await
}

/// Ends the transaction and, `AND CHAIN`, starts the next.
async fn commit(session: &SessionHandle, chain: bool) -> crate::Result<()> {
    session.commit().await?;
    if chain { session.begin(false).await } else { Ok(()) }
}

async fn rollback(session: &SessionHandle, chain: bool) -> crate::Result<()> {
    session.rollback().await?;
    if chain { session.begin(false).await } else { Ok(()) }
}

fn set(session: &SessionHandle, modes: &[TransactionMode]) -> crate::Result<()> {
    session.check_usable()?;
    match read_only(modes)? {
        Some(read_only) => session.set_read_only(read_only),
        None => Ok(()),
    }
}

/// The access mode, if one is given. An error for an isolation level that is not kept.
fn read_only(modes: &[TransactionMode]) -> crate::Result<Option<bool>> {
    let mut read_only = None;
    for mode in modes {
        match mode {
            TransactionMode::AccessMode(mode) => read_only = Some(*mode == TransactionAccessMode::ReadOnly),
            TransactionMode::IsolationLevel(TransactionIsolationLevel::Serializable) => {
                let message = "isolation level SERIALIZABLE is not supported: transactions run under SNAPSHOT";
                return Err(Error::unsupported(message));
            }
            TransactionMode::IsolationLevel(_) => {}
        }
    }
    Ok(read_only)
}

/// Names of savepoints ignore case unless quoted.
fn folded(name: &Ident) -> String {
    if name.quote_style.is_some() { name.value.clone() } else { name.value.to_lowercase() }
}
