//! One error type outside, whatever went wrong inside: a kind that tells the caller what to do, a message
//! that says what and where, and the cause.

use std::{fmt, sync::Arc};

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

type Source = Box<dyn std::error::Error + Send + Sync>;

/// What kind of failure it was. Each kind has one SQLSTATE, one gRPC code and one `DataFusionError`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Another transaction committed first; roll back and retry the transaction.
    Conflict,
    /// A constraint does not hold: duplicate key.
    UniqueViolation,
    /// A constraint does not hold: NULL in a NOT NULL column.
    NotNullViolation,
    /// A statement would change one row twice.
    Cardinality,
    /// An earlier statement of this transaction failed; only rolling back helps.
    TransactionAborted,
    /// The statement does not fit the state of the transaction: there is one already, there is none, or it is
    /// read only.
    TransactionState,
    /// The statement, name, value or setting is wrong.
    Invalid,
    /// The statement is nested too deeply, or too long.
    TooComplex,
    /// Valid SQL that Grizzly does not support.
    Unsupported,
    /// A table, column, index or database of that name does not exist.
    NotFound,
    /// A table, index or database of that name exists already.
    AlreadyExists,
    /// Whether a commit took effect is not known, and will not be before the database is open again: storage failed
    /// while it was carried out.
    OutcomeUnknown,
    /// The storage, or a remote, cannot be reached, or another writer holds the database.
    Unavailable,
    /// Memory or another limit is used up.
    Resource,
    /// The storage has no room. Nothing was written; writing is possible again when there is room.
    DiskFull,
    /// The statement was cancelled or ran out of time.
    Cancelled,
    /// Stored bytes are not what was written.
    Corrupt,
    /// The database or session is closed, or refuses writes after a failed sync.
    Closed,
    /// The user may not do this.
    Permission,
    /// A defect in Grizzly.
    Internal,
}

impl ErrorKind {
    /// Every kind, for tables that must name each of them.
    pub const ALL: [Self; 20] = [
        Self::Conflict,
        Self::UniqueViolation,
        Self::NotNullViolation,
        Self::Cardinality,
        Self::TransactionAborted,
        Self::TransactionState,
        Self::Invalid,
        Self::TooComplex,
        Self::Unsupported,
        Self::NotFound,
        Self::AlreadyExists,
        Self::OutcomeUnknown,
        Self::Unavailable,
        Self::Resource,
        Self::DiskFull,
        Self::Cancelled,
        Self::Corrupt,
        Self::Closed,
        Self::Permission,
        Self::Internal,
    ];

    /// The five-character SQLSTATE code of this kind.
    pub fn sqlstate(self) -> &'static str {
        match self {
            Self::Conflict => "40001",
            Self::UniqueViolation => "23505",
            Self::NotNullViolation => "23502",
            Self::Cardinality => "21000",
            Self::TransactionAborted => "25P02",
            Self::TransactionState => "25000",
            Self::Invalid => "42601",
            Self::TooComplex => "54001",
            Self::Unsupported => "0A000",
            Self::NotFound => "42P01",
            Self::AlreadyExists => "42P07",
            Self::OutcomeUnknown => "08007",
            Self::Unavailable => "08006",
            Self::Resource => "53000",
            Self::DiskFull => "53100",
            Self::Cancelled => "57014",
            Self::Corrupt => "XX001",
            Self::Closed => "57P01",
            Self::Permission => "42501",
            Self::Internal => "XX000",
        }
    }

    /// The kind with this SQLSTATE, if Grizzly uses it.
    pub fn from_sqlstate(code: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.sqlstate() == code)
    }

    /// Whether running the same transaction again may succeed.
    pub fn is_retryable(self) -> bool {
        matches!(self, Self::Conflict | Self::Unavailable)
    }
}

/// What failed. `Display` is the message with its cause; [`Error::kind`] is what programs should look at.
pub struct Error {
    kind: ErrorKind,
    /// Where it is finer than that of the kind.
    sqlstate: Option<Arc<str>>,
    message: String,
    source: Option<Source>,
    is_outdated: bool,
}

impl Error {
    /// An error of `kind` that says `message`.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, sqlstate: None, message: message.into(), source: None, is_outdated: false }
    }

    /// The same error with its cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Source>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The same error with an SQLSTATE that says more than its kind, as another server may send it.
    ///
    /// ```
    /// use grizzly_provider::{Error, ErrorKind};
    ///
    /// let error = Error::new(ErrorKind::Resource, "too many rows to sort");
    /// assert_eq!(error.sqlstate(), "53000");
    /// assert_eq!(error.with_sqlstate("53200").sqlstate(), "53200");
    /// ```
    #[must_use]
    pub fn with_sqlstate(mut self, sqlstate: &str) -> Self {
        self.sqlstate = Some(sqlstate.into()).filter(|_| sqlstate != self.kind.sqlstate());
        self
    }

    /// What kind of failure it was.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// What was wrong and where, without the cause.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The five-character SQLSTATE code: that of [`Error::kind`], or a finer one that a server has sent.
    pub fn sqlstate(&self) -> &str {
        self.sqlstate.as_deref().unwrap_or(self.kind.sqlstate())
    }

    /// Whether running the same transaction again may succeed.
    pub fn is_retryable(&self) -> bool {
        self.kind.is_retryable()
    }

    /// Whether a statement failed since what it was planned for is not there any more, as a table that was replaced
    /// meanwhile: planned again, it may succeed. Nothing was carried out.
    pub fn is_outdated(&self) -> bool {
        self.is_outdated
    }

    /// The same error, of a statement that was planned for something else.
    #[must_use]
    pub(crate) fn outdated(mut self) -> Self {
        self.is_outdated = true;
        self
    }

    /// The same error, with the place in front of the message.
    #[must_use]
    pub(crate) fn at(mut self, place: &str) -> Self {
        self.message = format!("{place}: {}", self.message);
        self
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, message)
    }

    pub(crate) fn unsupported(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unsupported, message)
    }

    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotFound, message)
    }

    pub(crate) fn corrupt(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Corrupt, message)
    }

    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, message)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.source {
            Some(source) => write!(f, ": {source}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}({})", self.kind, self)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| source.as_ref() as &(dyn std::error::Error + 'static))
    }
}

impl From<arrow::error::ArrowError> for Error {
    fn from(error: arrow::error::ArrowError) -> Self {
        Self::internal("an Arrow kernel failed").with_source(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_own_sqlstate() {
        for kind in ErrorKind::ALL {
            assert_eq!(ErrorKind::from_sqlstate(kind.sqlstate()), Some(kind));
        }
    }
}
