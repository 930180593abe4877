//! Runs and the live index against sorted vectors, damaged runs, and the golden bytes of the format.

use std::collections::BTreeSet;
use std::ops::{Bound, ControlFlow};

use bytes::Bytes;
use proptest::prelude::*;

use super::super::key::{KeyRange, Keys};
use super::*;

type Entries = Vec<(Vec<u8>, u32)>;

/// Keys as an index meets them: dense and sparse integers, composites, text with and without a common prefix.
fn keys() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let size = prop_oneof![0..40usize, 1000..1100usize, 2040..2060usize, 3000..3001usize];
    (0..9u8, size, any::<u64>()).prop_map(|(kind, count, seed)| {
        let mut state = seed | 1;
        let mut next = move || {
            // xorshift64*: reproducible from the seed that proptest prints.
            state ^= state >> 12;
            state ^= state << 25;
            state ^= state >> 27;
            state.wrapping_mul(0x2545_F491_4F6C_DD1D)
        };
        (0..count as u64).map(|row| key_of(kind, row, &mut next)).collect()
    })
}

fn key_of(kind: u8, row: u64, next: &mut impl FnMut() -> u64) -> Vec<u8> {
    match kind {
        0 => (row * 3).to_be_bytes().to_vec(),
        1 => (next() % 500).to_be_bytes().to_vec(),
        2 => next().to_be_bytes().to_vec(),
        // Sorted orders of a few lines each.
        3 => [&((1 << 31) | (row / 4)).to_be_bytes()[..], &(0x8000_0000 | (row as u32 % 4)).to_be_bytes()].concat(),
        4 => [next().to_be_bytes(), next().to_be_bytes()].concat(),
        5 => [format!("customer#{:05}", next() % 3000).as_bytes(), b"\0"].concat(),
        6 => [&b"abcdefghijkl"[..(next() % 12) as usize], b"\0", &(next() as u16 % 9).to_be_bytes()].concat(),
        7 => b"same".to_vec(),
        // One byte of variation in front, one behind: the positions that differ are not neighbours.
        _ => [&[(next() % 3) as u8][..], &[7; 9], &[(next() % 5) as u8], b"end"].concat(),
    }
}

fn sorted(keys: &[Vec<u8>], rows: Option<&[u32]>) -> Entries {
    let row_of = |index: usize| rows.map_or(index as u32, |rows| rows[index]);
    let mut entries: Entries = keys.iter().enumerate().map(|(index, key)| (key.clone(), row_of(index))).collect();
    entries.sort();
    entries
}

fn run_of(keys: &[Vec<u8>], rows: Option<&[u32]>) -> IndexRun {
    IndexRun::build(&keys.iter().map(Vec::as_slice).collect::<Keys>(), rows)
}

fn all(run: &IndexRun) -> Entries {
    let mut entries = Vec::new();
    let mut cursor = run.cursor();
    while let Some((key, row)) = cursor.current() {
        entries.push((key.to_vec(), row));
        cursor.advance();
    }
    entries
}

/// Points, prefixes and ranges around keys that are there and keys that are not.
fn ranges(entries: &Entries, picks: &[(u16, u16, u8)]) -> Vec<KeyRange> {
    let mut ranges = vec![KeyRange::full(), KeyRange::empty(), KeyRange::point(b""), KeyRange::point(&[0xFF; 20])];
    for &(from, to, how) in picks {
        let pick = |at: u16| {
            let mut key = match entries.len() {
                0 => vec![1, 2, 3],
                len => entries[usize::from(at) % len].0.clone(),
            };
            match how % 5 {
                1 => key.truncate(usize::from(how) / 5 % (key.len() + 1)),
                2 => key.push(how),
                3 if !key.is_empty() => {
                    let at = usize::from(how) % key.len();
                    key[at] = key[at].wrapping_add(how / 64 + 1);
                }
                _ => {}
            }
            key
        };
        let (a, b) = (pick(from), pick(to));
        ranges.extend([KeyRange::point(&a), KeyRange::prefix(&a)]);
        ranges.push(KeyRange::between(Bound::Included(&a), Bound::Excluded(&b)));
        ranges.push(KeyRange { lower: Bound::Excluded(a.clone()), upper: Bound::Included(b.clone()) });
        ranges.push(KeyRange { lower: Bound::Included(b), upper: Bound::Unbounded });
        ranges.push(KeyRange { lower: Bound::Unbounded, upper: Bound::Excluded(a) });
    }
    ranges
}

