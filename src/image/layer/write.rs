//! The other way round: the changes of a container as a layer, and a whole tree as a tar.

use std::io::Write;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;

use crate::error::{Error, Result};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Added,
    Changed,
    Deleted,
}

/// One path that differs from the layers below, from the root, without a slash at its beginning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub kind: Kind,
    pub path: PathBuf,
}

/// What an upper directory changes in the layers below it (bottom first), sorted by path.
pub fn changes(_upper: BorrowedFd<'_>, _lowers: &[BorrowedFd<'_>]) -> Result<Vec<Change>> {
    Err(Error::new("changes cannot be listed yet"))
}

/// An upper directory as a layer: whiteouts as the image specification writes them.
pub fn layer_of(_upper: BorrowedFd<'_>, _out: &mut dyn Write) -> Result<()> {
    Err(Error::new("layers cannot be written yet"))
}

/// A whole tree as a tar.
pub fn tar_of(_root: BorrowedFd<'_>, _out: &mut dyn Write) -> Result<()> {
    Err(Error::new("trees cannot be written yet"))
}
