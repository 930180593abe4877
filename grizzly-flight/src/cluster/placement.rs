//! Which node does what. Each node has a weight for each piece of data, by a hash of both, and the heaviest node gets
//! it: rendezvous hashing (Thaler and Ravishankar, "Using name-based mappings to increase hit rates", 1998). When a
//! node goes only its own pieces move, so the caches of the others stay warm. With few pieces chance alone would leave
//! nodes idle, so none gets more than its share, rounded up.

use url::Url;

/// The nodes of one query, in the order in which its tasks go to them: task `i` of every stage to node `i`.
#[derive(Debug, Clone)]
pub(super) struct Placement {
    nodes: Vec<Url>,
}

impl Placement {
    /// First those that prefer `table`, so that stages of few tasks of different tables go to different nodes.
    pub(super) fn new(mut nodes: Vec<Url>, table: u64) -> Self {
        nodes.sort_by_cached_key(|node| (std::cmp::Reverse(weight(node, table, 0)), node.clone()));
        nodes.dedup();
        Self { nodes }
    }

    pub(super) fn nodes(&self) -> &[Url] {
        &self.nodes
    }

    /// The shards that each of `tasks` tasks reads.
    pub(super) fn divide(&self, table: u64, shards: &[u32], tasks: usize) -> Vec<Vec<u32>> {
        let tasks = tasks.max(1);
        let share = shards.len().div_ceil(tasks);
        let mut divided = vec![Vec::new(); tasks];
        for shard in shards {
            let mut order: Vec<usize> = (0..tasks).collect();
            // A task without a node of its own is the last to get anything.
            order.sort_by_cached_key(|task| {
                std::cmp::Reverse(self.nodes.get(*task).map(|node| weight(node, table, *shard)))
            });
            if let Some(task) = order.into_iter().find(|task| divided[*task].len() < share) {
                divided[task].push(*shard);
            }
        }
        divided
    }

    /// The node that would read the table if only one did.
    pub(super) fn preferred(&self, table: u64) -> Option<&Url> {
        self.nodes.iter().max_by_key(|node| weight(node, table, 0))
    }
}

/// FNV-1a over node, table and shard, and the finalizer of SplitMix64 (Steele, Lea and Flood, "Fast splittable
/// pseudorandom number generators", 2014), without which the last bytes would hardly show in the upper bits.
fn weight(node: &Url, table: u64, shard: u32) -> u64 {
    let bytes = node.as_str().bytes().chain(table.to_le_bytes()).chain(shard.to_le_bytes());
    let hash = bytes
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    let hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(count: u16) -> Vec<Url> {
        (0..count).map(|port| Url::parse(&format!("http://10.0.0.1:{}/", 4000 + port)).expect("a URL")).collect()
    }

    fn owners(placement: &Placement, shards: &[u32]) -> Vec<(u32, Url)> {
        let divided = placement.divide(7, shards, placement.nodes().len());
        let pairs = divided.into_iter().zip(placement.nodes());
        let mut owners: Vec<_> =
            pairs.flat_map(|(shards, node)| shards.into_iter().map(|shard| (shard, node.clone()))).collect();
        owners.sort();
        owners
    }

    #[test]
    fn every_shard_goes_to_one_node_and_no_node_gets_more_than_its_share() {
        for (count, shards) in [(1, 1), (3, 1), (3, 4), (3, 16), (5, 64)] {
            let placement = Placement::new(nodes(count), 7);
            let shards: Vec<u32> = (0..shards).collect();
            let divided = placement.divide(7, &shards, count.into());
            assert!(divided.iter().all(|part| part.len() <= shards.len().div_ceil(count.into())), "{divided:?}");
            let mut all: Vec<u32> = divided.into_iter().flatten().collect();
            all.sort_unstable();
            assert_eq!(all, shards);
        }
    }

    #[test]
    fn the_order_in_which_nodes_are_known_does_not_matter() {
        let shards: Vec<u32> = (0..16).collect();
        let mut reversed = nodes(4);
        reversed.reverse();
        let (one, other) = (Placement::new(nodes(4), 7), Placement::new(reversed, 7));
        assert_eq!(owners(&one, &shards), owners(&other, &shards));
    }

    #[test]
    fn when_a_node_goes_most_shards_stay_where_they_are() {
        let shards: Vec<u32> = (0..64).collect();
        let all = Placement::new(nodes(4), 7);
        let gone = all.nodes()[2].clone();
        let fewer = Placement::new(nodes(4).into_iter().filter(|node| *node != gone).collect(), 7);
        let before = owners(&all, &shards).into_iter().filter(|(_, node)| *node != gone);
        let after = owners(&fewer, &shards);
        let (stayed, moved): (Vec<_>, Vec<_>) = before.partition(|owner| after.contains(owner));
        assert!(stayed.len() > 3 * moved.len(), "{} stayed, {} moved", stayed.len(), moved.len());
    }

    #[test]
    fn more_tasks_than_nodes_lose_nothing() {
        let divided = Placement::new(nodes(2), 7).divide(7, &[0, 1, 2, 3], 3);
        assert_eq!(divided.into_iter().flatten().count(), 4);
    }
}
