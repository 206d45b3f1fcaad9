//! What containerd's configuration says about the runtime: as runc's options, or, from a CRI plugin that does not know
//! this runtime type, as a piece of TOML. Must not run anything.

use std::path::{Path, PathBuf};

use super::message::Any;
use crate::error::{Error, Result};
use crate::protobuf::{Message, fields};
use crate::sys;

/// Where the state of containers lies when nobody says otherwise, below it a directory for each namespace.
const ROOT: &str = "/run/containerd/jug";
/// The file of a bundle in which these options are kept for a later `delete`.
const KEPT: &str = "shim-options";

/// containerd.runc.v1.Options.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Options {
    pub no_pivot_root: bool,
    pub no_new_keyring: bool,
    pub systemd_cgroup: bool,
    pub shim_cgroup: String,
    /// Owner of the container's streams, for user namespaces.
    pub io_uid: u32,
    pub io_gid: u32,
    pub binary_name: String,
    pub root: String,
    pub criu_image_path: String,
    pub criu_work_path: String,
}

impl Options {
    pub fn read(any: &Any) -> Result<Self> {
        match any.type_url.rsplit('/').next().unwrap_or_default() {
            "" => Ok(Self::default()),
            "containerd.runc.v1.Options" => Ok(Self::of_message(&any.value)),
            // Clients of containerd 1.x send these to a runtime whose name they do not know.
            "containerd.linux.runc.CreateOptions" => Ok(Self::of_old_message(&any.value)),
            "containerd.linux.runc.RuncOptions" => Ok(Self::of_old_runtime(&any.value)),
            "runtimeoptions.v1.Options" => Self::generic(&any.value),
            // Of a checkpoint that is restored, not of the runtime.
            "containerd.runc.v1.CheckpointOptions" => Ok(Self::default()),
            other => Err(Error::new(format!("unsupported option type {other:?}"))
                .next("use containerd.runc.v1.Options, or a CRI plugin's options table")),
        }
    }

    fn of_message(bytes: &[u8]) -> Self {
        let mut options = Self::default();
        for (field, value) in fields(bytes) {
            match field {
                1 => options.no_pivot_root = value.number() != 0,
                2 => options.no_new_keyring = value.number() != 0,
                3 => options.shim_cgroup = value.text(),
                4 => options.io_uid = value.number() as u32,
                5 => options.io_gid = value.number() as u32,
                6 => options.binary_name = value.text(),
                7 => options.root = value.text(),
                9 => options.systemd_cgroup = value.number() != 0,
                10 => options.criu_image_path = value.text(),
                11 => options.criu_work_path = value.text(),
                _ => {}
            }
        }
        options
    }

    /// containerd.linux.runc.CreateOptions (runtime/linux/runctypes/runc.proto).
    fn of_old_message(bytes: &[u8]) -> Self {
        let mut options = Self::default();
        for (field, value) in fields(bytes) {
            match field {
                1 => options.no_pivot_root = value.number() != 0,
                8 => options.no_new_keyring = value.number() != 0,
                9 => options.shim_cgroup = value.text(),
                10 => options.io_uid = value.number() as u32,
                11 => options.io_gid = value.number() as u32,
                12 => options.criu_work_path = value.text(),
                13 => options.criu_image_path = value.text(),
                _ => {}
            }
        }
        options
    }

    /// containerd.linux.runc.RuncOptions.
    fn of_old_runtime(bytes: &[u8]) -> Self {
        let mut options = Self::default();
        for (field, value) in fields(bytes) {
            match field {
                1 => options.binary_name = value.text(),
                2 => options.root = value.text(),
                4 => options.systemd_cgroup = value.number() != 0,
                _ => {}
            }
        }
        options
    }

    /// runtimeoptions.v1.Options: a type, the path of a file, or the text itself.
    fn generic(bytes: &[u8]) -> Result<Self> {
        let (mut path, mut body) = (String::new(), String::new());
        for (field, value) in fields(bytes) {
            match field {
                2 => path = value.text(),
                3 => body = value.text(),
                _ => {}
            }
        }
        if body.is_empty() && !path.is_empty() {
            body = crate::host::read(&path).map_err(|e| e.context("the runtime's ConfigPath"))?;
        }
        Self::of_toml(&body)
    }

