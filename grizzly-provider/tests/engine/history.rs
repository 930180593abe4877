//! Reading the past.

use std::time::Duration;

use grizzly_provider::{
    Grizzly, Result, Settings,
    access::{AsOf, Csn},
};

use crate::tables::{database, definition, pairs, rows};

#[test]
fn every_commit_of_the_past_can_be_read_before_and_after_maintenance() -> Result<()> {
    let db = database(2)?;
    let mut history = Vec::new();
    for round in 0..30_i64 {
        let csn = db.put("t", rows([(round % 5, round), (100 + round, round)]))?;
        history.push((csn, pairs(&db.snapshot(), "t", None)?));
        if round % 10 == 9 {
            db.flush()?;
        }
    }
    db.compact("t")?;
    for (csn, expected) in &history {
        assert_eq!(&pairs(&db.snapshot_at(AsOf::Csn(*csn))?, "t", None)?, expected, "as of {csn}");
        assert_eq!(&pairs(&db.snapshot_at(AsOf::TimestampMicros(csn.0 as i64))?, "t", None)?, expected);
    }
    Ok(())
}

#[test]
fn the_future_and_forgotten_history_are_errors() -> Result<()> {
    let settings = Settings { background: false, retention: Duration::ZERO, ..Settings::default() };
    let db = Grizzly::builder("memory://").settings(settings).open()?;
    db.create_table(definition("t", 1), false)?;
    let first = db.put("t", rows([(1, 1)]))?;
    db.put("t", rows([(1, 2)]))?;
    assert!(db.snapshot_at(AsOf::Csn(Csn(u64::MAX))).is_err());
    assert!(db.snapshot_at(AsOf::TimestampMicros(1)).is_err(), "the database did not exist");
    assert_eq!(pairs(&db.snapshot_at(AsOf::Csn(first))?, "t", None)?, [(1, 1)]);
    db.compact("t")?;
    assert!(db.snapshot_at(AsOf::Csn(first)).is_err(), "its rows were removed");
    assert_eq!(pairs(&db.snapshot(), "t", None)?, [(1, 2)]);
    Ok(())
}
