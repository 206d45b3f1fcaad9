//! What was measured, as it stands in results.json: everything that is needed to draw it, to compare it with another
//! run, and to go on with a run that was interrupted. Only data: how it is gained stands elsewhere.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

use crate::error::{Error, Result};

/// The shape of the file; another number is another shape.
pub const FORMAT: u32 = 1;

/// What stands between the payload and the host's kernel: the classes of the virtualization literature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Class {
    /// One kernel for all: a container.
    OsLevel,
    /// A kernel of its own on the processor's virtualization.
    Hardware,
    /// A kernel of its own on a processor made of software: no figure of its speed means anything.
    Emulated,
    /// A kernel of its own that runs as a program of the host.
    Paravirtual,
}

impl Class {
    pub fn words(self) -> &'static str {
        match self {
            Self::OsLevel => "OS-level",
            Self::Hardware => "full virtualization, KVM",
            Self::Emulated => "full virtualization, TCG",
            Self::Paravirtual => "paravirtualized kernel",
        }
    }

    /// Whether the payload has a kernel that is not the host's.
    pub fn has_own_kernel(self) -> bool {
        self != Self::OsLevel
    }
}

/// A contender that took part.
#[derive(Clone, Serialize, Deserialize)]
pub struct Named {
    pub name: String,
    pub class: Class,
    pub version: String,
    /// The words that execute it.
    #[serde(default)]
    pub program: Vec<String>,
    /// The kernel that it boots, where that is a file of its own.
    #[serde(default)]
    pub kernel: Option<String>,
    /// How it was told to start the payload.
    pub how: String,
    /// Memory of the machine in MiB, for who has a kernel of its own: the smallest in which the payload came up.
    pub memory_mib: Option<u32>,
    /// The process between such a kernel and the host's: what it may ask of the host.
    #[serde(default)]
    pub monitor: Option<String>,
}

#[cfg(test)]
impl Named {
    pub fn new(name: &str, class: Class) -> Self {
        Self {
            name: name.into(),
            class,
            version: String::new(),
            program: Vec::new(),
            kernel: None,
            how: String::new(),
            memory_mib: None,
            monitor: None,
        }
    }
}

#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct LeftOut {
    pub name: String,
    pub why: String,
}

/// Starts of one contender in one manner. Milliseconds, in the order in which they were taken.
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct Starts {
    pub wall_ms: Vec<f64>,
    /// Of each start; four at a time the mean of each turn.
    pub cpu_ms: Vec<f64>,
    pub failures: usize,
    /// How long all of them took, with the stops between them.
    pub seconds: f64,
    /// How many of them were taken in each block of the run; blocks lie apart in time.
    #[serde(default)]
    pub blocks: Vec<usize>,
}

impl Starts {
    /// Adds another block.
    pub fn extend(&mut self, block: Self) {
        self.blocks.push(block.wall_ms.len());
        self.wall_ms.extend(block.wall_ms);
        self.cpu_ms.extend(block.cpu_ms);
        self.failures += block.failures;
        self.seconds += block.seconds;
    }
}

/// The machine while `n` instances live. KiB.
#[derive(Clone, Serialize, Deserialize)]
pub struct Point {
    pub n: usize,
    /// MemTotal - MemAvailable.
    pub used: f64,
    /// MemTotal - MemFree.
    pub not_free: f64,
    /// Sum of Pss of everything that was started.
    pub pss: f64,
    /// The part of `pss` that is the contender's own: monitors, and not the payload.
    pub own: f64,
    /// Files of the contender's state.
    pub state: f64,
    pub slab: f64,
    pub kernel_stack: f64,
    pub page_tables: f64,
    pub percpu: f64,
    pub shmem: f64,
    /// Anonymous pages that KSM has folded into others.
    pub folded: f64,
}

impl Point {
    pub fn kernel(&self) -> f64 {
        self.slab + self.kernel_stack + self.page_tables + self.percpu
    }
}

/// The way back to nothing.
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct Teardown {
    pub n: usize,
    /// Until the last stop had returned.
    pub seconds: f64,
    pub cpu_ms: f64,
    /// Until processes, cgroups and mounts were what they had been; None: not within the time.
    pub baseline_seconds: Option<f64>,
    /// What was left then.
    pub processes: i64,
    pub cgroups: i64,
    pub dying_cgroups: i64,
    pub mounts: i64,
    /// What MemTotal - MemAvailable had grown by, in KiB.
    pub memory: f64,
    /// Until memory was what it had been, but for a fiftieth of what all had taken (8 MiB at least); None: not within
    /// the time.
    #[serde(default)]
    pub memory_seconds: Option<f64>,
}

