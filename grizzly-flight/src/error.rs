//! Errors across the wire: one kind, one gRPC code, one SQLSTATE, both ways.
//!
//! A failure leaves the server as a [`Status`] whose code follows from its SQLSTATE. The SQLSTATE travels twice: in
//! the metadata entry [`SQLSTATE_KEY`], which every client can read, and in a `google.rpc.ErrorInfo` among the
//! status details, which drivers that know Google's error model show by themselves.

use std::sync::Arc;

use arrow_flight::error::FlightError;
use datafusion::error::DataFusionError;
use grizzly_provider::{
    Error, ErrorKind,
    adapter::{grizzly_error, sqlstate},
};
use prost::Message;
use tonic::{
    Code, Status,
    metadata::{MetadataMap, MetadataValue},
};

/// Name of the metadata entry that carries the SQLSTATE of a failed call.
pub const SQLSTATE_KEY: &str = "grizzly-sqlstate";

/// Longer messages are cut: they travel in an HTTP/2 header, which peers limit to about 16 KiB.
const MAX_MESSAGE_BYTES: usize = 6 * 1024;

/// The gRPC code of errors of this kind.
pub fn code(kind: ErrorKind) -> Code {
    code_of_sqlstate(kind.sqlstate())
}

/// `error` as the server sends it.
pub fn status(error: &Error) -> Status {
    let mut status = build(error.sqlstate(), &error.to_string());
    if error.is_outdated() {
        status.set_source(Arc::new(Outdated));
    }
    status
}

/// Whether a statement failed here, in this process, since it was planned for what is not there any more.
pub(crate) fn is_outdated(status: &Status) -> bool {
    std::error::Error::source(status).is_some_and(|cause| cause.is::<Outdated>())
}

/// The cause of the status of a statement whose tables were replaced between planning and execution.
#[derive(Debug)]
struct Outdated;

impl std::fmt::Display for Outdated {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the statement was planned before that")
    }
}

impl std::error::Error for Outdated {}

/// A failed query as the server sends it: Grizzly's own error if there is one inside, else DataFusion's.
pub fn query_status(error: &DataFusionError) -> Status {
    match grizzly_error(error) {
        Some(inner) => status(inner),
        None => build(sqlstate(error), &error.strip_backtrace()),
    }
}

/// What a status received from a server means here. `remote` names the server in the message.
pub fn from_status(status: &Status, remote: &str) -> Error {
    let error = meaning(status, remote);
    let is_answer = sqlstate_of(status).is_some() || error.kind() != ErrorKind::Unavailable;
    if is_answer || was_not_sent(status) { error } else { error.with_source(Unanswered) }
}

/// The cause of the error of a call that may have arrived and was not answered: what the server did is not known.
#[derive(Debug)]
pub(crate) struct Unanswered;

impl std::fmt::Display for Unanswered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the call may have arrived")
    }
}

impl std::error::Error for Unanswered {}

/// Whether the call that failed may have been carried out all the same.
pub(crate) fn is_unanswered(error: &Error) -> bool {
    std::error::Error::source(error).is_some_and(|cause| cause.is::<Unanswered>())
}

