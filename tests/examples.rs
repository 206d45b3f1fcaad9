//! oci-examples: each plan is the golden one beside it, and each README's session prints what the README says.
//!
//! plan.txt is the plan on an ordinary host (cgroup v2 with all controllers), which is made here from those facts and
//! so compared on every machine; `JUG_BLESS=1 cargo test --test examples` writes it anew. Where this machine's layout
//! is that one, `jug-oci create --print-plan` must print the same.

mod support;

use std::path::{Path, PathBuf};
use std::{env, fs};

use jug::host::Host;
use jug::plan::{Options, Plan, show::show};
use support::*;

/// The user of the example that needs no root: `hostID` in its config.json.
const USER: u32 = 1000;

fn dir(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("oci-examples").join(name)
}

fn text(name: &str, file: &str) -> String {
    let path = dir(name).join(file);
    fs::read_to_string(&path).unwrap_or_else(|why| panic!("{}: {why}", path.display()))
}

fn user(name: &str) -> Option<(u32, u32)> {
    (name == "shell-rootless").then_some((USER, USER))
}

/// A machine with cgroup v2 alone, and its root or its first user.
fn ordinary_host(name: &str) -> Host {
    let (euid, egid) = user(name).unwrap_or((0, 0));
    Host {
        euid,
        egid,
        rootless: euid != 0,
        cgroup2: Some("/sys/fs/cgroup".into()),
        cgroup2_controllers: ["cpuset", "cpu", "io", "memory", "hugetlb", "pids", "rdma"]
            .map(str::to_owned)
            .into(),
        own_cgroup: "/user.slice/user-1000.slice/session-1.scope".into(),
        capabilities: (1 << 41) - 1,
        ..Host::default()
    }
}

/// The plan is the golden one; `JUG_BLESS=1` makes it so.
fn plan_is_golden(name: &str) {
    let bundle = jug::bundle::load(&dir(name)).expect("config.json");
    let plan = Plan::new(name, &bundle, &Options::default(), &ordinary_host(name)).expect("a plan");
    let plan = show(&plan);
    if env::var_os("JUG_BLESS").is_some() {
        fs::write(dir(name).join("plan.txt"), &plan).expect("write plan.txt");
    }
    let golden = text(name, "plan.txt");
    assert!(plan == golden, "oci-examples/{name}/plan.txt is not the plan (JUG_BLESS=1 writes it):\n{plan}");
}

/// What `--print-plan` prints here is the golden plan, except where the caller's own cgroup is in it.
fn printed_plan_is_golden(name: &str) {
    let bundle = dir(name).display().to_string();
    let mut call = runtime_call(&["create", "--print-plan", "--bundle", &bundle, name]);
    // The rootless example is planned for its user; a clone of this repository may lie where that user cannot look.
    let copied = user(name).map(|(uid, gid)| (Bundle::with(user(name), &config(name)), uid, gid));
    if let Some((b, uid, gid)) = &copied {
        call = b.call(&["create", "--print-plan", "--bundle", &b.path(""), name]).user(*uid, *gid);
    }
    let without_own_cgroup = |plan: &str| {
        let own = |line: &&str| user(name).is_some() && line.starts_with("cgroup ");
        plan.lines().filter(|line| !own(line)).map(str::to_owned).collect::<Vec<_>>()
    };
    let printed = call.ok().stdout;
    assert_eq!(without_own_cgroup(&printed), without_own_cgroup(&text(name, "plan.txt")), "{name}");
}

fn config(name: &str) -> Value {
    serde_json::from_str(&text(name, "config.json")).expect("config.json is JSON")
}

/// The commands of README's console block, each with the output that follows it.
fn session(name: &str) -> Vec<(String, String)> {
    let readme = text(name, "README.md");
    let block = readme.split("```console\n").nth(1).and_then(|rest| rest.split("```").next());
    let mut steps: Vec<(String, String)> = Vec::new();
    for line in block.expect("a console block in README.md").lines() {
        match line.strip_prefix("$ ") {
            Some(command) => steps.push((command.to_owned(), String::new())),
            None => steps.last_mut().expect("a command first").1 += &format!("{line}\n"),
        }
    }
    steps
}

/// Plays README's session. The kit's root file system, also busybox, stands in for rootfs-builder's.
fn session_is_true(name: &str) {
    let mut spec = config(name);
    let b = Bundle::with(user(name), &spec);
    if let Some(path) = spec["linux"].get_mut("cgroupsPath") {
        // Named by the kit's tag, so that whatever is left is found.
        *path = json!(format!("/{}", b.tag()));
        b.write_spec(&spec);
    }
    let mut runs = 0;
    for (command, output) in session(name) {
        let words: Vec<&str> = command.split(' ').filter(|word| *word != "sudo").collect();
        let said = match words[..] {
            ["cd", ..] | ["rootfs-builder", ..] => String::new(),
            ["jug-oci", "run", id] if id == name => {
                runs += 1;
                b.run(&[]).ok().stdout
            }
            ["cat", file] => fs::read_to_string(b.path(file)).expect("the file that README shows"),
            _ => panic!("oci-examples/{name}/README.md: who knows how to play {command:?}?"),
        };
        assert_eq!(said, output, "oci-examples/{name}/README.md: {command}");
    }
    assert_eq!(runs, 1, "oci-examples/{name}/README.md does not run the example");
}

/// Three tests for each example: the plan, the plan as printed here, the session. `$needs` are what its session needs.
macro_rules! example {
    ($module:ident, $name:literal, session: { $($needs:tt)* }, printed: { $($layout:tt)* }) => {
        mod $module {
            use super::support::*;

            #[test]
            fn plan() {
                super::plan_is_golden($name);
            }

            #[test]
            fn printed() {
                deviates!("--print-plan is jug's own");
                $($layout)*
                super::printed_plan_is_golden($name);
            }

            #[test]
            fn session() {
                $($needs)*
                super::session_is_true($name);
            }
        }
    };
    ($module:ident, $name:literal, session: { $($needs:tt)* }) => {
        example!($module, $name, session: { $($needs)* }, printed: {});
    };
    ($module:ident, $name:literal) => {
        example!($module, $name, session: {}, printed: {});
    };
}

example!(hello, "hello");
example!(hooks, "hooks");
example!(init_network, "init-network");
example!(read_only, "read-only");
example!(shell_rootless, "shell-rootless", session: { needs!(Feature::UserNamespace); });
example!(user_namespace, "user-namespace", session: { needs!(Feature::UserNamespace); });
example!(time_offset, "time-offset", session: {
    needs!(Feature::TimeNamespace);
    newer!("1.2: timeOffsets");
});
example!(limits, "limits", session: {
    needs!(Feature::Controller("memory"));
    needs!(Feature::Controller("pids"));
    needs!(Feature::Controller("cpu"));
}, printed: {
    // plan.txt shows v2; on a hybrid host the same limits are lines `limit (v1)`.
    needs!(Feature::CgroupV2);
    needs!(Feature::Controller("memory"));
    needs!(Feature::Controller("pids"));
    needs!(Feature::Controller("cpu"));
});

#[cfg(target_arch = "x86_64")]
example!(seccomp, "seccomp");

/// An example that no test runs is a promise that nobody keeps.
#[test]
fn every_example_is_tested() {
    let this = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file!())).expect("this file");
    for entry in fs::read_dir(dir("")).expect("oci-examples") {
        let name = entry.expect("readdir(3)").file_name().into_string().expect("text");
        assert!(this.contains(&format!(", \"{name}\"")), "tests/examples.rs has no example!(…, {name:?})");
    }
}
