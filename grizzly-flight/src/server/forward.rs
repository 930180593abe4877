//! Writes on a node that does not write itself: they go to the one that does, over Flight SQL.
//!
//! Each session has its own connection to the writer, which is its session there. A statement that writes goes as
//! text, with its parameters; from BEGIN to COMMIT everything goes, reads too, since only the writer knows what the
//! transaction has written. BEGIN itself waits for the first of these statements: a driver without autocommit begins a
//! transaction as soon as another has ended, and must not hear that there is no writer as if that commit had failed.
//! Afterwards this node follows the log up to what the writer has acknowledged, so that the session's next read sees its
//! own write. Nothing is ever sent twice: whether a write whose answer got lost has happened, only the client can find out.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use arrow::record_batch::RecordBatch;
use arrow_flight::{
    FlightData,
    sql::{CommandStatementIngest, CommandStatementQuery, server::PeekableFlightDataStream},
};
use datafusion::{
    error::DataFusionError, execution::SendableRecordBatchStream, physical_plan::stream::RecordBatchStreamAdapter,
};
use futures::{StreamExt, TryStreamExt};
use grizzly_provider::{
    Error, ErrorKind, Grizzly, Result,
    adapter::{GrizzlySession, begin_commit},
};
use tokio::sync::{Mutex, oneshot};
use tonic::Status;

use super::statement::first_word;
use crate::{
    client::{ConnectOptions, FlightSqlConnection, Rows, descriptor},
    error::{is_unanswered, status},
};

/// How long connecting to the writer may take.
const CONNECT: Duration = Duration::from_secs(2);
/// A writer that is silent for this long is taken for gone.
const GONE: Duration = Duration::from_secs(6);
/// How long this node may take to see what the writer has acknowledged.
const CATCH_UP: Duration = Duration::from_secs(5);
/// How long a node that stood still, or was cut off, looks for what it missed before it reads what it has.
const REFRESH: Duration = Duration::from_secs(1);

/// A session's way to the writer.
#[derive(Debug)]
pub(crate) struct Forward {
    options: ConnectOptions,
    link: Mutex<Link>,
    /// Mirrors `Link::transaction` and `Link::wrote`.
    open: AtomicBool,
    wrote: AtomicBool,
    lag: Arc<Lag>,
}

/// Whether this node has seen all that a session has seen, or may have done, at the writer. A session shares it with its
/// transactions.
#[derive(Debug, Default)]
pub(crate) struct Lag {
    /// Answers of the writer, and answers that were lost.
    heard: AtomicU64,
    /// How many of them this node has caught up with.
    seen: AtomicU64,
}

impl Lag {
    fn note(&self) {
        self.heard.fetch_add(1, Ordering::AcqRel);
    }

    fn is_behind(&self) -> bool {
        self.seen.load(Ordering::Acquire) < self.heard.load(Ordering::Acquire)
    }
}

#[derive(Debug, Default)]
struct Link {
    connection: Option<FlightSqlConnection>,
    /// A transaction is open at the writer; without a connection, it was.
    transaction: bool,
    /// The statement that begins it there, as long as it has not been sent: the transaction is open only here.
    begins: Option<String>,
}

/// A statement as text, with a row of values for each run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sent<'a> {
    pub(crate) sql: &'a str,
    pub(crate) values: Option<&'a RecordBatch>,
}

/// What a statement that writes has answered.
#[derive(Debug)]
pub(crate) enum Written {
    /// Its result.
    Rows(Vec<RecordBatch>),
    /// How many rows its runs have changed.
    Changed(i64),
}

/// What a statement that the session itself carries out does to its transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Control {
    /// It concerns this node's session only.
    Local,
    Begin,
    Commit,
    Rollback,
    Other,
}

impl Forward {
    /// `token` is what the writer wants to see: that of the whole cluster.
    pub(crate) fn new(token: Option<String>, lag: Arc<Lag>) -> Self {
        let (open, wrote) = (AtomicBool::new(false), AtomicBool::new(false));
        let (connect_timeout, gone_after, pings_idle) = (CONNECT, GONE, true);
        let options = ConnectOptions { token, connect_timeout, gone_after, pings_idle, ..ConnectOptions::default() };
        Self { options, link: Mutex::default(), open, wrote, lag }
    }

