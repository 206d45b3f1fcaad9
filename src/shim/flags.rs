//! The command line of a v2 shim (containerd's core/runtime/v2/README.md). containerd writes flags in Go's way, with
//! one dash.

use std::ffi::OsString;

use super::message::check_name;
use crate::error::{Error, Result};

/// What `-help` says; tests/man.rs makes the manual page of it.
pub const HELP: &str = "\
containerd's shim for jug-oci

usage: containerd-shim-jug-v2 [flags] [start|delete]

containerd runs it; people need no more than -v. start prints where the shim listens; containers of
one pod share one shim. delete cleans up after a shim that was killed. With neither it serves on the
socket that is its descriptor 3. The runtime is jug-oci beside this program or on PATH, or BinaryName
in the runtime's options.

flags:
  -namespace NAME         the namespace that owns the shim
  -id ID                  the container, or the task
  -address PATH           containerd's gRPC socket
  -publish-binary PATH    containerd itself, for events when TTRPC_ADDRESS is not in the environment
  -bundle DIR             the bundle, if it is not the working directory
  -debug                  accepted
  -info                   describes the shim: options as protobuf on stdin, the answer as protobuf on stdout
  -v, -version            the version
  -h, -help               this text

environment:
  TTRPC_ADDRESS           containerd's socket for events
  PATH                    where jug-oci is looked for when it is not beside this program

files:
  /run/containerd/s                  sockets of shims, unless containerd names another directory
  /run/containerd/jug/NAMESPACE      the state of containers, or below Root in the runtime's options
  BUNDLE/log.json                    what jug-oci said last
  BUNDLE/shim-options                the options that a later delete needs
";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Help,
    Version,
    Info,
    Start,
    Delete,
    Serve,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flags {
    pub action: Action,
    pub namespace: String,
    pub id: String,
    pub address: String,
    pub publish_binary: String,
    pub bundle: String,
    pub debug: bool,
}

pub fn version() -> String {
    format!(
        "containerd-shim-jug-v2:\n  Version:  {}\n  Revision: {}\n",
        env!("CARGO_PKG_VERSION"),
        env!("JUG_COMMIT")
    )
}

impl Flags {
    pub fn read(args: impl Iterator<Item = OsString>) -> Result<Self> {
        let mut flags = Self {
            action: Action::Serve,
            namespace: String::new(),
            id: String::new(),
            address: String::new(),
            publish_binary: String::new(),
            bundle: String::new(),
            debug: false,
        };
        let mut special = None;
        let mut args = args
            .map(|arg| arg.into_string().map_err(|arg| Error::new(format!("argument {arg:?} is no text"))));
        while let Some(arg) = args.next().transpose()? {
            let Some(name) = arg.strip_prefix('-') else {
                flags.action = match arg.as_str() {
                    "start" => Action::Start,
                    "delete" => Action::Delete,
                    other => return Err(Error::new(format!("unknown command {other:?}")).next("see -help")),
                };
                continue;
            };
            let name = name.strip_prefix('-').unwrap_or(name);
            let (name, given) =
                name.split_once('=').map_or((name, None), |(name, value)| (name, Some(value)));
            let field = match name {
                "namespace" => &mut flags.namespace,
                "id" => &mut flags.id,
                "address" => &mut flags.address,
                "publish-binary" => &mut flags.publish_binary,
                "bundle" => &mut flags.bundle,
                "debug" => {
                    flags.debug = given != Some("false");
                    continue;
                }
                "v" | "version" => {
                    special = Some(Action::Version);
                    continue;
                }
                "info" => {
                    special = Some(Action::Info);
                    continue;
                }
                "h" | "help" => {
                    special = Some(Action::Help);
                    continue;
                }
                _ => return Err(Error::new(format!("unknown flag {arg:?}")).next("see -help")),
            };
            let missing = || Error::new(format!("flag needs an argument: -{name}"));
            *field = match given {
                Some(value) => value.to_owned(),
                None => args.next().transpose()?.ok_or_else(missing)?,
            };
        }
        flags.action = special.unwrap_or(flags.action);
        flags.check()
    }

    /// Namespaces and ids become names of files.
    fn check(self) -> Result<Self> {
        if matches!(self.action, Action::Start | Action::Delete | Action::Serve) {
            if self.namespace.is_empty() {
                return Err(Error::new("shim namespace cannot be empty").next("see -help"));
            }
            check_name(&self.namespace).map_err(|e| e.context("-namespace"))?;
            check_name(&self.id).map_err(|e| e.context("-id"))?;
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Flags> {
        Flags::read(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn what_containerd_writes() {
        let flags = read(
            "-namespace k8s.io -address /run/c.sock -publish-binary /usr/bin/containerd -id a -debug start",
        );
        let flags = flags.unwrap();
        assert_eq!(
            (flags.action, flags.namespace.as_str(), flags.id.as_str()),
            (Action::Start, "k8s.io", "a")
        );
        assert!(flags.debug && flags.publish_binary == "/usr/bin/containerd");
        assert_eq!(read("--id=b -namespace=n -bundle /b delete").unwrap().bundle, "/b");
        assert_eq!(read("-v").unwrap().action, Action::Version);
        assert_eq!(read("-info").unwrap().action, Action::Info);
    }

    #[test]
    fn what_is_refused() {
        for line in [
            "start",
            "-namespace n start",
            "-namespace n -id ../x start",
            "-namespace n -id a stop",
            "-id",
            "-x",
        ] {
            assert!(read(line).is_err(), "{line}");
        }
    }
}
