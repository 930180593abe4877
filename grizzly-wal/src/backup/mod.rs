//! Backups: copies of a database's files and of its log, in chains that can be verified and restored as bytes.
//!
//! A *full* backup begins a chain; each *incremental* one continues the newest. A backup holds a *state* (what the
//! engine calls its manifest, opaque here), the files it names, and the log since the backup before. Restoring takes
//! a state of the chain and the log behind it, up to any commit. FORMAT.md draws the bytes.

mod chain;
mod create;
mod log_piece;
mod manifest;
mod piece;
mod prune;
mod restore;

pub use chain::{BackupCheck, Backups};
pub use create::{BackupSource, create};
pub use manifest::{Backup, End, FilePiece, LogPiece, LoggedFile, Piece, State};
pub use prune::Pruned;
pub use restore::{RestorePlan, Restored};

/// Told what was read of a file that is to be copied; an error if that is not what was once written.
pub type FileCheck<'a> = &'a dyn Fn(&str, &bytes::Bytes) -> crate::error::Result<()>;

/// Told how many pieces are done, and how many there are in all.
pub type Progress<'a> = &'a mut dyn FnMut(u64, u64);
