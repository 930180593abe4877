//! `grizzly import`: files into a table, in one transaction.

use std::{path::PathBuf, process::ExitCode, sync::Arc, time::Instant};

use arrow::{
    array::ArrayRef,
    compute::{CastOptions, cast_with_options},
    datatypes::{Schema, SchemaRef},
    record_batch::RecordBatch,
};
use clap::ValueEnum;
use datafusion::{
    error::DataFusionError,
    prelude::{CsvReadOptions, DataFrame, JsonReadOptions, ParquetReadOptions, SessionContext},
};
use futures::TryStreamExt;
use grizzly_provider::{
    Grizzly,
    access::{IfExists, TableDefinition},
    adapter::stored_field,
};
use indicatif::{ProgressBar, ProgressStyle};

use crate::{
    keys::KeyArgs,
    output,
    session::{Database, invalid, parse_bytes},
};

/// Options of `grizzly import`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The database.
    #[arg(long, value_name = "URL")]
    db: String,
    /// The table, as `name` or `schema.name`; it is created if there is none.
    table: String,
    /// The files, all of one format.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// What the files are; by default their extension says it.
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Primary key of a new table.
    #[arg(long, value_delimiter = ',', value_name = "COLUMNS")]
    primary_key: Vec<String>,
    /// Number of shards of a new table.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    shards: u32,
    /// Columns whose hash chooses the shard; the primary key by default.
    #[arg(long, value_delimiter = ',', value_name = "COLUMNS")]
    shard_by: Vec<String>,
    /// Memory for the database and for reading.
    #[arg(long, value_parser = parse_bytes, value_name = "BYTES")]
    pub(crate) memory: Option<usize>,
    #[command(flatten)]
    key: KeyArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Parquet,
    Csv,
    /// One JSON object per line.
    Json,
}

/// Loads the files, all rows or none.
pub(crate) async fn run(args: Args) -> Result<ExitCode, DataFusionError> {
    let database = Database::open_with_key(&args.db, args.memory, true, args.key.key()?)?;
    let frame = read(&args).await?;
    let started = Instant::now();
    let rows = load(database.grizzly(), &args, frame).await?;
    println!("{rows} rows into {} in {}", args.table, output::duration(started.elapsed()));
    database.close()?;
    Ok(ExitCode::SUCCESS)
}

/// All files as one frame; their rows are read as they are wanted.
async fn read(args: &Args) -> Result<DataFrame, DataFusionError> {
    let extension = |file: &PathBuf| file.extension().map(|e| e.to_string_lossy().into_owned()).unwrap_or_default();
    let endings: Vec<String> = args.files.iter().map(extension).collect();
    let format = match args.format {
        Some(format) => format,
        None => format_of(&endings)?,
    };
    let ending = endings.first().map_or_else(String::new, |ending| format!(".{ending}"));
    if args.files.iter().any(|file| !file.exists()) {
        let missing: Vec<_> = args.files.iter().filter(|file| !file.exists()).collect();
        return Err(invalid(format!("no such file: {missing:?}")));
    }
    let paths: Vec<String> = args.files.iter().map(|file| file.to_string_lossy().into_owned()).collect();
    let context = SessionContext::new();
    match format {
        Format::Parquet => {
            context.read_parquet(paths, ParquetReadOptions { file_extension: &ending, ..Default::default() }).await
        }
        Format::Csv => {
            let tabs = ending == ".tsv";
            let options = CsvReadOptions::new().file_extension(&ending);
            context.read_csv(paths, if tabs { options.delimiter(b'\t') } else { options }).await
        }
        Format::Json => {
            context.read_json(paths, JsonReadOptions { file_extension: &ending, ..Default::default() }).await
        }
    }
}

