//! A second process that generates the rows and answers the queries with plain DataFusion, so that what the tour
//! tells of memory and time is Grizzly's own.
//!
//! A request is a line, `rows TABLE` or `query INDEX`. The answer is a line, `ok COLUMNS` or `error MESSAGE`, and
//! after `ok` an Arrow IPC stream. COLUMNS are those by which a query's result is ordered.

use std::{
    io::{self, BufRead, BufReader, BufWriter, Read, Write},
    process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio},
    sync::Arc,
};

use arrow::{
    datatypes::SchemaRef,
    error::ArrowError,
    ipc::{reader::StreamReader, writer::StreamWriter},
    record_batch::RecordBatch,
};
use datafusion::{error::DataFusionError, prelude::SessionContext};
use futures::StreamExt;
use parking_lot::Mutex;

use super::{
    check::failed,
    compare::order_of,
    data::{Generated, Table},
    queries::{self, Answer},
    reference,
};
use crate::output::error_line;

/// Options of the second process.
#[derive(Debug, clap::Args)]
pub(crate) struct PeerArgs {
    #[arg(long)]
    scale: f64,
    /// Bytes for tables that are kept instead of generated for each scan.
    #[arg(long)]
    memory: usize,
}

/// The second process, seen from the tour. It ends with this value.
#[derive(Debug)]
pub(crate) struct Peer {
    child: Child,
    requests: ChildStdin,
    replies: Replies,
}

impl Peer {
    /// Starts it; `memory` bytes are for tables that it keeps.
    pub(crate) fn start(scale: f64, memory: usize) -> Result<Self, DataFusionError> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["tour-peer", "--scale", &scale.to_string(), "--memory", &memory.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let pipes = child.stdin.take().zip(child.stdout.take());
        let (requests, replies) = pipes.ok_or_else(|| failed("the second process has no pipes"))?;
        let replies = Replies(Arc::new(Mutex::new(BufReader::with_capacity(1 << 20, replies))));
        Ok(Self { child, requests, replies })
    }

    /// The rows of a table. They must be read to their end before the next request.
    pub(crate) fn rows(&mut self, table: Table) -> Result<Generated, DataFusionError> {
        self.request(&format!("rows {}", table.name()))?;
        Ok(Box::new(StreamReader::try_new(self.replies.clone(), None)?))
    }

    /// What plain DataFusion answers to the query at `index`.
    pub(crate) fn query(&mut self, index: usize) -> Result<Answer, DataFusionError> {
        let columns = self.request(&format!("query {index}"))?;
        let ordered = columns.split_whitespace().map(str::parse).collect::<Result<_, _>>();
        let ordered = ordered.map_err(|_| failed(format!("{columns} are no columns")))?;
        let rows = StreamReader::try_new(self.replies.clone(), None)?.collect::<Result<_, _>>()?;
        Ok(Answer { rows, ordered })
    }

    /// What follows `ok`.
    fn request(&mut self, request: &str) -> Result<String, DataFusionError> {
        writeln!(self.requests, "{request}")?;
        self.requests.flush()?;
        let mut line = String::new();
        self.replies.0.lock().read_line(&mut line)?;
        match line.trim_end_matches('\n').split_once(' ') {
            Some(("ok", columns)) => Ok(columns.to_owned()),
            Some(("error", message)) => Err(failed(format!("plain DataFusion: {message}"))),
            _ => Err(failed(format!("the second process ended at '{request}'"))),
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It has nothing to finish, and may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Its output, which one answer after the other reads.
#[derive(Debug, Clone)]
struct Replies(Arc<Mutex<BufReader<ChildStdout>>>);

impl Read for Replies {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.lock().read(buffer)
    }
}

/// The second process: answers requests until its input ends.
pub(crate) async fn answer(args: PeerArgs) -> Result<ExitCode, DataFusionError> {
    let mut stock = None;
    let mut out = BufWriter::with_capacity(1 << 20, io::stdout());
    for line in io::stdin().lines() {
        let line = line?;
        let answered = match line.split_once(' ') {
            Some(("rows", name)) => rows(args.scale, name, &mut out),
            Some(("query", index)) => {
                if stock.is_none() {
                    stock = Some(reference::stock(args.scale, args.memory)?);
                }
                match &stock {
                    Some(stock) => query(stock, index, &mut out).await,
                    None => Ok(()),
                }
            }
            _ => Err(failed(format!("no request: {line}"))),
        };
        if let Err(error) = answered {
            writeln!(out, "error {}", error_line(&error))?;
        }
        out.flush()?;
    }
    Ok(ExitCode::SUCCESS)
}

fn rows(scale: f64, name: &str, out: &mut impl Write) -> Result<(), DataFusionError> {
    let table = Table::ALL.into_iter().find(|table| table.name() == name);
    let table = table.ok_or_else(|| failed(format!("no table {name}")))?;
    let rows = table.generate(scale, 1, 1);
    send("", &rows.schema(), rows, out)
}

async fn query(stock: &SessionContext, index: &str, out: &mut impl Write) -> Result<(), DataFusionError> {
    let query = index.parse().ok().and_then(|index: usize| queries::ALL.get(index));
    let query = query.ok_or_else(|| failed(format!("no query {index}")))?;
    let frame = stock.sql(query.sql()).await?;
    let ordered: Vec<_> = order_of(frame.logical_plan()).iter().map(ToString::to_string).collect();
    let mut stream = frame.execute_stream().await?;
    let mut batches = Vec::new();
    while let Some(batch) = stream.next().await {
        batches.push(batch?);
    }
    send(&ordered.join(" "), &stream.schema(), batches.into_iter().map(Ok), out)
}

fn send(
    columns: &str,
    schema: &SchemaRef,
    batches: impl Iterator<Item = Result<RecordBatch, ArrowError>>,
    mut out: &mut impl Write,
) -> Result<(), DataFusionError> {
    writeln!(out, "ok {columns}")?;
    let mut writer = StreamWriter::try_new(&mut out, schema)?;
    for batch in batches {
        writer.write(&batch?)?;
    }
    writer.finish()?;
    Ok(())
}
