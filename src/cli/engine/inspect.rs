//! `inspect`: everything about containers and images, with Docker's names.

use clap::Args;
use serde_json::{Value, json};

use super::Global;
use super::each::find;
use super::format::Template;
use super::image_inspect;
use crate::cli::log;
use crate::engine::container::{Container, Status};
use crate::engine::devices;
use crate::error::Result;
use crate::host;

/// Show everything about containers or images
#[derive(Debug, Args)]
pub struct Inspect {
    /// A template such as '{{.State.Pid}}', or json
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
    /// Only container, or only image; else a container of that name comes first
    #[arg(long = "type", value_name = "TYPE", value_parser = ["container", "image"])]
    kind: Option<String>,
    #[arg(value_name = "CONTAINER|IMAGE", required = true)]
    names: Vec<String>,
}

impl Inspect {
    pub fn perform(self, global: &Global) -> Result<u8> {
        let template = self.format.as_deref().filter(|f| *f != "json").map(Template::parse).transpose()?;
        let (mut all, mut code) = (Vec::new(), 0);
        for name in &self.names {
            match self.look(global, name) {
                Ok(value) => all.push(value),
                Err(e) => {
                    log::fatal(&format!("Error: {e}"));
                    code = 1;
                }
            }
        }
        match template {
            Some(template) => {
                for value in &all {
                    log::print(&format!("{}\n", template.render(value)?));
                }
            }
            None => {
                let text = serde_json::to_string_pretty(&all).unwrap_or_default();
                log::print(&format!("{text}\n"));
            }
        }
        Ok(code)
    }
}

impl Inspect {
    fn look(&self, global: &Global, name: &str) -> Result<Value> {
        let image = || {
            let store = global.store()?;
            image_inspect::inspect(&store, &store.find(name)?)
        };
        match self.kind.as_deref() {
            Some("image") => image(),
            Some(_) => describe(&find(global, name)?),
            // What neither is fails as a container does.
            None => match find(global, name) {
                Ok(container) => describe(&container),
                Err(none) => image().map_err(|_| none),
            },
        }
    }
}

fn describe(container: &Container) -> Result<Value> {
    let record = &container.record;
    let settings = &record.settings;
    let text = host::read(container.path.join("config.json")).unwrap_or_default();
    let config: Value = serde_json::from_str(&text).unwrap_or_default();
    let process = &config["process"];
    let (program, args) = record.args.split_first().map_or((String::new(), &[][..]), |(p, a)| (p.clone(), a));
    Ok(json!({
        "Id": record.id,
        "Created": record.created,
        "Path": program,
        "Args": args,
        "State": state(container)?,
        "Image": record.image_id,
        "ImageName": record.image,
        "RestartCount": 0,
        "Name": format!("/{}", record.name),
        "Driver": "overlay",
        "Platform": "linux",
        "ResolvConfPath": container.path.join("resolv.conf"),
        "HostnamePath": container.path.join("hostname"),
        "HostsPath": container.path.join("hosts"),
        "LogPath": container.path.join("log"),
        "ProcessLabel": record.selinux.process,
        "MountLabel": record.selinux.mount,
        "AppArmorProfile": process["apparmorProfile"].as_str().unwrap_or(""),
        "BundlePath": container.path,
        "HostConfig": host_config(container, &config),
        "GraphDriver": { "Name": "overlay", "Data": {
            "LowerDir": record.layers, "UpperDir": container.path.join("upper"), "WorkDir": container.path.join("work"),
        }},
        "Mounts": mounts(&config),
        "Config": {
            "Hostname": config["hostname"],
            "User": record.user,
            "Tty": settings.tty,
            "OpenStdin": settings.interactive,
            "Env": process["env"],
            "Cmd": record.args.get(record.entrypoint.len()..).unwrap_or(&record.args),
            "Image": record.image,
            "WorkingDir": process["cwd"],
            "Entrypoint": record.entrypoint,
            "Labels": record.labels,
            "StopSignal": record.stop_signal,
            "StopTimeout": settings.stop_timeout,
        },
        "NetworkSettings": { "IPAddress": "", "Ports": {}, "Networks": {} },
    }))
}

fn state(container: &Container) -> Result<Value> {
    const NEVER: &str = "0001-01-01T00:00:00Z";
    let status = container.status()?;
    let exited = container.exited()?;
    let code = match status {
        Status::Exited { code, .. } => code,
        _ => exited.as_ref().filter(|exited| exited.error.is_some()).map_or(0, |exited| exited.code),
    };
    let unknown = matches!(status, Status::Exited { known: false, .. });
    let error = exited.as_ref().and_then(|exited| exited.error.clone());
    let error =
        error.or_else(|| unknown.then(|| "its monitor was killed: the exit code is not known".to_owned()));
    Ok(json!({
        "Status": status.word(),
        "Running": status.is_up(),
        "Paused": status == Status::Paused,
        "Restarting": false,
        "OOMKilled": exited.as_ref().is_some_and(|exited| exited.oom_killed),
        "Dead": false,
        "Pid": container.pid()?.unwrap_or(0),
        "ExitCode": code,
        "Error": error.unwrap_or_default(),
        "StartedAt": container.started()?.map_or(NEVER.to_owned(), |started| started.at),
        "FinishedAt": exited.filter(|_| !status.is_up()).map_or(NEVER.to_owned(), |exited| exited.at),
    }))
}

