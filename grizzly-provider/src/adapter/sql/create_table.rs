//! CREATE TABLE, with shards and defaults, and CREATE TABLE … AS.
//!
//! ```sql
//! CREATE TABLE t (…) PARTITION BY HASH (a, b) SHARDS 4
//! CREATE TABLE t (…) WITH (shards = 4, shard_by = 'a, b')
//! ```

use std::sync::Arc;

use arrow::datatypes::Schema;
use datafusion::{
    common::Constraint,
    error::{DataFusionError, Result},
    execution::SessionState,
    logical_expr::{CreateMemoryTable, DdlStatement, LogicalPlan},
    sql::{
        parser::Statement,
        sqlparser::ast::{
            ColumnOption, CreateTable, CreateTableOptions, Expr, FunctionArg, FunctionArgExpr, FunctionArguments,
            Ident, SqlOption, Statement as SqlStatement, Value,
        },
    },
};

use super::{
    Front,
    front::unexpected,
    index::default_name,
    names::{identifier, own_name},
    refuse::refuse,
};
use crate::{
    CommitOutcome, Error, ErrorKind,
    access::{IfExists, IndexDefinition, TableDefinition},
    adapter::{
        busy::busy, dml::create_and_fill, error::grizzly_error, interrupt, live_table::refuse_system_schema,
        session::REPLANS,
    },
};

/// How a table is divided.
#[derive(Default)]
struct Sharding {
    shards: Option<u32>,
    shard_by: Vec<String>,
}

/// Carries out CREATE TABLE.
pub(super) async fn run(
    front: Front<'_>,
    state: &SessionState,
    mut create: CreateTable,
    shards: Option<u32>,
) -> Result<()> {
    let sharding = take_sharding(state, &mut create, shards)?;
    let defaults = defaults(state, &create);
    let planned = state.statement_to_plan(Statement::Statement(Box::new(SqlStatement::CreateTable(create)))).await?;
    let LogicalPlan::Ddl(DdlStatement::CreateMemoryTable(create)) = planned else {
        return Err(unexpected(&planned));
    };
    let Some((schema_name, name)) = own_name(state.config_options(), &create.name) else {
        if sharding.shards.is_some() || !sharding.shard_by.is_empty() {
            return Ok(refuse("shards of a table that is not Grizzly's")?);
        }
        let plan = LogicalPlan::Ddl(DdlStatement::CreateMemoryTable(create));
        return front.context.execute_logical_plan(plan).await.map(|_| ());
    };
    refuse_system_schema(&schema_name, &name)?;
    let definition = definition(schema_name, name, &create, sharding, defaults);
    let existing = match (create.or_replace, create.if_not_exists) {
        (true, _) => IfExists::Replace,
        (false, true) => IfExists::Keep,
        (false, false) => IfExists::Fail,
    };
    let db = front.session.db();
    match create.input.as_ref() {
        LogicalPlan::EmptyRelation(rows) if !rows.produce_one_row => {
            let mut transaction = db.begin()?;
            transaction.create_table(definition.clone(), existing)?;
            match interrupt::commit(transaction).await.and_then(CommitOutcome::into_result) {
                // Another session was faster. What it made is waited for.
                Err(error) if existing == IfExists::Keep && error.kind() == ErrorKind::AlreadyExists => {
                    busy(|| db.create_table(definition, true))?;
                }
                made => drop(made?),
            }
        }
        query => {
            for attempts_left in (0..REPLANS).rev() {
                let plan = create_and_fill(db, definition.clone(), existing, query.clone())?;
                match front.context.execute_logical_plan(plan).await?.collect().await {
                    // Another session was faster: its table stays, unless that is gone by now.
                    Err(error) if existing == IfExists::Keep && attempts_left > 0 && exists_already(&error) => {}
                    made => {
                        made?;
                        break;
                    }
                }
            }
        }
    }
    Ok(())
}

fn exists_already(error: &DataFusionError) -> bool {
    grizzly_error(error).is_some_and(|error| error.kind() == ErrorKind::AlreadyExists)
}

