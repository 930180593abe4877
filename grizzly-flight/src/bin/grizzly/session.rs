//! Databases and sessions as the commands open them: Grizzly's catalog and its optimizer, one memory pool.

use std::{str::FromStr, sync::Arc};

use datafusion::{
    error::DataFusionError,
    execution::{
        runtime_env::{RuntimeEnv, RuntimeEnvBuilder},
        session_state::SessionStateBuilder,
    },
    prelude::SessionConfig,
};
use grizzly_flight::{Cluster, FederationExt, GrizzlyClusterExt, RemoteCatalog, SessionFactory, federation};
use grizzly_optimizer::GrizzlyOptimizerExt;
use grizzly_provider::{
    ClusterSettings, EncryptionKey, Error, ErrorKind, Grizzly, Settings,
    adapter::{GrizzlySession, GrizzlySessionExt, SpillingPool, merge_reservation},
};

/// A database and what its sessions share.
#[derive(Debug, Clone)]
pub(crate) struct Database {
    grizzly: Grizzly,
    runtime: Arc<RuntimeEnv>,
    /// The node that this process is, if it belongs to a cluster.
    cluster: Option<Cluster>,
    /// Catalogs of other databases, which every session has, by name.
    attached: Vec<(String, Arc<RemoteCatalog>)>,
}

/// `--attach NAME=URL`: another database's tables as the catalog NAME.
#[derive(Debug, Clone)]
pub(crate) struct Attachment {
    name: String,
    url: String,
}

impl FromStr for Attachment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || format!("{text} is not of the form NAME=URL, like crm=grpc://127.0.0.1:4711");
        let (name, url) = text.split_once('=').ok_or_else(expected)?;
        if name.is_empty() || !name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_') {
            return Err(format!("{name} is no catalog name: lower-case letters, digits and _"));
        }
        Ok(Self { name: name.to_owned(), url: url.to_owned() })
    }
}

impl Database {
    /// Opens `url`; `memory` bounds the database's cache, and the memory of queries, in bytes. `create` says whether
    /// a database may be made there.
    #[cfg(feature = "tour")]
    pub(crate) fn open(url: &str, memory: Option<usize>, create: bool) -> Result<Self, DataFusionError> {
        Self::open_with_key(url, memory, create, None)
    }

    /// Opens it to serve it, as one of several processes, of which one at a time writes, if `shared`. `result_cache`
    /// bounds the results that are kept, in bytes.
    pub(crate) fn open_served(
        url: &str,
        memory: Option<usize>,
        key: Option<EncryptionKey>,
        shared: bool,
        result_cache: usize,
    ) -> Result<Self, DataFusionError> {
        let cluster = shared.then(ClusterSettings::default);
        Self::open_with(url, memory, key, Settings { cluster, result_cache, ..Settings::default() })
    }

    /// The same, for one that is encrypted if there is a key.
    pub(crate) fn open_with_key(
        url: &str,
        memory: Option<usize>,
        create: bool,
        key: Option<EncryptionKey>,
    ) -> Result<Self, DataFusionError> {
        Self::open_with(url, memory, key, Settings { create, ..Settings::default() })
    }

    fn open_with(
        url: &str,
        memory: Option<usize>,
        key: Option<EncryptionKey>,
        mut settings: Settings,
    ) -> Result<Self, DataFusionError> {
        let mut runtime = RuntimeEnvBuilder::new();
        if let Some(memory) = memory {
            // Half for what the database keeps in memory, half for queries, which spill beyond it.
            settings.memory_bytes = memory / 2;
            runtime = runtime.with_memory_pool(Arc::new(SpillingPool::new(memory / 2)));
        }
        let builder = Grizzly::builder(url).settings(settings);
        let grizzly = match key {
            Some(key) => builder.key(key).open()?,
            None => builder.open()?,
        };
        Ok(Self { grizzly, runtime: runtime.build_arc()?, cluster: None, attached: Vec::new() })
    }

    /// Makes it a node whose sessions use all nodes of the database; they show each other `token`.
    pub(crate) fn into_node(mut self, token: Option<String>) -> Result<(Self, Cluster), DataFusionError> {
        let node = Cluster::builder(&self.grizzly).runtime(Arc::clone(&self.runtime)).token(token).build()?;
        self.cluster = Some(node.clone());
        Ok((self, node))
    }