    /// What a transaction of the session has in common with it.
    pub(crate) fn lag(&self) -> &Arc<Lag> {
        &self.lag
    }

    /// Whether the session has a transaction at the writer.
    pub(crate) fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }

    /// Whether that transaction has not written yet.
    pub(crate) fn is_unwritten(&self) -> bool {
        self.is_open() && !self.wrote.load(Ordering::Acquire)
    }

    /// Whether what the session writes belongs to another node.
    pub(crate) fn applies(&self, session: &GrizzlySession) -> bool {
        let db = session.handle().db().clone();
        self.is_open() || (db.in_cluster() && !db.is_writer() && !session.in_transaction())
    }

    /// Whether a statement without rows, such as BEGIN or CREATE, belongs to another node.
    pub(crate) fn applies_to(&self, session: &GrizzlySession, sql: &str) -> bool {
        control(sql) != Control::Local && self.applies(session)
    }

    /// Runs a statement without rows at the writer.
    pub(crate) async fn say(&self, session: &GrizzlySession, sql: &str) -> Result<(), Status> {
        let what = control(sql);
        let mut link = self.link.lock().await;
        if what == Control::Begin && !link.transaction && begins_plainly(sql) {
            self.set_transaction(&mut link, true);
            link.begins = Some(sql.to_owned());
            return Ok(());
        }
        if link.begins.is_some() && matches!(what, Control::Commit | Control::Rollback) {
            self.set_transaction(&mut link, false);
            return Ok(());
        }
        if link.transaction && link.connection.is_none() && link.begins.is_none() {
            return self.say_to_nobody(&mut link, what);
        }
        let connection = self.route(&mut link, session.handle().db()).await.map_err(|error| status(&error))?;
        let commits = what == Control::Commit || (what == Control::Other && !link.transaction);
        if commits {
            begin_commit().map_err(|error| status(&error))?;
        }
        let said = connection.update(sql).await.map(drop);
        match (what, &said) {
            (Control::Begin, Ok(())) => self.set_transaction(&mut link, true),
            // A commit that was refused has ended the transaction as well.
            (Control::Commit | Control::Rollback, _) => self.set_transaction(&mut link, false),
            _ => {}
        }
        let said = self.heard(&mut link, said);
        let open = link.transaction;
        drop(link);
        self.learned(session, open, said.is_ok() && what != Control::Rollback).await;
        said.map_err(|error| status(&doubtful(error, commits)))
    }

    /// The writer of the open transaction is gone, and the transaction with it.
    fn say_to_nobody(&self, link: &mut Link, what: Control) -> Result<(), Status> {
        if matches!(what, Control::Commit | Control::Rollback) {
            self.set_transaction(link, false);
            self.lag.note();
        }
        if what == Control::Rollback { Ok(()) } else { Err(status(&lost())) }
    }

    /// Runs a statement that writes rows, and returns its result: batches, or how many rows it changed.
    pub(crate) async fn write(&self, session: &GrizzlySession, sent: Sent<'_>) -> Result<Written, Status> {
        let mut link = self.link.lock().await;
        let connection = self.route(&mut link, session.handle().db()).await.map_err(|error| status(&error))?;
        if !link.transaction {
            // It may be committed there whatever happens here.
            begin_commit().map_err(|error| status(&error))?;
        }
        self.wrote.store(true, Ordering::Release);
        let written = run(&connection, sent).await;
        let written = self.heard(&mut link, written);
        let open = link.transaction;
        drop(link);
        self.learned(session, open, written.is_ok()).await;
        written.map_err(|error| status(&doubtful(error, !open)))
    }

    /// Runs a query of the open transaction.
    pub(crate) async fn read(&self, session: &GrizzlySession, sent: Sent<'_>) -> Result<Rows, Status> {
        let mut link = self.link.lock().await;
        let rows = async {
            let connection = self.route(&mut link, session.handle().db()).await?;
            match sent.values {
                None => connection.query(checked(sent.sql)?).await,
                Some(values) => connection.prepare(checked(sent.sql)?).await?.query(Some(values.clone())).await,
            }
        }
        .await;
        self.heard(&mut link, rows).map_err(|error| status(&error))
    }

    /// Stores the rows of a stream, as `command` says. If the stream fails, so does the call at the writer.
    pub(crate) async fn ingest(
        &self,
        session: &GrizzlySession,
        command: CommandStatementIngest,
        data: PeekableFlightDataStream,
    ) -> Result<i64, Status> {
        // There, the connection is the transaction.
        let command = CommandStatementIngest { transaction_id: None, ..command };
        let mut data = data.into_peekable();
        let first = data.next().await.ok_or_else(|| status(&Error::new(ErrorKind::Invalid, "an empty ingest")))??;
        let first = FlightData { flight_descriptor: Some(descriptor(&command)), ..first };
        let (failure, failed) = oneshot::channel();
        let rest = futures::stream::unfold((data, Some(failure)), |(mut data, mut failure)| async move {
            match data.next().await? {
                Ok(message) => Some((message, (data, failure))),
                Err(status) => {
                    // Nobody listens only if the call has ended by itself.
                    failure.take().map(|failure| failure.send(status));
                    // The end of this stream would look like the end of the rows.
                    std::future::pending().await
                }
            }
        });
        let messages = futures::stream::iter([first]).chain(rest);
        let mut link = self.link.lock().await;
        let connection = self.route(&mut link, session.handle().db()).await.map_err(|error| status(&error))?;
        self.wrote.store(true, Ordering::Release);
        let stored = tokio::select! {
            biased;
            Ok(status) = failed => {
                self.lag.note();
                return Err(status);
            }
            stored = connection.put(messages) => stored,
        };
        let stored = self.heard(&mut link, stored);
        let open = link.transaction;
        drop(link);
        self.learned(session, open, stored.is_ok()).await;
        stored.map_err(|error| status(&doubtful(error, !open)))
    }

    /// Before a read on this node: it must see what the session has seen, and has written.
    pub(crate) async fn settle(&self, session: &GrizzlySession) -> Result<(), Status> {
        if !self.lag.is_behind() {
            return self.refresh(session).await;
        }
        self.catch_up(session.handle().db()).await;
        match self.lag.is_behind() {
            false => Ok(()),
            true => {
                let message = "this node has not seen yet what the session has seen or written; try again";
                Err(status(&Error::new(ErrorKind::Unavailable, message)))
            }
        }
    }

    /// Where this node stood still, or was cut off: looks for what it has missed.
    pub(crate) async fn refresh(&self, session: &GrizzlySession) -> Result<(), Status> {
        let db = session.handle().db();
        if !db.is_stale() {
            return Ok(());
        }
        let db = db.clone();
        let refreshed = tokio::task::spawn_blocking(move || db.refresh(REFRESH)).await;
        let failed = |error| Error::new(ErrorKind::Internal, "looking for new commits failed").with_source(error);
        refreshed.map_err(failed).and_then(|refreshed| refreshed).map_err(|error| status(&error))
    }

    /// The statement that begins the session's transaction, if it was not sent and this node writes by now.
    pub(crate) async fn takes_over(&self, db: &Grizzly) -> Option<String> {
        if !self.is_unwritten() || !db.is_writer() {
            return None;
        }
        let mut link = self.link.lock().await;
        let begins = link.begins.take()?;
        self.set_transaction(&mut link, false);
        Some(begins)
    }

    /// Lets go of the connection; what is open at the writer is rolled back there.
    pub(crate) async fn leave(&self) {
        let mut link = self.link.lock().await;
        *link = Link::default();
        self.open.store(false, Ordering::Release);
        self.lag.note();
    }

    /// The connection to the writer: that of the open transaction, or to whoever writes now.
    async fn route(&self, link: &mut Link, db: &Grizzly) -> Result<FlightSqlConnection> {
        let begins = link.begins.take();
        if link.transaction && begins.is_none() {
            return link.connection.clone().ok_or_else(lost);
        }
        // If this fails, or is stopped on the way, the link has no connection: a transaction of which a statement is missing
        // is lost, and the next statement must not go over one on which it has not begun.
        let connection = self.to_writer(link.connection.take(), db).await?;
        if let Some(begins) = begins {
            connection.update(&begins).await?;
        }
        link.connection = Some(connection.clone());
        Ok(connection)
    }

    /// A connection to whoever writes now: the one that is there, if it leads to that node.
    async fn to_writer(&self, there: Option<FlightSqlConnection>, db: &Grizzly) -> Result<FlightSqlConnection> {
        let writer = db.writer().filter(|writer| !writer.here && !writer.url.is_empty()).ok_or_else(|| {
            let message = format!("nobody writes to database '{}' at the moment; try again", db.url());
            Error::new(ErrorKind::Unavailable, message)
        })?;
        match there.filter(|connection| connection.url() == writer.url) {
            Some(connection) => Ok(connection),
            None => FlightSqlConnection::connect_with(&writer.url, self.options.clone()).await,
        }
    }

    fn set_transaction(&self, link: &mut Link, open: bool) {
        link.transaction = open;
        link.begins = None;
        self.open.store(open, Ordering::Release);
        self.wrote.store(false, Ordering::Release);
    }

    /// A connection that failed is not used again.
    fn heard<T>(&self, link: &mut Link, answer: Result<T>) -> Result<T> {
        if answer.as_ref().is_err_and(|error| error.kind() == ErrorKind::Unavailable) {
            link.connection = None;
        }
        answer
    }

    /// The session may know of commits that this node has not seen: its own, also where their answer was lost, and
    /// those that the transaction has read that ended. If it has written, this node follows at once, else when it is
    /// asked for rows.
    async fn learned(&self, session: &GrizzlySession, is_open: bool, has_written: bool) {
        if is_open {
            return;
        }
        self.lag.note();
        if has_written {
            self.catch_up(session.handle().db()).await;
        }
    }

    /// Follows the log up to everything that was acknowledged.
    async fn catch_up(&self, db: &Grizzly) {
        let (db, heard) = (db.clone(), self.lag.heard.load(Ordering::Acquire));
        match tokio::task::spawn_blocking(move || db.catch_up(CATCH_UP)).await {
            Ok(Ok(())) => drop(self.lag.seen.fetch_max(heard, Ordering::AcqRel)),
            Ok(Err(error)) => tracing::warn!(%error, "this node lags behind the writer"),
            Err(error) => tracing::error!(%error, "following the writer failed unexpectedly"),
        }
    }
}

