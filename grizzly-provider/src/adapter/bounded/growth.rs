//! What the size of a function's result follows from.

use datafusion::{
    common::ScalarValue,
    error::{DataFusionError, Result},
    logical_expr::{ColumnarValue, ScalarFunctionArgs},
};

use super::{
    concat, refused,
    sizes::{Numbers, elements, interval, numbers, size_of_one, sizes},
};

/// A function of which a result can be much larger than its arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Growth {
    /// A text, so often.
    Repeat,
    /// A text of so many characters.
    Pad,
    /// What lies between two numbers, or two points in time.
    Range,
    /// A value, so often.
    RepeatElement,
    /// A list of so many values.
    Resize,
    /// A text with parts of it replaced by another.
    Replace,
    /// A text with what matches a pattern replaced by another.
    ReplaceMatches,
    /// A list with elements of it replaced by another.
    ReplaceElements,
    /// A text with its characters replaced by others, of up to four bytes.
    Translate,
    /// All its arguments, one behind the other.
    Together,
    /// The same, with the first between the others.
    TogetherWith,
    /// The elements of a list as texts, with another between them.
    ListText,
    /// As the format has it.
    Format,
    /// None, but a table of one text by the other is filled in.
    Table,
}

/// The longest text that a value other than a text becomes.
const TEXT_OF_VALUE: i128 = 32;
/// Places of a table that one call may fill in: some seconds.
const MOST_PLACES: u64 = 1 << 32;
/// The longest text that a pattern of one character becomes in a format of `to_char`.
const TEXT_OF_PATTERN: i128 = 12;

impl Growth {
    pub(super) fn of(function: &str) -> Option<Self> {
        Some(match function {
            "repeat" => Self::Repeat,
            "lpad" | "rpad" => Self::Pad,
            "range" | "generate_series" => Self::Range,
            "array_repeat" => Self::RepeatElement,
            "array_resize" => Self::Resize,
            "replace" => Self::Replace,
            "regexp_replace" => Self::ReplaceMatches,
            "array_replace" | "array_replace_n" | "array_replace_all" => Self::ReplaceElements,
            "translate" => Self::Translate,
            concat::NAME | "concat" | "make_array" | "array_concat" | "array_append" | "array_prepend" => {
                Self::Together
            }
            "concat_ws" => Self::TogetherWith,
            "array_to_string" => Self::ListText,
            "to_char" => Self::Format,
            "levenshtein" => Self::Table,
            _ => return None,
        })
    }

    /// How much one call may make; of tables, how many places it may fill in. Each takes about a nanosecond.
    pub(super) fn most(self, bytes: usize) -> u64 {
        if self == Self::Table { MOST_PLACES } else { bytes as u64 }
    }

    /// The error of a call that would make so much more.
    pub(super) fn refused(self, function: &str, bytes: u64, most: usize) -> DataFusionError {
        if self != Self::Table {
            return refused(function, bytes, most);
        }
        DataFusionError::ResourcesExhausted(format!(
            "{function} would compare texts by {bytes} pairs of bytes at once; {MOST_PLACES} are allowed"
        ))
    }

    /// What one row's result takes, where that can be told without making it.
    pub(super) fn exactly(self, args: &[ColumnarValue], row: usize) -> Result<Option<u64>> {
        let (Self::Replace, [text, from, to]) = (self, args) else { return Ok(None) };
        let value = |value: &ColumnarValue| match value {
            ColumnarValue::Array(array) => ScalarValue::try_from_array(array, row),
            ColumnarValue::Scalar(scalar) => Ok(scalar.clone()),
        };
        let (text, from, to) = (value(text)?, value(from)?, value(to)?);
        let text_of = |value: &ScalarValue| value.try_as_str().flatten().map(str::to_owned);
        Ok(match (text_of(&text), text_of(&from), text_of(&to)) {
            (Some(text), Some(from), Some(to)) => {
                let found = text.matches(from.as_str()).count();
                Some((text.len() + found.saturating_mul(to.len().saturating_sub(from.len()))) as u64)
            }
            _ => Some(0),
        })
    }

    /// Whether results are often much smaller than [`Growth::bytes`] has it.
    pub(super) fn is_rough(self) -> bool {
        matches!(self, Self::Replace | Self::ReplaceMatches | Self::ReplaceElements | Self::Translate)
    }

    /// Whether a row is NULL where an argument is.
    fn is_strict(self) -> bool {
        matches!(self, Self::Repeat | Self::Pad | Self::Range | Self::Replace | Self::ReplaceMatches | Self::Table)
    }

