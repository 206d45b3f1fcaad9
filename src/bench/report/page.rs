//! The page for the browser.
use crate::bench::results::Results;
pub fn page(_results: &Results) -> String { String::new() }