fn host_config(container: &Container, config: &Value) -> Value {
    let settings = &container.record.settings;
    let linux = &config["linux"]["resources"];
    let number = |pointer: &str| linux.pointer(pointer).cloned().unwrap_or(json!(0));
    let quota = linux.pointer("/cpu/quota").and_then(Value::as_i64).unwrap_or(0);
    json!({
        "Binds": settings.volume,
        "NetworkMode": settings.network.as_deref().unwrap_or("private"),
        "AutoRemove": settings.rm,
        "Privileged": settings.privileged,
        "ReadonlyRootfs": settings.read_only,
        "CapAdd": settings.cap_add,
        "CapDrop": settings.cap_drop,
        "SecurityOpt": settings.security_opt,
        "PidMode": settings.pid.as_deref().unwrap_or("private"),
        "IpcMode": settings.ipc.as_deref().unwrap_or("private"),
        "UTSMode": settings.uts.as_deref().unwrap_or("private"),
        "UsernsMode": settings.userns.as_deref().unwrap_or(""),
        "IDMappings": id_mappings(&config["linux"]),
        "Memory": number("/memory/limit"),
        "MemorySwap": number("/memory/swap"),
        "NanoCpus": quota * 10_000,
        "CpuShares": number("/cpu/shares"),
        "CpusetCpus": settings.cpuset_cpus.as_deref().unwrap_or(""),
        "CgroupParent": settings.cgroup_parent.as_deref().unwrap_or(""),
        "Devices": settings.device.iter().filter_map(|text| device(text)).collect::<Vec<_>>(),
        "Ulimits": ulimits(&config["process"]),
        "ShmSize": shm_size(&config["mounts"]),
        "Tmpfs": pairs(&settings.tmpfs, ':'),
        "Sysctls": pairs(&settings.sysctl, '='),
        "GroupAdd": settings.group_add,
        "PidsLimit": number("/pids/limit"),
        "Dns": settings.dns,
        "ExtraHosts": settings.add_host,
        "Init": settings.init,
        "LogConfig": { "Type": "k8s-file", "Config": {} },
        "RestartPolicy": { "Name": "no", "MaximumRetryCount": 0 },
        "MaskedPaths": config["linux"]["maskedPaths"],
        "ReadonlyPaths": config["linux"]["readonlyPaths"],
    })
}

fn device(text: &str) -> Option<Value> {
    let (host, inside, access) = devices::parts(text).ok()?;
    Some(json!({ "PathOnHost": host, "PathInContainer": inside, "CgroupPermissions": access }))
}

fn ulimits(process: &Value) -> Vec<Value> {
    let all = process["rlimits"].as_array().into_iter().flatten();
    let name = |limit: &Value| limit["type"].as_str()?.strip_prefix("RLIMIT_").map(str::to_lowercase);
    all.map(|limit| json!({ "Name": name(limit), "Soft": limit["soft"], "Hard": limit["hard"] })).collect()
}

/// In bytes; 0 where it is the host's or another container's.
fn shm_size(mounts: &Value) -> u64 {
    let all = mounts.as_array().into_iter().flatten();
    let options =
        all.filter(|mount| mount["destination"] == "/dev/shm").filter_map(|m| m["options"].as_array());
    let mut sizes =
        options.flatten().filter_map(|option| option.as_str()?.strip_prefix("size=")?.parse().ok());
    sizes.next_back().unwrap_or(0)
}

/// Flags that name something and say something of it.
fn pairs(flags: &[String], between: char) -> Value {
    let all = flags.iter().map(|flag| flag.split_once(between).unwrap_or((flag, "")));
    all.map(|(name, value)| (name.to_owned(), value.into())).collect::<serde_json::Map<_, Value>>().into()
}

/// As Podman shows them, `INSIDE:OUTSIDE:SIZE` each; null without a user namespace.
fn id_mappings(linux: &Value) -> Value {
    let list = |key: &str| -> Option<Vec<String>> {
        let text = |map: &Value| format!("{}:{}:{}", map["containerID"], map["hostID"], map["size"]);
        Some(linux[key].as_array()?.iter().map(text).collect())
    };
    match (list("uidMappings"), list("gidMappings")) {
        (Some(uid), Some(gid)) => json!({ "UidMap": uid, "GidMap": gid }),
        _ => Value::Null,
    }
}

/// Binds and volumes, not what every container has.
fn mounts(config: &Value) -> Vec<Value> {
    let own = ["/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/dev/shm", crate::engine::init::PATH];
    let all = config["mounts"].as_array().into_iter().flatten();
    let ours =
        all.filter(|mount| mount["type"] == "bind" && !own.iter().any(|path| mount["destination"] == *path));
    ours.map(|mount| {
        let options = mount["options"].as_array().cloned().unwrap_or_default();
        let source = mount["source"].as_str().unwrap_or("");
        let volume = source.strip_suffix("/_data").and_then(|path| path.rsplit('/').next());
        json!({
            "Type": if volume.is_some() { "volume" } else { "bind" },
            "Name": volume.unwrap_or(""),
            "Source": source,
            "Destination": mount["destination"],
            "RW": !options.iter().any(|option| option == "ro" || option == "rro"),
        })
    })
    .collect()
}