    /// The bytes of results, at most, or about.
    pub(super) fn bytes(self, args: &ScalarFunctionArgs) -> Result<Bytes> {
        let values = args.args.as_slice();
        let (columns, of_row): (_, OfRow) = match (self, values) {
            (Self::Repeat, [text, count, ..]) => (vec![sizes(text)?, numbers(count)?], |row| product(row[0], row[1])),
            (Self::Pad, [_, length, ..]) => (vec![numbers(length)?], |row| row[0]),
            (Self::RepeatElement | Self::Resize, [element, count, more @ ..]) => {
                // `array_resize` has the list first, and what fills it up last.
                let element =
                    if self == Self::Resize { more.first().map_or(8, size_of_one) } else { size_of_one(element) };
                (vec![numbers(count)?, Numbers::Same(Some(element.max(8)))], |row| product(row[0], row[1]))
            }
            (Self::Range, [stop]) => (vec![numbers(stop)?], |row| product(8, row[0])),
            (Self::Range, [start, stop]) => {
                (vec![numbers(start)?, numbers(stop)?], |row| product(8, row[1].saturating_sub(row[0])))
            }
            (Self::Range, [start, stop, step, ..]) if step.data_type().is_integer() => {
                (vec![numbers(start)?, numbers(stop)?, numbers(step)?], |row| {
                    steps(row[1].saturating_sub(row[0]), row[2])
                })
            }
            (Self::Range, [start, stop, step, ..]) => (vec![numbers(start)?, numbers(stop)?, interval(step)], |row| {
                steps(row[1].saturating_sub(row[0]).saturating_abs(), row[2])
            }),
            (Self::Replace, [text, from, to]) => (vec![sizes(text)?, sizes(from)?, sizes(to)?], |row| replaced(row)),
            (Self::ReplaceMatches, [text, _, to, flags @ ..]) => {
                let all = !flags.is_empty();
                let columns = vec![sizes(text)?, sizes(to)?, Numbers::Same(Some(i128::from(references(to))))];
                (columns, if all { all_matches } else { first_match })
            }
            (Self::ReplaceElements, [list, _, to, ..]) => {
                let columns = vec![sizes(list)?, elements(list)?, sizes(to)?];
                (columns, |row| product(row[1], row[2]).saturating_add(row[0]))
            }
            (Self::Translate, [text, ..]) => (vec![sizes(text)?], |row| product(row[0], 4)),
            (Self::Together, values) => (values.iter().map(sizes).collect::<Result<_>>()?, |row| row.iter().sum()),
            (Self::TogetherWith, values) => (values.iter().map(sizes).collect::<Result<_>>()?, |row| {
                product(row.first().copied().unwrap_or(0), row.len() as i128) + row.iter().skip(1).sum::<i128>()
            }),
            (Self::ListText, [list, between, ..]) => {
                let columns = vec![sizes(list)?, elements(list)?, sizes(between)?];
                (columns, |row| product(row[1], row[2] + TEXT_OF_VALUE).saturating_add(row[0]))
            }
            (Self::Format, [_, format, ..]) => (vec![sizes(format)?], |row| product(row[0], TEXT_OF_PATTERN)),
            (Self::Table, [left, right, ..]) => (vec![sizes(left)?, sizes(right)?], |row| product(row[0], row[1])),
            _ => (Vec::new(), |_| 0),
        };
        // Computed once, whatever the number of rows.
        let once = values.iter().all(|value| matches!(value, ColumnarValue::Scalar(_)));
        let rows = if once { args.number_rows.min(1) } else { args.number_rows };
        Ok(Bytes { rows, columns, strict: self.is_strict(), of_row })
    }
}

/// What each row of a result takes.
pub(super) struct Bytes {
    rows: usize,
    columns: Vec<Numbers>,
    strict: bool,
    of_row: OfRow,
}

/// The bytes of a row, by a number for each column.
type OfRow = fn(&[i128]) -> i128;

impl Bytes {
    /// Those of all rows.
    pub(super) fn all(&self) -> u64 {
        let mut values = vec![0; self.columns.len()];
        (0..self.rows).map(|row| self.by_values(row, &mut values)).fold(0, u64::saturating_add)
    }

    /// Those of one row; what is negative is nothing.
    pub(super) fn of_row(&self, row: usize) -> u64 {
        self.by_values(row, &mut vec![0; self.columns.len()])
    }

    /// The same, with room for a value of each column.
    fn by_values(&self, row: usize, values: &mut [i128]) -> u64 {
        for (value, column) in values.iter_mut().zip(&self.columns) {
            *value = match column.get(row) {
                Some(value) => value,
                None if self.strict => return 0,
                None => 0,
            };
        }
        u64::try_from((self.of_row)(values).max(0)).unwrap_or(u64::MAX)
    }
}

fn product(left: i128, right: i128) -> i128 {
    left.max(0).saturating_mul(right.max(0))
}

fn steps(distance: i128, step: i128) -> i128 {
    if step == 0 { 0 } else { product(8, distance / step) }
}

/// An empty text is found before each character and at the end.
fn replaced(row: &[i128]) -> i128 {
    let (text, from, to) = (row[0], row[1], row[2]);
    let found = if from == 0 { text + 1 } else { text / from };
    text.saturating_add(product(found, to - from))
}

/// Each reference of the replacement is a part of what was matched.
fn first_match(row: &[i128]) -> i128 {
    product(row[0], 1 + row[2]).saturating_add(row[1])
}

fn all_matches(row: &[i128]) -> i128 {
    product(row[0], 1 + row[2]).saturating_add(product(row[0] + 1, row[1]))
}

/// How often a replacement may name what was matched.
fn references(replacement: &ColumnarValue) -> u32 {
    let count = |text: &str| text.bytes().filter(|byte| matches!(byte, b'\\' | b'$')).count();
    match replacement {
        ColumnarValue::Scalar(ScalarValue::Utf8(Some(text)) | ScalarValue::Utf8View(Some(text))) => {
            u32::try_from(count(text)).unwrap_or(u32::MAX)
        }
        _ => 1,
    }
}
