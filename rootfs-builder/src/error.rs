//! The one error of the builder: what failed, why, and what to do next.
//!
//! The same three words as jug's own error, without the way across a fork. It is returned once and printed once, in
//! `main`; nothing here logs.

use std::fmt;

pub type Result<T> = std::result::Result<T, Error>;

/// What failed (one sentence, with the path it failed on), and where we know them the cause and the next step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    what: String,
    why: Option<String>,
    next: Option<String>,
}

impl Error {
    pub fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), why: None, next: None }
    }

    /// The cause.
    #[must_use]
    pub fn why(mut self, why: impl fmt::Display) -> Self {
        self.why = Some(why.to_string());
        self
    }

    /// The next step for the person who reads it.
    #[must_use]
    pub fn next(mut self, next: impl Into<String>) -> Self {
        self.next = Some(next.into());
        self
    }

    /// Puts what was being done in front: `doing: what`.
    #[must_use]
    pub fn context(mut self, doing: impl fmt::Display) -> Self {
        self.what = format!("{doing}: {}", self.what);
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        if let Some(why) = &self.why {
            write!(f, "\nwhy: {why}")?;
        }
        if let Some(next) = &self.next {
            write!(f, "\nnext: {next}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

/// Turns a failed call into a sentence: `cannot {doing}: {error}`.
pub trait Doing<T> {
    fn doing(self, doing: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: fmt::Display> Doing<T> for std::result::Result<T, E> {
    fn doing(self, doing: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| Error::new(format!("cannot {}: {error}", doing())))
    }
}
