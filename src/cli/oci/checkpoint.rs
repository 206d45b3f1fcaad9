//! `checkpoint`: a running container goes to disk, through criu(8).

use std::path::PathBuf;

use clap::Args;

use super::Globals;
use crate::cli::log;
use crate::container::{checkpoint, record::Id};
use crate::criu::Options;
use crate::criu::options::CgroupsMode;
use crate::error::{Error, Result};

/// Save a running container to disk, with criu
#[derive(Debug, Args)]
pub struct Checkpoint {
    #[command(flatten)]
    common: CriuFlags,
    /// Directory of an earlier pre-dump, relative to --image-path
    #[arg(long, value_name = "DIR")]
    parent_path: Option<PathBuf>,
    /// Leave the container running
    #[arg(long)]
    leave_running: bool,
    /// Leave out TCP connections that are being opened
    #[arg(long)]
    tcp_skip_in_flight: bool,
    /// Save files that have no name any more under a new one
    #[arg(long)]
    link_remap: bool,
    /// Descriptor to which a NUL byte is written when the lazy pages are ready
    #[arg(long, value_name = "FD", default_value_t = -1, hide_default_value = true, allow_negative_numbers = true)]
    status_fd: i32,
    /// Page server that takes the memory
    #[arg(long, value_name = "ADDRESS:PORT")]
    page_server: Option<String>,
    /// Save what memory there is, leave the container running, and do the rest later
    #[arg(long)]
    pre_dump: bool,
    /// Name of the container
    #[arg(value_name = "container-id")]
    id: String,
}

/// The flags that checkpoint and restore share.
#[derive(Debug, Args)]
pub struct CriuFlags {
    /// Directory of the images [default: ./checkpoint]
    #[arg(long, value_name = "DIR")]
    image_path: Option<PathBuf>,
    /// Directory of criu's work files and logs [default: that of the images]
    #[arg(long, value_name = "DIR")]
    work_path: Option<PathBuf>,
    /// Allow open TCP connections
    #[arg(long)]
    tcp_established: bool,
    /// Allow Unix sockets with a peer outside
    #[arg(long)]
    ext_unix_sk: bool,
    /// Allow processes of the caller's session
    #[arg(long)]
    shell_job: bool,
    /// Allow file locks
    #[arg(long)]
    file_locks: bool,
    /// What to do with cgroup properties: soft, full, strict or ignore [default: soft]
    #[arg(long, value_name = "MODE", default_value = "", hide_default_value = true)]
    manage_cgroups_mode: String,
    /// Make this namespace, and restore nothing in it (network)
    #[arg(long, value_name = "KIND")]
    empty_ns: Vec<String>,
    /// Keep each page of memory once
    #[arg(long)]
    auto_dedup: bool,
    /// Bring memory when it is asked for, with userfaultfd(2)
    #[arg(long)]
    lazy_pages: bool,
}

impl CriuFlags {
    pub fn options(self) -> Result<Options> {
        // The network is always empty: its devices are the engine's.
        if let Some(kind) = self.empty_ns.iter().find(|kind| *kind != "network") {
            return Err(
                Error::new(format!("namespace {kind:?} is not supported")).next("--empty-ns takes network")
            );
        }
        Ok(Options {
            images: self.image_path.filter(|path| !path.as_os_str().is_empty()),
            work: self.work_path.filter(|path| !path.as_os_str().is_empty()),
            tcp_established: self.tcp_established,
            ext_unix_sk: self.ext_unix_sk,
            shell_job: self.shell_job,
            file_locks: self.file_locks,
            auto_dedup: self.auto_dedup,
            lazy_pages: self.lazy_pages,
            cgroups_mode: CgroupsMode::parse(&self.manage_cgroups_mode)?,
            ..Options::default()
        })
    }
}

impl Checkpoint {
    pub fn perform(self, globals: &Globals) -> Result<i32> {
        let id = Id::new(&self.id)?;
        warn_rootless("checkpoint");
        let root = globals.root()?;
        let options = Options {
            parent: self.parent_path.filter(|path| !path.as_os_str().is_empty()),
            leave_running: self.leave_running,
            tcp_skip_in_flight: self.tcp_skip_in_flight,
            link_remap: self.link_remap,
            pre_dump: self.pre_dump,
            status_fd: Some(self.status_fd).filter(|fd| *fd >= 0),
            page_server: self
                .page_server
                .as_deref()
                .filter(|s| !s.is_empty())
                .map(page_server)
                .transpose()?,
            ..self.common.options()?
        };
        checkpoint::checkpoint(&root, &id, &options)?;
        Ok(0)
    }
}

pub fn warn_rootless(verb: &str) {
    if crate::host::is_rootless() {
        log::warn(&format!("{verb} is untested with rootless containers"));
    }
}

fn page_server(text: &str) -> Result<(String, i32)> {
    match text.rsplit_once(':') {
        Some((address, port)) if !address.is_empty() && !port.is_empty() => {
            let port = port.parse().map_err(|_| Error::new("Invalid port number"))?;
            Ok((address.trim_matches(['[', ']']).to_owned(), port))
        }
        _ => Err(Error::new("Use --page-server ADDRESS:PORT to specify page server")),
    }
}
