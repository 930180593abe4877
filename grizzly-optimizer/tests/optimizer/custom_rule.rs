//! A user's own rule.

use std::sync::Arc;

use datafusion::error::Result;
use grizzly_optimizer::{AccessPathRule, Candidate, ScanView};

use crate::{
    database::{database, with_rules, without_rules},
    rows::{plan, sorted_rows},
};

/// Takes any index it can, whatever it costs.
#[derive(Debug)]
struct PreferIndexes;

impl AccessPathRule for PreferIndexes {
    fn name(&self) -> &str {
        "prefer_indexes"
    }

    fn candidates(&self, scan: &ScanView<'_>) -> Vec<Candidate> {
        scan.indexes().iter().filter_map(|index| scan.index(index)).map(|path| path.with_cost(0.0)).collect()
    }
}

#[tokio::test]
async fn a_users_rule_changes_the_path_and_not_the_answer() -> Result<()> {
    let db = database()?;
    let sql = "SELECT id, name FROM t WHERE part > 100";
    let (stock, user) = (with_rules(&db, vec![])?, with_rules(&db, vec![Arc::new(PreferIndexes)])?);
    assert!(plan(&stock, sql).await?.contains("access=full scan"));
    assert!(plan(&user, sql).await?.contains("access=index t_part"));
    assert_eq!(sorted_rows(&user, sql).await?, sorted_rows(&without_rules(&db)?, sql).await?);
    Ok(())
}
