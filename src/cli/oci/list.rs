//! `list`: all containers under the state root.

use clap::Args;

use super::Globals;
use crate::cli::log;
use crate::container::Container;
use crate::error::{Error, Result};

/// List the containers under --root
#[derive(Debug, Args)]
pub struct List {
    /// table or json
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    format: String,
    /// Print the ids only
    #[arg(short, long)]
    quiet: bool,
}

impl List {
    pub fn perform(self, globals: &Globals) -> Result<i32> {
        let mut containers = Vec::new();
        match globals.root() {
            Ok(root) => {
                for id in root.ids()? {
                    // One that vanishes or is still being made is not listed; a damaged one does not hide the others.
                    match Container::load(&root, &id) {
                        Ok(container) => containers.push(container),
                        Err(e) => log::debug(&format!("{}: {e}", id.as_str())),
                    }
                }
            }
            Err(e) if e.what() == "container does not exist" => {}
            Err(e) => return Err(e),
        }
        if self.quiet {
            containers.iter().for_each(|c| log::print(&format!("{}\n", c.record.id)));
            return Ok(0);
        }
        let states: Vec<_> = containers.iter().filter_map(|c| c.state().ok()).collect();
        match self.format.as_str() {
            "table" => log::print(&table(&states)),
            // A list that Go never began is null.
            "json" if states.is_empty() => log::print("null\n"),
            "json" => {
                let text = serde_json::to_string(&states)
                    .map_err(|e| Error::new(format!("writing the list: {e}")))?;
                log::print(&(text + "\n"));
            }
            other => {
                return Err(Error::new(format!("invalid format option {other:?}")).next("use table or json"));
            }
        }
        Ok(0)
    }
}

/// Columns as Go's tabwriter lays them out: at least 12 wide, a blank between.
fn table(states: &[crate::container::status::State<'_>]) -> String {
    let head = ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_owned);
    let mut rows = vec![head];
    for s in states {
        let owner = s.owner.clone();
        rows.push([
            s.id.to_owned(),
            s.pid.to_string(),
            s.status.clone(),
            s.bundle.display().to_string(),
            s.created.to_owned(),
            owner,
        ]);
    }
    let width = |column: usize| rows.iter().map(|r| r[column].chars().count() + 1).max().unwrap_or(0).max(12);
    let widths: Vec<usize> = (0..5).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        for (cell, width) in row.iter().zip(&widths) {
            text += &format!("{cell:width$}");
        }
        text += &row[5];
        text.push('\n');
    }
    text
}
