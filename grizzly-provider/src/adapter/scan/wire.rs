//! A scan as bytes, for another node of the same database. Only plain data travels: which table at which commit, what
//! to read and how to find it. What depends on the running plan, dynamic filters above all, stays behind.

use std::sync::Arc;

use arrow::datatypes::{DataType, Schema};
use datafusion::datasource::TableProvider;
use serde::{Deserialize, Serialize};

use super::{GrizzlyScanExec, properties};
use crate::{
    Error, Grizzly, Result,
    access::{AccessPath, AsOf, ColumnTest, Csn, Predicate, ScanRequest},
    adapter::{
        table::GrizzlyTable,
        time_travel::{PointInTime, present},
    },
};

/// More streams than this no node would ask for.
const MAX_PARTITIONS: usize = 4096;

/// What travels.
#[derive(Debug, Serialize, Deserialize)]
struct ScanOnWire {
    table: u64,
    /// For messages only.
    name: String,
    csn: u64,
    columns: Columns,
    /// Names and types of the columns it returns, to be sure that both nodes mean the same table.
    returns: Vec<String>,
    projection: Vec<usize>,
    predicate: Option<Predicate>,
    access: AccessPath,
    shards: Option<Vec<u32>>,
    fetch: Option<usize>,
    partitions: usize,
}

/// Which columns the table has for DataFusion.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Columns {
    /// Its own.
    Own,
    /// Row id and version besides.
    RowIds,
    /// All system columns, and all versions of each row.
    History,
}

impl GrizzlyScanExec {
    /// The same scan as it reads the state right after commit `now`, unless it reads an earlier point in time anyway,
    /// and without dynamic filters: what a plan may hold that runs on several nodes.
    ///
    /// # Errors
    /// `Invalid` for a point in time that is not, or no longer, known.
    pub fn pinned(&self, now: Csn) -> Result<Self> {
        let csn = match self.table.reads_as_of() {
            None => now,
            Some(PointInTime::Fixed(AsOf::Csn(csn))) => *csn,
            Some(at) => self.table.db().snapshot_at(at.at(present(self.table.db()))?)?.csn(),
        };
        let mut scan = self.fresh();
        scan.table = Arc::new(self.table.as_of(AsOf::Csn(csn)));
        scan.dynamic = Vec::new();
        Ok(scan)
    }

    /// The bytes of a scan that [`GrizzlyScanExec::pinned`] made.
    ///
    /// # Errors
    /// `Internal` for a scan whose point in time is open.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let Some(PointInTime::Fixed(AsOf::Csn(csn))) = self.table.reads_as_of() else {
            return Err(Error::internal(format!("a scan of {} was sent without a commit to read", self.table.name())));
        };
        let wire = ScanOnWire {
            table: self.table.id(),
            name: self.table.name().to_owned(),
            csn: csn.0,
            columns: columns_of(&self.table),
            returns: signature(self.properties.eq_properties.schema()),
            projection: self.request.projection.clone(),
            predicate: self.request.predicate.clone(),
            access: self.request.access.clone(),
            shards: self.request.shards.as_ref().map(|shards| shards.to_vec()),
            fetch: self.fetch,
            partitions: self.properties.output_partitioning().partition_count(),
        };
        serde_json::to_vec(&wire)
            .map_err(|error| Error::internal(format!("a scan of {} has no bytes", wire.name)).with_source(error))
    }

    /// The scan that [`GrizzlyScanExec::to_bytes`] wrote, on another node's handle of the database.
    ///
    /// # Errors
    /// `Invalid` if the bytes are not a scan, or one that does not fit the table; `Invalid` or `NotFound` if this node
    /// does not know the commit or the table.
    pub fn from_bytes(db: &Grizzly, bytes: &[u8]) -> Result<Self> {
        let wire: ScanOnWire = serde_json::from_slice(bytes)
            .map_err(|error| Error::invalid("the bytes of a scan cannot be read").with_source(error))?;
        let at = AsOf::Csn(Csn(wire.csn));
        let snapshot = db.snapshot_at(at)?.table_by_id(wire.table)?;
        let own = GrizzlyTable::from_snapshot(db, &snapshot);
        let table = match wire.columns {
            Columns::Own => own,
            Columns::RowIds => own.with_row_id(),
            Columns::History => own.history(),
        };
        let table = Arc::new(table.as_of(at));
        wire.check(&table.schema(), snapshot.shards().len())?;
        // The same commit, so the name means the same index as where the query was planned.
        let index_id = match &wire.access {
            AccessPath::FullScan => None,
            AccessPath::Index { index, .. } => snapshot.index_id(index),
        };
        let request = ScanRequest {
            projection: wire.projection,
            predicate: wire.predicate,
            access: wire.access,
            index_id,
            shards: wire.shards.map(Into::into),
            all_versions: wire.columns == Columns::History,
        };
        let properties = properties(&table, &request, wire.partitions)?;
        if signature(properties.eq_properties.schema()) != wire.returns {
            let name = wire.name;
            return Err(Error::invalid(format!(
                "table {name} has other columns here than where the query was planned"
            )));
        }
        Ok(Self::assemble(table, request, wire.fetch, properties))
    }
}