fn format_of(endings: &[String]) -> Result<Format, DataFusionError> {
    let by_ending = |ending: &String| match ending.to_ascii_lowercase().as_str() {
        "parquet" | "pq" => Some(Format::Parquet),
        "csv" | "tsv" => Some(Format::Csv),
        "json" | "jsonl" | "ndjson" => Some(Format::Json),
        _ => None,
    };
    let formats: Vec<_> = endings.iter().map(by_ending).collect();
    match formats.first() {
        Some(Some(first)) if formats.iter().all(|format| *format == Some(*first)) => Ok(*first),
        _ => Err(invalid("the extensions do not say one format; give --format parquet, csv or json")),
    }
}

/// The table with the files' columns, should there be none.
fn definition(args: &Args, columns: &Schema) -> TableDefinition {
    let (schema_name, name) = match args.table.split_once('.') {
        Some((schema, name)) => (schema.to_owned(), name.to_owned()),
        None => ("public".to_owned(), args.table.clone()),
    };
    let fields = columns.fields().iter().map(|field| {
        let nullable = field.is_nullable() && !args.primary_key.contains(field.name());
        stored_field(field).with_nullable(nullable)
    });
    TableDefinition {
        schema_name,
        name,
        schema: Arc::new(Schema::new(fields.collect::<Vec<_>>())),
        primary_key: args.primary_key.clone(),
        shards: args.shards,
        shard_by: args.shard_by.clone(),
        defaults: Vec::new(),
        indexes: vec![],
    }
}

/// Inserts all rows in one transaction, which creates the table if there is none, and returns their number.
async fn load(grizzly: &Grizzly, args: &Args, frame: DataFrame) -> Result<u64, DataFusionError> {
    let table = &args.table;
    let mut transaction = grizzly.begin()?;
    transaction.create_table(definition(args, frame.schema().as_arrow()), IfExists::Keep)?;
    let target = transaction.snapshot()?.table(table)?.schema();
    let progress = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {human_pos} rows, {per_sec}, {elapsed}") {
        progress.set_style(style);
    }
    let mut batches = frame.execute_stream().await?;
    let mut rows = 0;
    while let Some(batch) = batches.try_next().await? {
        let fitted = fit(table, &batch, &target)?;
        // Rows are encoded here: work for a thread that may block.
        rows += tokio::task::block_in_place(|| transaction.insert(table, fitted))?;
        progress.set_position(rows);
    }
    transaction.commit_async().await?.into_result()?;
    progress.finish_and_clear();
    Ok(rows)
}

/// The batch with the table's columns, by name, in its types; columns the files lack are NULL.
fn fit(table: &str, batch: &RecordBatch, target: &SchemaRef) -> Result<RecordBatch, DataFusionError> {
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    if let Some(extra) = batch.schema_ref().fields().iter().find(|field| target.field_with_name(field.name()).is_err())
    {
        return Err(invalid(format!("table {table} has no column {}", extra.name())));
    }
    let columns = target.fields().iter().map(|field| -> Result<ArrayRef, DataFusionError> {
        let Some(column) = batch.column_by_name(field.name()) else {
            if !field.is_nullable() {
                return Err(invalid(format!("the files lack column {} of table {table}", field.name())));
            }
            return Ok(arrow::array::new_null_array(field.data_type(), batch.num_rows()));
        };
        if !field.is_nullable() && column.null_count() > 0 {
            return Err(invalid(format!("column {} of table {table} must not be NULL", field.name())));
        }
        cast_with_options(column, field.data_type(), &strict)
            .map_err(|error| invalid(format!("column {} of table {table}: {error}", field.name())))
    });
    let columns = columns.collect::<Result<Vec<_>, _>>()?;
    Ok(RecordBatch::try_new(Arc::clone(target), columns)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extensions_say_the_format_if_they_agree() {
        let endings = |all: &[&str]| all.iter().map(|e| (*e).to_owned()).collect::<Vec<_>>();
        assert!(matches!(format_of(&endings(&["parquet", "PARQUET"])), Ok(Format::Parquet)));
        assert!(matches!(format_of(&endings(&["ndjson"])), Ok(Format::Json)));
        assert!(format_of(&endings(&["csv", "parquet"])).is_err());
        assert!(format_of(&endings(&["txt"])).is_err());
    }
}
