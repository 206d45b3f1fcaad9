//! `exec` and `top`: another program in a running container.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};

use super::Global;
use super::each::find;
use crate::apply::root::RootDir;
use crate::cli::log;
use crate::engine::attach;
use crate::engine::container::{Container, Status};
use crate::engine::place::io;
use crate::engine::runtime::{self, Runtime};
use crate::engine::session::{self, How};
use crate::engine::{ids, launch, rootless, spec, user};
use crate::error::{Error, Result};
use crate::sys::{path, process};

/// Run a program in a running container
#[derive(Debug, Args)]
pub struct Exec {
    /// Do not wait for it
    #[arg(short, long)]
    detach: bool,
    /// Keep its standard input open
    #[arg(short, long)]
    interactive: bool,
    /// Give it a terminal
    #[arg(short, long)]
    tty: bool,
    /// User, names or numbers
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// Working directory
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// Keys that detach
    #[arg(long, value_name = "KEYS")]
    detach_keys: Option<String>,
    /// Set an environment variable; without a value, take it from the caller
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Read environment variables from a file, one a line
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// Give it all capabilities
    #[arg(long)]
    privileged: bool,
    /// Container, then the program and its arguments
    #[arg(value_name = "CONTAINER COMMAND [ARG...]", trailing_var_arg = true, required = true)]
    words: Vec<String>,
}

impl Exec {
    pub fn perform(self, global: &Global) -> Result<u8> {
        let (name, command) = self.words.split_first().ok_or_else(|| Error::new("no container was named"))?;
        if command.is_empty() {
            return Err(Error::new("no command specified").next("jug exec CONTAINER COMMAND"));
        }
        let container = find(global, name)?;
        match container.status()? {
            Status::Running => {}
            Status::Paused => {
                return Err(Error::new(format!("container {name} is paused")).next("unpause it first"));
            }
            _ => return Err(Error::new(format!("container {name} is not running"))),
        }
        let own = container.record.settings.detach_keys.as_deref();
        let keys = attach::keys(self.detach_keys.as_deref().or(own))?;
        let runtime = Runtime::find(&container.place, container.record.settings.runtime.as_deref())?;
        // One log for each call: two may run at once.
        let log = container.path.join(format!(".exec-{}", process::pid()));
        let said = container.path.join(format!(".exec-{}.json", process::pid()));
        let process = self.process(&container, command)?;
        std::fs::write(&said, process.to_string()).map_err(io("write the process"))?;
        let mut call = runtime.logged(&log);
        call.args(["exec", "--process"]).arg(&said);
        let how = How { detach: self.detach, interactive: self.interactive, tty: self.tty, keys: &keys };
        let code = match container.pid()?.filter(|_| container.record.borrows_user_namespace()) {
            Some(pid) => rootless::join(pid),
            None => Ok(()),
        }
        .and_then(|()| session::run(call, &container, &how));
        let failure = runtime::failure(&log);
        let _ = std::fs::remove_file(&log);
        let _ = std::fs::remove_file(&said);
        let code = code?;
        Ok(failure.map_or(code as u8, |(code, _)| code))
    }

    /// The container's own process with what the flags change.
    fn process(&self, container: &Container, command: &[String]) -> Result<Value> {
        let text = std::fs::read(container.path.join("config.json")).map_err(io("read config.json"))?;
        let config: Value =
            serde_json::from_slice(&text).map_err(|e| Error::new(format!("config.json: {e}")))?;
        let mut process = config["process"].clone();
        process["args"] = command.into();
        process["terminal"] = self.tty.into();
        process["consoleSize"] = attach::console_size();
        if let Some(dir) = &self.workdir {
            process["cwd"] = dir.as_str().into();
        }
        let mut env = Vec::new();
        if self.tty {
            env.push("TERM=xterm".to_owned());
        }
        if let Some(said) = &self.user {
            let user = self.find_user(container, said)?;
            let pid = container.pid()?.unwrap_or(0);
            let groups = spec::groups(&user, &ids::map_of(&format!("/proc/{pid}/gid_map")));
            process["user"] = json!({ "uid": user.uid, "gid": user.gid, "additionalGids": groups });
            env.push(format!("HOME={}", user.home.as_deref().unwrap_or("/")));
        }
        env.extend(launch::environment(&self.env_file, &self.env)?);
        let own = process["env"].as_array().into_iter().flatten();
        let own: Vec<String> = own.filter_map(|entry| entry.as_str().map(str::to_owned)).collect();
        process["env"] = spec::merged(own.iter().chain(&env)).into();
        if self.privileged {
            let all = spec::every_capability();
            process["capabilities"] = json!({ "bounding": all, "effective": all, "permitted": all });
        }
        Ok(process)
    }

    /// By the files of the container as it is now, seen through its first process.
    fn find_user(&self, container: &Container, said: &str) -> Result<user::User> {
        let pid = container.pid()?.ok_or_else(|| Error::new("the container is not running"))?;
        let root = path::open(Path::new(&format!("/proc/{pid}/root")), libc::O_PATH | libc::O_DIRECTORY)?;
        let own = path::stat(root.as_fd(), Path::new(""))?;
        let ours = path::stat(crate::sys::cwd(), Path::new("/"))?;
        if (own.st_dev, own.st_ino) == (ours.st_dev, ours.st_ino) {
            return Err(Error::new("the container's root is gone"));
        }
        user::resolve(&RootDir::new(root), said, &[])
    }
}

/// Show the processes of a container
#[derive(Debug, Args)]
pub struct Top {
    /// Container, then options of ps(1)
    #[arg(
        value_name = "CONTAINER [OPTION...]",
        trailing_var_arg = true,
        allow_hyphen_values = true,
        required = true
    )]
    words: Vec<String>,
}

impl Top {
    pub fn perform(self, global: &Global) -> Result<u8> {
        let (name, options) = self.words.split_first().ok_or_else(|| Error::new("no container was named"))?;
        let container = find(global, name)?;
        if !container.status()?.is_up() {
            return Err(Error::new(format!("container {name} is not running")));
        }
        let runtime = Runtime::find(&container.place, None)?;
        let mut call = runtime.command();
        call.arg("ps").arg(container.id()).args(options);
        let code = runtime::foreground(call, false, false)?;
        if code != 0 {
            log::fatal("Error: ps(1) failed");
        }
        Ok(u8::from(code != 0))
    }
}