fn check_run(run: &IndexRun, entries: &Entries, picks: &[(u16, u16, u8)]) -> std::result::Result<(), TestCaseError> {
    prop_assert_eq!(run.len(), entries.len());
    prop_assert_eq!(&all(run), entries);
    let bounds = entries.first().zip(entries.last()).map(|(first, last)| (first.0.as_slice(), last.0.as_slice()));
    prop_assert_eq!(run.bounds(), bounds);
    for range in ranges(entries, picks) {
        let expected: Entries = entries.iter().filter(|(key, _)| range.contains(key)).cloned().collect();
        let mut rows = vec![77];
        run.lookup(&range, &mut rows);
        prop_assert_eq!(&rows[1..], expected.iter().map(|(_, row)| *row).collect::<Vec<_>>(), "{:?}", &range);
        prop_assert_eq!(run.estimate(&range), expected.len() as u64);
        let mut found = Vec::new();
        run.for_each(&range, &mut |key, row| {
            found.push((key.to_vec(), row));
            ControlFlow::Continue(())
        });
        prop_assert_eq!(&found, &expected);
        found.clear();
        run.for_each_rev(&range, &mut |key, row| {
            found.push((key.to_vec(), row));
            ControlFlow::Continue(())
        });
        found.reverse();
        prop_assert_eq!(&found, &expected);
        if let Bound::Included(key) = &range.lower {
            let mut cursor = run.cursor();
            cursor.seek(key);
            let first = entries.iter().find(|(entry, _)| entry >= key);
            prop_assert_eq!(cursor.current().map(|(key, row)| (key.to_vec(), row)), first.cloned());
        }
    }
    Ok(())
}