/// There was no connection to send it over.
fn was_not_sent(status: &Status) -> bool {
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

fn meaning(status: &Status, remote: &str) -> Error {
    let sqlstate = sqlstate_of(status).unwrap_or_default();
    if let Some(kind) = kind_of_sqlstate(&sqlstate) {
        return Error::new(kind, format!("{remote}: {}", status.message())).with_sqlstate(&sqlstate);
    }
    let (kind, message) = (kind_of_code(status.code()), status.message());
    match (kind, deepest_cause(status)) {
        // Not the server's words: it broke the connection, or speaks something else.
        (_, Some(cause)) if matches!(status.code(), Code::Cancelled | Code::Internal | Code::Unknown) => {
            Error::new(ErrorKind::Unavailable, format!("{remote}: {message}: {cause}"))
        }
        // What the connection itself reports is hardly a sentence.
        (ErrorKind::Unavailable, _) => Error::new(kind, format!("{remote} does not answer: {message}")),
        _ => Error::new(kind, format!("{remote}: {message}")),
    }
}

/// What a status that was made here comes from; those of servers have no cause.
fn deepest_cause(status: &Status) -> Option<&dyn std::error::Error> {
    let mut cause = std::error::Error::source(status)?;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    Some(cause)
}

/// The SQLSTATE a server attached to a status, if it did.
pub fn sqlstate_of(status: &Status) -> Option<String> {
    let from_metadata = status.metadata().get(SQLSTATE_KEY).and_then(|value| value.to_str().ok()).map(str::to_owned);
    from_metadata.or_else(|| sqlstate_in_details(status.details()))
}

/// An error of arrow-flight's client or codec as ours.
pub(crate) fn from_flight(error: &FlightError, remote: &str) -> Error {
    match error {
        FlightError::Tonic(status) => from_status(status, remote),
        FlightError::Arrow(inner) => Error::new(ErrorKind::Invalid, format!("{remote}: {inner}")),
        other => Error::new(ErrorKind::Unavailable, format!("{remote}: {other}")).with_source(Unanswered),
    }
}

/// The statement or request is wrong; the short way to say so in the service.
pub(crate) fn invalid(message: impl Into<String>) -> Status {
    status(&Error::new(ErrorKind::Invalid, message))
}

/// The request is understood and not supported.
pub(crate) fn unsupported(message: impl Into<String>) -> Status {
    status(&Error::new(ErrorKind::Unsupported, message))
}

/// A handle or name that does not exist, or no longer.
pub(crate) fn not_found(message: impl Into<String>) -> Status {
    status(&Error::new(ErrorKind::NotFound, message))
}

fn build(sqlstate: &str, message: &str) -> Status {
    let code = code_of_sqlstate(sqlstate);
    let message = shorten(message);
    let details = RpcStatus::of(code, &message, sqlstate).encode_to_vec();
    let mut metadata = MetadataMap::new();
    if let Ok(value) = MetadataValue::try_from(sqlstate) {
        metadata.insert(SQLSTATE_KEY, value);
    }
    Status::with_details_and_metadata(code, message, details.into(), metadata)
}

fn shorten(message: &str) -> String {
    if message.len() <= MAX_MESSAGE_BYTES {
        return message.to_owned();
    }
    let end = (0..=MAX_MESSAGE_BYTES).rev().find(|&end| message.is_char_boundary(end)).unwrap_or(0);
    format!("{}… ({} bytes in all)", &message[..end], message.len())
}

fn code_of_sqlstate(sqlstate: &str) -> Code {
    match sqlstate {
        "40001" | "40P01" => Code::Aborted,
        "23505" | "42P07" => Code::AlreadyExists,
        "42P01" => Code::NotFound,
        "42501" => Code::PermissionDenied,
        "0A000" => Code::Unimplemented,
        "57014" => Code::Cancelled,
        // Clients send again what was merely unavailable.
        "08007" => Code::Unknown,
        "57P01" => Code::Unavailable,
        "XX001" => Code::DataLoss,
        other => match other.get(..2) {
            Some("08") => Code::Unavailable,
            Some("21" | "22" | "42" | "54") => Code::InvalidArgument,
            Some("23" | "25" | "55") => Code::FailedPrecondition,
            Some("28") => Code::Unauthenticated,
            Some("53") => Code::ResourceExhausted,
            _ => Code::Internal,
        },
    }
}

/// Exact where Grizzly has a kind of that state, else by SQLSTATE class.
pub(crate) fn kind_of_sqlstate(sqlstate: &str) -> Option<ErrorKind> {
    ErrorKind::from_sqlstate(sqlstate).or_else(|| match sqlstate.get(..2)? {
        "08" => Some(ErrorKind::Unavailable),
        "21" => Some(ErrorKind::Cardinality),
        "22" | "42" => Some(ErrorKind::Invalid),
        "25" => Some(ErrorKind::TransactionState),
        "28" => Some(ErrorKind::Permission),
        "40" => Some(ErrorKind::Conflict),
        "53" => Some(ErrorKind::Resource),
        "XX" => Some(ErrorKind::Internal),
        _ => None,
    })
}

/// For servers that send no SQLSTATE.
fn kind_of_code(code: Code) -> ErrorKind {
    match code {
        Code::Aborted => ErrorKind::Conflict,
        Code::AlreadyExists => ErrorKind::AlreadyExists,
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => ErrorKind::Invalid,
        Code::Unimplemented => ErrorKind::Unsupported,
        Code::NotFound => ErrorKind::NotFound,
        Code::Unavailable | Code::Unknown => ErrorKind::Unavailable,
        Code::ResourceExhausted => ErrorKind::Resource,
        Code::Cancelled | Code::DeadlineExceeded => ErrorKind::Cancelled,
        Code::DataLoss => ErrorKind::Corrupt,
        Code::PermissionDenied | Code::Unauthenticated => ErrorKind::Permission,
        Code::Ok | Code::Internal => ErrorKind::Internal,
    }
}

fn sqlstate_in_details(details: &[u8]) -> Option<String> {
    let details = RpcStatus::decode(details).ok()?.details;
    let info = details.into_iter().find(|any| any.type_url == ERROR_INFO)?;
    Some(ErrorInfo::decode(info.value.as_slice()).ok()?.reason)
}

const ERROR_INFO: &str = "type.googleapis.com/google.rpc.ErrorInfo";

/// `google.rpc.Status`.
#[derive(Clone, PartialEq, Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<RpcAny>,
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, Message)]
struct RpcAny {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// `google.rpc.ErrorInfo`, without its map of further values.
#[derive(Clone, PartialEq, Message)]
struct ErrorInfo {
    #[prost(string, tag = "1")]
    reason: String,
    #[prost(string, tag = "2")]
    domain: String,
}

impl RpcStatus {
    fn of(code: Code, message: &str, sqlstate: &str) -> Self {
        let info = ErrorInfo { reason: sqlstate.to_owned(), domain: "grizzly".to_owned() };
        let any = RpcAny { type_url: ERROR_INFO.to_owned(), value: info.encode_to_vec() };
        // The details repeat the code; the message travels once, to keep the headers small.
        let message = message.chars().take(200).collect();
        Self { code: code as i32, message, details: vec![any] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_survives_the_wire() {
        for kind in ErrorKind::ALL {
            let sent = status(&Error::new(kind, "table orders: broken"));
            let received = from_status(&sent, "grpc://there");
            assert_eq!(received.kind(), kind);
            assert_eq!(received.message(), "grpc://there: table orders: broken");
            assert_eq!(sqlstate_of(&sent).as_deref(), Some(kind.sqlstate()));
        }
    }

    #[test]
    fn a_finer_sqlstate_than_that_of_its_kind_survives_the_wire() {
        for (sqlstate, kind) in
            [("53200", ErrorKind::Resource), ("42703", ErrorKind::Invalid), ("22012", ErrorKind::Invalid)]
        {
            let received = from_status(&build(sqlstate, "too much"), "grpc://there");
            assert_eq!((received.kind(), received.sqlstate()), (kind, sqlstate));
            let within = DataFusionError::from(received).context("a query");
            assert_eq!(sqlstate_of(&query_status(&within)).as_deref(), Some(sqlstate));
        }
    }

    #[test]
    fn what_was_not_answered_is_told_from_what_was_refused_or_never_sent() {
        let refused = status(&Error::new(ErrorKind::Unavailable, "another node writes"));
        assert!(!is_unanswered(&from_status(&refused, "there")));
        assert!(is_unanswered(&from_status(&Status::unavailable("connection reset"), "there")));
        let broken = Status::from_error("the connection broke".into());
        assert!(is_unanswered(&from_status(&broken, "there")));
        let never = Status::from_error(Box::new(tonic::ConnectError("connection refused".into())));
        let never = from_status(&never, "there");
        assert_eq!((never.kind(), is_unanswered(&never)), (ErrorKind::Unavailable, false));
    }

    #[test]
    fn details_alone_carry_the_sqlstate() {
        for kind in ErrorKind::ALL {
            let sent = status(&Error::new(kind, "broken"));
            let bare = Status::with_details(sent.code(), sent.message(), sent.details().to_vec().into());
            assert_eq!(from_status(&bare, "there").kind(), kind);
        }
    }

    #[test]
    fn kinds_have_the_codes_clients_expect() {
        let expected = [
            (ErrorKind::Conflict, Code::Aborted),
            (ErrorKind::UniqueViolation, Code::AlreadyExists),
            (ErrorKind::NotNullViolation, Code::FailedPrecondition),
            (ErrorKind::Cardinality, Code::InvalidArgument),
            (ErrorKind::TransactionAborted, Code::FailedPrecondition),
            (ErrorKind::TransactionState, Code::FailedPrecondition),
            (ErrorKind::Invalid, Code::InvalidArgument),
            (ErrorKind::TooComplex, Code::InvalidArgument),
            (ErrorKind::Unsupported, Code::Unimplemented),
            (ErrorKind::NotFound, Code::NotFound),
            (ErrorKind::AlreadyExists, Code::AlreadyExists),
            (ErrorKind::OutcomeUnknown, Code::Unknown),
            (ErrorKind::Unavailable, Code::Unavailable),
            (ErrorKind::Resource, Code::ResourceExhausted),
            (ErrorKind::DiskFull, Code::ResourceExhausted),
            (ErrorKind::Cancelled, Code::Cancelled),
            (ErrorKind::Corrupt, Code::DataLoss),
            (ErrorKind::Closed, Code::Unavailable),
            (ErrorKind::Permission, Code::PermissionDenied),
            (ErrorKind::Internal, Code::Internal),
        ];
        assert_eq!(expected.len(), ErrorKind::ALL.len());
        for (kind, wanted) in expected {
            assert_eq!(code(kind), wanted, "{kind:?}");
        }
    }

    #[test]
    fn a_grizzly_error_inside_a_query_error_is_found() {
        let inner = Error::new(ErrorKind::Conflict, "key 7 was changed");
        let outer = DataFusionError::External(Box::new(inner)).context("while updating");
        let sent = query_status(&outer);
        assert_eq!((sent.code(), sent.message()), (Code::Aborted, "key 7 was changed"));
    }

    #[test]
    fn long_messages_are_cut_at_a_character() {
        let sent = status(&Error::new(ErrorKind::Invalid, "é".repeat(MAX_MESSAGE_BYTES)));
        assert!(sent.message().len() < MAX_MESSAGE_BYTES + 64);
        assert!(sent.message().ends_with("bytes in all)"));
    }
}
