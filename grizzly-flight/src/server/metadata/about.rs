//! What the server can do (SqlInfo), and its types (XdbcTypeInfo).

use std::sync::{Arc, OnceLock};

use arrow::{datatypes::SchemaRef, record_batch::RecordBatch};
use arrow_flight::{
    error::FlightError,
    sql::{
        CommandGetSqlInfo, CommandGetXdbcTypeInfo, Nullable, Searchable, SqlInfo, SqlSupportedCaseSensitivity,
        SqlSupportedTransaction, SqlTransactionIsolationLevel, XdbcDataType, XdbcDatetimeSubcode,
        metadata::{SqlInfoData, SqlInfoDataBuilder, XdbcTypeInfo, XdbcTypeInfoData, XdbcTypeInfoDataBuilder},
    },
};
use grizzly_provider::{Error, ErrorKind, adapter::GrizzlySession};
use tonic::Status;

use super::{Metadata, builder_failed};
use crate::error::status;

impl Metadata for CommandGetSqlInfo {
    fn columns(&self) -> SchemaRef {
        Arc::new(SqlInfoDataBuilder::schema().clone())
    }

    async fn rows(self, _session: &GrizzlySession) -> Result<RecordBatch, Status> {
        static DATA: OnceLock<Result<SqlInfoData, String>> = OnceLock::new();
        let data = DATA.get_or_init(|| sql_info().map_err(|error| error.to_string()));
        let data = data.as_ref().map_err(|error| status(&Error::new(ErrorKind::Internal, error.as_str())))?;
        self.into_builder(data).build().map_err(builder_failed)
    }
}

impl Metadata for CommandGetXdbcTypeInfo {
    fn columns(&self) -> SchemaRef {
        XdbcTypeInfoDataBuilder::new().schema()
    }

    async fn rows(self, _session: &GrizzlySession) -> Result<RecordBatch, Status> {
        let data = xdbc_types().map_err(builder_failed)?;
        self.into_builder(&data).build().map_err(builder_failed)
    }
}

/// Only what is so, and only where a test or another command shows it.
fn sql_info() -> Result<SqlInfoData, FlightError> {
    let mut info = SqlInfoDataBuilder::new();
    info.append(SqlInfo::FlightSqlServerName, "Grizzly");
    info.append(SqlInfo::FlightSqlServerVersion, env!("CARGO_PKG_VERSION"));
    info.append(SqlInfo::FlightSqlServerArrowVersion, arrow::ARROW_VERSION);
    info.append(SqlInfo::FlightSqlServerReadOnly, false);
    info.append(SqlInfo::FlightSqlServerSql, true);
    info.append(SqlInfo::FlightSqlServerSubstrait, false);
    info.append(SqlInfo::FlightSqlServerTransaction, SqlSupportedTransaction::Savepoint as i32);
    info.append(SqlInfo::FlightSqlServerCancel, true);
    info.append(SqlInfo::FlightSqlServerBulkIngestion, true);
    info.append(SqlInfo::FlightSqlServerIngestTransactionsSupported, true);
    info.append(SqlInfo::SqlDdlCatalog, false);
    info.append(SqlInfo::SqlDdlSchema, true);
    info.append(SqlInfo::SqlDdlTable, true);
    info.append(SqlInfo::SqlIdentifierCase, SqlSupportedCaseSensitivity::SqlCaseSensitivityLowercase as i32);
    info.append(SqlInfo::SqlIdentifierQuoteChar, "\"");
    info.append(SqlInfo::SqlTransactionsSupported, true);
    info.append(
        SqlInfo::SqlDefaultTransactionIsolation,
        i64::from(SqlTransactionIsolationLevel::SqlTransactionRepeatableRead as i32),
    );
    info.append(SqlInfo::SqlDataDefinitionCausesTransactionCommit, false);
    info.append(SqlInfo::SqlDataDefinitionsInTransactionsIgnored, false);
    info.append(SqlInfo::SqlSavepointsSupported, true);
    info.append(SqlInfo::SqlBatchUpdatesSupported, true);
    info.append(SqlInfo::SqlCorrelatedSubqueriesSupported, true);
    info.build()
}

fn xdbc_types() -> Result<XdbcTypeInfoData, FlightError> {
    let mut builder = XdbcTypeInfoDataBuilder::new();
    for kind in [
        number("TINYINT", XdbcDataType::XdbcTinyint, 3),
        number("SMALLINT", XdbcDataType::XdbcSmallint, 5),
        number("INTEGER", XdbcDataType::XdbcInteger, 10),
        number("BIGINT", XdbcDataType::XdbcBigint, 19),
        number("REAL", XdbcDataType::XdbcReal, 7),
        number("DOUBLE", XdbcDataType::XdbcDouble, 15),
        XdbcTypeInfo {
            create_params: Some(vec!["precision".to_owned(), "scale".to_owned()]),
            maximum_scale: Some(38),
            minimum_scale: Some(0),
            fixed_prec_scale: true,
            ..number("DECIMAL", XdbcDataType::XdbcDecimal, 38)
        },
        kind("BOOLEAN", XdbcDataType::XdbcBit, None),
        XdbcTypeInfo { case_sensitive: true, ..kind("VARCHAR", XdbcDataType::XdbcVarchar, Some("'")) },
        kind("BYTEA", XdbcDataType::XdbcVarbinary, Some("X'")),
        XdbcTypeInfo {
            sql_data_type: XdbcDataType::XdbcDatetime,
            // In ODBC's numbering this subcode means DATE; the protocol calls it by its interval meaning.
            datetime_subcode: Some(XdbcDatetimeSubcode::XdbcSubcodeYear),
            ..kind("DATE", XdbcDataType::XdbcDate, Some("DATE '"))
        },
        XdbcTypeInfo {
            sql_data_type: XdbcDataType::XdbcDatetime,
            datetime_subcode: Some(XdbcDatetimeSubcode::XdbcSubcodeTimestamp),
            ..kind("TIMESTAMP", XdbcDataType::XdbcTimestamp, Some("TIMESTAMP '"))
        },
    ] {
        builder.append(kind);
    }
    builder.build()
}

fn kind(name: &str, data_type: XdbcDataType, literal_prefix: Option<&str>) -> XdbcTypeInfo {
    XdbcTypeInfo {
        type_name: name.to_owned(),
        data_type,
        sql_data_type: data_type,
        literal_prefix: literal_prefix.map(str::to_owned),
        literal_suffix: literal_prefix.map(|_| "'".to_owned()),
        nullable: Nullable::NullabilityNullable,
        searchable: Searchable::Full,
        local_type_name: Some(name.to_owned()),
        ..XdbcTypeInfo::default()
    }
}

fn number(name: &str, data_type: XdbcDataType, digits: i32) -> XdbcTypeInfo {
    XdbcTypeInfo {
        column_size: Some(digits),
        num_prec_radix: Some(10),
        unsigned_attribute: Some(false),
        auto_increment: Some(false),
        ..kind(name, data_type, None)
    }
}
