//! From a URL to the storage behind it.

use std::path::{Component, Path, PathBuf};
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

/// Whether the place at one URL is that of another, or lies below it. Folders are looked up as far as they exist: symbolic links
/// and `..` lead elsewhere. Places that go by no name are different ones.
///
/// ```
/// use grizzly_wal::lies_within;
///
/// assert!(lies_within("s3://bucket/shop/backups", "s3://bucket/shop/"));
/// assert!(!lies_within("s3://bucket/shopping", "s3://bucket/shop"));
/// ```
pub fn lies_within(inner: &str, outer: &str) -> bool {
    if inner.ends_with("://") || outer.ends_with("://") {
        return false;
    }
    match (folder(inner), folder(outer)) {
        (Some(inner), Some(outer)) => inner.starts_with(outer),
        (None, None) => {
            let below = inner.trim_end_matches('/').strip_prefix(outer.trim_end_matches('/'));
            below.is_some_and(|below| below.is_empty() || below.starts_with('/'))
        }
        _ => false,
    }
}

/// The folder at a URL, by its own name as far as it exists.
fn folder(url: &str) -> Option<PathBuf> {
    let path = match url.contains("://") {
        true => Url::parse(url).ok().filter(|url| url.scheme() == "file")?.to_file_path().ok()?,
        false => std::path::absolute(url).ok()?,
    };
    let mut found = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => drop(found.pop()),
            part => {
                found.push(part);
                found = found.canonicalize().unwrap_or(found);
            }
        }
    }
    Some(found)
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

    #[test]
    fn places_are_compared_by_what_they_are() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().canonicalize().expect("it exists");
        let path = |name: &str| root.join(name).to_string_lossy().into_owned();
        std::fs::create_dir_all(root.join("db/data")).expect("it can be made");
        std::fs::create_dir(root.join("other")).expect("it can be made");
        #[cfg(unix)]
        std::os::unix::fs::symlink(root.join("db"), root.join("link")).expect("it can be made");
        for within in ["db", "db/", "db/data/x", "other/../db/y", "link/z", "db/not/yet"] {
            assert!(lies_within(&path(within), &path("db")), "{within}");
            assert!(lies_within(&format!("file://{}", path(within)), &path("db")), "{within}");
        }
        for apart in ["other", "db2", "db/../other", "db/../db2/x"] {
            assert!(!lies_within(&path(apart), &path("db")), "{apart}");
        }
        assert!(!lies_within("memory://", "memory://"));
        assert!(lies_within("memory://a", "memory://a") && !lies_within("memory://ab", "memory://a"));
        assert!(!lies_within("s3://b/db", &path("db")));
    }
}
