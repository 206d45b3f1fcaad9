//! `update`: other limits for a container that lives.

use std::os::fd::AsFd;
use std::path::Path;

use clap::Args;
use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxPids, LinuxResources};

use super::Globals;
use crate::bundle::{self, CONFIG_LIMIT};
use crate::cli::log;
use crate::container::{self, record::Id};
use crate::error::{Error, Result};
use crate::sys;

/// Change the limits of a container
#[derive(Debug, Args)]
pub struct Update {
    /// File with a linux.resources object, or - for stdin; the flags for single limits are ignored then
    #[arg(short, long, value_name = "FILE")]
    resources: Option<String>,
    /// Weight of block I/O, 10 to 1000
    #[arg(long, value_name = "WEIGHT", default_value_t = 0, hide_default_value = true)]
    blkio_weight: u16,
    /// Period of the CPU quota, in microseconds
    #[arg(long, value_name = "MICROSECONDS")]
    cpu_period: Option<String>,
    /// CPU time in each period, in microseconds; -1 for no limit
    #[arg(long, value_name = "MICROSECONDS")]
    cpu_quota: Option<String>,
    /// Unused CPU time that may be used later, in microseconds
    #[arg(long, value_name = "MICROSECONDS")]
    cpu_burst: Option<String>,
    /// Share of CPU time, relative to other containers
    #[arg(long, value_name = "SHARES")]
    cpu_share: Option<String>,
    /// Period of the realtime quota, in microseconds
    #[arg(long, value_name = "MICROSECONDS")]
    cpu_rt_period: Option<String>,
    /// Realtime CPU time in each period, in microseconds
    #[arg(long, value_name = "MICROSECONDS")]
    cpu_rt_runtime: Option<String>,
    /// CPUs to use
    #[arg(long, value_name = "LIST")]
    cpuset_cpus: Option<String>,
    /// Memory nodes to use
    #[arg(long, value_name = "LIST")]
    cpuset_mems: Option<String>,
    /// 1 for SCHED_IDLE, 0 for the usual scheduling
    #[arg(long, value_name = "0|1")]
    cpu_idle: Option<String>,
    /// Obsolete and ignored, as in runc
    #[arg(long, value_name = "BYTES", hide = true)]
    kernel_memory: Option<String>,
    /// Obsolete and ignored, as in runc
    #[arg(long, value_name = "BYTES", hide = true)]
    kernel_memory_tcp: Option<String>,
    /// Limit of memory, such as 512m; -1 for none
    #[arg(long, value_name = "BYTES")]
    memory: Option<String>,
    /// Memory that is left to the container when memory is scarce
    #[arg(long, value_name = "BYTES")]
    memory_reservation: Option<String>,
    /// Limit of memory and swap together; -1 for no limit of swap
    #[arg(long, value_name = "BYTES")]
    memory_swap: Option<String>,
    /// Limit of processes and threads; -1 for none
    #[arg(long, value_name = "NUMBER")]
    pids_limit: Option<i64>,
    /// Intel RDT/CAT schema of the L3 cache
    #[arg(long, value_name = "SCHEMA")]
    l3_cache_schema: Option<String>,
    /// Intel RDT/MBA schema of the memory bandwidth
    #[arg(long, value_name = "SCHEMA")]
    mem_bw_schema: Option<String>,
    /// Name of the container
    #[arg(value_name = "container-id")]
    id: String,
}

impl Update {
    pub fn perform(self, globals: &Globals) -> Result<i32> {
        let id = Id::new(&self.id)?;
        let root = globals.root()?;
        // A missing container is said before any fault of what was asked for it.
        root.entry(&id)?;
        let change = match given(&self.resources) {
            None => self.flags()?,
            Some("-") => read_resources(sys::fd::inherited(0), "stdin")?,
            Some(name) => {
                let file = sys::path::open(Path::new(name), libc::O_RDONLY | libc::O_NONBLOCK)?;
                read_resources(Some(file.as_fd()), name)?
            }
        };
        self.refuse_rdt()?;
        container::update::update(&root, &id, &change)?;
        Ok(0)
    }

