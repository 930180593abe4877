//! The key of an encrypted database: from a file, or from the environment.

use std::{env::VarError, path::PathBuf};

use datafusion::error::DataFusionError;
use grizzly_provider::EncryptionKey;

use crate::session::invalid;

/// The environment variable that holds a key, where no file is named.
const VARIABLE: &str = "GRIZZLY_KEY";

/// Where the key is.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct KeyArgs {
    /// File with the key of an encrypted database: 32 bytes, or their hexadecimal or base64 text. Without it the
    /// environment variable GRIZZLY_KEY is looked at.
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
}

impl KeyArgs {
    /// The key, if there is one.
    pub(crate) fn key(&self) -> Result<Option<EncryptionKey>, DataFusionError> {
        if let Some(file) = &self.key_file {
            return EncryptionKey::from_file(file).map(Some).map_err(|error| invalid(error.message()));
        }
        match std::env::var(VARIABLE) {
            Ok(text) if text.is_empty() => Ok(None),
            Ok(text) => EncryptionKey::parse(&text)
                .map(Some)
                .map_err(|error| invalid(format!("environment variable {VARIABLE}: {}", error.message()))),
            Err(VarError::NotPresent) => Ok(None),
            Err(VarError::NotUnicode(_)) => Err(invalid(format!("environment variable {VARIABLE} is not text"))),
        }
    }
}
