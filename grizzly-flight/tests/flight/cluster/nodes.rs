//! Servers that share one database and one process.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use arrow::datatypes::DataType;
use datafusion::{
    execution::SessionStateBuilder,
    logical_expr::{ColumnarValue, ScalarUDF, Volatility, create_udf},
};
use grizzly_flight::{
    Cluster, FlightSqlConnection, FlightSqlServer, GrizzlyClusterExt, NodeSettings, SessionFactory, cluster::NodeState,
};
use grizzly_optimizer::GrizzlyOptimizerExt;
use grizzly_provider::{Grizzly, adapter::GrizzlySession};
use tokio::sync::oneshot;

use super::proxy::Proxy;
use crate::support::TestResult;

/// A node; other nodes reach it through its proxy, clients directly.
pub(crate) struct TestNode {
    pub(crate) cluster: Cluster,
    pub(crate) proxy: Proxy,
    pub(crate) url: String,
    _stop: oneshot::Sender<()>,
}

/// Short, since tests wait for it.
pub(crate) fn settings() -> NodeSettings {
    NodeSettings { lease: Duration::from_secs(2), ..NodeSettings::default() }
}

impl TestNode {
    pub(crate) async fn start(db: &Grizzly, settings: NodeSettings) -> Result<Self, Box<dyn std::error::Error>> {
        let cluster = Cluster::builder(db).settings(settings).task_sessions(with_panic).build()?;
        let server = FlightSqlServer::builder(factory(&cluster)).cluster(&cluster).listen("127.0.0.1:0").await?;
        let (address, url) = (server.address().to_string(), server.url());
        let (stop, stopped) = oneshot::channel::<()>();
        tokio::spawn(server.serve_with_shutdown(async {
            let _ = stopped.await;
        }));
        let proxy = Proxy::to(address).await?;
        cluster.join(&proxy.url).await?;
        Ok(Self { cluster, proxy, url, _stop: stop })
    }

    /// A client whose every query is worth all nodes.
    pub(crate) async fn connect(&self) -> Result<FlightSqlConnection, Box<dyn std::error::Error>> {
        let connection = FlightSqlConnection::connect(&self.url).await?;
        connection.update("SET grizzly.distribute_rows = 1").await?;
        Ok(connection)
    }

    pub(crate) fn live(&self) -> usize {
        self.cluster.nodes().iter().filter(|node| node.state == NodeState::Live).count()
    }

    /// Waits until this node sees so many nodes live.
    pub(crate) async fn sees(&self, live: usize) -> TestResult {
        let begun = Instant::now();
        while self.live() != live {
            if begun.elapsed() > Duration::from_secs(10) {
                return Err(format!("{live} live nodes were expected: {:?}", self.cluster.nodes()).into());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }
}

fn factory(cluster: &Cluster) -> SessionFactory {
    let cluster = cluster.clone();
    Arc::new(move || {
        let state = SessionStateBuilder::new().with_default_features().with_grizzly_cluster(&cluster)?;
        let mut state = with_panic(state);
        let same = |arguments: &[ColumnarValue]| Ok(arguments[0].clone());
        let only_here =
            create_udf("only_here", vec![DataType::Int64], DataType::Int64, Volatility::Immutable, Arc::new(same));
        state.scalar_functions().get_or_insert_default().push(Arc::new(only_here));
        Ok(GrizzlySession::with_state(state.with_grizzly_optimizer()?.build())?)
    })
}

/// A function that panics.
fn with_panic(mut builder: SessionStateBuilder) -> SessionStateBuilder {
    let body = |arguments: &[ColumnarValue]| Ok(arguments.get(1).expect("as it was asked to").clone());
    let panics: ScalarUDF =
        create_udf("panics", vec![DataType::Int64], DataType::Int64, Volatility::Volatile, Arc::new(body));
    builder.scalar_functions().get_or_insert_default().push(Arc::new(panics));
    builder
}

/// Three nodes that know each other.
pub(crate) async fn three(db: &Grizzly) -> Result<[TestNode; 3], Box<dyn std::error::Error>> {
    three_with(db, settings()).await
}

pub(crate) async fn three_with(
    db: &Grizzly,
    settings: NodeSettings,
) -> Result<[TestNode; 3], Box<dyn std::error::Error>> {
    let nodes = [
        TestNode::start(db, settings.clone()).await?,
        TestNode::start(db, settings.clone()).await?,
        TestNode::start(db, settings).await?,
    ];
    for node in &nodes {
        node.sees(3).await?;
    }
    Ok(nodes)
}

/// A database with a sharded table `t` of `rows` rows: `id` from 0, `grp` = id % 10, `name`, `amount` = id * 2.
pub(crate) async fn database(rows: u64) -> Result<Grizzly, Box<dyn std::error::Error>> {
    let db = Grizzly::open("memory://")?;
    fill(&db, rows).await?;
    Ok(db)
}

/// Makes that table.
pub(crate) async fn fill(db: &Grizzly, rows: u64) -> TestResult {
    let session = GrizzlySession::new(db);
    for sql in [
        "CREATE TABLE t (id BIGINT NOT NULL, grp BIGINT, name VARCHAR, amount BIGINT, PRIMARY KEY (id)) \
         PARTITION BY HASH(id) SHARDS 6"
            .to_owned(),
        format!(
            "INSERT INTO t SELECT value, value % 10, 'name ' || (value % 100), value * 2 \
             FROM generate_series(0, {})",
            rows - 1
        ),
    ] {
        session.execute(&sql).await?;
    }
    Ok(())
}