    /// Connects to other databases; all sessions made from here on have their tables.
    pub(crate) async fn attach(mut self, attachments: &[Attachment]) -> Result<Self, DataFusionError> {
        for Attachment { name, url } in attachments {
            let state = self.session()?.context().state();
            if state.catalog_list().catalog(name).is_some() {
                return Err(invalid(format!("--attach {name}: there is a catalog of this name")));
            }
            let catalog = federation::attach(url).await?;
            self.attached.push((name.clone(), Arc::new(catalog)));
        }
        Ok(self)
    }

    /// The database itself.
    pub(crate) fn grizzly(&self) -> &Grizzly {
        &self.grizzly
    }

    /// A new session with all of Grizzly's rules.
    pub(crate) fn session(&self) -> Result<GrizzlySession, DataFusionError> {
        let mut config = SessionConfig::new().with_information_schema(true);
        let sorting = &mut config.options_mut().execution;
        let memory = self.runtime.memory_pool.memory_limit();
        sorting.sort_spill_reservation_bytes = merge_reservation(memory, sorting.sort_spill_reservation_bytes);
        let builder = SessionStateBuilder::new()
            .with_config(config)
            .with_runtime_env(Arc::clone(&self.runtime))
            .with_default_features();
        let builder = match &self.cluster {
            Some(node) => builder.with_grizzly_cluster(node)?,
            None => builder.with_grizzly(&self.grizzly),
        };
        let state = builder.with_grizzly_optimizer()?.with_federation().build();
        for (name, catalog) in &self.attached {
            let catalog = Arc::clone(catalog) as _;
            state.catalog_list().register_catalog(name.clone(), catalog);
        }
        Ok(GrizzlySession::with_state(state)?)
    }

    /// The same, as the server wants it.
    pub(crate) fn factory(&self) -> SessionFactory {
        let database = self.clone();
        Arc::new(move || database.session())
    }

    /// Lets go of the storage.
    pub(crate) fn close(&self) -> Result<(), DataFusionError> {
        tokio::task::block_in_place(|| self.grizzly.close()).map_err(DataFusionError::from)
    }
}

/// A number of bytes as people write it: `1GB`, `512 MiB`, `4096`.
pub(crate) fn parse_bytes(text: &str) -> Result<usize, String> {
    let text = text.trim();
    let digits = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: f64 = number.parse().map_err(|_| format!("{text} is not a number of bytes, like 1GB"))?;
    let factor = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1.0,
        "k" | "kb" => 1e3,
        "m" | "mb" => 1e6,
        "g" | "gb" => 1e9,
        "kib" => 1024.0,
        "mib" => 1_048_576.0,
        "gib" => 1_073_741_824.0,
        _ => return Err(format!("{unit} is no unit of bytes")),
    };
    let bytes = number * factor;
    if !(1.0..=1e15).contains(&bytes) {
        return Err(format!("{text} is out of range"));
    }
    // In range and positive, so nothing is lost but a fraction of a byte.
    Ok(bytes as usize)
}

/// The same, or `0` for none.
pub(crate) fn parse_bytes_or_none(text: &str) -> Result<usize, String> {
    if text.trim() == "0" { Ok(0) } else { parse_bytes(text) }
}

/// An error of this command's own making.
pub(crate) fn invalid(message: impl Into<String>) -> DataFusionError {
    Error::new(ErrorKind::Invalid, message).into()
}

#[cfg(test)]
mod tests {
    use super::{Attachment, parse_bytes, parse_bytes_or_none};

    #[test]
    fn attachments_are_a_name_and_an_address() {
        let attachment: Attachment = "crm=grpc://h:1?timeout=5s".parse().expect("well-formed");
        assert_eq!((attachment.name.as_str(), attachment.url.as_str()), ("crm", "grpc://h:1?timeout=5s"));
        for wrong in ["grpc://h:1", "=grpc://h:1", "C R M=grpc://h:1"] {
            assert!(wrong.parse::<Attachment>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn bytes_are_read_as_people_write_them() {
        assert_eq!(parse_bytes("4096"), Ok(4096));
        assert_eq!(parse_bytes("1GB"), Ok(1_000_000_000));
        assert_eq!(parse_bytes(" 1.5 GiB "), Ok(1_610_612_736));
        for wrong in ["", "GB", "1XB", "-1", "0", "1.2.3MB", "1e30"] {
            assert!(parse_bytes(wrong).is_err(), "{wrong}");
        }
        assert_eq!(parse_bytes_or_none("0"), Ok(0));
        assert_eq!(parse_bytes_or_none("2kb"), Ok(2000));
    }
}
