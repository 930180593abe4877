//! Answers in a form that can be compared.

use datafusion::{arrow::util::display::ArrayFormatter, error::Result, prelude::SessionContext};

/// The rows a query gives, as text, sorted.
pub(crate) async fn sorted_rows(ctx: &SessionContext, sql: &str) -> Result<Vec<String>> {
    let mut rows = vec![];
    for batch in ctx.sql(sql).await?.collect().await? {
        let options = Default::default();
        let columns = batch.columns().iter().map(|column| ArrayFormatter::try_new(column.as_ref(), &options));
        let columns = columns.collect::<Result<Vec<_>, _>>()?;
        for row in 0..batch.num_rows() {
            let values = columns.iter().map(|column| column.value(row).to_string());
            rows.push(values.collect::<Vec<_>>().join(" | "));
        }
    }
    rows.sort();
    Ok(rows)
}

/// The physical plan of a query, one node a line.
pub(crate) async fn plan(ctx: &SessionContext, sql: &str) -> Result<String> {
    let plan = ctx.sql(sql).await?.create_physical_plan().await?;
    Ok(datafusion::physical_plan::displayable(plan.as_ref()).indent(false).to_string())
}