/// Runs a statement at the writer. Until its last call it has written nothing.
async fn run(connection: &FlightSqlConnection, sent: Sent<'_>) -> Result<Written> {
    let query = checked(sent.sql)?.to_owned();
    let Some(values) = sent.values else {
        let command = CommandStatementQuery { query, transaction_id: None };
        let info = connection.describe(&command).await.map_err(harmless)?;
        let rows = connection.fetch(info).await?;
        return rows.batches.try_collect().await.map(Written::Rows);
    };
    let prepared = connection.prepare(&query).await.map_err(harmless)?;
    let changed = prepared.update(Some(values.clone())).await?;
    // It goes with the session at the latest.
    let _ = prepared.close().await;
    Ok(Written::Changed(changed))
}

/// What a statement that returns no rows is about.
fn control(sql: &str) -> Control {
    let first = first_word(sql).unwrap_or_default().to_ascii_uppercase();
    let has = |word: &str| sql.split_whitespace().take(8).any(|found| found.eq_ignore_ascii_case(word));
    match first.as_str() {
        "BEGIN" | "START" => Control::Begin,
        "COMMIT" | "END" => Control::Commit,
        "ROLLBACK" if has("TO") => Control::Other,
        "ROLLBACK" | "ABORT" => Control::Rollback,
        "SET" | "RESET" | "PREPARE" | "DEALLOCATE" => Control::Local,
        // Tables elsewhere belong to the session, not to the database.
        "CREATE" | "DROP" if has("EXTERNAL") => Control::Local,
        _ => Control::Other,
    }
}

