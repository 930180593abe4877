//! Names and definitions: schemas, tables, indexes, views. One immutable value per database version.

use std::{collections::BTreeMap, sync::Arc};

use arrow::{
    array::RecordBatch,
    datatypes::{DataType, Field, Schema, SchemaRef},
    ipc::writer::StreamWriter,
};
use serde::{Deserialize, Serialize};

use super::{key, shard::router::ShardRouter};
use crate::{
    access::{IndexDefinition, IndexInfo, TableDefinition},
    error::{Error, ErrorKind, Result},
    foreign::ipc_stream,
};

/// The schema every database has.
pub(crate) const DEFAULT_SCHEMA: &str = "public";
/// Name of the index that a primary key makes.
pub(crate) const PRIMARY: &str = "primary";
const MAX_SHARDS: u32 = 1024;
/// What no database counts to, be it commits, records, tables or epochs. Where more stands in a file, the file is damaged.
pub(crate) const BEYOND: u64 = 1 << 62;

/// An index of a table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct IndexDef {
    /// Never reused within the table.
    pub(crate) id: u32,
    pub(crate) name: Arc<str>,
    pub(crate) columns: Vec<usize>,
    pub(crate) descending: Vec<bool>,
    pub(crate) unique: bool,
    pub(crate) primary: bool,
}

/// A table, by definition.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct TableDef {
    /// Never reused within the database.
    pub(crate) id: u64,
    pub(crate) schema_name: String,
    pub(crate) name: String,
    #[serde(with = "schema_bytes")]
    pub(crate) schema: SchemaRef,
    pub(crate) primary_key: Vec<usize>,
    pub(crate) shards: u32,
    pub(crate) shard_by: Vec<usize>,
    pub(crate) shard_seed: u64,
    pub(crate) shard_hash: u16,
    pub(crate) defaults: Vec<(String, String)>,
    pub(crate) indexes: Vec<IndexDef>,
    pub(crate) next_index_id: u32,
}

/// A view, by definition.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ViewDef {
    pub(crate) schema_name: String,
    pub(crate) name: String,
    pub(crate) sql: String,
}

/// Everything that has a name.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Catalog {
    pub(crate) schemas: Vec<String>,
    pub(crate) tables: BTreeMap<u64, Arc<TableDef>>,
    pub(crate) views: Vec<ViewDef>,
    pub(crate) next_table_id: u64,
    /// Grows with every change.
    pub(crate) version: u64,
}

/// One change of the catalog, as the log carries it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum CatalogChange {
    CreateTable(TableDef),
    DropTable { table: u64 },
    CreateIndex { table: u64, index: IndexDef },
    DropIndex { table: u64, index: u32 },
    CreateSchema { name: String },
    DropSchema { name: String },
    CreateView(ViewDef),
    DropView { schema_name: String, name: String },
}

impl Default for Catalog {
    fn default() -> Self {
        Self {
            schemas: vec![DEFAULT_SCHEMA.to_owned()],
            tables: BTreeMap::new(),
            views: Vec::new(),
            next_table_id: 1,
            version: 1,
        }
    }
}

/// Splits `schema.name` or `name`; the schema defaults to `public`.
pub(crate) fn split_name(name: &str) -> (&str, &str) {
    name.split_once('.').unwrap_or((DEFAULT_SCHEMA, name))
}

impl Catalog {
    /// The table `name` or `schema.name`.
    pub(crate) fn table(&self, name: &str) -> Result<&Arc<TableDef>> {
        self.find_table(name).ok_or_else(|| Error::not_found(format!("table '{name}' does not exist")))
    }

    pub(crate) fn find_table(&self, name: &str) -> Option<&Arc<TableDef>> {
        let (schema_name, name) = split_name(name);
        self.tables.values().find(|table| table.name == name && table.schema_name == schema_name)
    }

    pub(crate) fn find_view(&self, name: &str) -> Option<&ViewDef> {
        let (schema_name, name) = split_name(name);
        self.views.iter().find(|view| view.name == name && view.schema_name == schema_name)
    }

    /// An error if a table or view has the name already, or its schema does not exist.
    pub(crate) fn check_free(&self, name: &str) -> Result<()> {
        let (schema_name, _) = split_name(name);
        if !self.schemas.iter().any(|schema| schema == schema_name) {
            return Err(Error::not_found(format!("schema '{schema_name}' does not exist")));
        }
        if self.find_table(name).is_some() || self.find_view(name).is_some() {
            return Err(Error::new(ErrorKind::AlreadyExists, format!("table or view '{name}' already exists")));
        }
        Ok(())
    }

