//! Grizzly's errors inside DataFusion's and back: an [`Error`] crosses DataFusion as `External` and is found again
//! under whatever was wrapped around it, so kind and SQLSTATE survive the way through a query.

use std::{error::Error as StdError, sync::Arc};

use arrow::error::ArrowError;
use datafusion::{common::SchemaError, error::DataFusionError};

use crate::{Error, ErrorKind};

impl From<Error> for DataFusionError {
    fn from(error: Error) -> Self {
        Self::External(Box::new(error))
    }
}

/// The Grizzly error that caused `error`, however deep it lies.
pub fn grizzly_error(error: &DataFusionError) -> Option<&Error> {
    find(error)
}

/// Whether a statement failed since what it was planned for is not there any more: see [`Error::is_outdated`].
pub fn is_outdated(error: &DataFusionError) -> bool {
    grizzly_error(error).is_some_and(Error::is_outdated)
}

fn find<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a Error> {
    if let Some(found) = error.downcast_ref::<Error>() {
        return Some(found);
    }
    if let Some(shared) = error.downcast_ref::<Arc<DataFusionError>>() {
        return find(shared.as_ref());
    }
    if let Some(DataFusionError::Collection(errors)) = error.downcast_ref::<DataFusionError>() {
        return errors.iter().find_map(|error| find(error));
    }
    if let Some(io) = error.downcast_ref::<std::io::Error>() {
        return io.get_ref().and_then(|inner| find(inner));
    }
    find(error.source()?)
}

/// The SQLSTATE of any error a query can end with: Grizzly's own, or the nearest code for DataFusion's.
pub fn sqlstate(error: &DataFusionError) -> &str {
    if let Some(error) = grizzly_error(error) {
        return error.sqlstate();
    }
    match error.find_root() {
        DataFusionError::SQL(..) => "42601",
        DataFusionError::Plan(message) if message.contains("not found") => "42P01",
        DataFusionError::Plan(_) | DataFusionError::Diagnostic(..) => "42000",
        DataFusionError::SchemaError(error, _) => schema_sqlstate(error),
        DataFusionError::Configuration(_) => "22023",
        DataFusionError::NotImplemented(_) => "0A000",
        DataFusionError::ResourcesExhausted(_) => "53200",
        DataFusionError::IoError(_) => "58030",
        DataFusionError::ArrowError(error, _) => arrow_sqlstate(error),
        DataFusionError::Execution(_) => "22000",
        DataFusionError::Collection(errors) => errors.first().map_or("XX000", sqlstate),
        _ => ErrorKind::Internal.sqlstate(),
    }
}

fn schema_sqlstate(error: &SchemaError) -> &'static str {
    match error {
        SchemaError::FieldNotFound { .. } => "42703",
        SchemaError::AmbiguousReference { .. } => "42702",
        SchemaError::DuplicateQualifiedField { .. } | SchemaError::DuplicateUnqualifiedField { .. } => "42701",
    }
}

fn arrow_sqlstate(error: &ArrowError) -> &'static str {
    match error {
        ArrowError::DivideByZero => "22012",
        ArrowError::ArithmeticOverflow(_) => "22003",
        ArrowError::CastError(_) | ArrowError::ParseError(_) => "22018",
        ArrowError::NotYetImplemented(_) => "0A000",
        ArrowError::MemoryError(_) => "53200",
        ArrowError::IoError(..) => "58030",
        _ => "22000",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrapped(error: Error) -> Vec<DataFusionError> {
        let plain = || DataFusionError::External(Box::new(Error::new(error.kind(), error.message())));
        vec![
            plain(),
            plain().context("while scanning"),
            DataFusionError::Shared(Arc::new(plain().context("in a task"))),
            DataFusionError::External(Box::new(Arc::new(plain()))),
            DataFusionError::ArrowError(Box::new(ArrowError::ExternalError(Box::new(plain()))), None),
            DataFusionError::Collection(vec![DataFusionError::Plan("first".to_owned()), plain()]),
        ]
    }

    #[test]
    fn every_kind_is_found_under_every_wrapping() {
        for kind in ErrorKind::ALL {
            for error in wrapped(Error::new(kind, "it")) {
                assert_eq!(grizzly_error(&error).map(Error::kind), Some(kind), "{error:?}");
                assert_eq!(sqlstate(&error), kind.sqlstate(), "{error:?}");
            }
        }
    }

    #[test]
    fn the_errors_of_others_have_a_code_too() {
        assert_eq!(sqlstate(&DataFusionError::NotImplemented("x".to_owned())), "0A000");
        assert_eq!(sqlstate(&DataFusionError::Plan("table 'a.b.c' not found".to_owned())), "42P01");
        assert_eq!(sqlstate(&DataFusionError::ResourcesExhausted("x".to_owned()).context("sort")), "53200");
        let division = DataFusionError::ArrowError(Box::new(ArrowError::DivideByZero), None);
        assert_eq!(sqlstate(&division), "22012");
        assert!(grizzly_error(&division).is_none());
    }
}
