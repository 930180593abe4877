//! Transactions: conflicts, savepoints, row versions, snapshots beside a writer, time travel.

use datafusion::error::DataFusionError;
use grizzly_provider::{ErrorKind, adapter::grizzly_error};

use super::{
    check::{ask, expect, failed},
    report::{Found, Report},
};
use crate::session::Database;

const ACCOUNTS: i64 = 100;
const BALANCE: i64 = 1000;
const TRANSFERS: i64 = 200;

pub(crate) async fn steps(database: &Database, report: &mut Report) {
    report.step("create accounts", create(database)).await;
    report.step("two transactions change one row", conflict(database)).await;
    report.step("savepoint and rollback", savepoint(database)).await;
    report.step("a row's versions", versions(database)).await;
    report.step("a snapshot beside a writer", snapshot(database)).await;
    report.step("time travel", time_travel(database)).await;
}

async fn create(database: &Database) -> Result<Found, DataFusionError> {
    let session = database.session()?;
    session.execute("CREATE TABLE accounts (id BIGINT NOT NULL, balance BIGINT NOT NULL, PRIMARY KEY (id))").await?;
    let values: Vec<String> = (1..=ACCOUNTS).map(|id| format!("({id}, {BALANCE})")).collect();
    session.execute(&format!("INSERT INTO accounts VALUES {}", values.join(", "))).await?;
    expect("sum", ask(&session, "SELECT sum(balance) FROM accounts").await?, ACCOUNTS * BALANCE)?;
    let again = session.execute("INSERT INTO accounts VALUES (1, 0)").await;
    expect("a second row with a key", kind_of(&again), Some(ErrorKind::UniqueViolation))?;
    Ok(Found::new(ACCOUNTS.unsigned_abs(), "a duplicate key is refused"))
}

/// The first to commit wins; the other gets an error that says so, and succeeds when it tries again.
async fn conflict(database: &Database) -> Result<Found, DataFusionError> {
    let (first, second) = (database.session()?, database.session()?);
    for session in [&first, &second] {
        session.execute("BEGIN").await?;
        session.execute("UPDATE accounts SET balance = balance + 1 WHERE id = 1").await?;
    }
    first.execute("COMMIT").await?;
    let refused = second.execute("COMMIT").await;
    expect("the second commit", kind_of(&refused), Some(ErrorKind::Conflict))?;
    second.execute("BEGIN; UPDATE accounts SET balance = balance + 1 WHERE id = 1; COMMIT").await?;
    expect("balance", ask(&first, "SELECT balance FROM accounts WHERE id = 1").await?, BALANCE + 2)?;
    first.execute("UPDATE accounts SET balance = balance - 2 WHERE id = 1").await?;
    Ok(Found::new(1, "the second is refused with 40001 and succeeds when retried"))
}

async fn savepoint(database: &Database) -> Result<Found, DataFusionError> {
    let (session, other) = (database.session()?, database.session()?);
    let sum = "SELECT sum(balance) FROM accounts";
    session.execute("BEGIN").await?;
    session.execute("UPDATE accounts SET balance = balance + 5 WHERE id = 2").await?;
    session.execute("SAVEPOINT here").await?;
    session.execute("DELETE FROM accounts WHERE id > 50").await?;
    expect("rows after DELETE", ask(&session, "SELECT count(*) FROM accounts").await?, 50)?;
    session.execute("ROLLBACK TO SAVEPOINT here").await?;
    expect("own changes", ask(&session, sum).await?, ACCOUNTS * BALANCE + 5)?;
    expect("changes seen by others", ask(&other, sum).await?, ACCOUNTS * BALANCE)?;
    session.execute("ROLLBACK").await?;
    expect("after ROLLBACK", ask(&session, sum).await?, ACCOUNTS * BALANCE)?;
    Ok(Found::new(51, "undone to the savepoint, then wholly"))
}

/// Every update makes a new version; the old one stays readable.
async fn versions(database: &Database) -> Result<Found, DataFusionError> {
    let session = database.session()?;
    let version = "SELECT row_version FROM \"accounts$rows\" WHERE id = 3 AND deleted IS NULL";
    expect("first version", ask(&session, version).await?, 1)?;
    session.execute("UPDATE accounts SET balance = balance + 7 WHERE id = 3").await?;
    session.execute("UPDATE accounts SET balance = balance - 7 WHERE id = 3").await?;
    expect("version after two updates", ask(&session, version).await?, 3)?;
    let kept = ask(&session, "SELECT count(*) FROM \"accounts$rows\" WHERE id = 3").await?;
    expect("versions that are kept", kept, 3)?;
    Ok(Found::new(3, "row_version counts up, old versions are kept"))
}

/// Transfers between accounts never change the sum, whenever it is read; an open transaction sees none of them.
async fn snapshot(database: &Database) -> Result<Found, DataFusionError> {
    let (reader, writer) = (database.session()?, database.session()?);
    let history = "SELECT sum(balance * id) FROM accounts";
    reader.execute("BEGIN").await?;
    let before = ask(&reader, history).await?;
    let writing = tokio::spawn(async move {
        for transfer in 0..TRANSFERS {
            // All to one account: were every account to give as often as it takes, nothing would have changed.
            let (from, to) = (1 + transfer % (ACCOUNTS - 1), ACCOUNTS);
            let sql = format!(
                "BEGIN; UPDATE accounts SET balance = balance - 1 WHERE id = {from}; \
                 UPDATE accounts SET balance = balance + 1 WHERE id = {to}; COMMIT"
            );
            writer.execute(&sql).await?;
        }
        Ok::<_, DataFusionError>(())
    });
    let fresh = database.session()?;
    let mut reads = 0_u64;
    while !writing.is_finished() {
        expect(
            "the sum beside the writer",
            ask(&fresh, "SELECT sum(balance) FROM accounts").await?,
            ACCOUNTS * BALANCE,
        )?;
        expect("the open transaction's view", ask(&reader, history).await?, before)?;
        reads += 2;
    }
    writing.await.map_err(|error| DataFusionError::External(Box::new(error)))??;
    expect("the open transaction's view", ask(&reader, history).await?, before)?;
    reader.execute("COMMIT").await?;
    if ask(&reader, history).await? == before {
        return Err(failed("the transfers are not visible after the transaction"));
    }
    Ok(Found::new(TRANSFERS.unsigned_abs(), format!("{reads} reads during {TRANSFERS} commits, all consistent")))
}

async fn time_travel(database: &Database) -> Result<Found, DataFusionError> {
    let session = database.session()?;
    let sum = "SELECT sum(balance) FROM accounts";
    let csn = database.grizzly().snapshot().csn();
    let rows = ask(&session, "SELECT count(*) FROM accounts").await?;
    session.execute("DELETE FROM accounts WHERE id <= 90").await?;
    session.execute("UPDATE accounts SET balance = 0").await?;
    expect("now", ask(&session, sum).await?, 0)?;
    let then = ask(&session, &format!("{sum} FOR SYSTEM_TIME AS OF {csn}")).await?;
    expect("before the changes", then, ACCOUNTS * BALANCE)?;
    Ok(Found::new(rows.unsigned_abs(), format!("deleted rows are there as of commit {csn}")))
}

fn kind_of<T>(result: &Result<T, DataFusionError>) -> Option<ErrorKind> {
    result.as_ref().err().and_then(grizzly_error).map(|error| error.kind())
}