    /// An error if this is not a catalog that changes can have made: one was read from a file.
    pub(crate) fn check(&self) -> Result<()> {
        for (id, table) in &self.tables {
            table.check()?;
            if *id != table.id || *id >= self.next_table_id {
                return Err(Error::corrupt(format!("table '{}' stands under number {id}", table.display_name())));
            }
        }
        match self.next_table_id < BEYOND && self.version < BEYOND {
            true => Ok(()),
            false => Err(Error::corrupt("the catalog has numbers that none reaches")),
        }
    }

    /// An error if a change that was read from a file is not one that can be made here.
    pub(crate) fn check_change(&self, change: &CatalogChange) -> Result<()> {
        match change {
            CatalogChange::CreateTable(table) => table.check(),
            CatalogChange::CreateIndex { table, index } => self.tables.get(table).map_or(Ok(()), |table| {
                let taken = table.indexes.iter().any(|known| known.id == index.id);
                if taken { Err(table.odd("has two indexes of one number")) } else { table.check_index(index) }
            }),
            _ => Ok(()),
        }
    }

    /// The catalog after a change that was validated when it was made.
    pub(crate) fn with(&self, change: &CatalogChange) -> Self {
        let mut next = self.clone();
        next.version += 1;
        match change {
            CatalogChange::CreateTable(table) => {
                next.next_table_id = next.next_table_id.max(table.id + 1);
                next.tables.insert(table.id, Arc::new(table.clone()));
            }
            CatalogChange::DropTable { table } => {
                next.tables.remove(table);
            }
            CatalogChange::CreateIndex { table, index } => next.edit(*table, |table| table.add_index(index.clone())),
            CatalogChange::DropIndex { table, index } => {
                next.edit(*table, |table| table.indexes.retain(|candidate| candidate.id != *index));
            }
            CatalogChange::CreateSchema { name } => next.schemas.push(name.clone()),
            CatalogChange::DropSchema { name } => next.schemas.retain(|schema| schema != name),
            CatalogChange::CreateView(view) => {
                next.views.retain(|old| (&old.schema_name, &old.name) != (&view.schema_name, &view.name));
                next.views.push(view.clone());
            }
            CatalogChange::DropView { schema_name, name } => {
                next.views.retain(|view| (&view.schema_name, &view.name) != (schema_name, name));
            }
        }
        next
    }

    fn edit(&mut self, table: u64, edit: impl FnOnce(&mut TableDef)) {
        if let Some(def) = self.tables.get_mut(&table) {
            edit(Arc::make_mut(def));
        }
    }
}

impl TableDef {
    /// Validates a definition and gives it the id `id`.
    pub(crate) fn new(id: u64, definition: TableDefinition) -> Result<Self> {
        let TableDefinition { schema_name, name, schema, primary_key, shards, shard_by, defaults, indexes } =
            definition;
        if name.is_empty() {
            return Err(Error::invalid("a table needs a name"));
        }
        if schema.fields().is_empty() {
            return Err(Error::invalid(format!("table '{name}' needs at least one column")));
        }
        if shards == 0 || shards > MAX_SHARDS {
            return Err(Error::invalid(format!(
                "table '{name}': shards must be between 1 and {MAX_SHARDS}, not {shards}"
            )));
        }
        let column = |column: &String| column_number(&schema, &name, column);
        let primary_key = primary_key.iter().map(column).collect::<Result<Vec<_>>>()?;
        let mut shard_by = shard_by.iter().map(column).collect::<Result<Vec<_>>>()?;
        if shard_by.is_empty() {
            shard_by.clone_from(&primary_key);
        }
        if !primary_key.is_empty() && !shard_by.iter().all(|column| primary_key.contains(column)) {
            return Err(Error::invalid(format!(
                "table '{name}': the columns that place a row must be part of its primary key"
            )));
        }
        let schema = storable_schema(&name, &schema, &primary_key)?;
        for (column, _) in &defaults {
            column_number(&schema, &name, column)?;
        }
        let mut table = Self {
            id,
            schema_name,
            name,
            schema,
            primary_key: primary_key.clone(),
            shards,
            shard_by,
            shard_seed: id,
            shard_hash: super::shard::router::SHARD_HASH_VERSION,
            defaults,
            indexes: Vec::new(),
            next_index_id: 1,
        };
        for column in &table.shard_by {
            table.check_key_column(*column)?;
        }
        if !primary_key.is_empty() {
            let descending = vec![false; primary_key.len()];
            let index = table.index(PRIMARY, primary_key, descending, true, true)?;
            table.add_index(index);
        }
        for definition in &indexes {
            let index = table.new_index(definition)?;
            table.add_index(index);
        }
        Ok(table)
    }