/// Instances added until a rule said stop, and removed again.
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct Growth {
    pub points: Vec<Point>,
    /// How many ran already, and what the start took then, in ms.
    pub starts: Vec<(usize, f64)>,
    pub stopped: String,
    /// Whether it was the time that stopped it: the same command, given again, measures it again.
    #[serde(default)]
    pub cut: bool,
    pub teardown: Teardown,
}

/// What the payload saw and could reach.
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct Probe {
    /// For every number of a system call: the error number, 0 for success, minus the signal.
    pub calls: Vec<i32>,
    /// Other ways into the kernel that the payload sees, by kind: how many there are.
    #[serde(default)]
    pub entries: BTreeMap<String, u64>,
    pub features: BTreeMap<String, bool>,
    pub boot_id: String,
    pub release: String,
    pub memory: String,
    pub loadavg: String,
    pub seccomp: String,
}

#[derive(Clone, Default, Serialize, Deserialize)]
pub struct Results {
    pub format: u32,
    pub seed: u64,
    /// The largest N, and whether it was a quick run: parts of another run are not continued.
    pub n: usize,
    pub quick: bool,
    pub machine: BTreeMap<String, Value>,
    pub contenders: Vec<Named>,
    pub left_out: Vec<LeftOut>,
    /// By manner (serial, four at a time, spaced), then contender.
    pub starts: BTreeMap<String, BTreeMap<String, Starts>>,
    /// By variant (`idle`, `idle, no network namespace` ...), then contender.
    pub growth: BTreeMap<String, BTreeMap<String, Growth>>,
    /// By contender, then figure: for each time that the payload measured the median of its seven passes. `native` is
    /// the payload on the host.
    pub overhead: BTreeMap<String, BTreeMap<String, Vec<f64>>>,
    pub probes: BTreeMap<String, Probe>,
    /// Load average and seconds since the beginning, after each part, in the order in which they were taken.
    pub order: Vec<(String, String, f64)>,
}

/// The payload without anything around it.
pub const NATIVE: &str = "native";
/// The variant that every contender can do.
pub const IDLE: &str = "idle";
/// The same with KSM on, for virtual machines.
pub const FOLDED: &str = "idle, KSM on";
/// The manner of starts that tables show first.
pub const SERIAL: &str = "serial";
/// The manner whose CPU times are the means of a turn each.
pub const FOUR_WIDE: &str = "four at a time";

impl Results {
    pub fn read(file: &Path) -> Result<Self> {
        let said = |why: &dyn std::fmt::Display| Error::new(format!("{}: {why}", file.display()));
        let bytes = std::fs::read(file).map_err(|why| said(&why))?;
        let results: Self = serde_json::from_slice(&bytes).map_err(|why| {
            said(&why)
                .why("it is no results.json of jug bench")
                .next("name the file, or the directory of --out")
        })?;
        if results.format != FORMAT {
            return Err(said(&format_args!("format {}, not {FORMAT}", results.format))
                .why("another version of jug wrote it"));
        }
        Ok(results)
    }

    /// Whole or not at all: a run that is killed leaves what it had before.
    pub fn write(&self, file: &Path) -> Result<()> {
        let said = |why: std::io::Error| Error::new(format!("{}: {why}", file.display()));
        let new = file.with_extension("json.new");
        let bytes = serde_json::to_vec(self).map_err(|why| Error::new(format!("results: {why}")))?;
        std::fs::write(&new, bytes).and_then(|()| std::fs::rename(&new, file)).map_err(said)
    }

    /// Whether the part of that name is finished.
    pub fn has(&self, part: &str) -> bool {
        self.order.iter().any(|(name, ..)| name == part)
    }

    /// Says why something is missing, once.
    pub fn leave_out(&mut self, left: LeftOut) {
        if !self.left_out.contains(&left) {
            self.left_out.push(left);
        }
    }

    pub fn named(&self, name: &str) -> Option<&Named> {
        self.contenders.iter().find(|contender| contender.name == name)
    }
}
