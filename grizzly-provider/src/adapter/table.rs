//! A Grizzly table as DataFusion's `TableProvider`. It names a table by its id and holds no snapshot: what is read is
//! decided when a scan runs, so plans that outlive a statement (prepared ones, views) read present data.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, OnceLock},
};

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::{
    catalog::Session,
    common::{Constraint, Constraints, Statistics},
    datasource::{TableProvider, TableType},
    error::Result as DataFusionResult,
    execution::TaskContext,
    logical_expr::{Expr, TableProviderFilterPushDown, dml::InsertOp},
    physical_plan::ExecutionPlan,
};

use super::{
    GrizzlyOptions,
    defaults::parse_default,
    dml::insert_into,
    estimate,
    predicate::{Conversion, convert_logical},
    scan::{GrizzlyScanExec, Streams},
    statement::bind_snapshot,
    time_travel::{PointInTime, present},
};
use crate::{
    Error, ErrorKind, Grizzly, Result, TableSnapshot,
    access::{AsOf, SystemColumn},
};

/// A table of a database, or its history.
#[derive(Clone)]
pub struct GrizzlyTable {
    db: Grizzly,
    id: u64,
    name: Arc<str>,
    /// The columns DataFusion sees: the table's own, then any system columns, so that a column's number here is its
    /// number in the engine.
    schema: SchemaRef,
    own_columns: usize,
    constraints: Constraints,
    defaults: Arc<Defaults>,
    as_of: Option<PointInTime>,
    all_versions: bool,
}

/// DEFAULT expressions: their SQL text, and what it means, worked out when first asked for.
#[derive(Default)]
struct Defaults {
    texts: Vec<(String, DataType, String)>,
    parsed: OnceLock<HashMap<String, Expr>>,
}

impl fmt::Debug for GrizzlyTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GrizzlyTable")
            .field("name", &self.name)
            .field("id", &self.id)
            .field("as_of", &self.as_of)
            .field("all_versions", &self.all_versions)
            .finish_non_exhaustive()
    }
}

/// A database hands out its tables.
pub trait GrizzlyTables {
    /// The table `name` or `schema.name`, ready to be registered in a `SessionContext`.
    fn table(&self, name: &str) -> Result<Arc<GrizzlyTable>>;
}

impl GrizzlyTables for Grizzly {
    fn table(&self, name: &str) -> Result<Arc<GrizzlyTable>> {
        GrizzlyTable::try_new(self, name).map(Arc::new)
    }
}

impl GrizzlyTable {
    /// The table `name` or `schema.name` of `db`. An error of kind `NotFound` if there is none.
    pub fn try_new(db: &Grizzly, name: &str) -> Result<Self> {
        Ok(Self::from_snapshot(db, &db.snapshot().table(name)?))
    }

    /// The table that `table` is a snapshot of.
    pub(crate) fn from_snapshot(db: &Grizzly, table: &TableSnapshot) -> Self {
        let schema = table.schema();
        let (schema_name, name) = table.name();
        let key = table.primary_key();
        let constraints = if key.is_empty() { vec![] } else { vec![Constraint::PrimaryKey(key.to_vec())] };
        let texts = schema.fields().iter().filter_map(|field| {
            let text = table.default(field.name())?.to_owned();
            Some((field.name().clone(), field.data_type().clone(), text))
        });
        Self {
            db: db.clone(),
            id: table.id(),
            name: format!("{schema_name}.{name}").into(),
            own_columns: schema.fields().len(),
            constraints: Constraints::new_unverified(constraints),
            defaults: Arc::new(Defaults { texts: texts.collect(), parsed: OnceLock::new() }),
            schema,
            as_of: None,
            all_versions: false,
        }
    }

    /// The same table as it was.
    #[must_use]
    pub fn as_of(&self, at: AsOf) -> Self {
        self.at(PointInTime::Fixed(at))
    }

    /// The same table as it was at a time that may follow from when a statement starts.
    #[must_use]
    pub fn at(&self, point: PointInTime) -> Self {
        Self { as_of: Some(point), ..self.clone() }
    }

    /// The same table with two more columns, `__row_id` and `__row_version` (both UInt64): what DELETE, UPDATE and
    /// MERGE need to name rows.
    #[must_use]
    pub fn with_row_id(&self) -> Self {
        let columns = [SystemColumn::RowId, SystemColumn::RowVersion];
        self.with_system_columns(&columns, |column| format!("__{}", column.name()))
    }

    /// The table's history: every retained version of every row, with all system columns (`t$rows`). Rows may share
    /// a key here, so there are no constraints.
    #[must_use]
    pub(crate) fn history(&self) -> Self {
        let mut history = self.with_system_columns(&SystemColumn::ALL, |column| column.name().to_owned());
        history.constraints = Constraints::default();
        history.all_versions = true;
        history
    }

    /// Whether DataFusion is told of a primary key.
    pub(crate) fn has_key(&self) -> bool {
        !self.constraints.is_empty()
    }

    /// The same table, whose primary key DataFusion is not told of.
    #[must_use]
    pub(crate) fn without_key(&self) -> Self {
        Self { constraints: Constraints::default(), ..self.clone() }
    }

