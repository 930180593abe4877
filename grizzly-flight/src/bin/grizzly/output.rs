//! What the commands print: result tables in pieces, errors in one line.

use std::{io::Write, process::ExitCode, time::Duration};

use arrow::{datatypes::SchemaRef, record_batch::RecordBatch};
use datafusion::{arrow::util::pretty::pretty_format_batches, error::DataFusionError};
use futures::{Stream, StreamExt};
use grizzly_flight::error::{query_status, sqlstate_of};

/// Rows that are laid out as one table; longer results are printed as several.
const TABLE_ROWS: usize = 4096;

/// Prints batches as they come and returns the number of rows. Holds [`TABLE_ROWS`] rows and one batch at most.
pub(crate) async fn print_rows(
    schema: &SchemaRef,
    mut batches: impl Stream<Item = Result<RecordBatch, DataFusionError>> + Unpin,
) -> Result<usize, DataFusionError> {
    let mut printed = 0;
    let mut waiting: Vec<RecordBatch> = Vec::new();
    let mut waiting_rows = 0;
    while let Some(batch) = batches.next().await {
        let batch = batch?;
        let mut at = 0;
        while at < batch.num_rows() {
            let take = (TABLE_ROWS - waiting_rows).min(batch.num_rows() - at);
            waiting.push(batch.slice(at, take));
            (at, waiting_rows) = (at + take, waiting_rows + take);
            if waiting_rows == TABLE_ROWS {
                print_table(&waiting)?;
                printed += waiting_rows;
                waiting.clear();
                waiting_rows = 0;
            }
        }
    }
    if waiting_rows > 0 {
        print_table(&waiting)?;
    } else if printed == 0 && !schema.fields().is_empty() {
        print_table(&[RecordBatch::new_empty(schema.clone())])?;
    }
    Ok(printed + waiting_rows)
}

fn print_table(batches: &[RecordBatch]) -> Result<(), DataFusionError> {
    let table = pretty_format_batches(batches)?;
    writeln!(std::io::stdout().lock(), "{table}")?;
    Ok(())
}

/// Prints what is wrong, and says so by the exit code.
pub(crate) fn verdict(problems: &[String]) -> ExitCode {
    for problem in problems {
        println!("problem: {problem}");
    }
    match problems {
        [] => {
            println!("no problems");
            ExitCode::SUCCESS
        }
        _ => ExitCode::FAILURE,
    }
}

/// The line below a result.
pub(crate) fn summary(rows: usize, columns: usize, took: Duration) -> String {
    let took = duration(took);
    match (columns, rows) {
        (0, _) => format!("done ({took})"),
        (_, 1) => format!("1 row ({took})"),
        _ => format!("{rows} rows ({took})"),
    }
}

/// A time as people read it: three digits and a unit.
pub(crate) fn duration(took: Duration) -> String {
    let seconds = took.as_secs_f64();
    match seconds {
        s if s >= 100.0 => format!("{s:.0} s"),
        s if s >= 1.0 => format!("{s:.2} s"),
        s if s >= 0.001 => format!("{:.1} ms", s * 1e3),
        s => format!("{:.0} us", s * 1e6),
    }
}

/// Message and SQLSTATE of what went wrong.
pub(crate) fn error_line(error: &DataFusionError) -> String {
    let status = query_status(error);
    let sqlstate = sqlstate_of(&status).unwrap_or_default();
    format!("error [{sqlstate}]: {}", status.message())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_three_digits_and_a_unit() {
        let shown = [0.000_012, 0.0123, 1.234, 123.4].map(|seconds| duration(Duration::from_secs_f64(seconds)));
        assert_eq!(shown, ["12 us", "12.3 ms", "1.23 s", "123 s"]);
    }
}
