//! Strings and binaries at given rows.

use std::ops::Range;

use vortex_array::ArrayRef as VortexArray;
use vortex_array::arrays::dict::DictArraySlotsExt;
use vortex_array::arrays::{Dict, VarBinView};
use vortex_error::{VortexResult, vortex_err};
use vortex_fsst::{FSST, FSSTArraySlotsExt};

use super::integers::Integers;

/// Strings or binaries one behind the other.
#[derive(Debug, Default)]
pub(super) struct ByteStrings {
    data: Vec<u8>,
    ends: Vec<usize>,
}

impl ByteStrings {
    fn push(&mut self, value: &[u8]) {
        self.data.extend_from_slice(value);
        self.ends.push(self.data.len());
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, end)| &self.data[start..*end])
    }
}

/// A column chunk of strings or binaries without NULL, as what has to be done to read one of them.
#[derive(Debug)]
pub(in super::super) enum Strings {
    /// As they are.
    Plain(VortexArray),
    /// With symbols for what is frequent: each value is the codes from its offset to the next one's.
    Symbols { array: VortexArray, offsets: Integers },
    /// The value of a row is the one at its code.
    Dictionary { codes: Integers, values: Box<Strings> },
}

impl Strings {
    /// `None` where the encoding has no short way to a single value.
    pub(super) fn of(array: &VortexArray) -> VortexResult<Option<Self>> {
        if array.dtype().is_nullable() {
            return Ok(None);
        }
        if let Some(dict) = array.as_opt::<Dict>() {
            let (Some(codes), Some(values)) = (Integers::of(dict.codes())?, Self::of(dict.values())?) else {
                return Ok(None);
            };
            return Ok(Some(Self::Dictionary { codes, values: Box::new(values) }));
        }
        if let Some(symbols) = array.as_opt::<FSST>() {
            let offsets = Integers::of(symbols.codes_offsets())?;
            return Ok(offsets.map(|offsets| Self::Symbols { array: array.clone(), offsets }));
        }
        Ok(array.is::<VarBinView>().then(|| Self::Plain(array.clone())))
    }

    /// What says where the value of a row is.
    pub(super) fn places(&self) -> Option<&Integers> {
        match self {
            Self::Dictionary { codes, .. } => Some(codes),
            Self::Symbols { offsets, .. } => Some(offsets),
            Self::Plain(_) => None,
        }
    }

    /// Appends the value of a row to `found`.
    ///
    /// # Errors
    /// If the row is not one of the column's, or what is found is not a value.
    pub(super) fn get(&self, row: usize, found: &mut ByteStrings) -> VortexResult<()> {
        match self {
            Self::Dictionary { codes, values } => {
                let code = codes.get(row)?;
                let code = u32::try_from(code).map_err(|_| vortex_err!("code {code} of a dictionary"))?;
                values.get(code as usize, found)
            }
            Self::Symbols { array, offsets } => {
                let symbols = array.as_opt::<FSST>().ok_or_else(|| changed(array))?;
                let place = offsets.get(row)? as usize..offsets.get(row + 1)? as usize;
                found.push(&symbols.decompressor().decompress(part(symbols.codes_bytes().as_slice(), place)?));
                Ok(())
            }
            Self::Plain(array) => {
                let plain = array.as_opt::<VarBinView>().ok_or_else(|| changed(array))?;
                let views = plain.views();
                let view = views.get(row).ok_or_else(|| vortex_err!("row {row} of {}", views.len()))?;
                if view.is_inlined() {
                    found.push(view.as_inlined().value());
                } else {
                    let place = view.as_view();
                    let buffers = plain.data_buffers().len();
                    if place.buffer_index as usize >= buffers {
                        return Err(vortex_err!("a value in buffer {} of {buffers}", place.buffer_index));
                    }
                    found.push(part(plain.buffer(place.buffer_index as usize).as_slice(), place.as_range())?);
                }
                Ok(())
            }
        }
    }
}

fn part(bytes: &[u8], place: Range<usize>) -> VortexResult<&[u8]> {
    let there = bytes.len();
    bytes.get(place.clone()).ok_or_else(|| vortex_err!("a value at bytes {place:?} of {there}"))
}

fn changed(array: &VortexArray) -> vortex_error::VortexError {
    vortex_err!("{} where there was another encoding", array.encoding_id())
}