fn definition(
    schema_name: String,
    name: String,
    create: &CreateMemoryTable,
    sharding: Sharding,
    defaults: Vec<(String, String)>,
) -> TableDefinition {
    let schema = create.input.schema().inner();
    let primary_key = create.constraints.iter().find_map(|constraint| match constraint {
        Constraint::PrimaryKey(columns) => Some(columns.iter().map(|at| schema.field(*at).name().clone()).collect()),
        Constraint::Unique(_) => None,
    });
    let indexes = unique_indexes(&format!("{schema_name}.{name}"), create, schema);
    TableDefinition {
        schema_name,
        name,
        // Only the columns: what a query's schema says of itself is not the table's.
        schema: Arc::new(Schema::new(schema.fields().clone())),
        primary_key: primary_key.unwrap_or_default(),
        shards: sharding.shards.unwrap_or(1),
        shard_by: sharding.shard_by,
        defaults,
        indexes,
    }
}

/// UNIQUE constraints are unique indexes.
fn unique_indexes(table: &str, create: &CreateMemoryTable, schema: &Schema) -> Vec<IndexDefinition> {
    let unique = create.constraints.iter().filter_map(|constraint| match constraint {
        Constraint::Unique(columns) => Some(columns),
        Constraint::PrimaryKey(_) => None,
    });
    let index = |columns: &Vec<usize>| {
        let columns: Vec<_> = columns.iter().map(|at| (schema.field(*at).name().clone(), false)).collect();
        IndexDefinition { name: default_name(table, &columns, "key"), columns, unique: true }
    };
    unique.map(index).collect()
}

/// DEFAULT expressions as text, by column.
fn defaults(state: &SessionState, create: &CreateTable) -> Vec<(String, String)> {
    let mut defaults = Vec::new();
    for column in &create.columns {
        for option in &column.options {
            if let ColumnOption::Default(value) = &option.option {
                defaults.push((identifier(state, &column.name), value.to_string()));
            }
        }
    }
    defaults
}

/// Takes out of the statement what the planner does not understand of shards.
fn take_sharding(state: &SessionState, create: &mut CreateTable, shards: Option<u32>) -> crate::Result<Sharding> {
    let mut sharding = Sharding { shards, shard_by: Vec::new() };
    if let Some(by) = create.partition_by.take() {
        sharding.shard_by = hash_columns(state, &by)?;
        if sharding.shards.is_none() {
            return Err(Error::invalid("PARTITION BY HASH (…) must be followed by SHARDS and their number"));
        }
    } else if shards.is_some() {
        return Err(Error::invalid("SHARDS must follow PARTITION BY HASH (…)"));
    }
    let options = match std::mem::take(&mut create.table_options) {
        CreateTableOptions::None => Vec::new(),
        CreateTableOptions::With(options) | CreateTableOptions::Options(options) => options,
        other => return refuse(&format!("the table options {other}")),
    };
    for option in options {
        let SqlOption::KeyValue { key, value } = &option else {
            return refuse(&format!("the table option {option}"));
        };
        let text = option_text(value).ok_or_else(|| Error::invalid(format!("{value} is no value for {key}")))?;
        match key.value.strip_prefix("grizzly.").unwrap_or(&key.value) {
            "shards" => {
                let shards = text.parse().ok().filter(|shards| *shards > 0);
                let shards = shards.ok_or_else(|| Error::invalid(format!("{text} is not a number of shards")))?;
                sharding.shards = Some(shards);
            }
            "shard_by" => {
                sharding.shard_by =
                    text.split(',').map(|column| identifier(state, &Ident::new(column.trim()))).collect();
            }
            _ => return refuse(&format!("the table option {key}")),
        }
    }
    Ok(sharding)
}

fn option_text(value: &Expr) -> Option<String> {
    match value {
        Expr::Value(value) => match &value.value {
            Value::Number(number, _) => Some(number.to_string()),
            Value::SingleQuotedString(text) | Value::DoubleQuotedString(text) => Some(text.clone()),
            _ => None,
        },
        Expr::Identifier(ident) => Some(ident.value.clone()),
        _ => None,
    }
}

/// The columns of `HASH (a, b)`.
fn hash_columns(state: &SessionState, by: &Expr) -> crate::Result<Vec<String>> {
    let unsupported =
        || Error::unsupported(format!("not supported: PARTITION BY {by}; use PARTITION BY HASH (columns)"));
    let Expr::Function(function) = by else { return Err(unsupported()) };
    let FunctionArguments::List(arguments) = &function.args else { return Err(unsupported()) };
    if !function.name.to_string().eq_ignore_ascii_case("hash") {
        return Err(unsupported());
    }
    let column = |argument: &FunctionArg| match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Identifier(name))) => Ok(identifier(state, name)),
        _ => Err(unsupported()),
    };
    arguments.args.iter().map(column).collect()
}
