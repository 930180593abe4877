//! temp
use std::sync::Arc;
use datafusion::catalog::{CatalogProvider, SchemaProvider, MemoryCatalogProvider};
use crate::Grizzly;
#[derive(Debug)]
pub struct GrizzlyCatalog(MemoryCatalogProvider);
impl GrizzlyCatalog { pub fn new(_db: &Grizzly) -> Self { Self(MemoryCatalogProvider::new()) } }
impl CatalogProvider for GrizzlyCatalog {
    fn schema_names(&self) -> Vec<String> { self.0.schema_names() }
    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> { self.0.schema(name) }
}