    /// An error if this is not a definition that [`TableDef::new`] can have made.
    fn check(&self) -> Result<()> {
        let width = self.schema.fields().len();
        let columns = || self.primary_key.iter().chain(&self.shard_by);
        if self.id >= BEYOND || self.name.is_empty() || width == 0 {
            return Err(self.odd("has no number, no name or no column"));
        }
        if self.shards == 0 || self.shards > MAX_SHARDS {
            return Err(self.odd("has an impossible number of shards"));
        }
        if columns().any(|column| *column >= width) {
            return Err(self.odd("has a key with a column that it does not have"));
        }
        if !self.primary_key.is_empty() && !self.shard_by.iter().all(|column| self.primary_key.contains(column)) {
            return Err(self.odd("has shards by a column that is not in its primary key"));
        }
        if !self.schema.fields().iter().all(|field| storable(field.data_type())) {
            return Err(self.odd("has a column that cannot be stored"));
        }
        for (at, index) in self.indexes.iter().enumerate() {
            self.check_index(index)?;
            if index.id >= self.next_index_id || self.indexes[..at].iter().any(|other| other.id == index.id) {
                return Err(self.odd("has an index with the number of another"));
            }
            if index.primary && index.columns != self.primary_key {
                return Err(self.odd("has an index of another primary key"));
            }
        }
        Ok(())
    }

    /// The same for an index that it has, or is to have.
    fn check_index(&self, index: &IndexDef) -> Result<()> {
        let width = self.schema.fields().len();
        let fits = index.columns.len() == index.descending.len() && index.columns.iter().all(|column| *column < width);
        match fits && !index.columns.is_empty() && index.id < u32::MAX {
            true => Ok(()),
            false => Err(self.odd(&format!("has an index '{}' that cannot be one of it", index.name))),
        }
    }

    fn odd(&self, what: &str) -> Error {
        Error::corrupt(format!("table '{}' {what}", self.display_name()))
    }

    fn add_index(&mut self, index: IndexDef) {
        self.next_index_id = self.next_index_id.max(index.id + 1);
        self.indexes.push(index);
    }

    /// Validates a new secondary index. An error of kind `AlreadyExists` if there is one of the name.
    pub(crate) fn new_index(&self, definition: &IndexDefinition) -> Result<IndexDef> {
        if self.find_index(&definition.name).is_some() {
            let (index, table) = (&definition.name, self.display_name());
            let message = format!("index '{index}' of table '{table}' already exists");
            return Err(Error::new(ErrorKind::AlreadyExists, message));
        }
        if definition.columns.is_empty() {
            return Err(Error::invalid(format!("index '{}' needs at least one column", definition.name)));
        }
        let columns = definition
            .columns
            .iter()
            .map(|(column, _)| column_number(&self.schema, &self.name, column))
            .collect::<Result<Vec<_>>>()?;
        let descending = definition.columns.iter().map(|(_, descending)| *descending).collect();
        self.index(&definition.name, columns, descending, definition.unique, false)
    }

    fn index(
        &self,
        name: &str,
        columns: Vec<usize>,
        descending: Vec<bool>,
        unique: bool,
        primary: bool,
    ) -> Result<IndexDef> {
        for (position, column) in columns.iter().enumerate() {
            self.check_key_column(*column)?;
            if columns[..position].contains(column) {
                let column = self.schema.field(*column).name();
                return Err(Error::invalid(format!("index '{name}' names column '{column}' twice")));
            }
        }
        Ok(IndexDef { id: self.next_index_id, name: name.into(), columns, descending, unique, primary })
    }

    fn check_key_column(&self, column: usize) -> Result<()> {
        let field = self.schema.field(column);
        if key::supports(field.data_type()) {
            return Ok(());
        }
        Err(Error::unsupported(format!(
            "column '{}' of table '{}' has type {}, which cannot be part of a key",
            field.name(),
            self.name,
            field.data_type()
        )))
    }

    /// `schema.name`, or the name alone in the default schema.
    pub(crate) fn display_name(&self) -> String {
        match self.schema_name.as_str() {
            DEFAULT_SCHEMA => self.name.clone(),
            schema_name => format!("{schema_name}.{}", self.name),
        }
    }

