//! One process-wide compression set-up: which encodings may be written, and under which numbers.
//!
//! Only members of a frozen edition are written, so every later release of the library promises to read them. A blob
//! names its encodings by their position in [`WIRE_ENCODINGS`], which is therefore part of our file format: entries
//! are only ever appended.

use std::sync::LazyLock;

use vortex_array::{ArrayContext, ExecutionCtx, VortexSessionExecute, array_session};
use vortex_btrblocks::schemes::binary::BinaryDictScheme;
use vortex_btrblocks::schemes::string::{OnPairScheme, StringDictScheme};
use vortex_btrblocks::{BtrBlocksCompressor, BtrBlocksCompressorBuilder, CompressionSession, SchemeExt};
use vortex_edition::declarations::core::CORE_2026_08_3;
use vortex_edition::{ComponentKind, EDITION_DECLARATIONS, EDITION_FAMILIES, EditionSessionExt};
use vortex_error::VortexResult;
use vortex_session::VortexSession;
use vortex_session::registry::{Id, ReadContext};

use crate::engine::segment::{Result, SegmentError};

/// Every encoding a blob may name, by its number on disk. Append only.
const WIRE_ENCODINGS: [&str; 34] = [
    "vortex.null",
    "vortex.bool",
    "vortex.primitive",
    "vortex.decimal",
    "vortex.varbin",
    "vortex.varbinview",
    "vortex.ext",
    "vortex.constant",
    "vortex.chunked",
    "vortex.dict",
    "vortex.masked",
    "vortex.sparse",
    "vortex.sequence",
    "vortex.runend",
    "vortex.zigzag",
    "vortex.bytebool",
    "vortex.alp",
    "vortex.alprd",
    "vortex.fsst",
    "vortex.onpair",
    "vortex.datetimeparts",
    "vortex.decimal_byte_parts",
    "fastlanes.bitpacked",
    "fastlanes.for",
    "fastlanes.rle",
    "vortex.struct",
    "vortex.list",
    "vortex.listview",
    "vortex.fixed_size_list",
    "vortex.map",
    "vortex.variant",
    "vortex.parquet.variant",
    "vortex.pco",
    "vortex.zstd",
];

/// The library's session, the compressor built from it, and the two directions of the encoding numbers.
pub(super) struct Encodings {
    pub(super) session: VortexSession,
    pub(super) compressor: BtrBlocksCompressor,
    pub(super) write: ArrayContext,
    pub(super) read: ReadContext,
}

impl Encodings {
    pub(super) fn context(&self) -> ExecutionCtx {
        self.session.create_execution_ctx()
    }
}

/// The one set-up of this process.
///
/// # Errors
/// [`SegmentError::Internal`] if the library refuses its own edition.
pub(super) fn encodings() -> Result<&'static Encodings> {
    static ENCODINGS: LazyLock<Result<Encodings, String>> = LazyLock::new(|| build().map_err(|e| e.to_string()));
    ENCODINGS.as_ref().map_err(|e| SegmentError::internal("setting up the encodings", e))
}

fn build() -> VortexResult<Encodings> {
    let session = array_session().with::<CompressionSession>();
    vortex_arrow::initialize(&session);
    vortex_alp::initialize(&session);
    vortex_decimal_byte_parts::initialize(&session);
    vortex_fastlanes::initialize(&session);
    vortex_fsst::initialize(&session);
    vortex_onpair::initialize(&session);
    vortex_runend::initialize(&session);
    vortex_sequence::initialize(&session);
    vortex_sparse::initialize(&session);
    vortex_zigzag::initialize(&session);
    for family in EDITION_FAMILIES {
        session.editions().declare_family(family)?;
    }
    for declaration in EDITION_DECLARATIONS {
        session.register_edition(declaration)?;
    }
    // Without an enabled edition the compressor would leave everything as it is, and say nothing.
    session.enable_edition(CORE_2026_08_3)?;

    let compressor = BtrBlocksCompressorBuilder::from_session(&session)
        // Our own dictionaries are sorted, and found faster. OnPair decodes more slowly for little gain.
        .exclude_schemes([StringDictScheme.id(), BinaryDictScheme.id(), OnPairScheme.id()])
        .build();
    let ids: Vec<Id> = WIRE_ENCODINGS.into_iter().map(Id::new_static).collect();
    let permitted = session.enabled_component_ids(ComponentKind::Array).into_iter().collect();
    Ok(Encodings {
        compressor,
        write: ArrayContext::new(ids.clone()).with_allowed_ids(permitted),
        read: ReadContext::new(ids),
        session,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A number for every member of the edition, and none for anything else: otherwise a blob would name an encoding
    /// by a number nobody agreed on.
    #[test]
    fn wire_numbers_cover_exactly_the_edition() -> Result<()> {
        let encodings = encodings()?;
        let mut numbered: Vec<&str> = WIRE_ENCODINGS.to_vec();
        numbered.sort_unstable();
        let permitted: Vec<String> =
            encodings.session.enabled_component_ids(ComponentKind::Array).iter().map(Id::to_string).collect();
        assert_eq!(numbered, permitted);
        Ok(())
    }
}
