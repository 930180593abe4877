//! Names of SQL as names of the engine.

use datafusion::{
    common::TableReference,
    config::ConfigOptions,
    error::Result,
    execution::SessionState,
    sql::{
        planner::object_name_to_table_reference,
        sqlparser::ast::{Ident, ObjectName},
    },
};

use crate::{Error, adapter::session::CATALOG};

/// A name as the planner reads it.
pub(super) fn reference(state: &SessionState, name: &ObjectName) -> Result<TableReference> {
    let normalize = state.config_options().sql_parser.enable_ident_normalization;
    object_name_to_table_reference(name.clone(), normalize)
}

/// Schema and name of a table of this session's database; `None` if the name belongs to another catalog.
pub(crate) fn own_name(config: &ConfigOptions, reference: &TableReference) -> Option<(String, String)> {
    let defaults = &config.catalog;
    let resolved = reference.clone().resolve(&defaults.default_catalog, &defaults.default_schema);
    (resolved.catalog.as_ref() == CATALOG).then(|| (resolved.schema.to_string(), resolved.table.to_string()))
}

/// `schema.table` of a table that must be this database's.
pub(super) fn own_table(state: &SessionState, name: &ObjectName) -> Result<String> {
    let reference = reference(state, name)?;
    match own_name(state.config_options(), &reference) {
        Some((schema, table)) => Ok(format!("{schema}.{table}")),
        None => Err(Error::unsupported(format!("{reference} is not a table of this database")).into()),
    }
}

/// An identifier as the planner reads it.
pub(super) fn identifier(state: &SessionState, ident: &Ident) -> String {
    let normalize = state.config_options().sql_parser.enable_ident_normalization;
    if normalize && ident.quote_style.is_none() { ident.value.to_ascii_lowercase() } else { ident.value.clone() }
}

/// An identifier that means exactly `name`.
pub(super) fn quoted(name: &str) -> Ident {
    Ident::with_quote('"', name)
}
