//! The SQL corpus of tests/slt, each file on each engine as a test of its own: `slt::<engine>::<file>`.
//!
//! A file says `skipif vanilla` before statements that DataFusion's own parser or planner refuses. Everything else
//! must give the same answers everywhere.

use std::{
    collections::BTreeSet,
    error::Error,
    path::{Path, PathBuf},
};

use sqllogictest::{DefaultColumnType, Record, Runner};

use crate::engine::{Engine, Host};

type Outcome<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

macro_rules! corpus {
    ($($file:ident)*; plain: $($local:ident)*) => {
        const FILES: &[&str] = &[$(stringify!($file),)* $(stringify!($local)),*];
        corpus! { @engine embedded Embedded $($file)* $($local)* }
        corpus! { @engine embedded_norules EmbeddedNoRules $($file)* $($local)* }
        corpus! { @engine cached Cached $($file)* }
        corpus! { @engine vanilla Vanilla $($file)* $($local)* }
        corpus! { @engine flight Flight $($file)* $($local)* }
        corpus! { @engine cluster Cluster $($file)* }
    };
    (@engine $module:ident $engine:ident $($file:ident)*) => {
        mod $module {
            use super::{Engine, Outcome};
            $(
                #[test]
                fn $file() -> Outcome {
                    super::run(stringify!($file), Engine::$engine)
                }
            )*
        }
    };
}

corpus! {
    ddl
    delete
    errors
    indexes
    insert
    merge
    on_conflict
    predicates
    prepared
    queries
    shards
    system_tables
    time_travel
    transactions
    types
    update;
    // The plans of several nodes are others, and those with kept results.
    plain: explain
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/slt")
}

#[test]
fn no_file_is_forgotten() -> Outcome {
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(folder())? {
        let path = entry?.path();
        assert_eq!(path.extension().and_then(|extension| extension.to_str()), Some("slt"), "{}", path.display());
        found.extend(path.file_stem().map(|stem| stem.to_string_lossy().into_owned()));
    }
    assert_eq!(found, FILES.iter().map(|file| (*file).to_owned()).collect());
    Ok(())
}

/// Runs a whole file, also past a failure, and reports every record that failed.
fn run(file: &str, engine: Engine) -> Outcome {
    let path = folder().join(format!("{file}.slt"));
    let records = sqllogictest::parse_file::<DefaultColumnType>(&path)?;
    assert!(records.iter().any(|record| matches!(record, Record::Query { .. })), "{file} asks nothing");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let failures = runtime.block_on(async {
        let host = Host::start(engine).await?;
        let mut runner = Runner::new(|| host.connect());
        runner.with_column_validator(sqllogictest::strict_column_validator);
        let mut failures = Vec::new();
        for record in records {
            if let Err(failure) = runner.run_async(record).await {
                failures.push(failure.to_string());
            }
        }
        runner.shutdown_async().await;
        Outcome::Ok(failures)
    })?;
    assert!(failures.is_empty(), "{} records failed:\n\n{}", failures.len(), failures.join("\n"));
    Ok(())
}