fn picks() -> impl Strategy<Value = Vec<(u16, u16, u8)>> {
    proptest::collection::vec(any::<(u16, u16, u8)>(), 1..8)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_run_is_its_sorted_entries(keys in keys(), picks in picks(), own_rows: bool) {
        let rows: Vec<u32> = (0..keys.len() as u32).map(|row| (row ^ 0x15).wrapping_mul(0x9E37_79B1)).collect();
        let rows = own_rows.then_some(rows.as_slice());
        let entries = sorted(&keys, rows);
        let run = run_of(&keys, rows);
        check_run(&run, &entries, &picks)?;
        let bytes = run.to_bytes().concat();
        let again = IndexRun::from_bytes(Bytes::from(bytes.clone()), u32::MAX).expect("undamaged");
        check_run(&again, &entries, &picks)?;
        let mut builder = RunBuilder::new();
        entries.iter().for_each(|(key, row)| builder.push(key, *row));
        prop_assert_eq!(builder.finish().to_bytes().concat(), bytes);
    }

    #[test]
    fn duplicates_are_found(keys in keys()) {
        let entries = sorted(&keys, None);
        let mut expected = Vec::new();
        for pair in entries.windows(2).filter(|pair| pair[0].0 == pair[1].0) {
            expected.push((pair[0].0.clone(), pair[0].1, pair[1].1));
        }
        let run = run_of(&keys, None);
        let mut found = Vec::new();
        run.for_each_duplicate(&mut |key, a, b| {
            found.push((key.to_vec(), a, b));
            ControlFlow::Continue(())
        });
        prop_assert_eq!(run.first_live_duplicate(|_| true, |_| true), expected.first().map(|(key, _, _)| key.clone()));
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn common_keys_are_found(mut a in keys(), b in keys(), share in 0..30usize) {
        a.extend(b.iter().step_by(share + 1).cloned());
        let (left, right) = (run_of(&a, None), run_of(&b, None));
        let (a, b) = (sorted(&a, None), sorted(&b, None));
        let mut expected = Vec::new();
        for (key, row) in &a {
            let start = b.partition_point(|(other, _)| other < key);
            expected.extend(b[start..].iter().take_while(|(other, _)| other == key).take(20).map(|(_, other)| (key.clone(), *row, *other)));
        }
        // Many equal keys have too many pairs to list: the model is cut off, and so is the search.
        if expected.len() < 20_000 && b.chunk_by(|x, y| x.0 == y.0).all(|group| group.len() <= 20) {
            let mut found = Vec::new();
            for_each_common_key(&left, &right, &mut |key, rows, others| {
                found.extend(rows.iter().flat_map(|row| others.iter().map(|other| (key.to_vec(), *row, *other))));
                ControlFlow::Continue(())
            });
            prop_assert_eq!(&found, &expected);
        }
        prop_assert_eq!(first_common_key(&left, &right), expected.first().cloned());
    }

    #[test]
    fn damage_is_noticed(keys in keys(), at: u32, flip in 1..=255u8, cut: u32) {
        let bytes = run_of(&keys, None).to_bytes().concat();
        let mut damaged = bytes.clone();
        let at = at as usize % damaged.len();
        damaged[at] ^= flip;
        prop_assert!(IndexRun::from_bytes(Bytes::from(damaged), u32::MAX).is_err());
        prop_assert!(IndexRun::from_bytes(Bytes::from(bytes[..cut as usize % bytes.len()].to_vec()), u32::MAX).is_err());
    }

    #[test]
    fn forged_runs_do_no_harm(keys in keys(), changes in proptest::collection::vec((any::<u32>(), any::<u8>(), any::<bool>()), 1..4), picks in picks()) {
        let mut bytes = run_of(&keys, None).to_bytes().concat();
        for (at, value, in_front) in changes {
            let len = if in_front { bytes.len().min(90) } else { bytes.len() };
            let at = at as usize % len;
            bytes[at] = value;
        }
        let crc = format::checksum(&bytes);
        bytes[16..20].copy_from_slice(&crc.to_le_bytes());
        // Wrong answers are all that can be expected of a run whose checksum was forged; but no panic.
        if let Ok(run) = IndexRun::from_bytes(Bytes::from(bytes), u32::MAX) {
            for range in ranges(&sorted(&keys, None), &picks) {
                run.lookup(&range, &mut Vec::new());
                run.for_each_rev(&range, &mut |_, _| ControlFlow::Continue(()));
            }
            let _ = (all(&run), run.first_live_duplicate(|_| true, |_| true), first_common_key(&run, &run));
        }
    }

    #[test]
    fn the_hot_index_is_its_sorted_entries(keys in keys(), picks in picks(), below in 0..3000u32) {
        // No key may be the beginning of another, as keys of one encoder never are.
        let keys: Vec<Vec<u8>> = keys.into_iter().map(|key| key.iter().flat_map(|b| [1, *b]).chain([0]).collect()).collect();
        let hot = HotIndex::new();
        keys.iter().enumerate().for_each(|(row, key)| hot.insert(key, row as u32));
        prop_assert_eq!(hot.len(), keys.len());
        let mut entries = sorted(&keys, None);
        let whole = ranges(&entries, &picks);
        entries.retain(|(_, row)| *row < below);
        for range in whole {
            let expected: Entries = entries.iter().filter(|(key, _)| range.contains(key)).cloned().collect();
            let mut rows = Vec::new();
            hot.lookup(&range, below, &mut rows);
            prop_assert_eq!(rows, expected.iter().map(|(_, row)| *row).collect::<Vec<_>>());
            let mut found = Vec::new();
            hot.for_each_rev(&range, below, &mut |key, row| {
                found.push((key.to_vec(), row));
                ControlFlow::Continue(())
            });
            found.reverse();
            prop_assert_eq!(found, expected);
        }
        prop_assert_eq!(all(&hot.to_run(below)), entries);
    }
}

#[test]
fn hot_estimates_are_exact_while_small() {
    let hot = HotIndex::new();
    (0..2000u32).for_each(|row| hot.insert(&row.to_be_bytes(), row));
    let below = |key: u32| KeyRange::between(Bound::Unbounded, Bound::Excluded(&key.to_be_bytes()));
    assert_eq!(hot.estimate(&below(100)), 100);
    assert_eq!(hot.estimate(&below(1900)), 1000);
    assert_eq!(hot.estimate(&KeyRange::full()), 2000);
    assert!(hot.nbytes() > 2000 * 16);
}

#[test]
fn the_hot_index_is_shared() {
    let hot = HotIndex::new();
    std::thread::scope(|scope| {
        for part in 0..4u32 {
            let hot = &hot;
            scope.spawn(move || {
                for row in (part..40_000).step_by(4) {
                    hot.insert(&(row % 1000).to_be_bytes(), row);
                    let mut rows = Vec::new();
                    hot.lookup(&KeyRange::point(&(row % 1000).to_be_bytes()), u32::MAX, &mut rows);
                    assert!(rows.is_sorted() && rows.contains(&row));
                }
            });
        }
    });
    let found: BTreeSet<u32> = all(&hot.to_run(u32::MAX)).into_iter().map(|(_, row)| row).collect();
    assert!(found.into_iter().eq(0..40_000));
}

/// Runs that cannot be told apart from those of this version must be those of this version.
#[test]
fn golden_bytes() {
    let packed: Keys = [[1u8, 0, 5], [1, 2, 5], [1, 2, 5]].iter().map(|key| &key[..]).collect();
    let plain: Keys = [&b"ab"[..], b"abc", b"b"].into_iter().collect();
    let runs = [
        IndexRun::build(&packed, Some(&[9, 3, 7])),
        IndexRun::build(&plain, None),
        IndexRun::build(&Keys::default(), None),
    ];
    for (run, golden) in runs.iter().zip(GOLDEN) {
        let hex: String = run.to_bytes().concat().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, golden);
    }
}

