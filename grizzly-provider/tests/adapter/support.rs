//! What the tests share: sessions of both kinds, and results as text.

use std::error::Error as StdError;

use arrow::{
    record_batch::RecordBatch,
    util::display::{ArrayFormatter, FormatOptions},
};
use datafusion::{
    error::{DataFusionError, Result},
    execution::SessionStateBuilder,
    prelude::SessionContext,
};
use grizzly_provider::{
    ErrorKind, Grizzly,
    adapter::{GrizzlySession, GrizzlySessionExt, grizzly_error, sqlstate},
};

pub(crate) type Test = std::result::Result<(), Box<dyn StdError>>;

/// A database of its own with a session, either DataFusion's or Grizzly's.
pub(crate) enum Sql {
    Vanilla(SessionContext),
    Front(GrizzlySession),
}

impl Sql {
    /// One of each kind, each with an empty database.
    pub(crate) fn both() -> Result<[Self; 2]> {
        Ok([Self::vanilla(&database()?), Self::Front(GrizzlySession::new(&database()?))])
    }

    pub(crate) fn vanilla(db: &Grizzly) -> Self {
        let state = SessionStateBuilder::new().with_default_features().with_grizzly(db).build();
        Self::Vanilla(SessionContext::new_with_state(state))
    }

    pub(crate) async fn run(&self, sql: &str) -> Result<Vec<RecordBatch>> {
        match self {
            Self::Vanilla(context) => context.sql(sql).await?.collect().await,
            Self::Front(session) => session.sql(sql).await?.collect().await,
        }
    }

    pub(crate) async fn all(&self, statements: &[&str]) -> Result<()> {
        for sql in statements {
            self.run(sql).await?;
        }
        Ok(())
    }

    /// The rows, one line each, columns separated by `|`.
    pub(crate) async fn rows(&self, sql: &str) -> Result<Vec<String>> {
        text(&self.run(sql).await?)
    }

    /// What a writing statement says it changed.
    pub(crate) async fn count(&self, sql: &str) -> Result<u64> {
        let rows = self.rows(sql).await?;
        match rows.as_slice() {
            [count] => count.parse().map_err(|_| DataFusionError::Internal(format!("{sql}: {count} is no count"))),
            other => Err(DataFusionError::Internal(format!("{sql}: {} rows", other.len()))),
        }
    }

    /// The kind and text of the error that `sql` must end with.
    pub(crate) async fn error(&self, sql: &str) -> (Option<ErrorKind>, &'static str, String) {
        match self.run(sql).await {
            Ok(_) => (None, "00000", format!("{sql} succeeded")),
            Err(error) => failure(&error),
        }
    }
}

pub(crate) fn failure(error: &DataFusionError) -> (Option<ErrorKind>, &'static str, String) {
    // Leaked, so that tests compare it with literals.
    (grizzly_error(error).map(|error| error.kind()), sqlstate(error).to_owned().leak(), error.to_string())
}

pub(crate) fn database() -> Result<Grizzly> {
    Ok(Grizzly::open("memory://")?)
}

pub(crate) fn text(batches: &[RecordBatch]) -> Result<Vec<String>> {
    let options = FormatOptions::default().with_null("NULL");
    let mut lines = Vec::new();
    for batch in batches {
        let columns = batch.columns().iter().map(|column| ArrayFormatter::try_new(column, &options));
        let columns = columns.collect::<std::result::Result<Vec<_>, _>>()?;
        for row in 0..batch.num_rows() {
            let values: Vec<String> = columns.iter().map(|column| column.value(row).to_string()).collect();
            lines.push(values.join("|"));
        }
    }
    Ok(lines)
}
