//! What a node does for others: it runs tasks, each at the commit that its query reads.
//!
//! A task comes with headers that say which database and which commit it means. The node waits until it knows the
//! commit, so that nothing older is read.

use std::time::Duration;

use async_trait::async_trait;
use datafusion::{config::ConfigOptions, error::Result, execution::SessionState};
use datafusion_distributed::{DistributedExt, WorkerQueryContext, WorkerSessionBuilder};
use grizzly_provider::{Error, ErrorKind, Grizzly, access::Csn};
use tonic::codegen::http::{HeaderMap, HeaderName, HeaderValue};
use url::form_urlencoded;

use super::{
    channel::{Resolver, node_error},
    codec::ScanCodec,
    guard::guarded,
    node::Cluster,
};

const DATABASE: &str = "grizzly-database";
const COMMIT: &str = "grizzly-commit";
const SETTINGS: &str = "grizzly-settings";

/// Settings of a session that change what a plan means while it runs, and so travel with it.
const TRAVELLING: [&str; 3] =
    ["datafusion.execution.batch_size", "datafusion.execution.enable_ansi_mode", "datafusion.execution.time_zone"];

/// How often a node looks whether a commit has arrived.
const LOOK: Duration = Duration::from_millis(5);

/// The headers of a query that reads `db` right after commit `csn`.
pub(super) fn headers(db: &Grizzly, csn: Csn, options: &ConfigOptions) -> HeaderMap {
    let mut settings = form_urlencoded::Serializer::new(String::new());
    let entries = options.entries().into_iter().filter(|entry| TRAVELLING.contains(&entry.key.as_str()));
    for entry in entries {
        if let Some(value) = entry.value {
            settings.append_pair(&entry.key, &value);
        }
    }
    let texts = [(DATABASE, db.identity().to_string()), (COMMIT, csn.to_string()), (SETTINGS, settings.finish())];
    // None of the texts has a character that a header could not hold.
    let header = |(name, text): (_, String)| Some((HeaderName::from_static(name), HeaderValue::from_str(&text).ok()?));
    texts.into_iter().filter_map(header).collect()
}

/// What the headers of a task say.
struct Wanted {
    database: String,
    csn: Csn,
    settings: Vec<(String, String)>,
}

impl Wanted {
    fn read(headers: &HeaderMap) -> grizzly_provider::Result<Self> {
        let text = |name: &str| {
            let text = headers.get(name).and_then(|value| value.to_str().ok());
            text.ok_or_else(|| Error::new(ErrorKind::Invalid, format!("a task came without the header {name}")))
        };
        let csn = text(COMMIT)?
            .parse::<u64>()
            .map_err(|error| Error::new(ErrorKind::Invalid, "a task's commit is not a number").with_source(error))?;
        let settings = form_urlencoded::parse(text(SETTINGS)?.as_bytes());
        let settings = settings.filter(|(key, _)| TRAVELLING.contains(&key.as_ref()));
        let settings = settings.map(|(key, value)| (key.into_owned(), value.into_owned())).collect();
        Ok(Self { database: text(DATABASE)?.to_owned(), csn: Csn(csn), settings })
    }
}

/// Makes the session of each task.
#[derive(Debug)]
pub(super) struct TaskSessions {
    pub(super) cluster: Cluster,
}

impl TaskSessions {
    async fn wait_for(&self, csn: Csn) -> grizzly_provider::Result<()> {
        let db = self.cluster.db();
        let arrived = async {
            while db.snapshot().csn() < csn {
                tokio::time::sleep(LOOK).await;
            }
        };
        let limit = self.cluster.settings().commit_wait;
        tokio::time::timeout(limit, arrived).await.map_err(|_| {
            let here = db.snapshot().csn();
            self.refusal(&format!("is behind: it knows commit {here} and not yet {csn} after {limit:?}"))
        })
    }

    /// An error that makes the query go on without this node.
    fn refusal(&self, what: &str) -> Error {
        match self.cluster.own_url() {
            Some(own) => node_error(&own, what),
            None => Error::new(ErrorKind::Unavailable, format!("a node that has not joined its cluster {what}")),
        }
    }
}

#[async_trait]
impl WorkerSessionBuilder for TaskSessions {
    async fn build_session_state(&self, task: WorkerQueryContext) -> Result<SessionState> {
        let wanted = Wanted::read(&task.headers)?;
        let db = self.cluster.db();
        if wanted.database != db.identity().to_string() {
            let (ours, theirs) = (db.identity(), wanted.database);
            return Err(self.refusal(&format!("serves database {ours}, not {theirs}")).into());
        }
        self.wait_for(wanted.csn).await?;
        let mut builder = task.builder;
        if let Some(config) = builder.config() {
            for (key, value) in &wanted.settings {
                config.options_mut().set(key, value)?;
            }
        }
        Ok(self
            .cluster
            .configure(builder)
            .with_distributed_worker_plan_rewrite_handler(guarded)
            .with_distributed_user_codec(ScanCodec::new(db))
            .with_distributed_channel_resolver(Resolver(self.cluster.channels().clone()))
            .build())
    }
}
