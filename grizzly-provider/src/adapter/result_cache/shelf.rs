//! Where kept results lie, in the order in which they would have to go.
//!
//! A result is worth the time that computing it took, times the uses it has had, for each byte; and that on top of
//! what the last one was worth that had to go, so that a result nobody asks for any more goes some day, whatever it
//! cost.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use arrow::{datatypes::SchemaRef, record_batch::RecordBatch};

use super::question::Question;
use crate::access::Csn;

/// What an entry takes besides plan and rows: the maps, and the values in them.
const ENTRY_BYTES: u64 = 512;

/// A result, and what is known of it.
#[derive(Debug)]
pub(super) struct Kept {
    /// The last change of each table that it was computed from, in the question's order.
    changes: Vec<Csn>,
    schema: SchemaRef,
    batches: Arc<[RecordBatch]>,
    bytes: u64,
    hits: u64,
    took: Duration,
    tables: String,
    place: Place,
}

/// What it is worth, as ordered bits, and a number that makes it unique.
type Place = (u64, u64);

/// One kept result, as users see it.
#[derive(Debug)]
pub(super) struct Shown {
    pub(super) tables: String,
    pub(super) rows: u64,
    pub(super) bytes: u64,
    pub(super) hits: u64,
    pub(super) took: Duration,
    pub(super) question: Arc<Question>,
}

/// Sums since the database was opened, and what is held now.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Totals {
    pub(super) bytes: u64,
    pub(super) results: u64,
    pub(super) hits: u64,
    pub(super) misses: u64,
    pub(super) kept: u64,
    pub(super) evicted: u64,
}

/// All kept results, at most as many bytes as there is room.
#[derive(Debug)]
pub(super) struct Shelf {
    room: u64,
    results: HashMap<Arc<Question>, Kept>,
    order: BTreeMap<Place, Arc<Question>>,
    /// What the last one was worth that had to go.
    floor: f64,
    places: u64,
    totals: Totals,
}

impl Kept {
    pub(super) fn new(
        changes: Vec<Csn>,
        schema: SchemaRef,
        batches: Vec<RecordBatch>,
        question_bytes: usize,
        tables: String,
        took: Duration,
    ) -> Self {
        let rows: usize = batches.iter().map(RecordBatch::get_array_memory_size).sum();
        let bytes = (rows + question_bytes + tables.len()) as u64 + ENTRY_BYTES;
        Self { changes, schema, batches: batches.into(), bytes, hits: 0, took, tables, place: (0, 0) }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    fn worth(&self, floor: f64) -> f64 {
        let uses = (self.hits + 1) as f64;
        floor + (self.took.as_nanos().max(1) as f64) * uses / (self.bytes as f64)
    }
}

impl Shelf {
    pub(super) fn new(room: u64) -> Self {
        let (results, order) = (HashMap::new(), BTreeMap::new());
        Self { room, results, order, floor: 0.0, places: 0, totals: Totals::default() }
    }

    /// The result, if it was computed from tables last changed by these commits.
    pub(super) fn find(
        &mut self,
        question: &Question,
        changes: &[Csn],
        schema: &SchemaRef,
    ) -> Option<Arc<[RecordBatch]>> {
        let kept = self.results.get_mut(question);
        let Some(kept) = kept.filter(|kept| kept.changes == changes && kept.schema == *schema) else {
            self.totals.misses += 1;
            return None;
        };
        self.totals.hits += 1;
        kept.hits += 1;
        self.places += 1;
        // What is worth something is not negative, and such numbers are ordered as their bits are.
        let place = (kept.worth(self.floor).to_bits(), self.places);
        if let Some(question) = self.order.remove(&kept.place) {
            self.order.insert(place, question);
        }
        kept.place = place;
        Some(Arc::clone(&kept.batches))
    }

    /// Keeps a result in the place of an older one of the same question, and lets go of what there is no room for.
    pub(super) fn keep(&mut self, question: Arc<Question>, mut kept: Kept) {
        if let Some(known) = self.results.get(&question) {
            // Asked by a transaction that reads an old snapshot.
            if known.changes > kept.changes {
                return;
            }
            kept.hits = known.hits;
        }
        self.remove(&question);
        self.places += 1;
        kept.place = (kept.worth(self.floor).to_bits(), self.places);
        self.totals.bytes += kept.bytes;
        self.totals.kept += 1;
        self.order.insert(kept.place, Arc::clone(&question));
        self.results.insert(question, kept);
        while self.totals.bytes > self.room {
            let Some(((worth, _), least)) = self.order.first_key_value() else { return };
            (self.floor, self.totals.evicted) = (f64::from_bits(*worth), self.totals.evicted + 1);
            let least = Arc::clone(least);
            self.remove(&least);
        }
    }

