//! `jug system`: whether the store is whole, and what this machine is like. How much room there is: `room`.

use std::io::{BufRead as _, IsTerminal as _};

use clap::Subcommand;
use serde_json::json;

use super::Global;
use super::room::{Df, Prune};
use super::shown::{inspected, print, tell};
use super::transfer::shown_or;
use crate::error::{Error, Result};
use crate::image::repair::repair;
use crate::image::source::Access;
use crate::image::store::Store;

/// The store: its size, its health, what can go
#[derive(Debug, clap::Args)]
pub struct System {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Df(Df),
    Fsck(Fsck),
    Info(Info),
    Prune(Prune),
}

/// Look for damage in the store
#[derive(Debug, clap::Args)]
struct Fsck {
    /// Read every byte of every blob and layer
    #[arg(long)]
    deep: bool,
    /// Move what is damaged aside, and bring it again
    #[arg(long)]
    repair: bool,
}

/// Show what this machine and this store are like
#[derive(Debug, clap::Args)]
pub struct Info {
    /// `json`, or a Go template such as '{{.Images}}'
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
}

impl System {
    pub fn perform(self, global: &Global) -> Result<u8> {
        match self.verb {
            Verb::Df(verb) => verb.perform(global),
            Verb::Fsck(verb) => verb.perform(&global.store()?),
            Verb::Info(verb) => verb.perform(global),
            Verb::Prune(verb) => verb.perform(global),
        }
    }
}

/// Asks on the terminal; without one, nobody agrees.
pub fn agreed(what: &str) -> Result<bool> {
    if !std::io::stdin().is_terminal() {
        return Err(Error::new("there is no terminal to ask on").next("say --force"));
    }
    tell(&format!("{what}\nGo on? [y/N]"));
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer).map_err(|e| Error::new(format!("the answer: {e}")))?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

impl Fsck {
    fn perform(self, store: &Store) -> Result<u8> {
        let found = store.fsck(self.deep)?;
        for damage in &found {
            print(&format!("{}: {}\n", damage.path, damage.what))?;
        }
        if found.is_empty() {
            return Ok(0);
        }
        if !self.repair {
            tell(
                "Error: the store is damaged\nnext: jug system fsck --repair moves it aside, and brings it again",
            );
            return Ok(1);
        }
        let mut images = Vec::new();
        for damage in &found {
            if let Some(place) = store.quarantine(damage)? {
                tell(&format!("{} is now {place}", damage.path));
            }
            images.extend(damage.images.iter().cloned());
        }
        images.sort_by(|a, b| a.digest().cmp(b.digest()));
        images.dedup();
        let mut code = 0;
        for id in &images {
            match repair(store, id, &Access::default(), &*shown_or(false)) {
                Ok(_) => tell(&format!("image {id} is whole")),
                Err(error) => {
                    tell(&format!("Error: image {id}: {error}"));
                    code = 1;
                }
            }
        }
        for damage in store.fsck(false)? {
            tell(&format!("Error: still damaged: {}: {}", damage.path, damage.what));
            code = 1;
        }
        Ok(code)
    }
}

impl Info {
    pub fn perform(self, global: &Global) -> Result<u8> {
        let store = global.store()?;
        let text = |path: &str| {
            crate::sys::path::open(std::path::Path::new(path), libc::O_RDONLY)
                .and_then(|file| crate::sys::fd::read_to_end(std::os::fd::AsFd::as_fd(&file), 64 << 10))
                .map_or_else(|_| String::new(), |bytes| String::from_utf8_lossy(&bytes).trim().to_owned())
        };
        let memory = text("/proc/meminfo");
        let total = memory
            .lines()
            .find_map(|line| line.strip_prefix("MemTotal:")?.split_whitespace().next()?.parse::<u64>().ok());
        let info = json!({
            "ServerVersion": env!("CARGO_PKG_VERSION"),
            "Commit": env!("JUG_COMMIT"),
            "Root": store.path(),
            "Driver": "overlay",
            "Images": store.images()?.len(),
            "Pins": store.pins()?.len(),
            "KernelVersion": text("/proc/sys/kernel/osrelease"),
            "Architecture": std::env::consts::ARCH,
            "NCPU": std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            "MemTotal": total.unwrap_or(0) * 1024,
            "CgroupVersion": if text("/sys/fs/cgroup/cgroup.controllers").is_empty() { "1" } else { "2" },
            "Rootless": crate::host::is_rootless(),
        });
        if self.format.is_some() {
            print(&inspected(&[info], self.format.as_deref())?)?;
            return Ok(0);
        }
        let lines = info.as_object().into_iter().flatten();
        print(
            &lines.map(|(key, value)| format!("{key}: {}\n", super::format::text(value))).collect::<String>(),
        )?;
        Ok(0)
    }
}
