//! From a URL to the storage behind it.

use std::path::Path;
use std::sync::Arc;

use object_store::ObjectStoreScheme;
use url::Url;

#[cfg(any(feature = "aws", feature = "gcp", feature = "azure"))]
use super::remote::{connect, is_patient};
use super::{FsStorage, MemoryStorage, ObjectStorage, Storage};
use crate::error::{Error, ErrorKind, Result};

/// Opens the storage a URL names. Nothing is created before the first write.
///
/// - `file:///path` or a plain path: a folder on this machine.
/// - `memory://name`: in RAM, shared by that name within the process; `memory://` alone is private to the caller.
/// - `s3://…`, `gs://…`, `az://…` and what else [`object_store`] knows, configured by its environment variables and
///   present if this crate was built with the feature `aws`, `gcp` or `azure`.
///
/// # Errors
/// [`ErrorKind::Unsupported`] names a URL whose scheme is unknown or not built in; [`ErrorKind::Invalid`] one that is
/// malformed.
pub fn open_storage(url: &str) -> Result<Arc<dyn Storage>> {
    if url.is_empty() {
        return Err(Error::invalid("an empty string is not the URL of a storage"));
    }
    if let Some(name) = url.strip_prefix("memory://") {
        let name = name.trim_matches('/');
        return Ok(Arc::new(if name.is_empty() { MemoryStorage::new() } else { MemoryStorage::named(name) }));
    }
    if !url.contains("://") {
        return Ok(Arc::new(FsStorage::new(Path::new(url))?));
    }
    let parsed = Url::parse(url).map_err(|error| {
        Error::invalid(format!("{} is not a URL: {error}", without_credentials(url))).with_source(error)
    })?;
    if parsed.scheme() == "file" {
        let folder = parsed.to_file_path();
        let folder = folder.map_err(|()| Error::invalid(format!("{url} does not name a folder on this machine")))?;
        return Ok(Arc::new(FsStorage::new(folder)?));
    }
    open_object_store(&parsed)
}

fn open_object_store(url: &Url) -> Result<Arc<dyn Storage>> {
    let shown = without_credentials(url.as_str());
    let unsupported = |why: String| Error::new(ErrorKind::Unsupported, format!("cannot open {shown}: {why}"));
    let (scheme, prefix) = ObjectStoreScheme::parse(url)
        .map_err(|error| unsupported(format!("its scheme {:?} is not known", url.scheme())).with_source(error))?;
    let store =
        connect(&scheme, url).ok_or_else(|| unsupported(format!("this build has no support for {scheme:?}")))?;
    let store = store.map_err(|error| Error::invalid(format!("cannot open {shown}: {error}")).with_source(error))?;
    if is_patient() {
        return Ok(Arc::new(ObjectStorage::with_silence(store, prefix, shown, None)?));
    }
    Ok(Arc::new(ObjectStorage::new(store, prefix, shown)?))
}

/// The store at `url`; `None` if this build does not know its kind.
#[cfg(not(any(feature = "aws", feature = "gcp", feature = "azure")))]
fn connect(_: &ObjectStoreScheme, _: &Url) -> Option<object_store::Result<Arc<dyn object_store::ObjectStore>>> {
    None
}

#[cfg(not(any(feature = "aws", feature = "gcp", feature = "azure")))]
fn is_patient() -> bool {
    false
}

/// A URL as it may be shown: user name, password and query removed.
fn without_credentials(url: &str) -> String {
    let url = url.split(['?', '#']).next().unwrap_or_default();
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    // Azure writes container@account; a secret is what follows a colon before the @.
    match host.rsplit_once('@') {
        Some((user, host)) if user.contains(':') => format!("{scheme}://{host}{path}"),
        _ => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        assert_eq!(without_credentials("s3://key:secret@bucket/db?sig=1"), "s3://bucket/db");
        assert_eq!(without_credentials("abfss://box@account.host/db"), "abfss://box@account.host/db");
        assert_eq!(without_credentials("s3://bucket"), "s3://bucket");
    }

    #[test]
    fn named_memory_is_shared_and_unnamed_is_not() -> Result<()> {
        let put = |url: &str| open_storage(url)?.put("a", &["x".into()], super::super::PutMode::Create);
        put("memory://url-test")?;
        assert_eq!(put("memory://url-test/").map_err(|error| error.kind()), Err(ErrorKind::AlreadyExists));
        put("memory://")?;
        put("memory://")
    }

    #[test]
    fn unknown_schemes_name_the_url() {
        for url in ["ftp://host/db", "s4://bucket/db", "http://host/db"] {
            let error = open_storage(url).expect_err("there is no such storage");
            assert_eq!(error.kind(), ErrorKind::Unsupported);
            assert!(error.message().contains(url), "{error}");
        }
        assert_eq!(open_storage("").expect_err("empty").kind(), ErrorKind::Invalid);
    }

    #[cfg(not(feature = "aws"))]
    #[test]
    fn stores_that_are_not_built_in_say_so() {
        let error = open_storage("s3://bucket/db").expect_err("the feature is off");
        assert_eq!(error.kind(), ErrorKind::Unsupported);
    }
}