/// Whether a statement begins a transaction and says nothing about it, so that no writer would refuse it.
fn begins_plainly(sql: &str) -> bool {
    let words: Vec<&str> = sql.trim_end_matches([';', ' ']).split_whitespace().collect();
    let plain = ["BEGIN", "BEGIN TRANSACTION", "BEGIN WORK", "START TRANSACTION"];
    plain.contains(&words.join(" ").to_ascii_uppercase().as_str())
}

/// A statement prepared by name exists only where it was prepared.
fn checked(sql: &str) -> Result<&str> {
    if first_word(sql).is_some_and(|word| word.eq_ignore_ascii_case("EXECUTE")) {
        let message = "EXECUTE of a statement that writes, or within a transaction, works on the writer only";
        return Err(Error::new(ErrorKind::Unsupported, message));
    }
    Ok(sql)
}

fn lost() -> Error {
    let message = "the writer of this transaction is gone and the transaction with it; roll back and try again";
    Error::new(ErrorKind::TransactionAborted, message)
}

/// The failure of a call that changes nothing, whether it arrived or not.
fn harmless(error: Error) -> Error {
    if is_unanswered(&error) { Error::new(error.kind(), error.message()) } else { error }
}

/// Says so where nobody knows whether something was committed: the writer did not answer, though it may have heard.
fn doubtful(error: Error, commits: bool) -> Error {
    if !commits || !is_unanswered(&error) {
        return error;
    }
    let message = format!("{}; it is not known whether the statement was carried out", error.message());
    Error::new(ErrorKind::OutcomeUnknown, message).with_source(error)
}

