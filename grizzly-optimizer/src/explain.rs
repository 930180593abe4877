//! Why a path won, in words for `EXPLAIN`.

use std::fmt::Write;

use grizzly_provider::access::AccessPath;

use crate::Candidate;

/// The winner's cost, then what each other path would have cost: `index cost 12 < full scan cost 900`.
pub(crate) fn reason(winner: &Candidate, losers: &[Candidate]) -> String {
    let mut text = priced(winner);
    for loser in losers {
        let sign = if loser.cost_us > winner.cost_us { '<' } else { '=' };
        // Writing to a String cannot fail.
        let _ = write!(text, " {sign} {}", priced(loser));
    }
    text
}

/// The reason of a path that was taken without asking for others.
pub(crate) fn unique_key(winner: &Candidate) -> String {
    format!("{}: at most {} by unique key", priced(winner), rows(winner.estimated_rows))
}

fn priced(candidate: &Candidate) -> String {
    let shards = match &candidate.shards {
        Some(shards) if shards.len() == 1 => " of 1 shard".to_owned(),
        Some(shards) => format!(" of {} shards", shards.len()),
        None => String::new(),
    };
    let name = match &candidate.path {
        AccessPath::FullScan if shards.is_empty() => "full scan",
        AccessPath::FullScan => "scan",
        AccessPath::Index { index, .. } => return format!("index {index}{shards} cost {:.0}", candidate.cost_us),
    };
    format!("{name}{shards} cost {:.0}", candidate.cost_us)
}

fn rows(count: u64) -> String {
    if count == 1 { "1 row".to_owned() } else { format!("{count} rows") }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn scan(cost_us: f64, shards: Option<Arc<[u32]>>) -> Candidate {
        Candidate { path: AccessPath::FullScan, shards, estimated_rows: 1, cost_us }
    }

    #[test]
    fn a_reason_names_every_cost_in_order() {
        let index = Candidate {
            path: AccessPath::Index { index: "by_part".into(), ranges: Arc::new([]) },
            shards: None,
            estimated_rows: 30,
            cost_us: 62.4,
        };
        let losers = [scan(900.0, Some(Arc::new([3]))), scan(7000.0, None)];
        assert_eq!(reason(&index, &losers), "index by_part cost 62 < scan of 1 shard cost 900 < full scan cost 7000");
        assert_eq!(unique_key(&index), "index by_part cost 62: at most 30 rows by unique key");
    }
}
