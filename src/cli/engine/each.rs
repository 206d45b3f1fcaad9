//! Verbs that do the same to several containers: each name is printed as it was typed when it is done, each failure is
//! said, and one failure is enough for exit code 1.

use super::Global;
use crate::cli::log;
use crate::engine::container::Container;
use crate::engine::place::Place;
use crate::error::Result;

pub fn place(global: &Global) -> Result<Place> {
    Place::new(global.root.as_deref(), global.runroot.as_deref())
}

pub fn find(global: &Global, name: &str) -> Result<Container> {
    Container::find(&place(global)?, name)
}

/// Does it to every one; what it gives is printed, or the name.
pub fn each(
    global: &Global,
    names: &[String],
    mut deed: impl FnMut(Container) -> Result<Option<String>>,
) -> Result<u8> {
    let mut code = 0;
    for name in names {
        match find(global, name).and_then(&mut deed) {
            Ok(said) => log::print(&format!("{}\n", said.as_deref().unwrap_or(name))),
            Err(e) => {
                log::fatal(&format!("Error: {e}"));
                code = 1;
            }
        }
    }
    Ok(code)
}
