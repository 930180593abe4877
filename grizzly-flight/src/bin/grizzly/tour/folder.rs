//! Folders of the tour.

use std::path::PathBuf;

use datafusion::error::DataFusionError;

use crate::session::invalid;

/// A folder; removed in the end if it was made here.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    temporary: bool,
}

impl Folder {
    /// The one that was given, which must be empty or new, or a temporary one.
    pub(crate) fn new(given: Option<PathBuf>) -> Result<Self, DataFusionError> {
        let Some(path) = given else { return Self::temporary() };
        let taken = path.exists() && std::fs::read_dir(&path)?.next().is_some();
        if taken {
            return Err(invalid(format!("{} is not empty; the tour wants a folder of its own", path.display())));
        }
        Ok(Self { path, temporary: false })
    }

    /// An empty one.
    pub(crate) fn temporary() -> Result<Self, DataFusionError> {
        let path = std::env::temp_dir().join(format!("grizzly-tour-{}", uuid::Uuid::new_v4().simple()));
        std::fs::create_dir_all(&path)?;
        Ok(Self { path, temporary: true })
    }

    /// The folder as a database's URL.
    pub(crate) fn url(&self) -> String {
        self.path.to_string_lossy().into_owned()
    }

    /// Something in it, as a URL.
    pub(crate) fn place(&self, name: &str) -> String {
        self.path.join(name).to_string_lossy().into_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.temporary
            && let Err(error) = std::fs::remove_dir_all(&self.path)
        {
            tracing::warn!(%error, path = %self.path.display(), "the temporary folder could not be removed");
        }
    }
}
