//! x
use crate::worker::Worker;
pub fn prove(_worker: &mut Worker) -> std::io::Result<()> { Ok(()) }
