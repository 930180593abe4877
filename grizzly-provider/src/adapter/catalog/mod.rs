//! A database as DataFusion's catalog: schemas, tables, views and the metadata tables `t$rows`, `t$shards`,
//! `t$indexes`. What DataFusion registers and Grizzly can store (CREATE TABLE's `MemTable`, views with their SQL)
//! becomes Grizzly's; anything else, external tables for instance, stays in memory beside it.

mod register;
mod schema;
mod view;

pub(super) use view::refuse_broken;

use std::{collections::HashMap, sync::Arc, thread};

use datafusion::{
    catalog::{CatalogProvider, SchemaProvider, TableProvider},
    error::Result as DataFusionResult,
};
use parking_lot::Mutex;
use schema::GrizzlySchema;

use super::live_table::refuse_system_schema;
use crate::{Error, ErrorKind, Grizzly, Result};

/// The catalog of one database.
#[derive(Debug, Clone)]
pub struct GrizzlyCatalog {
    shared: Arc<Shared>,
    /// The views, outermost first, whose planning reads this catalog: by schema and name.
    within: Vec<(String, String)>,
}

#[derive(Debug)]
struct Shared {
    db: Grizzly,
    beside: Mutex<Beside>,
}

/// What is not the database's.
#[derive(Debug, Default)]
struct Beside {
    /// By schema and table name.
    tables: HashMap<(String, String), Arc<dyn TableProvider>>,
    /// Whole schemas of others.
    schemas: HashMap<String, Arc<dyn SchemaProvider>>,
    /// Planned views, with the version of the catalog they were planned for.
    views: HashMap<(String, String), (u64, Arc<dyn TableProvider>)>,
}

impl GrizzlyCatalog {
    /// The catalog of `db`.
    pub fn new(db: &Grizzly) -> Self {
        let shared = Shared { db: db.clone(), beside: Mutex::default() };
        Self { shared: Arc::new(shared), within: Vec::new() }
    }

    /// The database.
    pub fn db(&self) -> &Grizzly {
        &self.shared.db
    }

    /// The catalog as the planning of a view reads it.
    fn within(&self, schema: &str, view: &str) -> Self {
        let mut within = self.within.clone();
        within.push((schema.to_owned(), view.to_owned()));
        Self { shared: Arc::clone(&self.shared), within }
    }
}

impl CatalogProvider for GrizzlyCatalog {
    fn schema_names(&self) -> Vec<String> {
        let mut names = self.db().snapshot().schema_names();
        names.extend(self.shared.beside.lock().schemas.keys().cloned());
        names
    }

    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        if let Some(foreign) = self.shared.beside.lock().schemas.get(name) {
            return Some(Arc::clone(foreign));
        }
        let known = self.db().snapshot().schema_names().iter().any(|known| known == name);
        known.then(|| Arc::new(GrizzlySchema::new(self.clone(), name)) as _)
    }

    fn register_schema(
        &self,
        name: &str,
        schema: Arc<dyn SchemaProvider>,
    ) -> DataFusionResult<Option<Arc<dyn SchemaProvider>>> {
        // CREATE SCHEMA comes with an empty schema; one with tables is somebody else's.
        if schema.table_names().is_empty() {
            refuse_system_schema(name, name)?;
            blocking(|| self.db().create_schema(name, true))?;
            return Ok(None);
        }
        if self.db().snapshot().schema_names().iter().any(|known| known == name) {
            let message = format!("schema {name} exists in the database and cannot be replaced");
            return Err(Error::new(ErrorKind::AlreadyExists, message).into());
        }
        Ok(self.shared.beside.lock().schemas.insert(name.to_owned(), schema))
    }

    fn deregister_schema(&self, name: &str, cascade: bool) -> DataFusionResult<Option<Arc<dyn SchemaProvider>>> {
        refuse_system_schema(name, name)?;
        if let Some(foreign) = self.shared.beside.lock().schemas.remove(name) {
            return Ok(Some(foreign));
        }
        let Some(schema) = self.schema(name) else {
            return Ok(None);
        };
        if cascade {
            for table in schema.table_names() {
                schema.deregister_table(&table)?;
            }
        } else if !schema.table_names().is_empty() {
            let message = format!("schema {name} is not empty; DROP SCHEMA {name} CASCADE drops what is in it too");
            return Err(Error::new(ErrorKind::Invalid, message).into());
        }
        blocking(|| self.db().drop_schema(name, true))?;
        Ok(Some(schema))
    }
}

/// Runs work that waits for storage on a thread of its own: DataFusion calls the catalog's synchronous methods from
/// async code, where nothing may wait.
fn blocking<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| {
        let done = scope.spawn(work).join();
        done.unwrap_or_else(|_| Err(Error::internal("a catalog change ended abnormally")))
    })
}