    /// Encodes the keys of an index of this table.
    pub(crate) fn key_encoder(&self, index: &IndexDef) -> Result<key::KeyEncoder> {
        let types: Vec<_> = index
            .columns
            .iter()
            .zip(&index.descending)
            .map(|(column, descending)| {
                let field = self.schema.field(*column);
                (field.data_type().clone(), field.is_nullable(), *descending)
            })
            .collect();
        Ok(key::KeyEncoder::new(&types)?)
    }

    /// Places rows on shards; `None` for round-robin.
    pub(crate) fn router(&self) -> Result<Option<ShardRouter>> {
        if self.shard_by.is_empty() {
            return Ok(None);
        }
        let types: Vec<_> = self.shard_by.iter().map(|column| self.schema.field(*column).data_type().clone()).collect();
        Ok(Some(ShardRouter::new(self.shard_by.clone(), &types, self.shards, self.shard_seed)?))
    }

    pub(crate) fn find_index(&self, name: &str) -> Option<&IndexDef> {
        self.indexes.iter().find(|index| index.name.as_ref() == name)
    }
}

impl IndexDef {
    pub(crate) fn info(&self) -> IndexInfo {
        IndexInfo {
            name: Arc::clone(&self.name),
            columns: self.columns.clone(),
            descending: self.descending.clone(),
            unique: self.unique,
            primary: self.primary,
        }
    }
}

fn column_number(schema: &Schema, table: &str, column: &str) -> Result<usize> {
    schema
        .index_of(column)
        .map_err(|_| Error::new(ErrorKind::NotFound, format!("column '{column}' does not exist in table '{table}'")))
}

/// The schema as stored: key columns NOT NULL, every type one that files can hold, names unique.
fn storable_schema(table: &str, schema: &Schema, primary_key: &[usize]) -> Result<SchemaRef> {
    let mut fields = Vec::with_capacity(schema.fields().len());
    for (number, field) in schema.fields().iter().enumerate() {
        if schema.fields()[..number].iter().any(|earlier| earlier.name() == field.name()) {
            return Err(Error::invalid(format!("table '{table}' has two columns named '{}'", field.name())));
        }
        if !storable(field.data_type()) {
            return Err(Error::unsupported(format!(
                "column '{}' of table '{table}' has type {}, which cannot be stored",
                field.name(),
                field.data_type()
            )));
        }
        let nullable = field.is_nullable() && !primary_key.contains(&number);
        fields.push(Field::new(field.name(), field.data_type().clone(), nullable));
    }
    Ok(Arc::new(Schema::new(fields)))
}

fn storable(data_type: &DataType) -> bool {
    match data_type {
        DataType::Union(..) | DataType::RunEndEncoded(..) | DataType::Dictionary(..) | DataType::Map(..) => false,
        DataType::List(field)
        | DataType::LargeList(field)
        | DataType::ListView(field)
        | DataType::LargeListView(field)
        | DataType::FixedSizeList(field, _) => storable(field.data_type()),
        DataType::Struct(fields) => fields.iter().all(|field| storable(field.data_type())),
        _ => true,
    }
}

/// Arrow schemas inside JSON: the IPC stream of no batches, in hexadecimal, since that format is Arrow's stable one.
mod schema_bytes {
    use serde::{Deserializer, Serializer, de::Error as _, ser::Error as _};

    use super::{Deserialize, RecordBatch, SchemaRef, StreamWriter, ipc_stream};

    pub(super) fn serialize<S: Serializer>(schema: &SchemaRef, serializer: S) -> Result<S::Ok, S::Error> {
        let mut bytes = Vec::new();
        StreamWriter::try_new(&mut bytes, schema)
            .and_then(|mut writer| {
                writer.write(&RecordBatch::new_empty(SchemaRef::clone(schema)))?;
                writer.finish()
            })
            .map_err(S::Error::custom)?;
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        serializer.serialize_str(&hex)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SchemaRef, D::Error> {
        let hex = String::deserialize(deserializer)?;
        let bytes = (0..hex.len() / 2)
            .map(|at| hex.get(2 * at..2 * at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok()))
            .collect::<Option<Vec<u8>>>()
            .ok_or_else(|| D::Error::custom("a schema is not hexadecimal"))?;
        let (schema, _) = ipc_stream(bytes.into()).map_err(D::Error::custom)?;
        Ok(schema)
    }
}