/// The rows of a forwarded query, as one of this node would have them.
pub(crate) fn stream(rows: Rows) -> SendableRecordBatchStream {
    let batches = rows.batches.map_err(DataFusionError::from);
    Box::pin(RecordBatchStreamAdapter::new(rows.schema, batches))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::from_status;

    #[test]
    fn only_a_commit_that_was_not_answered_is_in_doubt() {
        let lost = || from_status(&Status::unavailable("connection reset"), "there");
        assert_eq!(doubtful(lost(), true).kind(), ErrorKind::OutcomeUnknown);
        assert_eq!(doubtful(lost(), false).kind(), ErrorKind::Unavailable, "its transaction is lost");
        assert_eq!(doubtful(harmless(lost()), true).kind(), ErrorKind::Unavailable, "it was planned only");
        for kind in [ErrorKind::Unavailable, ErrorKind::Closed, ErrorKind::Conflict] {
            let refused = from_status(&status(&Error::new(kind, "no")), "there");
            assert_eq!(doubtful(refused, true).kind(), kind, "the writer said so");
        }
    }

    #[test]
    fn only_a_plain_begin_waits_for_the_first_statement() {
        for sql in ["BEGIN", "begin;", "START  TRANSACTION", "BEGIN WORK ; "] {
            assert!(begins_plainly(sql), "{sql}");
        }
        for sql in ["START TRANSACTION READ ONLY", "BEGIN ISOLATION LEVEL SERIALIZABLE", "COMMIT", "BEGIN; SELECT 1"] {
            assert!(!begins_plainly(sql), "{sql}");
        }
    }

    #[test]
    fn statements_are_told_apart() {
        let cases = [
            ("begin", Control::Begin),
            ("START TRANSACTION READ ONLY", Control::Begin),
            (" commit ;", Control::Commit),
            ("-- why\nCOMMIT", Control::Commit),
            ("ROLLBACK", Control::Rollback),
            ("rollback to savepoint a", Control::Other),
            ("ROLLBACK TO SAVEPOINT \"x\"", Control::Other),
            ("SAVEPOINT a", Control::Other),
            ("set x = 1", Control::Local),
            ("CREATE TABLE t(a INT)", Control::Other),
            ("create or replace external table t", Control::Local),
        ];
        for (sql, expected) in cases {
            assert_eq!(control(sql), expected, "{sql}");
        }
    }
}
