//! The number that names a table's contents: who changes it and who does not.

use std::{sync::Arc, time::Duration};

use grizzly_provider::{
    ClusterSettings, Grizzly, Result, Settings, Snapshot,
    access::{AsOf, Csn, IndexDefinition},
};
use grizzly_wal::MemoryStorage;

use crate::tables::{database, definition, manual, rows};

fn last_change(snapshot: &Snapshot, table: &str) -> Result<Option<Csn>> {
    Ok(snapshot.table(table)?.last_change())
}

#[test]
fn commits_and_definitions_change_a_table_and_maintenance_does_not() -> Result<()> {
    let db = database(2)?;
    db.create_table(definition("u", 1), false)?;
    let untouched = last_change(&db.snapshot(), "u")?;
    let first = db.put("t", rows([(1, 10), (2, 20)]))?;
    assert_eq!(last_change(&db.snapshot(), "t")?, Some(first));
    let second = db.put("t", rows([(2, 21)]))?;
    db.flush()?;
    db.compact("t")?;
    assert_eq!(last_change(&db.snapshot(), "t")?, Some(second));
    assert_eq!(last_change(&db.snapshot(), "u")?, untouched);
    assert!(untouched < Some(first));

    let index = IndexDefinition { name: "by_grp".into(), columns: vec![("grp".into(), false)], unique: false };
    db.create_index("t", index, false)?;
    let indexed = last_change(&db.snapshot(), "t")?;
    assert!(indexed > Some(second));
    let past = db.snapshot_at(AsOf::Csn(second))?;
    assert_eq!(last_change(&past, "t")?, None, "what the table was then has no name now");
    assert_eq!(last_change(&past, "u")?, untouched);
    Ok(())
}

#[test]
fn what_a_transaction_has_changed_has_no_name() -> Result<()> {
    let db = database(1)?;
    db.create_table(definition("u", 1), false)?;
    let first = db.put("t", rows([(1, 10)]))?;
    let mut transaction = db.begin()?;
    assert_eq!(last_change(&transaction.snapshot()?, "t")?, Some(first));
    let mark = transaction.savepoint()?;
    transaction.insert("t", rows([(2, 20)]))?;
    assert_eq!(last_change(&transaction.snapshot()?, "t")?, None);
    assert!(last_change(&transaction.snapshot()?, "u")?.is_some());
    transaction.rollback_to(mark)?;
    let row = transaction.find("t", &crate::tables::key(1))?.expect("it was put there").0;
    transaction.delete("t", &[row])?;
    assert_eq!(last_change(&transaction.snapshot()?, "t")?, None);
    // So many rows go straight to a file.
    transaction.insert("u", rows((0..100_000).map(|id| (id, id))))?;
    assert_eq!(last_change(&transaction.snapshot()?, "u")?, None);
    assert_eq!(last_change(&db.snapshot(), "t")?, Some(first));
    let committed = transaction.commit()?.into_result()?;
    assert_eq!(last_change(&db.snapshot(), "t")?, Some(committed));
    assert_eq!(last_change(&db.snapshot(), "u")?, Some(committed));
    Ok(())
}

#[test]
fn followers_know_it_and_it_is_there_after_reopening() -> Result<()> {
    let storage = MemoryStorage::new();
    let open = |cluster| {
        let settings = Settings { cluster, ..manual() };
        Grizzly::builder("test://changes").settings(settings).storage(Arc::new(storage.clone())).open()
    };
    let writer = open(Some(ClusterSettings::default()))?;
    writer.create_table(definition("t", 2), false)?;
    writer.create_table(definition("u", 2), false)?;
    let follower = open(Some(ClusterSettings::default()))?;
    for id in 0..4 {
        let csn = writer.put("t", rows([(id, id)]))?;
        writer.flush()?;
        follower.catch_up(Duration::from_secs(30))?;
        for table in ["t", "u"] {
            let (here, there) = (last_change(&writer.snapshot(), table)?, last_change(&follower.snapshot(), table)?);
            assert!(here.is_some() && there.is_some());
        }
        assert_eq!(last_change(&follower.snapshot(), "t")?, Some(csn));
    }
    follower.close()?;
    writer.close()?;
    let again = open(None)?;
    let found = last_change(&again.snapshot(), "t")?;
    assert!(found.is_some() && last_change(&again.snapshot(), "u")?.is_some());
    let csn = again.put("t", rows([(9, 9)]))?;
    assert_eq!(last_change(&again.snapshot(), "t")?, Some(csn));
    assert!(found < Some(csn));
    Ok(())
}
