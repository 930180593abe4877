//! Which nodes there are, as one of them sees it. Leases in the database's storage say who was there; that a lease
//! changes says that its node still is, by this node's own clock. A node that a query could not reach is left out until
//! it answers again.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use grizzly_provider::NodeLease;
use url::Url;
use uuid::Uuid;

use super::channel::node_url;

/// Leases of nodes that are gone stay so many lease times, for `grizzly.nodes`, and are then removed.
const KEPT: u32 = 10;

/// What one node thinks of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeState {
    /// Its lease is there; whether it still runs is not known yet.
    New,
    /// It takes part in queries.
    Live,
    /// A query could not reach it; it takes part again once it answers.
    Suspect,
    /// Its lease has not changed for the lease time.
    Gone,
}

impl NodeState {
    /// In one word.
    pub fn name(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Live => "live",
            Self::Suspect => "suspect",
            Self::Gone => "gone",
        }
    }
}

/// A node and what is known of it.
#[derive(Debug, Clone)]
pub(super) struct Member {
    pub(super) lease: NodeLease,
    pub(super) state: NodeState,
    url: Url,
    changed: Instant,
    /// The beat at which it became suspect.
    suspected_at: u64,
}

/// All nodes known.
#[derive(Debug)]
pub(super) struct Members {
    lease_time: Duration,
    known: HashMap<Uuid, Member>,
}

impl Members {
    pub(super) fn new(lease_time: Duration) -> Self {
        Self { lease_time, known: HashMap::new() }
    }

    /// Takes note of the leases as they are `now`.
    pub(super) fn observe(&mut self, leases: Vec<NodeLease>, now: Instant) {
        self.known.retain(|id, _| leases.iter().any(|lease| lease.id == *id));
        for lease in leases {
            let Ok(url) = node_url(&lease.url) else {
                tracing::warn!(url = lease.url, "a node's lease has an unusable URL");
                continue;
            };
            let member = self.known.entry(lease.id).or_insert_with(|| Member {
                lease: lease.clone(),
                state: NodeState::New,
                url,
                changed: now,
                suspected_at: 0,
            });
            if member.lease.beat != lease.beat {
                member.lease = lease;
                member.changed = now;
                if member.state != NodeState::Suspect {
                    member.state = NodeState::Live;
                }
            } else if now.duration_since(member.changed) >= self.lease_time {
                member.state = NodeState::Gone;
            }
        }
    }

    /// Nodes that may be live and should be asked: new ones, and suspects that have written their lease since.
    pub(super) fn unproven(&self) -> Vec<(Uuid, Url)> {
        let unproven = self.known.values().filter(|member| match member.state {
            NodeState::New => true,
            NodeState::Suspect => member.lease.beat > member.suspected_at,
            NodeState::Live | NodeState::Gone => false,
        });
        unproven.map(|member| (member.lease.id, member.url.clone())).collect()
    }

    /// An unproven node answered.
    pub(super) fn answered(&mut self, id: Uuid) {
        if let Some(member) = self.known.get_mut(&id).filter(|member| member.state != NodeState::Gone) {
            member.state = NodeState::Live;
        }
    }

    /// A query could not reach the node at `url`.
    pub(super) fn suspect(&mut self, url: &Url) {
        for member in self.known.values_mut().filter(|member| member.url == *url && member.state != NodeState::Gone) {
            member.state = NodeState::Suspect;
            member.suspected_at = member.lease.beat;
        }
    }

    /// Where the nodes are that take part in queries.
    pub(super) fn live(&self) -> Vec<Url> {
        let live = self.known.values().filter(|member| member.state == NodeState::Live);
        let mut urls: Vec<Url> = live.map(|member| member.url.clone()).collect();
        urls.sort();
        urls.dedup();
        urls
    }

    /// Nodes whose leases nobody needs any more.
    pub(super) fn forgotten(&self, now: Instant) -> Vec<Uuid> {
        let limit = self.lease_time * KEPT;
        let gone = self.known.values().filter(|member| member.state == NodeState::Gone);
        gone.filter(|member| now.duration_since(member.changed) > limit).map(|member| member.lease.id).collect()
    }

    /// All of them, by URL.
    pub(super) fn all(&self) -> Vec<Member> {
        let mut all: Vec<Member> = self.known.values().cloned().collect();
        all.sort_by(|a, b| (&a.lease.url, a.lease.started_micros).cmp(&(&b.lease.url, b.lease.started_micros)));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(4);

    fn lease(number: u16, beat: u64) -> NodeLease {
        NodeLease {
            id: Uuid::from_u128(number.into()),
            url: format!("grpc://127.0.0.1:{number}"),
            version: String::new(),
            started_micros: 0,
            beat,
        }
    }

    fn states(members: &Members) -> Vec<NodeState> {
        members.all().iter().map(|member| member.state).collect()
    }

    #[test]
    fn a_node_is_live_while_its_lease_changes_and_gone_when_it_does_not() {
        let (mut members, start) = (Members::new(LEASE), Instant::now());
        members.observe(vec![lease(1, 5), lease(2, 9)], start);
        assert_eq!(states(&members), [NodeState::New, NodeState::New]);
        members.observe(vec![lease(1, 6), lease(2, 9)], start + LEASE / 2);
        assert_eq!(states(&members), [NodeState::Live, NodeState::New]);
        members.observe(vec![lease(1, 7), lease(2, 9)], start + LEASE);
        assert_eq!(states(&members), [NodeState::Live, NodeState::Gone]);
        assert_eq!(members.live().len(), 1);
        // It was frozen, not dead.
        members.observe(vec![lease(1, 8), lease(2, 10)], start + LEASE * 2);
        assert_eq!(members.live().len(), 2);
    }

    #[test]
    fn a_suspect_takes_part_again_once_it_beats_and_answers() {
        let (mut members, start) = (Members::new(LEASE), Instant::now());
        members.observe(vec![lease(1, 1)], start);
        members.answered(lease(1, 1).id);
        let url = members.live().remove(0);
        members.suspect(&url);
        assert_eq!((members.live(), members.unproven()), (vec![], vec![]));
        members.observe(vec![lease(1, 2)], start + LEASE / 4);
        assert!(members.live().is_empty());
        assert_eq!(members.unproven(), [(lease(1, 2).id, url.clone())]);
        members.answered(lease(1, 2).id);
        assert_eq!(members.live(), [url]);
    }

    #[test]
    fn leases_of_the_dead_are_forgotten_in_the_end() {
        let (mut members, start) = (Members::new(LEASE), Instant::now());
        members.observe(vec![lease(1, 1)], start);
        members.observe(vec![lease(1, 1)], start + LEASE);
        assert!(members.forgotten(start + LEASE).is_empty());
        assert_eq!(members.forgotten(start + LEASE * 11), [lease(1, 1).id]);
        members.observe(vec![], start + LEASE * 12);
        assert!(states(&members).is_empty());
    }
}