    /// What the flags name; an empty value is none.
    fn flags(&self) -> Result<LinuxResources> {
        let mut memory = LinuxMemory::default();
        memory
            .set_limit(bytes("memory", &self.memory)?)
            .set_reservation(bytes("memory-reservation", &self.memory_reservation)?)
            .set_swap(bytes("memory-swap", &self.memory_swap)?);
        let list = |flag| given(flag).map(str::to_owned);
        let mut cpu = LinuxCpu::default();
        cpu.set_shares(number("cpu-share", &self.cpu_share)?)
            .set_quota(number("cpu-quota", &self.cpu_quota)?)
            .set_period(number("cpu-period", &self.cpu_period)?)
            .set_burst(number("cpu-burst", &self.cpu_burst)?)
            .set_idle(number("cpu-idle", &self.cpu_idle)?)
            .set_realtime_period(number("cpu-rt-period", &self.cpu_rt_period)?)
            .set_realtime_runtime(number("cpu-rt-runtime", &self.cpu_rt_runtime)?)
            .set_cpus(list(&self.cpuset_cpus))
            .set_mems(list(&self.cpuset_mems));
        let mut block_io = LinuxBlockIo::default();
        block_io.set_weight(Some(self.blkio_weight).filter(|weight| *weight != 0));
        for (flag, value) in
            [("kernel-memory", &self.kernel_memory), ("kernel-memory-tcp", &self.kernel_memory_tcp)]
        {
            if given(value).is_some() {
                log::warn(&format!("Setting --{flag} is ignored and will be removed"));
            }
        }
        let pids = self.pids_limit.map(|limit| {
            let mut pids = LinuxPids::default();
            pids.set_limit(limit);
            pids
        });
        let mut change = LinuxResources::default();
        change.set_memory(Some(memory)).set_cpu(Some(cpu)).set_block_io(Some(block_io)).set_pids(pids);
        Ok(change)
    }

    fn refuse_rdt(&self) -> Result<()> {
        for (schema, name, what) in
            [(&self.l3_cache_schema, "CAT", "l3 cache"), (&self.mem_bw_schema, "MBA", "memory bandwidth")]
        {
            if given(schema).is_some() {
                return Err(Error::new(format!("Intel RDT/{name}: {what} schema is not enabled"))
                    .why("update does not change the schemata of resctrl: create and run do"));
            }
        }
        Ok(())
    }
}

fn read_resources(file: Option<std::os::fd::BorrowedFd<'_>>, name: &str) -> Result<LinuxResources> {
    let file = file.ok_or_else(|| Error::new(format!("--resources: {name} is closed")))?;
    let in_it = |e: Error| e.context(format_args!("--resources: {name}"));
    bundle::parse_resources(&sys::fd::read_to_end(file, CONFIG_LIMIT).map_err(in_it)?).map_err(in_it)
}

/// An empty value is none, as with runc.
fn given(flag: &Option<String>) -> Option<&str> {
    flag.as_deref().filter(|text| !text.is_empty())
}

fn number<T>(flag: &str, value: &Option<String>) -> Result<Option<T>>
where
    T: std::str::FromStr<Err = std::num::ParseIntError>,
{
    let Some(text) = given(value) else { return Ok(None) };
    text.parse().map(Some).map_err(|e| Error::new(format!("invalid value for {flag}: {text:?}: {e}")))
}

/// A size with a unit of 1024 (`RAMInBytes` of docker/go-units): 512, 64k, 1.5GiB, 10 MB; and -1 for no limit.
fn bytes(flag: &str, value: &Option<String>) -> Result<Option<i64>> {
    match given(value) {
        None => Ok(None),
        Some("-1") => Ok(Some(-1)),
        Some(text) => size(text)
            .map(Some)
            .ok_or_else(|| Error::new(format!("invalid value for {flag}: invalid size: {text:?}"))),
    }
}

fn size(text: &str) -> Option<i64> {
    let split = text.rfind(|c: char| c.is_ascii_digit() || c == '.' || c == ' ')? + 1;
    let (number, unit) = text.split_at(split);
    let number = number.strip_suffix(' ').unwrap_or(number);
    let number: f64 = number.parse().ok().filter(|n: &f64| *n >= 0.0 && n.is_finite())?;
    let unit = unit.to_ascii_lowercase();
    let power = match unit.strip_suffix("ib").or_else(|| unit.strip_suffix('b')).unwrap_or(&unit) {
        "" if unit == "ib" => return None,
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return None,
    };
    // Beyond i64 the kernel has no limits either: the largest one is meant.
    Some((number * 1024f64.powi(power)) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_dockers() {
        for (text, want) in [
            ("0", 0),
            ("32", 32),
            ("32b", 32),
            ("64k", 64 << 10),
            ("50M", 50 << 20),
            ("1.5GiB", 3 << 29),
            ("10 MB", 10 << 20),
            ("1Tb", 1 << 40),
            ("1e3", 1000),
        ] {
            assert_eq!(size(text), Some(want), "{text}");
        }
        for text in ["lots", "", "-5", "5x", "5kk", "5bb", "5kib2", "m", "1 000k x", "5ib", "inf 5"] {
            assert_eq!(size(text), None, "{text}");
        }
        assert_eq!(bytes("memory", &Some("-1".to_owned())).unwrap(), Some(-1));
    }
}