const GOLDEN: [&str; 3] = [
    concat!(
        "475a4958010100040300000000000000992a922d010000003b00000000000000000203010300000001000000000000000000",
        "00000000000006012820000000000000003b0000000000000000000000000000000300000000000000060000000000000001",
        "0005010205",
    ),
    concat!(
        "475a4958010100040300000000000000a2c9e7b8010000004100000000000000010302000000000000000000000000000000",
        "00000000000024500d6162616263622000000000000000410000000000000000000000000000000200000000000000030000",
        "0000000000616262",
    ),
    concat!(
        "475a49580101000400000000000000002e6ba6a3000000002000000000000000200000000000000000000000000000000000",
        "000000000000",
    ),
];

#[test]
fn other_versions_are_named() {
    let mut bytes = run_of(&[vec![1]], None).to_bytes().concat();
    bytes[4] = 9;
    let error = IndexRun::from_bytes(Bytes::from(bytes), u32::MAX).expect_err("version 9 is unknown");
    assert!(matches!(&error, IndexError::Unsupported { what } if what.contains("version 9")), "{error}");
    let error = IndexRun::from_bytes(Bytes::from_static(b"PAR1 something else, long enough for it"), u32::MAX)
        .expect_err("not ours");
    assert!(matches!(error, IndexError::Corrupt { offset: 0, .. }));
}

#[test]
fn integer_keys_are_small() {
    let lines: Keys = (0..100_000u64)
        .map(|row| {
            [&((1 << 63) | (row / 4)).to_be_bytes()[..], &(0x8000_0000 | (row as u32 % 4)).to_be_bytes()].concat()
        })
        .collect::<Vec<_>>()
        .iter()
        .map(Vec::as_slice)
        .collect();
    let run = IndexRun::build(&lines, None);
    assert!(run.nbytes() < 4 * run.len(), "{} bytes for {} entries", run.nbytes(), run.len());
}

#[test]
fn many_keys_become_the_run_that_they_would_at_once() {
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state >> 33
    };
    for wide in [false, true] {
        let (mut all, mut sorter) = (Keys::default(), RunSorter::in_parts_of(8 << 20));
        for _ in 0..60 {
            let mut part = Keys::default();
            for _ in 0..10_000 {
                let key = next() % 300_000;
                match wide {
                    true => part.push(format!("a key of some length {key}").as_bytes()),
                    false => part.push(&key.to_be_bytes()),
                }
            }
            all.extend(&part);
            sorter.push(&part);
            assert!(sorter.nbytes() < 40 << 20, "{}", sorter.nbytes());
        }
        assert_eq!(sorter.finish().to_bytes(), IndexRun::build(&all, None).to_bytes());
    }
    assert_eq!(RunSorter::default().finish().len(), 0);
}
