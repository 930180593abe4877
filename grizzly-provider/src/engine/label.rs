//! What a file below `data/` says of itself, under a checksum: to whom it belongs, and which file it is.
//!
//! A segment has its label in its footer. Index runs and lists of ended rows are read as a whole, and end with theirs:
//!
//! ```text
//! content | label, JSON | length of the label u32 | crc32c u32 of all before | magic "GZLABEL1"
//! ```
//!
//! Numbers are little-endian. Each segment is made with a random mark, which the manifest or the log has too, and all
//! its files carry. So a file that was put in the place of another one, be it of the same name from another database
//! or from a copy of this one, is told from it. Files of earlier versions carry no label; beside a segment with a mark
//! they are refused.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::segment::meta::{SegmentMeta, checkpoint_of_list, run_of_path, segment_of_path};
use crate::error::{Error, Result};

const MAGIC: &[u8; 8] = b"GZLABEL1";
/// Bytes behind a label.
const TRAILER: usize = 16;

/// Which file it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Label {
    /// The database that made the segment; one restored from a backup goes on with it. Nil for a segment without a
    /// mark.
    pub(crate) database: Uuid,
    /// The table; 0 for a segment without a mark.
    pub(crate) table: u64,
    pub(crate) segment: u32,
    /// The epoch in which the segment was made.
    pub(crate) epoch: u64,
    /// Random, the segment's; nil for a segment of an earlier version.
    pub(crate) mark: Uuid,
    #[serde(flatten)]
    pub(crate) part: Part,
}

/// Which of a segment's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum Part {
    /// Its rows.
    Segment,
    /// Its run of an index.
    Run { index: u32 },
    /// A list of its ended rows, which a writer made at a checkpoint.
    Ended { checkpoint: u64, writer: u64 },
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.part {
            Part::Segment => write!(f, "the rows")?,
            Part::Run { index } => write!(f, "the run of index {index}")?,
            Part::Ended { checkpoint, writer } => {
                write!(f, "the ended rows at checkpoint {checkpoint} (epoch {writer})")?;
            }
        }
        let Self { segment, epoch, mark, table, database, .. } = self;
        write!(f, " of segment {segment} (epoch {epoch}, mark {mark}) of table {table} of database {database}")
    }
}

impl Label {
    /// A segment in the making.
    pub(crate) fn new(database: Uuid, table: u64, segment: u32, epoch: u64) -> Self {
        Self { database, table, segment, epoch, mark: Uuid::new_v4(), part: Part::Segment }
    }

    /// A segment of an earlier version, of which nothing but its name is known.
    pub(crate) fn of_name(meta: &SegmentMeta) -> Self {
        let (segment, epoch) = meta.key();
        Self { database: Uuid::nil(), table: 0, segment, epoch, mark: Uuid::nil(), part: Part::Segment }
    }

    /// Another file of the same segment.
    pub(crate) fn with(&self, part: Part) -> Self {
        Self { part, ..self.clone() }
    }

    /// Whether the segment is one of those that have a mark, as all their files then do.
    fn is_marked(&self) -> bool {
        !self.mark.is_nil()
    }

    /// Whether it belongs to a file of this name, of a segment with this mark if that is known.
    pub(crate) fn fits(&self, path: &str, mark: Option<Uuid>) -> bool {
        let fits = match self.part {
            Part::Segment => path.ends_with(".seg"),
            Part::Run { index } => run_of_path(path).is_some_and(|(_, named)| named == index),
            Part::Ended { checkpoint, writer } => checkpoint_of_list(path) == Some((checkpoint, writer)),
        };
        fits && segment_of_path(path) == Some((self.segment, self.epoch)) && mark.is_none_or(|mark| mark == self.mark)
    }

    /// An error if the file at `path`, which says that it is `found`, is not this one.
    pub(crate) fn check(&self, path: &str, found: Option<&Self>) -> Result<()> {
        match found {
            Some(found) if found == self => Ok(()),
            None if !self.is_marked() => Ok(()),
            Some(found) => Err(Error::corrupt(format!("'{path}' was exchanged: it is {found}, not {self}"))),
            None => Err(Error::corrupt(format!(
                "'{path}' was exchanged or damaged: it does not say what it is, and should be {self}"
            ))),
        }
    }
}

