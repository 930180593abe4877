//! Random statements in two sessions: every query answers the same with the result cache and without.

use datafusion::error::Result;
use grizzly_provider::{Grizzly, Settings, adapter::GrizzlySession};
use proptest::prelude::*;

use crate::support::text;

/// What one of the two sessions does.
#[derive(Debug, Clone)]
enum Step {
    Begin,
    Commit,
    Rollback,
    Write(String),
    Recreate(bool),
    Flush,
    Query(String),
}

fn step() -> impl Strategy<Value = Step> {
    let small = 0..6_i64;
    prop_oneof![
        1 => Just(Step::Begin),
        1 => Just(Step::Commit),
        1 => Just(Step::Rollback),
        1 => Just(Step::Flush),
        1 => any::<bool>().prop_map(Step::Recreate),
        6 => (small.clone(), small.clone(), 0..5).prop_map(|(id, x, kind)| Step::Write(write(id, x, kind))),
        12 => (small, 0..9).prop_map(|(x, kind)| Step::Query(query(x, kind))),
    ]
}

fn write(id: i64, x: i64, kind: i32) -> String {
    match kind {
        0 => format!("INSERT INTO a VALUES ({id}, {x}) ON CONFLICT (id) DO UPDATE SET x = excluded.x"),
        1 => format!("UPDATE a SET x = x + 1 WHERE id <= {id}"),
        2 => format!("DELETE FROM a WHERE id = {id}"),
        3 => format!("INSERT INTO b VALUES ({id}, {x})"),
        _ => format!("DELETE FROM b WHERE x = {x}"),
    }
}

fn query(x: i64, kind: i32) -> String {
    match kind {
        0 => format!("SELECT id, x FROM a WHERE x >= {x}"),
        1 => "SELECT count(*), min(x), max(x), sum(id) FROM a".to_owned(),
        2 => format!("SELECT a.id, b.x FROM a JOIN b ON a.id = b.id WHERE b.x <> {x}"),
        3 => "SELECT id FROM a WHERE x IN (SELECT x FROM b)".to_owned(),
        4 => "SELECT x, count(*) FROM b GROUP BY x".to_owned(),
        5 => format!("SELECT DISTINCT x FROM a UNION ALL SELECT x FROM b WHERE id = {x}"),
        6 => "SELECT id, (SELECT count(*) FROM b WHERE b.id = a.id) FROM a".to_owned(),
        7 => "SELECT id, row_number() OVER (ORDER BY id) FROM a".to_owned(),
        _ => format!("SELECT count(*) FROM a LEFT JOIN b ON a.x = b.x WHERE a.id = {x}"),
    }
}

async fn sorted(session: &GrizzlySession, sql: &str) -> Result<Vec<String>> {
    let mut rows = text(&session.execute(sql).await?)?;
    rows.sort_unstable();
    Ok(rows)
}

async fn take(db: &Grizzly, session: &GrizzlySession, step: &Step) -> Result<Option<[Vec<String>; 2]>> {
    // What is refused (a conflict, a second BEGIN) is refused with and without the cache. A failed statement aborts
    // its transaction; then queries are refused, too.
    let _ = match step {
        Step::Begin => session.execute("BEGIN").await,
        Step::Commit => session.execute("COMMIT").await,
        Step::Rollback => session.execute("ROLLBACK").await,
        Step::Write(sql) => session.execute(sql).await,
        Step::Recreate(wide) => {
            let column = if *wide { "DOUBLE" } else { "BIGINT" };
            session.execute(&format!("DROP TABLE b; CREATE TABLE b (id BIGINT, x {column})")).await
        }
        Step::Flush => return db.flush().map(|()| None).map_err(Into::into),
        Step::Query(sql) => {
            let Ok(kept) = sorted(session, sql).await else { return Ok(None) };
            session.execute("SET grizzly.result_cache = false").await?;
            let computed = sorted(session, sql).await?;
            session.execute("SET grizzly.result_cache = true").await?;
            return Ok(Some([kept, computed]));
        }
    };
    Ok(None)
}

async fn play(steps: &[(bool, Step)]) -> Result<u64> {
    let settings = Settings { result_cache: 256 * 1024, background: false, ..Settings::default() };
    let db = Grizzly::builder("memory://").settings(settings).open()?;
    let sessions = [GrizzlySession::new(&db), GrizzlySession::new(&db)];
    sessions[0]
        .execute("CREATE TABLE a (id BIGINT PRIMARY KEY, x BIGINT); CREATE TABLE b (id BIGINT, x BIGINT)")
        .await?;
    sessions[0].execute("INSERT INTO a VALUES (1, 1), (2, 2); INSERT INTO b VALUES (1, 1), (1, 2)").await?;
    for session in &sessions {
        session.execute("SET grizzly.result_cache_rows = 0").await?;
    }
    for (second, step) in steps {
        let session = &sessions[usize::from(*second)];
        if let Some([kept, computed]) = take(&db, session, step).await? {
            assert_eq!(kept, computed, "{step:?}");
        }
    }
    // An aborted transaction refuses queries.
    let _ = sessions[1].execute("ROLLBACK").await;
    let hits = text(&sessions[1].execute("SELECT hits FROM grizzly.cache_totals").await?)?;
    Ok(hits.first().and_then(|hits| hits.parse().ok()).unwrap_or_default())
}

#[test]
fn queries_answer_the_same_with_and_without_kept_results() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig { cases: 16, ..ProptestConfig::default() });
    let hits = std::cell::Cell::new(0);
    let steps = prop::collection::vec((any::<bool>(), step()), 1..60);
    let played = runner.run(&steps, |steps| {
        let found = runtime.block_on(play(&steps)).map_err(|error| TestCaseError::fail(error.to_string()))?;
        hits.set(hits.get() + found);
        Ok(())
    });
    assert!(played.is_ok(), "{played:?}");
    assert!(hits.get() > 0, "nothing was ever found in the cache");
}