    fn with_system_columns(&self, columns: &[SystemColumn], name: impl Fn(SystemColumn) -> String) -> Self {
        let own = self.schema.fields().iter().take(self.own_columns).cloned();
        let mut fields: Vec<Arc<Field>> = own.collect();
        for column in columns {
            let mut name = name(*column);
            while fields.iter().any(|field| *field.name() == name) {
                name.insert(0, '_');
            }
            fields.push(Arc::new(system_field(*column, name)));
        }
        let schema = Arc::new(Schema::new_with_metadata(fields, self.schema.metadata().clone()));
        Self { schema, ..self.clone() }
    }

    /// The database.
    pub fn db(&self) -> &Grizzly {
        &self.db
    }

    /// The table's id, which survives renames and is never reused.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// `schema.name`, as it was when this was made.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The point in history it reads, if not the present.
    pub fn reads_as_of(&self) -> Option<&PointInTime> {
        self.as_of.as_ref()
    }

    /// Whether it reads every retained version of every row.
    pub fn reads_all_versions(&self) -> bool {
        self.all_versions
    }

    /// How many of the schema's columns are the table's own.
    pub fn own_columns(&self) -> usize {
        self.own_columns
    }

    /// What planning goes by: the table as it is now, or as of the time it reads.
    pub fn planning_snapshot(&self) -> Result<TableSnapshot> {
        let snapshot = match &self.as_of {
            Some(at) => self.db.snapshot_at(at.at(present(&self.db))?)?,
            None => self.db.snapshot(),
        };
        snapshot.table_called(self.id, &self.name)
    }

    /// The table as the statement that runs under `context` reads it, the same for everything that belongs to the
    /// statement. Binds the statement's snapshot if nothing has before, so call it in `execute`, not while planning.
    /// An error of kind `Invalid` if the table's columns are no longer those of the plan.
    pub fn bind(&self, context: &Arc<TaskContext>) -> Result<TableSnapshot> {
        let table = bind_snapshot(&self.db, context, self.as_of.as_ref())?.table_called(self.id, &self.name)?;
        let planned = self.schema.fields().iter().take(self.own_columns);
        if !planned.eq(table.schema().fields().iter()) {
            let message = format!("the columns of {} have changed since the statement was prepared", self.name);
            return Err(Error::new(ErrorKind::Invalid, message).outdated());
        }
        Ok(table)
    }
}

/// The type and nullability of a system column.
pub(crate) fn system_field(column: SystemColumn, name: String) -> Field {
    let data_type = if column == SystemColumn::Shard { DataType::UInt32 } else { DataType::UInt64 };
    Field::new(name, data_type, column == SystemColumn::Deleted)
}

#[async_trait]
impl TableProvider for GrizzlyTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn constraints(&self) -> Option<&Constraints> {
        Some(&self.constraints)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn get_column_default(&self, column: &str) -> Option<&Expr> {
        if self.defaults.texts.is_empty() {
            return None;
        }
        let parsed = self.defaults.parsed.get_or_init(|| {
            let parsed = self.defaults.texts.iter().filter_map(|(column, data_type, text)| {
                // The text was checked when the table was created; a function that is gone since means NULL.
                Some((column.clone(), parse_default(text, data_type).ok()?))
            });
            parsed.collect()
        });
        parsed.get(column)
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        // A scan is divided among nodes only if it has several streams.
        let options = state.config_options().extensions.get::<GrizzlyOptions>();
        let divided = options.map_or(u64::MAX, |options| options.distribute_rows / 4);
        let rows_each = divided.min(Streams::ROWS_EACH);
        let streams = Streams { most: state.config().target_partitions(), rows_each };
        let scan = GrizzlyScanExec::try_new(Arc::new(self.clone()), projection, filters, limit, streams)?;
        Ok(Arc::new(scan))
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> DataFusionResult<Vec<TableProviderFilterPushDown>> {
        let support = |filter: &&Expr| match convert_logical(filter, &self.schema) {
            Conversion::Exact(_) => TableProviderFilterPushDown::Exact,
            Conversion::Superset(_) => TableProviderFilterPushDown::Inexact,
            Conversion::No => TableProviderFilterPushDown::Unsupported,
        };
        Ok(filters.iter().map(support).collect())
    }

    fn statistics(&self) -> Option<Statistics> {
        let table = self.planning_snapshot().ok()?.statistics();
        let columns: Vec<usize> = (0..self.schema.fields().len()).collect();
        Some(estimate::statistics(&table, &self.schema, &columns, table.rows))
    }

    async fn insert_into(
        &self,
        _: &dyn Session,
        input: Arc<dyn ExecutionPlan>,
        op: InsertOp,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        insert_into(self, input, op)
    }

    async fn delete_from(&self, _: &dyn Session, _: Vec<Expr>) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        Err(self.needs_grizzly_session("DELETE").into())
    }

    async fn update(
        &self,
        _: &dyn Session,
        _: Vec<(String, Expr)>,
        _: Vec<Expr>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        Err(self.needs_grizzly_session("UPDATE").into())
    }

    async fn truncate(&self, _: &dyn Session) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        Err(self.needs_grizzly_session("TRUNCATE").into())
    }
}

impl GrizzlyTable {
    /// DataFusion's own hook loses subqueries and limits of the WHERE clause, so it is not trusted with anything.
    fn needs_grizzly_session(&self, statement: &str) -> Error {
        let name = &self.name;
        Error::unsupported(format!("{statement} on {name} needs a session built with Grizzly's rules (with_grizzly)"))
    }
}