impl ScanOnWire {
    /// Nothing that comes from the network may make the engine read what is not there.
    fn check(&self, schema: &Schema, shards: usize) -> Result<()> {
        let wrong = |what: &str| Err(Error::invalid(format!("a scan of {} was sent with {what}", self.name)));
        if self.projection.iter().any(|column| *column >= schema.fields().len()) {
            return wrong("a column that the table does not have");
        }
        if self.shards.iter().flatten().any(|shard| *shard as usize >= shards) {
            return wrong("a shard that the table does not have");
        }
        if self.partitions == 0 || self.partitions > MAX_PARTITIONS {
            return wrong("an impossible number of partitions");
        }
        match &self.predicate {
            Some(predicate) if !fits(predicate, schema) => wrong("a predicate that does not fit its columns"),
            _ => Ok(()),
        }
    }
}

/// Whether the predicate's columns exist and its values are of their types.
fn fits(predicate: &Predicate, schema: &Schema) -> bool {
    let type_of = |column: usize| schema.fields().get(column).map(|field| field.data_type());
    match predicate {
        Predicate::Test { column, test } => type_of(*column).is_some_and(|data_type| test_fits(test, data_type)),
        Predicate::CompareColumns { left, right, .. } => type_of(*left).is_some() && type_of(*left) == type_of(*right),
        Predicate::And(parts) | Predicate::Or(parts) => parts.iter().all(|part| fits(part, schema)),
        Predicate::Constant(_) => true,
    }
}

fn test_fits(test: &ColumnTest, data_type: &DataType) -> bool {
    match test {
        ColumnTest::Compare { value, .. } => {
            value.len() == 1 && value.null_count() == 0 && value.data_type() == data_type
        }
        ColumnTest::InList { values, .. } => {
            !values.is_empty() && values.null_count() == 0 && values.data_type() == data_type
        }
        ColumnTest::IsNull | ColumnTest::IsNotNull => true,
    }
}

fn columns_of(table: &GrizzlyTable) -> Columns {
    if table.reads_all_versions() {
        Columns::History
    } else if table.own_columns() < table.schema().fields().len() {
        Columns::RowIds
    } else {
        Columns::Own
    }
}

fn signature(schema: &Schema) -> Vec<String> {
    schema.fields().iter().map(|field| format!("{} {}", field.name(), field.data_type())).collect()
}

#[cfg(test)]
mod tests {
    use std::ops::Bound;

    use arrow::{
        array::{Int64Array, StringArray},
        datatypes::Field,
    };
    use datafusion::physical_plan::{ExecutionPlan, displayable};

    use super::*;
    use crate::{
        ErrorKind,
        access::{CompareOp, KeyRange, TableDefinition},
        adapter::{GrizzlyTables, scan::Streams},
    };

    const ONE: Streams = Streams { most: 1, rows_each: Streams::ROWS_EACH };

    fn table() -> Result<(Grizzly, GrizzlyScanExec)> {
        let db = Grizzly::open("memory://")?;
        let schema =
            Schema::new(vec![Field::new("id", DataType::Int64, false), Field::new("name", DataType::Utf8, true)]);
        let definition = TableDefinition {
            schema_name: "public".to_owned(),
            name: "t".to_owned(),
            schema: Arc::new(schema),
            primary_key: vec!["id".to_owned()],
            shards: 4,
            shard_by: Vec::new(),
            defaults: Vec::new(),
            indexes: Vec::new(),
        };
        db.create_table(definition, false)?;
        let scan = GrizzlyScanExec::try_new(db.table("t")?, Some(&vec![1]), &[], Some(5), ONE)?;
        Ok((db, scan))
    }

    fn one_line(scan: &GrizzlyScanExec) -> String {
        displayable(scan).one_line().to_string()
    }

