//! One schema of the database.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::{
    catalog::{SchemaProvider, TableProvider},
    datasource::{MemTable, TableType, ViewTable},
    error::Result as DataFusionResult,
};

use super::{
    GrizzlyCatalog, blocking, register,
    view::{self, BrokenView},
};
use crate::{
    Error, ErrorKind, Result, TableSnapshot,
    access::IfExists,
    adapter::{system_tables, table::GrizzlyTable},
};

#[derive(Debug)]
pub(super) struct GrizzlySchema {
    catalog: GrizzlyCatalog,
    name: String,
}

impl GrizzlySchema {
    pub(super) fn new(catalog: GrizzlyCatalog, name: &str) -> Self {
        Self { catalog, name: name.to_owned() }
    }

    fn key(&self, table: &str) -> (String, String) {
        (self.name.clone(), table.to_owned())
    }

    fn beside(&self, table: &str) -> Option<Arc<dyn TableProvider>> {
        self.catalog.shared.beside.lock().tables.get(&self.key(table)).cloned()
    }

    fn qualified(&self, table: &str) -> String {
        format!("{}.{table}", self.name)
    }

    fn snapshot(&self, table: &str) -> Result<Option<TableSnapshot>> {
        match self.catalog.db().snapshot().table(&self.qualified(table)) {
            Ok(table) => Ok(Some(table)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn view_text(&self, name: &str) -> Option<String> {
        let views = self.catalog.db().snapshot().views(&self.name);
        views.into_iter().find_map(|(view, text)| (view == name).then_some(text))
    }

    /// The view, planned, or what stands for one that cannot be.
    async fn view(&self, name: &str, text: &str) -> DataFusionResult<Arc<dyn TableProvider>> {
        let version = self.catalog.db().catalog_version();
        let key = self.key(name);
        if let Some((planned_for, view)) = self.catalog.shared.beside.lock().views.get(&key)
            && *planned_for == version
        {
            return Ok(Arc::clone(view));
        }
        let view: Arc<dyn TableProvider> = match view::plan(&self.catalog, &self.name, name, text).await {
            Ok(view) => Arc::new(view),
            // Whether it can be read may depend on who reads it, so this is not kept.
            Err(error) => return Ok(Arc::new(BrokenView::new(error, text))),
        };
        self.catalog.shared.beside.lock().views.insert(key, (version, Arc::clone(&view)));
        Ok(view)
    }

    /// `t$rows` and the like.
    fn system_table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        let Some((table, kind)) = name.rsplit_once('$') else {
            return Ok(None);
        };
        let Some(table) = self.snapshot(table)? else {
            return Ok(None);
        };
        system_tables::system_table(&GrizzlyTable::from_snapshot(self.catalog.db(), &table), kind)
    }

    fn drop_stored(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        let db = self.catalog.db();
        let qualified = self.qualified(name);
        if let Some(table) = self.snapshot(name)? {
            blocking(|| db.drop_table(&qualified, true))?;
            return Ok(Some(Arc::new(GrizzlyTable::from_snapshot(db, &table))));
        }
        if let Some(text) = self.view_text(name) {
            blocking(|| db.drop_view(&qualified, true))?;
            return Ok(Some(Arc::new(view::dropped(text))));
        }
        Ok(None)
    }
}

#[async_trait]
impl SchemaProvider for GrizzlySchema {
    fn table_names(&self) -> Vec<String> {
        let snapshot = self.catalog.db().snapshot();
        let mut names = snapshot.table_names(&self.name);
        names.extend(snapshot.views(&self.name).into_iter().map(|(view, _)| view));
        let beside = self.catalog.shared.beside.lock();
        let beside = beside.tables.keys().filter(|(schema, _)| *schema == self.name);
        names.extend(beside.map(|(_, table)| table.clone()));
        names
    }

    async fn table(&self, name: &str) -> DataFusionResult<Option<Arc<dyn TableProvider>>> {
        if let Some(table) = self.beside(name) {
            return Ok(Some(table));
        }
        if let Some(table) = self.snapshot(name)? {
            return Ok(Some(Arc::new(GrizzlyTable::from_snapshot(self.catalog.db(), &table))));
        }
        if let Some(text) = self.view_text(name) {
            return self.view(name, &text).await.map(Some);
        }
        Ok(self.system_table(name)?)
    }

    async fn table_type(&self, name: &str) -> DataFusionResult<Option<TableType>> {
        if self.beside(name).is_none() && self.snapshot(name)?.is_none() && self.view_text(name).is_some() {
            return Ok(Some(TableType::View));
        }
        Ok(self.table(name).await?.map(|table| table.table_type()))
    }

    fn register_table(
        &self,
        name: String,
        table: Arc<dyn TableProvider>,
    ) -> DataFusionResult<Option<Arc<dyn TableProvider>>> {
        if self.table_exist(&name) {
            let message = format!("table {} exists already", self.qualified(&name));
            return Err(Error::new(ErrorKind::AlreadyExists, message).into());
        }
        let db = self.catalog.db();
        if let Some(memory) = table.downcast_ref::<MemTable>() {
            register::store_table(db, &self.name, &name, memory)?;
            return Ok(None);
        }
        if let Some(view) = table.downcast_ref::<ViewTable>()
            && let Some(text) = view.definition()
        {
            let qualified = self.qualified(&name);
            blocking(|| db.create_view(&qualified, text, IfExists::Fail))?;
            return Ok(None);
        }
        self.catalog.shared.beside.lock().tables.insert(self.key(&name), table);
        Ok(None)
    }

    fn deregister_table(&self, name: &str) -> DataFusionResult<Option<Arc<dyn TableProvider>>> {
        if let Some(table) = self.catalog.shared.beside.lock().tables.remove(&self.key(name)) {
            return Ok(Some(table));
        }
        if let Some(dropped) = self.drop_stored(name)? {
            return Ok(Some(dropped));
        }
        if self.system_table(name)?.is_some() {
            let message = format!("{name} describes a table and is dropped with it");
            return Err(Error::new(ErrorKind::Invalid, message).into());
        }
        Ok(None)
    }

    fn table_exist(&self, name: &str) -> bool {
        self.beside(name).is_some()
            || matches!(self.snapshot(name), Ok(Some(_)))
            || self.view_text(name).is_some()
            || matches!(self.system_table(name), Ok(Some(_)))
    }
}
