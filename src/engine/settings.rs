//! What was said about a container: the flags of `run` and `create`, as they were said. They are kept with the
//! container, for `inspect` and `commit`. What they mean is decided in `spec`; nothing is decided here.

use std::path::PathBuf;

use clap::Args;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Default, Args, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// Name of the container [default: two words]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Give the program a terminal
    #[arg(short, long)]
    pub tty: bool,
    /// Keep the program's standard input open
    #[arg(short, long)]
    pub interactive: bool,
    /// Remove the container when it ends
    #[arg(long)]
    pub rm: bool,
    /// Run a plain directory instead of an image; what the program writes, it writes there
    #[arg(long, value_name = "DIR")]
    pub rootfs: Option<PathBuf>,
    /// Set an environment variable; without a value, take it from the caller
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    pub env: Vec<String>,
    /// Read environment variables from a file, one a line
    #[arg(long, value_name = "FILE")]
    pub env_file: Vec<PathBuf>,
    /// Working directory in the container
    #[arg(short, long, value_name = "DIR")]
    pub workdir: Option<String>,
    /// User in the container, names or numbers
    #[arg(short, long, value_name = "USER[:GROUP]")]
    pub user: Option<String>,
    /// Additional group, name or number
    #[arg(long, value_name = "GROUP")]
    pub group_add: Vec<String>,
    /// Program in the place of the image's entrypoint; an empty one removes it
    #[arg(long, value_name = "PROGRAM")]
    pub entrypoint: Option<String>,
    /// Host name in the container
    #[arg(short = 'h', long, value_name = "NAME")]
    pub hostname: Option<String>,
    /// Mount a directory of the host, a named volume, or (with one path) an anonymous volume
    #[arg(short, long, value_name = "[SOURCE:]PATH[:OPTIONS]")]
    pub volume: Vec<String>,
    /// Mount as type=bind|volume|tmpfs,source=,target=,readonly
    #[arg(long, value_name = "KEY=VALUE,...")]
    pub mount: Vec<String>,
    /// Mount an empty file system in memory
    #[arg(long, value_name = "PATH[:OPTIONS]")]
    pub tmpfs: Vec<String>,
    /// Limit of memory, in bytes or with k, m, g
    #[arg(short, long, value_name = "BYTES")]
    pub memory: Option<String>,
    /// Limit of memory and swap together; -1 for no limit [default: twice the memory]
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    pub memory_swap: Option<String>,
    /// Limit of processors, such as 1.5
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub cpus: Option<String>,
    /// Relative weight of processor time
    #[arg(long, value_name = "N")]
    pub cpu_shares: Option<u64>,
    /// Processors that may be used, such as 0-2,4
    #[arg(long, value_name = "LIST")]
    pub cpuset_cpus: Option<String>,
    /// Limit of processes and threads; -1 for none [default: 2048; rootless: none]
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub pids_limit: Option<i64>,
    /// Size of /dev/shm [default: 64m]
    #[arg(long, value_name = "BYTES")]
    pub shm_size: Option<String>,
    /// Cgroup below which the container's is made
    #[arg(long, value_name = "PATH")]
    pub cgroup_parent: Option<String>,
    /// Make the root file system read-only
    #[arg(long)]
    pub read_only: bool,
    /// Add a capability; ALL for all
    #[arg(long, value_name = "CAP", value_delimiter = ',')]
    pub cap_add: Vec<String>,
    /// Take a capability away; ALL for all
    #[arg(long, value_name = "CAP", value_delimiter = ',')]
    pub cap_drop: Vec<String>,
    /// seccomp=FILE|unconfined, apparmor=PROFILE, label=disable|(user|role|type|level|filetype):VALUE,
    /// no-new-privileges, mask=PATHS, unmask=PATHS|ALL, systempaths=unconfined
    #[arg(long, value_name = "OPTION")]
    pub security_opt: Vec<String>,
    /// Give the container nearly all that the host's root has
    #[arg(long)]
    pub privileged: bool,
    /// Let the container use a device of the host
    #[arg(long, value_name = "HOST[:PATH][:rwm]")]
    pub device: Vec<String>,
    /// Resource limit of the program, such as nofile=1024:2048
    #[arg(long, value_name = "NAME=SOFT[:HARD]")]
    pub ulimit: Vec<String>,
    /// Kernel parameter of the container's own namespaces
    #[arg(long, value_name = "NAME=VALUE")]
    pub sysctl: Vec<String>,
    /// Run a small init as process 1, which reaps orphans
    #[arg(long)]
    pub init: bool,
    /// Signal by which `stop` asks the program to end [default: the image's, or TERM]
    #[arg(long, value_name = "SIGNAL")]
    pub stop_signal: Option<String>,
    /// Seconds after which `stop` kills [default: 10]
    #[arg(long, value_name = "SECONDS", allow_hyphen_values = true)]
    pub stop_timeout: Option<i64>,
    /// host; auto[:size=N] (ids of its own); for unprivileged users keep-id[:uid=N,gid=N] (the caller has the same id
    /// inside, or that one; an image is copied for the container)
    #[arg(long, value_name = "MODE")]
    pub userns: Option<String>,
    /// Set a label
    #[arg(short, long, value_name = "KEY[=VALUE]")]
    pub label: Vec<String>,
    /// Read labels from a file, one a line
    #[arg(long, value_name = "FILE")]
    pub label_file: Vec<PathBuf>,
    /// Keys that detach from the container [default: ctrl-p,ctrl-q]
    #[arg(long, value_name = "KEYS")]
    pub detach_keys: Option<String>,
    /// private, host or container:NAME
    #[arg(long, value_name = "MODE")]
    pub pid: Option<String>,
    /// private, host or container:NAME
    #[arg(long, value_name = "MODE")]
    pub ipc: Option<String>,
    /// private or host
    #[arg(long, value_name = "MODE")]
    pub uts: Option<String>,
    /// private (loopback only), none, host or container:NAME
    #[arg(long, alias = "net", value_name = "MODE")]
    pub network: Option<String>,
    /// Name server
    #[arg(long, value_name = "ADDRESS")]
    pub dns: Vec<String>,
    /// Domain in which names are looked up
    #[arg(long, value_name = "DOMAIN")]
    pub dns_search: Vec<String>,
    /// Option of the resolver
    #[arg(long, value_name = "OPTION")]
    pub dns_option: Vec<String>,
    /// Line for /etc/hosts
    #[arg(long, value_name = "NAME:ADDRESS")]
    pub add_host: Vec<String>,
    /// Publish a port: not yet possible
    #[arg(short, long, value_name = "PORTS")]
    pub publish: Vec<String>,
    /// File that receives the container's id; it must not be there
    #[arg(long, value_name = "FILE")]
    pub cidfile: Option<PathBuf>,
    /// Platform of the image, such as linux/arm64
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub platform: Option<String>,
    /// When to pull the image: missing, always or never
    #[arg(long, value_name = "WHEN", default_value = "missing")]
    pub pull: String,
    /// max-size=BYTES and max-file=N of the log
    #[arg(long, value_name = "KEY=VALUE")]
    pub log_opt: Vec<String>,
    /// Another build of jug-oci
    #[arg(long, value_name = "PATH")]
    pub runtime: Option<PathBuf>,
}

impl Settings {
    /// The value of a `--security-opt KEY=VALUE` (or KEY:VALUE), the last one; a bare KEY is "true".
    pub fn security(&self, key: &str) -> Option<&str> {
        self.securities(key).last()
    }

    /// All of them.
    pub fn securities(&self, key: &str) -> impl Iterator<Item = &str> {
        self.security_opt.iter().map(|text| option(text)).filter(move |(name, _)| *name == key).map(|o| o.1)
    }

    /// The containers of which it joins a namespace.
    pub fn others(&self) -> impl Iterator<Item = &str> {
        let modes = [&self.network, &self.pid, &self.ipc];
        modes.into_iter().filter_map(|mode| mode.as_deref()?.strip_prefix("container:"))
    }

    /// The value of a `--log-opt KEY=VALUE`.
    pub fn log(&self, key: &str) -> Option<&str> {
        self.log_opt
            .iter()
            .rev()
            .find_map(|option| option.split_once('=').filter(|(name, _)| *name == key))
            .map(|o| o.1)
    }
}

/// `KEY=VALUE` or, as Docker once had it, `KEY:VALUE`.
pub fn option(text: &str) -> (&str, &str) {
    text.split_once(['=', ':']).unwrap_or((text, "true"))
}
