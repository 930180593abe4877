//! The 22 queries of TPC-H with the specification's validation parameters, each checked against plain DataFusion.

use std::{collections::BTreeMap, time::Instant};

use arrow::record_batch::RecordBatch;
use datafusion::error::DataFusionError;

use super::{check::failed, compare::same_rows, peer::Peer, report::Found};
use crate::session::Database;

/// A query by its number.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Query {
    number: u32,
    sql: &'static str,
}

macro_rules! queries {
    ($($number:literal $file:literal),* $(,)?) => {
        [$(Query { number: $number, sql: include_str!(concat!("queries/", $file)) }),*]
    };
}

/// All of them.
pub(crate) const ALL: [Query; 22] = queries![
    1 "q01.sql", 2 "q02.sql", 3 "q03.sql", 4 "q04.sql", 5 "q05.sql", 6 "q06.sql", 7 "q07.sql", 8 "q08.sql",
    9 "q09.sql", 10 "q10.sql", 11 "q11.sql", 12 "q12.sql", 13 "q13.sql", 14 "q14.sql", 15 "q15.sql", 16 "q16.sql",
    17 "q17.sql", 18 "q18.sql", 19 "q19.sql", 20 "q20.sql", 21 "q21.sql", 22 "q22.sql",
];

impl Query {
    /// Number and name; the latter is the comment in the query's first line.
    pub(crate) fn title(&self) -> String {
        let name = self.sql.lines().next().unwrap_or_default().trim_start_matches("--").trim();
        format!("Q{} {}", self.number, name.to_lowercase())
    }

    /// The statement.
    pub(crate) fn sql(&self) -> &'static str {
        self.sql
    }
}

/// What plain DataFusion answers to a query.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) rows: Vec<RecordBatch>,
    /// The columns by which it is ordered.
    pub(crate) ordered: Vec<usize>,
}

/// Answers by the index of their query.
pub(crate) type Answers = BTreeMap<usize, Answer>;

impl Answer {
    /// An error that says what is different in `rows`.
    pub(crate) fn expect(&self, rows: &[RecordBatch]) -> Result<(), DataFusionError> {
        same_rows(rows, &self.rows, &self.ordered).map_err(failed)
    }
}

/// Runs the query at `index` on both sides, one after the other, and keeps the answer; the time is Grizzly's.
pub(crate) async fn check(
    database: &Database,
    peer: &mut Peer,
    index: usize,
    answers: &mut Answers,
) -> Result<Found, DataFusionError> {
    let session = database.session()?;
    let started = Instant::now();
    let ours = session.execute(ALL[index].sql).await?;
    let took = started.elapsed();
    let answer = tokio::task::block_in_place(|| peer.query(index))?;
    answer.expect(&ours)?;
    answers.insert(index, answer);
    let rows: usize = ours.iter().map(RecordBatch::num_rows).sum();
    Ok(Found::new(rows as u64, "same as DataFusion").in_time(took))
}
