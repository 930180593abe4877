//! What EXPLAIN shows of a scan.

use std::fmt::{self, Write};

use datafusion::{
    datasource::TableProvider,
    physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan},
};

use super::GrizzlyScanExec;
use crate::{access::AccessPath, adapter::predicate::DisplayPredicate};

impl DisplayAs for GrizzlyScanExec {
    fn fmt_as(&self, format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match format {
            DisplayFormatType::Default | DisplayFormatType::Verbose => {
                write!(f, "GrizzlyScanExec: {}", self.details().join(", "))
            }
            DisplayFormatType::TreeRender => self.details().iter().try_for_each(|line| writeln!(f, "{line}")),
        }
    }
}

impl GrizzlyScanExec {
    /// `key=value` pairs, in order of interest.
    fn details(&self) -> Vec<String> {
        let request = &self.request;
        let schema = self.table.schema();
        let columns = self.schema();
        let columns: Vec<&str> = columns.fields().iter().map(|field| field.name().as_str()).collect();
        let mut details = vec![
            format!("table={}{}", self.table.name(), self.time()),
            format!("access={}", access(&request.access)),
            format!("projection=[{}]", columns.join(", ")),
        ];
        if let Some(predicate) = &request.predicate {
            details.push(format!("predicate={}", DisplayPredicate { predicate, schema: &schema }));
        }
        if !self.dynamic.is_empty() {
            let filters: Vec<String> = self.dynamic.iter().map(|filter| filter.expr().to_string()).collect();
            details.push(format!("dynamic_filters=[{}]", filters.join(", ")));
        }
        if let Some(shards) = &request.shards {
            let all = self.planning_snapshot().map_or(0, |table| table.shards().len());
            details.push(format!("shards={}/{all}", shards.len()));
        }
        details.push(format!("partitions={}", self.properties.output_partitioning().partition_count()));
        if let Some(fetch) = self.fetch {
            details.push(format!("fetch={fetch}"));
        }
        if let Some(choice) = &self.choice {
            details.push(format!("est_rows={}", choice.estimated_rows));
            details.push(format!("cost={:.0}", choice.estimated_cost));
            details.push(format!("reason={:?}", choice.reason));
        }
        details
    }

    fn time(&self) -> String {
        match self.table.reads_as_of() {
            None => String::new(),
            Some(at) => format!(" as of {at}"),
        }
    }
}

fn access(path: &AccessPath) -> String {
    let AccessPath::Index { index, ranges } = path else {
        return "full scan".to_owned();
    };
    let mut text = format!("index {index}");
    // Writing into a string cannot fail.
    let _ = match ranges.len() {
        1 => write!(text, " (1 key range)"),
        n => write!(text, " ({n} key ranges)"),
    };
    text
}