    fn remove(&mut self, question: &Question) {
        if let Some(kept) = self.results.remove(question) {
            self.order.remove(&kept.place);
            self.totals.bytes -= kept.bytes;
        }
    }

    /// All results, the most valuable first.
    pub(super) fn shown(&self) -> Vec<Shown> {
        let ordered = self.order.values().rev();
        let shown = ordered.filter_map(|question| Some((question, self.results.get(question)?)));
        let shown = shown.map(|(question, kept)| Shown {
            tables: kept.tables.clone(),
            rows: kept.batches.iter().map(|batch| batch.num_rows() as u64).sum(),
            bytes: kept.bytes,
            hits: kept.hits,
            took: kept.took,
            question: Arc::clone(question),
        });
        shown.collect()
    }

    pub(super) fn totals(&self) -> Totals {
        Totals { results: self.results.len() as u64, ..self.totals }
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::Schema;
    use datafusion::{
        common::DFSchema,
        logical_expr::{EmptyRelation, LogicalPlan},
    };

    use super::*;

    const ROOM: u64 = 20_000;

    fn question(number: u64) -> Arc<Question> {
        let nothing = EmptyRelation { produce_one_row: false, schema: Arc::new(DFSchema::empty()) };
        Arc::new(Question::new(&Arc::new(LogicalPlan::EmptyRelation(nothing)), number, Vec::new()))
    }

    fn kept(csn: u64, bytes: usize, millis: u64) -> Kept {
        let schema = Arc::new(Schema::empty());
        Kept::new(vec![Csn(csn)], schema, Vec::new(), bytes, String::new(), Duration::from_millis(millis))
    }

    fn found(shelf: &mut Shelf, number: u64, csn: u64) -> bool {
        shelf.find(&question(number), &[Csn(csn)], &Arc::new(Schema::empty())).is_some()
    }

    #[test]
    fn a_result_is_found_by_question_and_changes() {
        let mut shelf = Shelf::new(ROOM);
        shelf.keep(question(1), kept(5, 100, 1));
        assert!(found(&mut shelf, 1, 5));
        assert!(!found(&mut shelf, 1, 4) && !found(&mut shelf, 1, 6) && !found(&mut shelf, 2, 5));
        shelf.keep(question(1), kept(7, 100, 1));
        shelf.keep(question(1), kept(6, 100, 1));
        assert!(found(&mut shelf, 1, 7) && !found(&mut shelf, 1, 6), "the newer one stays");
        let totals = shelf.totals();
        assert_eq!((totals.results, totals.kept, totals.hits, totals.misses), (1, 2, 2, 4));
        assert_eq!(totals.bytes, 100 + ENTRY_BYTES);
    }

    #[test]
    fn what_costs_much_outlives_what_costs_little_but_not_for_ever() {
        let mut shelf = Shelf::new(ROOM);
        shelf.keep(question(0), kept(1, 1_000, 500));
        let mut number = 0;
        let mut cheap = |shelf: &mut Shelf| {
            number += 1;
            shelf.keep(question(number), kept(1, 1_000, 10));
            let totals = shelf.totals();
            assert!(totals.bytes <= ROOM && totals.results == totals.kept - totals.evicted);
        };
        for _ in 0..100 {
            cheap(&mut shelf);
        }
        assert!(found(&mut shelf, 0, 1));
        for _ in 0..100_000 {
            cheap(&mut shelf);
        }
        assert!(!found(&mut shelf, 0, 1));
    }

    #[test]
    fn what_is_asked_for_outlives_what_is_not() {
        let mut shelf = Shelf::new(ROOM);
        shelf.keep(question(0), kept(1, 1_000, 10));
        for number in 1..100 {
            shelf.keep(question(number), kept(1, 1_000, 10));
            assert!(found(&mut shelf, 0, 1));
        }
    }
}
