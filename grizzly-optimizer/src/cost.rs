//! What reading costs: pure, in microseconds of one core, so that numbers can be compared with a clock. One place to
//! tune. Only the order of magnitude matters: paths differ by factors, not by percents.

/// Testing one encoded value.
pub const TEST_ENCODED_US: f64 = 0.3e-3;
/// Decoding one value of a chunk that is decoded as a whole.
pub const DECODE_US: f64 = 1.5e-3;
/// Taking one value out of the middle of an encoded chunk.
pub const FETCH_US: f64 = 0.4;
/// Looking one key up in one index run, its bloom filter and fences in memory.
pub const PROBE_US: f64 = 2.0;
/// Walking to the next entry of an index run.
pub const ENTRY_US: f64 = 5e-3;
/// Opening a segment's columns for a scan.
pub const OPEN_US: f64 = 5.0;
/// Starting any scan at all.
pub const START_US: f64 = 10.0;

/// Reading a table from one end to the other.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ScanShape {
    /// Rows left after zone maps.
    pub rows: u64,
    /// Rows for which the predicate is true, about.
    pub matching: u64,
    /// Columns that are returned.
    pub columns: usize,
    /// Tests of the predicate.
    pub tests: usize,
    /// Segments, in memory and on storage.
    pub segments: u64,
}

/// Reading the rows that an index names.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct IndexShape {
    /// Entries in the ranges, about.
    pub entries: u64,
    /// Ranges.
    pub ranges: u64,
    /// Columns that are returned or tested.
    pub columns: usize,
    /// Segments, each with a run of its own.
    pub segments: u64,
}

/// Cost of a scan: every remaining row is tested, and what matches is decoded. Matching rows lie among others, so
/// whole chunks are decoded unless few rows match.
pub fn scan_us(shape: &ScanShape) -> f64 {
    let tested = shape.rows as f64 * shape.tests as f64 * TEST_ENCODED_US;
    let scattered = shape.matching as f64 * FETCH_US;
    let whole = shape.rows as f64 * DECODE_US;
    let decoded = scattered.min(whole) * shape.columns as f64;
    START_US + shape.segments as f64 * OPEN_US + tested + decoded
}

/// Cost of an index read: every range is looked up in every segment's run, and every entry's row is fetched from
/// wherever it is.
pub fn index_us(shape: &IndexShape) -> f64 {
    let probes = shape.ranges as f64 * shape.segments.max(1) as f64 * PROBE_US;
    let rows = shape.entries as f64 * (ENTRY_US + shape.columns as f64 * FETCH_US);
    START_US + probes + rows
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scan(rows: u64, matching: u64) -> f64 {
        scan_us(&ScanShape { rows, matching, columns: 4, tests: 1, segments: 1 + rows / 1_000_000 })
    }

    fn index(rows: u64, entries: u64, ranges: u64) -> f64 {
        index_us(&IndexShape { entries, ranges, columns: 5, segments: 1 + rows / 1_000_000 })
    }

    #[test]
    fn a_few_rows_of_many_come_from_the_index() {
        assert!(index(6_000_000, 30, 1) * 10.0 < scan(6_000_000, 30));
    }

    #[test]
    fn a_tenth_of_the_rows_comes_from_a_scan() {
        assert!(scan(6_000_000, 600_000) < index(6_000_000, 600_000, 1));
    }

    #[test]
    fn a_handful_of_rows_is_scanned_rather_than_looked_up_many_times() {
        assert!(scan(100, 50) < index(100, 50, 50));
    }

    #[test]
    fn more_of_anything_never_costs_less() {
        let few = ScanShape { rows: 1000, matching: 10, columns: 2, tests: 1, segments: 1 };
        for more in [
            ScanShape { rows: 2000, ..few },
            ScanShape { matching: 500, ..few },
            ScanShape { columns: 3, ..few },
            ScanShape { tests: 2, ..few },
            ScanShape { segments: 2, ..few },
        ] {
            assert!(scan_us(&few) <= scan_us(&more), "{more:?}");
        }
    }
}
