//! Which path EXPLAIN shows, and why.

use datafusion::error::Result;

use crate::{
    database::{database, with_rules},
    rows::plan,
};

/// The line of the plan that reads `t`.
async fn scan_of(sql: &str) -> Result<String> {
    let ctx = with_rules(&database()?, vec![])?;
    let plan = plan(&ctx, sql).await?;
    let scan = plan.lines().find(|line| line.contains("GrizzlyScanExec")).unwrap_or(&plan);
    Ok(scan.trim().to_owned())
}

#[tokio::test]
async fn a_selective_equality_is_an_index_lookup() -> Result<()> {
    let scan = scan_of("SELECT * FROM t WHERE part = 17").await?;
    assert!(scan.contains("access=index t_part"), "{scan}");
    assert!(scan.contains("reason=\"index t_part cost"), "{scan}");
    assert!(scan.contains("full scan cost"), "{scan}");
    Ok(())
}

#[tokio::test]
async fn an_unselective_condition_is_a_full_scan() -> Result<()> {
    let scan = scan_of("SELECT * FROM t WHERE part > 17").await?;
    assert!(scan.contains("access=full scan"), "{scan}");
    assert!(scan.contains("reason=\"full scan cost") && scan.contains("< index t_part cost"), "{scan}");
    Ok(())
}

#[tokio::test]
async fn a_unique_key_needs_no_comparison() -> Result<()> {
    let scan = scan_of("SELECT name FROM t WHERE id = 4711").await?;
    assert!(scan.contains("access=index primary") && scan.contains("at most 1 row by unique key"), "{scan}");
    // The key places the row, so one shard is enough.
    assert!(scan.contains("shards=1/4"), "{scan}");
    Ok(())
}

#[tokio::test]
async fn a_list_is_one_range_per_key() -> Result<()> {
    let scan = scan_of("SELECT name FROM t WHERE part IN (3, 1, 3)").await?;
    assert!(scan.contains("access=index t_part (2 key ranges)"), "{scan}");
    Ok(())
}

#[tokio::test]
async fn the_prefix_of_an_index_and_a_range_narrow_it_together() -> Result<()> {
    let scan = scan_of("SELECT name FROM t WHERE day = 62 AND part > 4990").await?;
    assert!(scan.contains("access=index t_"), "{scan}");
    Ok(())
}

#[tokio::test]
async fn without_a_condition_there_is_nothing_to_choose() -> Result<()> {
    let scan = scan_of("SELECT name FROM t").await?;
    assert!(scan.contains("access=full scan") && !scan.contains("reason"), "{scan}");
    Ok(())
}