    /// Lines of `Key = value`, the only TOML that options are made of.
    fn of_toml(text: &str) -> Result<Self> {
        let mut options = Self::default();
        for line in
            text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with(['#', '[']))
        {
            let fault = || Error::new(format!("runtime options: {line:?} is not understood"));
            let (key, value) = line.split_once('=').ok_or_else(fault)?;
            let value = value.trim();
            let text = || value.trim_matches(['"', '\'']).to_owned();
            let flag = || value.parse::<bool>().map_err(|_| fault());
            match key.trim().trim_matches('"') {
                "NoPivotRoot" => options.no_pivot_root = flag()?,
                "NoNewKeyring" => options.no_new_keyring = flag()?,
                "SystemdCgroup" => options.systemd_cgroup = flag()?,
                "ShimCgroup" => options.shim_cgroup = text(),
                "IoUid" => options.io_uid = value.parse().map_err(|_| fault())?,
                "IoGid" => options.io_gid = value.parse().map_err(|_| fault())?,
                "BinaryName" => options.binary_name = text(),
                "Root" => options.root = text(),
                "CriuImagePath" => options.criu_image_path = text(),
                "CriuWorkPath" => options.criu_work_path = text(),
                "TypeUrl" | "ConfigPath" | "CriuPath" => {}
                _ => return Err(fault()),
            }
        }
        Ok(options)
    }

    /// Writes down what a `delete` after this process's death has to know.
    pub fn keep(&self, bundle: &Path) -> Result<()> {
        let mut message = Message::default();
        message.some_text(6, &self.binary_name).some_text(7, &self.root).flag(9, self.systemd_cgroup);
        std::fs::write(bundle.join(KEPT), message.bytes())
            .map_err(|e| Error::call(format_args!("write({KEPT:?})"), e.raw_os_error().unwrap_or(0)))
    }

    /// What was kept; nothing, when the container was never made.
    pub fn kept(bundle: &Path) -> Self {
        std::fs::read(bundle.join(KEPT)).map(|bytes| Self::of_message(&bytes)).unwrap_or_default()
    }

    /// The runtime's `--root`.
    pub fn state_root(&self, namespace: &str) -> PathBuf {
        Path::new(if self.root.is_empty() { ROOT } else { &self.root }).join(namespace)
    }

    /// jug-oci beside this program, unless another runtime is named.
    fn beside(&self) -> Option<PathBuf> {
        let own = std::env::current_exe().ok().filter(|_| self.binary_name.is_empty())?;
        Some(own.parent()?.join("jug-oci")).filter(|file| sys::path::executable(file).is_ok())
    }

    /// Whether the runtime is the jug-oci that came with this program, and so keeps its records as this program would:
    /// not one that was named, nor one of a later version that took this program's place meanwhile (proc(5), exe).
    pub fn is_own(&self) -> bool {
        let replaced = |own: PathBuf| own.as_os_str().as_encoded_bytes().ends_with(b" (deleted)");
        self.beside().is_some() && !std::env::current_exe().is_ok_and(replaced)
    }

    /// The runtime: the one named, else jug-oci beside this program, else the one on PATH.
    pub fn program(&self) -> Result<PathBuf> {
        let name = if self.binary_name.is_empty() { "jug-oci" } else { &self.binary_name };
        if name.contains('/') {
            return Ok(PathBuf::from(name));
        }
        if let Some(beside) = self.beside() {
            return Ok(beside);
        }
        let path = std::env::var_os("PATH").unwrap_or_default();
        let dirs = std::env::split_paths(&path).map(|dir| dir.join(name));
        dirs.into_iter().find(|file| sys::path::executable(file).is_ok()).ok_or_else(|| {
            Error::new(format!("no runtime {name:?} beside the shim or on PATH"))
                .next("install jug-oci beside containerd-shim-jug-v2, or set BinaryName")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_say_the_same() {
        let mut message = Message::default();
        message.text(6, "/opt/jug-oci").text(7, "/run/x").flag(9, true).number(4, 1000);
        let runc = Any { type_url: "containerd.runc.v1.Options".to_owned(), value: message.into_bytes() };
        let mut message = Message::default();
        message
            .text(1, "x")
            .text(3, "BinaryName = \"/opt/jug-oci\"\nRoot = '/run/x'\nSystemdCgroup = true\nIoUid = 1000\n");
        let generic = Any { type_url: "runtimeoptions.v1.Options".to_owned(), value: message.into_bytes() };
        let read = Options::read(&runc).unwrap();
        assert_eq!(Options::read(&generic).unwrap(), read);
        assert_eq!(read.state_root("k8s.io"), Path::new("/run/x/k8s.io"));
        assert!(Options::read(&Any { type_url: "kata".to_owned(), value: Vec::new() }).is_err());
        assert!(Options::of_toml("Nonsense = 1").is_err());
    }
}