/// The parts of a file with this content and label.
pub(crate) fn labelled(mut content: Vec<Bytes>, label: &Label) -> Result<Vec<Bytes>> {
    let mut end =
        serde_json::to_vec(label).map_err(|error| Error::internal("a label cannot be written").with_source(error))?;
    end.extend_from_slice(&(end.len() as u32).to_le_bytes());
    let crc = content.iter().map(Bytes::as_ref).chain([end.as_slice()]).fold(0, crc32c::crc32c_append);
    end.extend_from_slice(&crc.to_le_bytes());
    end.extend_from_slice(MAGIC);
    content.push(end.into());
    Ok(content)
}

/// The content of the file at `path`, which must be the one with this label.
pub(crate) fn content(path: &str, file: &Bytes, label: &Label) -> Result<Bytes> {
    let found = split(path, file)?;
    label.check(path, found.as_ref().map(|(_, label)| label))?;
    Ok(found.map_or_else(|| file.clone(), |(content, _)| content))
}

/// What the file at `path` says that it is, if it does.
pub(crate) fn of_file(path: &str, file: &Bytes) -> Result<Option<Label>> {
    Ok(split(path, file)?.map(|(_, label)| label))
}

/// Content and label of a file; `None` if it has none.
fn split(path: &str, file: &Bytes) -> Result<Option<(Bytes, Label)>> {
    let Some((rest, magic)) = file.split_last_chunk::<8>().filter(|(rest, _)| rest.len() >= TRAILER - 8) else {
        return Ok(None);
    };
    if magic != MAGIC {
        return Ok(None);
    }
    let damaged = |what: &str| Error::corrupt(format!("'{path}' is damaged: {what}"));
    let number = |at: usize| u32::from_le_bytes([rest[at], rest[at + 1], rest[at + 2], rest[at + 3]]);
    let end = rest.len() - 8;
    if crc32c::crc32c(&rest[..end + 4]) != number(end + 4) {
        return Err(damaged("its checksum is wrong"));
    }
    let start = end.checked_sub(number(end) as usize).ok_or_else(|| damaged("its label has no beginning"))?;
    let label = serde_json::from_slice(&rest[start..end])
        .map_err(|error| damaged("its label cannot be read").with_source(error))?;
    Ok(Some((file.slice(..start), label)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn label() -> Label {
        Label::new(Uuid::new_v4(), 3, 7, 2)
    }

    fn file(content: &'static [u8], label: &Label) -> Bytes {
        labelled(vec![Bytes::from_static(content)], label).expect("a label can be written").concat().into()
    }

    #[test]
    fn a_file_is_taken_for_itself_only() {
        let run = label().with(Part::Run { index: 1 });
        let stored = file(b"content", &run);
        assert_eq!(content("a", &stored, &run).expect("it is this one"), "content");
        let others = [
            run.with(Part::Run { index: 2 }),
            run.with(Part::Ended { checkpoint: 1, writer: 2 }),
            Label { table: 4, ..run.clone() },
            Label { epoch: 3, ..run.clone() },
            Label { segment: 8, ..run.clone() },
            Label { database: Uuid::new_v4(), ..run.clone() },
            Label { mark: Uuid::new_v4(), ..run.clone() },
        ];
        for other in others {
            let error = content("data/a", &stored, &other).expect_err("it is another one");
            assert!(error.kind() == ErrorKind::Corrupt && error.to_string().contains("'data/a'"), "{error}");
        }
    }

    #[test]
    fn without_a_label_only_files_of_segments_without_a_mark_pass() {
        let plain = Bytes::from_static(b"an index run of an earlier version");
        assert!(content("a", &plain, &label()).is_err());
        let unmarked = Label { database: Uuid::nil(), table: 0, mark: Uuid::nil(), ..label() };
        assert_eq!(content("a", &plain, &unmarked).expect("there was none"), plain);
        assert!(content("a", &file(b"content", &label()), &unmarked).is_err());
    }

    #[test]
    fn damage_and_bytes_at_the_end_are_found() {
        let label = label();
        let stored = file(b"content", &label);
        for at in 0..stored.len() {
            let mut damaged = stored.to_vec();
            damaged[at] ^= 1;
            assert!(content("a", &damaged.into(), &label).is_err(), "byte {at}");
            assert!(content("a", &stored.slice(..at), &label).is_err(), "length {at}");
        }
        assert!(content("a", &[&stored[..], b"\0"].concat().into(), &label).is_err());
    }
}