    #[test]
    fn a_scan_survives_the_wire() -> Result<()> {
        let (db, scan) = table()?;
        let test = |column, test| Predicate::Test { column, test };
        let predicate = Predicate::And(vec![
            test(0, ColumnTest::Compare { op: CompareOp::GtEq, value: Arc::new(Int64Array::from(vec![7])) }),
            Predicate::Or(vec![
                test(1, ColumnTest::IsNull),
                test(1, ColumnTest::InList { values: Arc::new(StringArray::from(vec!["a", "b"])), negated: true }),
            ]),
        ]);
        let range = KeyRange { lower: Bound::Included(vec![1, 2]), upper: Bound::Unbounded };
        let request = ScanRequest {
            predicate: Some(predicate),
            access: AccessPath::Index { index: "primary".into(), ranges: Arc::new([range]) },
            shards: Some(Arc::new([1, 3])),
            ..scan.request.clone()
        };
        let scan = scan.with_request(request, 2)?.pinned(db.snapshot().csn())?;
        let received = GrizzlyScanExec::from_bytes(&db, &scan.to_bytes()?)?;
        assert_eq!(one_line(&received), one_line(&scan));
        assert_eq!(received.schema(), scan.schema());
        assert_eq!(received.fetch(), Some(5));
        assert_eq!(received.request.access, scan.request.access);
        Ok(())
    }

    #[test]
    fn history_and_row_ids_survive_the_wire() -> Result<()> {
        let (db, _) = table()?;
        let own = db.table("t")?;
        for table in [own.history(), own.with_row_id()] {
            let scan = GrizzlyScanExec::try_new(Arc::new(table), None, &[], None, ONE)?.pinned(db.snapshot().csn())?;
            let received = GrizzlyScanExec::from_bytes(&db, &scan.to_bytes()?)?;
            assert_eq!(received.schema(), scan.schema());
            assert_eq!(received.request.all_versions, scan.request.all_versions);
        }
        Ok(())
    }

    #[test]
    fn what_does_not_fit_is_refused() -> Result<()> {
        let (db, scan) = table()?;
        assert_eq!(scan.to_bytes().map_err(|error| error.kind()), Err(ErrorKind::Internal));
        let kind = |bytes: &[u8]| GrizzlyScanExec::from_bytes(&db, bytes).map(|_| ()).map_err(|error| error.kind());
        assert_eq!(kind(b"nothing"), Err(ErrorKind::Invalid));
        let future = scan.pinned(Csn(u64::MAX))?;
        assert_eq!(kind(&future.to_bytes()?), Err(ErrorKind::Invalid));
        let scan = scan.pinned(db.snapshot().csn())?;
        let sent = String::from_utf8(scan.to_bytes()?).expect("JSON");
        let table = format!(r#""table":{},"#, scan.table.id());
        for (from, to, expected) in [
            (r#""projection":[1]"#, r#""projection":[9]"#, ErrorKind::Invalid),
            (r#""projection":[1]"#, r#""projection":[0]"#, ErrorKind::Invalid),
            (r#""shards":null"#, r#""shards":[4]"#, ErrorKind::Invalid),
            (r#""partitions":1"#, r#""partitions":0"#, ErrorKind::Invalid),
            (table.as_str(), r#""table":999,"#, ErrorKind::NotFound),
        ] {
            let changed = sent.replace(from, to);
            assert_ne!(changed, sent, "{from}");
            assert_eq!(kind(changed.as_bytes()), Err(expected), "{to}");
        }
        assert_eq!(kind(sent.as_bytes()), Ok(()));
        Ok(())
    }

    /// Whatever is changed in them, bytes are a scan or an error.
    #[test]
    fn damaged_bytes_are_no_panic() -> Result<()> {
        let (db, scan) = table()?;
        let test = ColumnTest::InList { values: Arc::new(StringArray::from(vec!["a", "b"])), negated: false };
        let range = KeyRange { lower: Bound::Included(vec![1, 2]), upper: Bound::Unbounded };
        let request = ScanRequest {
            predicate: Some(Predicate::And(vec![Predicate::Test { column: 1, test }])),
            access: AccessPath::Index { index: "primary".into(), ranges: Arc::new([range]) },
            ..scan.request.clone()
        };
        let sent = scan.with_request(request, 2)?.pinned(db.snapshot().csn())?.to_bytes()?;
        let odd = ["0", "1", "255", "256", "-1", "65536", "4294967295", "18446744073709551615", "null", "[]"];
        for at in 0..sent.len() {
            drop(GrizzlyScanExec::from_bytes(&db, &sent[..at]));
            let mut flipped = sent.clone();
            flipped[at] ^= 1 << (at % 8);
            drop(GrizzlyScanExec::from_bytes(&db, &flipped));
            let digits = sent[at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
            if digits == 0 || at > 0 && sent[at - 1].is_ascii_digit() {
                continue;
            }
            for number in odd {
                let changed = [&sent[..at], number.as_bytes(), &sent[at + digits..]].concat();
                drop(GrizzlyScanExec::from_bytes(&db, &changed));
            }
        }
        Ok(())
    }
}
