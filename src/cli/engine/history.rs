//! `jug history`: the steps that an image was made in.

use serde_json::json;

use super::Global;
use super::format::Format;
use super::shown::{ago, id, print, size, time};
use crate::error::Result;

/// Show the steps that an image was made in
#[derive(Debug, clap::Args)]
pub struct History {
    image: String,
    /// Sizes and dates for people
    #[arg(short = 'H', long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1,
          default_missing_value = "true", value_name = "BOOL")]
    human: bool,
    /// Whole ids and commands
    #[arg(long)]
    no_trunc: bool,
    /// Only the ids
    #[arg(short, long)]
    quiet: bool,
    /// `table`, `json`, or a Go template such as '{{.CreatedBy}}'
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
}

/// The longest command that the table shows, in characters.
const COMMAND: usize = 45;

impl History {
    pub fn perform(self, global: &Global) -> Result<u8> {
        let store = global.store()?;
        let image = store.find(&self.image)?;
        let mut sizes = Vec::new();
        for chain in &image.chains {
            sizes.push(store.layer(chain)?.map_or(0, |layer| layer.meta.bytes));
        }
        let mut sizes = sizes.into_iter();
        let mut rows = Vec::new();
        for step in image.config.history().iter().flatten() {
            let bytes = if step.empty_layer() == Some(true) { 0 } else { sizes.next().unwrap_or(0) };
            let created = step.created().clone().unwrap_or_default();
            let mut by = step.created_by().clone().unwrap_or_default().replace('\t', " ");
            if !self.no_trunc && by.chars().count() > COMMAND {
                by = by.chars().take(COMMAND - 1).chain(['…']).collect();
            }
            rows.push(json!({
                "ID": "<missing>", "CreatedAt": created, "CreatedBy": by,
                "CreatedSince": match time(&created) {
                    _ if !self.human => created.clone(),
                    None => "N/A".to_owned(),
                    Some(then) => ago(then),
                },
                "Size": if self.human { size(bytes) } else { bytes.to_string() },
                "Comment": step.comment().clone().unwrap_or_default(),
            }));
        }
        // Layers that no step tells of.
        rows.extend(sizes.map(|bytes| {
            json!({
                "ID": "<missing>", "CreatedAt": "", "CreatedBy": "", "CreatedSince": "N/A", "Size": size(bytes),
                "Comment": "",
            })
        }));
        rows.reverse();
        if let Some(newest) = rows.first_mut() {
            newest["ID"] = json!(id(image.id.as_ref(), self.no_trunc));
        }
        if self.quiet {
            let line = |row: &serde_json::Value| format!("{}\n", row["ID"].as_str().unwrap_or_default());
            print(&rows.iter().map(line).collect::<String>())?;
            return Ok(0);
        }
        let columns = [
            ("IMAGE", "ID"),
            ("CREATED", "CreatedSince"),
            ("CREATED BY", "CreatedBy"),
            ("SIZE", "Size"),
            ("COMMENT", "Comment"),
        ];
        print(&Format::parse(self.format.as_deref())?.list(&rows, &columns)?)?;
        Ok(0)
    }
}
