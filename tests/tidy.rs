//! The house's invariants, read from the source: each is a test that names the line and what to do. What a lint can
//! say stands in clippy.toml and Cargo.toml; here is what none can. An exception is a line in a list, with its reason.

#[path = "support/source.rs"]
mod source;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// One file of the repository: its path from the root, and its text.
struct File {
    path: String,
    text: String,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file that belongs to the repository, sorted; bytes that are no text are left out.
fn files() -> Vec<File> {
    let mut found = Vec::new();
    let mut waiting = vec![PathBuf::new()];
    while let Some(dir) = waiting.pop() {
        let entries =
            fs::read_dir(root().join(&dir)).unwrap_or_else(|why| panic!("{}: {why}", dir.display()));
        for entry in entries.map(|entry| entry.expect("readdir(3)")) {
            let (path, kind) = (dir.join(entry.file_name()), entry.file_type().expect("a type"));
            if kind.is_dir() && !["target", ".git"].contains(&entry.file_name().to_string_lossy().as_ref()) {
                waiting.push(path);
            } else if kind.is_file() && path != Path::new(".git") {
                let bytes =
                    fs::read(root().join(&path)).unwrap_or_else(|why| panic!("{}: {why}", path.display()));
                if let Ok(text) = String::from_utf8(bytes) {
                    found.push(File { path: path.to_string_lossy().into_owned(), text });
                }
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(found.iter().any(|file| file.path == "src/lib.rs"), "not a tree of jug: {}", root().display());
    found
}

fn rust() -> Vec<File> {
    files().into_iter().filter(|file| file.path.ends_with(".rs")).collect()
}

/// The Rust files below one folder.
fn room(folder: &str) -> Vec<File> {
    rust().into_iter().filter(|file| file.path.starts_with(folder)).collect()
}

/// Fails with all faults at once, and what to do about them.
#[track_caller]
fn none(faults: &[String], next: &str) {
    assert!(faults.is_empty(), "{} found:\n  {}\nnext: {next}\n", faults.len(), faults.join("\n  "));
}

/// Whether `word` stands at `at` as a word of its own.
fn words<'t>(line: &'t str, word: &'t str) -> impl Iterator<Item = usize> + 't {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word)
        .filter(move |(at, _)| !(word.starts_with(part) && line[..*at].ends_with(part)))
        .filter(move |(at, _)| !(word.ends_with(part) && line[at + word.len()..].starts_with(part)))
        .map(|(at, _)| at)
}

fn holds(line: &str, word: &str) -> bool {
    words(line, word).next().is_some()
}

/// Path, line number (from 1) and the code of every line.
fn lines(files: &[File]) -> impl Iterator<Item = (&str, usize, String)> {
    files.iter().flat_map(|file| {
        let code: Vec<String> = source::code(&file.text).lines().map(str::to_owned).collect();
        code.into_iter().enumerate().map(|(i, line)| (file.path.as_str(), i + 1, line))
    })
}

/// Paths that `plan/` may name, whole or as a beginning that ends in `::`. All of it is plain data or arithmetic.
const PURE: [&str; 26] = [
    "std::borrow::",
    "std::cmp::",
    "std::collections::",
    "std::fmt",
    "std::fmt::",
    "std::iter::",
    "std::path::",
    "std::result::",
    "std::str::",
    // A length of time, not a clock.
    "std::time::Duration",
    "std::time::Duration::",
    "oci_spec::runtime::",
    // The names and numbers of capabilities; `caps::runtime` asks the kernel, and stays out.
    "caps::Capability",
    "caps::Capability::",
    "caps::all",
    "crate::error::",
    "crate::bundle::Bundle",
    // The data; `Host::look` asks the kernel, and stays out.
    "crate::host::Host",
    "crate::host::Systemd",
    "crate::host::Host::default",
    "crate::seccomp::Filter",
    "crate::seccomp::compile",
    "crate::seccomp::native",
    "crate::sys::bpf::Instruction",
    "crate::sys::process::SchedAttr",
    "serde_json::from_str",
];

/// Modules of which `plan/` may name the constants, which are written in capitals.
const PURE_CONSTANTS: [&str; 2] = ["libc", "crate::sys::mount"];

/// The names of the crates in [dependencies], as code writes them.
fn dependencies() -> Vec<String> {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).expect("Cargo.toml");
    let section = manifest.split("\n[dependencies]\n").nth(1).expect("[dependencies]");
    let lines = section.lines().take_while(|line| !line.starts_with('['));
    lines.filter_map(|line| line.split_once(" = ")).map(|(name, _)| name.trim().replace('-', "_")).collect()
}

fn is_pure(path: &str) -> bool {
    let constant = |module: &str| {
        let rest = path.strip_prefix(module).and_then(|rest| rest.strip_prefix("::"));
        path == module || rest.is_some_and(|name| !name.is_empty() && name == name.to_uppercase())
    };
    PURE.iter().any(|pure| path == *pure || (pure.ends_with("::") && path.starts_with(pure)))
        || PURE_CONSTANTS.iter().any(|module| constant(module))
}

#[test]
fn the_plan_can_touch_nothing() {
    let mut outside = dependencies();
    outside.extend(["std", "core", "alloc", "crate", "jug"].map(str::to_owned));
    let mut faults = Vec::new();
    for file in room("src/plan/") {
        for (line, path) in source::paths(&source::code(&file.text)) {
            let first = path.split("::").next().unwrap_or_default();
            let own = path.starts_with("crate::plan");
            if outside.iter().any(|name| name == first) && !own && !is_pure(&path) {
                faults.push(format!("{}:{line}: {path}", file.path));
            }
        }
    }
    none(
        &faults,
        "let host.rs or bundle.rs find the fact and hand it in; what is only data goes into PURE in tests/tidy.rs",
    );
}

#[test]
fn unsafe_stays_behind_the_fence() {
    let mut faults = Vec::new();
    let files = room("src/");
    for (path, number, line) in lines(&files).filter(|(path, ..)| !path.starts_with("src/sys/")) {
        if holds(&line, "unsafe") {
            faults.push(format!("{path}:{number}: {}", line.trim()));
        }
    }
    none(&faults, "make it a function of src/sys whose error is the call and its arguments");
}

/// The comment lines right above a line (attributes between them do not count), and those on it.
fn comment_above<'f>(text: &[&'f str], number: usize) -> Vec<&'f str> {
    let above = text[..number - 1].iter().rev().map(|line| line.trim());
    let mut found: Vec<&str> = above
        .take_while(|line| line.starts_with("//") || line.starts_with("#["))
        .filter(|l| l.starts_with("//"))
        .collect();
    found.extend(text[number - 1].find("//").map(|at| &text[number - 1][at..]));
    found
}

#[test]
fn every_unsafe_says_why_it_is_sound() {
    let mut faults = Vec::new();
    for file in rust() {
        let code = source::code(&file.text);
        let (code, text): (Vec<&str>, Vec<&str>) = (code.lines().collect(), file.text.lines().collect());
        for (i, line) in code.iter().enumerate() {
            let Some(at) = words(line, "unsafe").next() else { continue };
            let what = line[at + "unsafe".len()..].trim_start();
            // A type, such as `unsafe extern "C" fn(...)`, does nothing; an attribute has its own lint.
            let kind = match what {
                _ if what.starts_with("fn ") => "Safety",
                _ if what.starts_with('{') || what.starts_with("impl") => "SAFETY",
                _ => continue,
            };
            // The comment stands above the statement, which may have begun some lines before.
            let begins = (0..=i).rev().find(|i| {
                *i == 0
                    || text[i - 1].trim_end().ends_with([';', '{', '}', ','])
                    || text[i - 1].trim_start().starts_with("//")
                    || text[i - 1].trim().is_empty()
            });
            let begins = begins.unwrap_or(i);
            let said = [i + 1, begins + 1].into_iter().flat_map(|line| comment_above(&text, line));
            let word =
                |comment: &str| comment.contains(kind) || (kind == "Safety" && comment.contains("SAFETY"));
            if !said.into_iter().any(word) {
                faults.push(format!("{}:{}: {}", file.path, i + 1, line.trim()));
            }
        }
    }
    none(
        &faults,
        "write `// SAFETY:` (for a function `/// # Safety`): the invariant, who upholds it, the man page",
    );
}

/// Who may not name whom. The first room that ends in `.rs` or `/` reads, the second is a path.
const APART: [(&str, &str, &str); 12] = [
    ("src/apply/", "oci_spec::runtime::Spec", "read the plan: it is the permission to act"),
    ("src/apply/", "crate::bundle", "read the plan: it is the permission to act"),
    ("src/image/", "crate::container", "the two flows meet at Bundle only"),
    ("src/container/", "crate::image", "the two flows meet at Bundle only"),
    ("src/plan/", "crate::apply", "the plan comes first"),
    ("src/sys/", "crate::plan", "sys knows calls, not containers"),
    ("src/sys/", "crate::container", "sys knows calls, not containers"),
    ("src/", "crate::bench", "the benchmarks drive binaries from outside"),
    ("src/bench/", "crate::apply", "the benchmarks drive binaries from outside"),
    ("src/bench/", "crate::container", "the benchmarks drive binaries from outside"),
    ("src/bench/", "crate::plan", "the benchmarks drive binaries from outside"),
    ("src/bench/", "crate::sys", "the benchmarks drive binaries from outside"),
];

/// The room itself and its door.
const OWN: [(&str, &str); 2] = [("src/bench/", "crate::bench"), ("src/cli/engine/bench.rs", "crate::bench")];

#[test]
fn rooms_that_are_apart_stay_apart() {
    let mut faults = Vec::new();
    for file in room("src/") {
        let own = |apart: &str| OWN.iter().any(|(at, own)| file.path.starts_with(at) && apart == *own);
        for (line, path) in source::paths(&source::code(&file.text)) {
            for (folder, apart, why) in APART.into_iter().filter(|(_, apart, _)| !own(apart)) {
                let named =
                    path.strip_prefix(apart).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"));
                if file.path.starts_with(folder) && named {
                    faults.push(format!("{}:{line}: {path}: {why}", file.path));
                }
            }
        }
    }
    none(&faults, "move the type to the room that both may know, or the function to the room that needs it");
}

/// Rooms that may have threads, since they never clone a container: they run jug-oci.
const THREADED: [&str; 2] = ["src/bench/", "src/image/"];

#[test]
fn no_thread_before_the_clone() {
    let mut faults = Vec::new();
    let makers = ["thread::spawn", "thread::scope", "thread::Builder", "rayon", "tokio", "crossbeam"];
    let files = room("src/");
    let never_clones = |path: &str| THREADED.iter().any(|room| path.starts_with(room));
    for (path, number, line) in lines(&files).filter(|(path, ..)| !never_clones(path)) {
        faults.extend(
            makers.iter().filter(|maker| holds(&line, maker)).map(|m| format!("{path}:{number}: {m}")),
        );
    }
    none(&faults, "stay single-threaded from start to exec: what must run beside it is a process of its own");
}

/// What only the named places may do: paths of std (found whatever they are imported as) or the words themselves, what
/// to use instead, and who may with the reason.
struct Ban {
    words: &'static [&'static str],
    instead: &'static str,
    except: &'static [(&'static str, &'static str)],
}

const BENCH: (&str, &str) =
    ("src/bench/", "measures from outside, as a user would, and links nothing of the runtime");

const IMAGE: (&str, &str) =
    ("src/image/", "the store's own directories; what an image names goes through RootDir");
const ENGINE: (&str, &str) =
    ("src/engine/", "the engine's own directories, and programs that it runs by its own path");
const ENGINE_DOOR: (&str, &str) = ("src/cli/engine/", "files and streams that the caller names");
const SHIM: (&str, &str) = ("src/shim/", "bundles and sockets that containerd names, and jug-oci");
const BARE: (&str, &str) = ("src/sys/bare/", "programs of `jug bench`, which do not link the library");

const BANS: [Ban; 5] = [
    Ban {
        words: &["std::fs"],
        instead: "sys::path and sys::fd, which work by descriptor and say the call and its arguments",
        except: &[
            BENCH,
            BARE,
            IMAGE,
            ENGINE,
            ENGINE_DOOR,
            SHIM,
            ("src/container/record.rs", "mkdir -p of the state root: a path of the caller's"),
        ],
    },
    Ban {
        words: &["canonicalize("],
        instead: "an open with openat2(2): a resolved path can change before it is used",
        except: &[],
    },
    Ban {
        words: &[
            ".exists()",
            ".is_dir()",
            ".is_file()",
            ".is_symlink()",
            ".read_dir()",
            ".read_link()",
            ".try_exists()",
        ],
        instead: "an open, then fstat(2): a question about a path is out of date when it is answered",
        except: &[BENCH],
    },
    Ban {
        words: &["std::process::Command"],
        instead: "a call of the kernel: a program on PATH is neither pinned nor free",
        except: &[
            BENCH,
            IMAGE,
            ENGINE,
            SHIM,
            ("src/apply/hooks.rs", "hooks are programs: config.md#posix-platform-hooks"),
            ("src/apply/ids.rs", "newuidmap(1) and newgidmap(1), the only way to /etc/subuid without root"),
            ("src/cli/oci/ps.rs", "ps(1), whose options the verb hands on"),
            ("src/sys/spawn.rs", "what a hook's process becomes"),
        ],
    },
    Ban {
        words: &["print!", "println!", "eprint!", "eprintln!"],
        instead: "cli::log: the macros panic when the reader went away",
        except: &[BENCH, BARE],
    },
];

impl Ban {
    /// The lines of a file that do it, and which word it was.
    fn broken_by(&self, file: &File) -> Vec<(usize, &'static str)> {
        let code = source::code(&file.text);
        let mut found = Vec::new();
        for word in self.words {
            if word.starts_with("std::") {
                let below = |path: &str| {
                    path.strip_prefix(word).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
                };
                found.extend(
                    source::paths(&code)
                        .iter()
                        .filter(|(_, path)| below(path))
                        .map(|(line, _)| (*line, *word)),
                );
            } else {
                let lines = code.lines().enumerate();
                found.extend(lines.filter(|(_, line)| holds(line, word)).map(|(i, _)| (i + 1, *word)));
            }
        }
        found
    }
}

#[test]
fn what_only_some_may_do() {
    let mut faults = Vec::new();
    for file in room("src/") {
        for ban in BANS.iter().filter(|ban| !ban.except.iter().any(|(place, _)| file.path.starts_with(place)))
        {
            let broken = ban.broken_by(&file).into_iter();
            faults.extend(
                broken.map(|(line, word)| format!("{}:{line}: {word}: use {}", file.path, ban.instead)),
            );
        }
    }
    none(&faults, "where it must be, add the file with its reason to BANS in tests/tidy.rs");
}

#[test]
fn no_exception_without_use() {
    let files = room("src/");
    let mut faults = Vec::new();
    for ban in &BANS {
        for (place, _) in ban.except {
            if !files.iter().any(|file| file.path.starts_with(place) && !ban.broken_by(file).is_empty()) {
                faults.push(format!("tests/tidy.rs: {place} needs no leave for {}", ban.words[0]));
            }
        }
    }
    none(&faults, "remove the exception");
}

#[test]
fn every_file_says_what_it_is_for() {
    let opens = |file: &File| file.text.lines().next().is_some_and(|line| line.starts_with("//!"));
    let faults: Vec<String> =
        rust().iter().filter(|file| !opens(file)).map(|file| format!("{}:1", file.path)).collect();
    none(&faults, "open it with `//!`: what this room is for and what it must not do");
}

/// Lines a file of src/ may have, where it is no table.
const FILE_LINES: usize = 600;
const FUNCTION_LINES: usize = 100;
const LINE_WIDTH: usize = 120;

#[test]
fn files_fit_a_head() {
    let long = |file: &&File| !file.path.contains("/tables/") && file.text.lines().count() > FILE_LINES;
    let files = room("src/");
    let faults: Vec<String> = files
        .iter()
        .filter(long)
        .map(|f| format!("{}:{FILE_LINES}: {} lines", f.path, f.text.lines().count()))
        .collect();
    none(&faults, "split it by nouns");
}

#[test]
fn functions_fit_a_screen() {
    let mut faults = Vec::new();
    for file in rust() {
        for (line, name, length) in source::functions(&source::code(&file.text)) {
            if length > FUNCTION_LINES {
                faults.push(format!("{}:{line}: {name} has {length} lines", file.path));
            }
        }
    }
    none(&faults, "aim for 25 lines, think hard past 70");
}

#[test]
fn lines_fit_the_screen() {
    let mut faults = Vec::new();
    for file in files().iter().filter(|f| f.path.ends_with(".rs") || f.path.starts_with("scripts/")) {
        for (i, line) in file.text.lines().enumerate().filter(|(_, line)| line.chars().count() > LINE_WIDTH) {
            faults.push(format!("{}:{}: {} wide", file.path, i + 1, line.chars().count()));
        }
    }
    none(&faults, "wrap it at 120 (cargo fmt wraps code, not comments and strings)");
}

/// Names that say nothing, or that are not our trade's.
const NAMES: [&str; 16] = [
    "util",
    "utils",
    "helper",
    "helpers",
    "common",
    "misc",
    "manager",
    "managers",
    "handler",
    "handlers",
    "impl",
    "tenant",
    "intermediate",
    "stage",
    "stage1",
    "stage2",
];

#[test]
fn names_say_something() {
    let mut faults = Vec::new();
    for file in files() {
        let banned = file.path.split(['/', '.', '_', '-']).find(|part| NAMES.contains(part));
        faults.extend(banned.map(|name| format!("{}:1: {name} in a file's name", file.path)));
    }
    let files = rust();
    for (path, number, line) in lines(&files) {
        let module = line.split("mod ").nth(1).unwrap_or_default().trim_end_matches(['{', ';', ' ']);
        if line.trim_start().starts_with(['p', 'm']) && module.split('_').any(|part| NAMES.contains(&part)) {
            faults.push(format!("{path}:{number}: module {module}"));
        }
    }
    none(&faults, "name it with a noun of the kernel, the OCI specifications or containerd");
}

#[test]
fn nothing_is_left_to_do_later() {
    let marks = ["todo!", "unimplemented!", "dbg!", "FIXME", "TODO", "XXX", "#[ignore", "#[allow(unused"];
    let mut faults = Vec::new();
    // This file has to name them.
    for file in files().iter().filter(|file| file.path != "tests/tidy.rs") {
        for (i, line) in file.text.lines().enumerate() {
            faults.extend(
                marks.iter().filter(|m| holds(line, m)).map(|m| format!("{}:{}: {m}", file.path, i + 1)),
            );
        }
    }
    none(&faults, "do it now, or open an issue and describe today's behaviour instead");
}

/// What looks like a path of somebody's machine and is none.
const NOT_A_MACHINE: [(&str, &str); 4] = [
    ("/root/path", "a JSON pointer into config.json"),
    ("/root/readonly", "a JSON pointer into config.json"),
    ("/home/lamb", "a user of the tests' root file systems"),
    ("/home/jug", "a user of rootfs-builder's root file systems"),
];

#[test]
fn no_path_of_one_machine() {
    let homes = ["/work/", "/root/", "/home/", "/Users/"];
    let mut faults = Vec::new();
    for file in files().iter().filter(|file| file.path != "tests/tidy.rs") {
        for (i, line) in file.text.lines().enumerate() {
            for (at, home) in homes.iter().flat_map(|home| line.match_indices(home)) {
                // In the middle of a longer path it is a part like any other.
                let whole = !line[..at].ends_with(|c: char| c.is_alphanumeric() || "_-.})$*~".contains(c));
                let known = NOT_A_MACHINE.iter().any(|(path, _)| line[at..].starts_with(path));
                if whole && !known {
                    faults.push(format!("{}:{}: {home}", file.path, i + 1));
                }
            }
        }
    }
    none(
        &faults,
        "find it at run time (CARGO_MANIFEST_DIR, $HOME, mktemp), or write a path that exists everywhere",
    );
}

/// Crates that reach the network, speak TLS or HTTP, or run an executor.
const NETWORK: [&str; 34] = [
    "actix-rt",
    "async-executor",
    "async-io",
    "async-std",
    "attohttpc",
    "aws-lc-rs",
    "curl",
    "curl-sys",
    "futures",
    "futures-executor",
    "h2",
    "hickory-resolver",
    "http",
    "hyper",
    "hyper-util",
    "isahc",
    "mio",
    "native-tls",
    "oci-client",
    "oci-distribution",
    "openssl",
    "openssl-sys",
    "quinn",
    "reqwest",
    "ring",
    "rustls",
    "smol",
    "socket2",
    "tokio",
    "tokio-util",
    "tonic",
    "ttrpc",
    "ureq",
    "webpki-roots",
];

#[test]
fn the_runtime_links_no_network() {
    let args = ["tree", "--package", "jug", "-e", "normal", "--locked", "--offline", "--prefix", "none"];
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let out = match Command::new(cargo).current_dir(root()).args(args).output() {
        Ok(out) => out,
        Err(why) => return skip("the_runtime_links_no_network", &format!("no cargo here: {why}")),
    };
    let (tree, said) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success() && tree.contains("clap "), "cargo tree: {said}\n{tree}");
    let linked = tree.lines().filter_map(|line| line.split(' ').next()).filter(|name| NETWORK.contains(name));
    let faults: Vec<String> =
        linked.map(|name| format!("Cargo.toml: jug depends on {name} without a feature")).collect();
    none(&faults, "put it behind a feature that the required-features of jug-oci leave out");
}

/// One line past libtest's capture.
fn skip(test: &str, why: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "SKIP {test}: {why}");
}

#[test]
fn the_map_is_only_a_map() {
    let map = fs::read_to_string(root().join("src/lib.rs")).expect("src/lib.rs");
    let fits = |line: &str| {
        let module = line.strip_prefix("pub mod ").and_then(|rest| rest.strip_suffix(';'));
        line.is_empty()
            || line.starts_with("//")
            || line.starts_with("#[cfg(feature = ")
            || module.is_some_and(|name| name.chars().all(|c| c.is_alphanumeric() || c == '_'))
    };
    let odd = map.lines().enumerate().filter(|(_, line)| !fits(line.trim()));
    let faults: Vec<String> = odd.map(|(i, line)| format!("src/lib.rs:{}: {line}", i + 1)).collect();
    none(&faults, "lib.rs holds docs and `pub mod`: give the rest a room");
}

/// Everything in scripts/ and .ci/: path and text.
fn scripts() -> Vec<File> {
    files()
        .into_iter()
        .filter(|file| ["scripts/", ".ci/"].iter().any(|dir| file.path.starts_with(dir)))
        .collect()
}

#[test]
fn scripts_are_programs() {
    use std::os::unix::fs::PermissionsExt as _;
    let mut faults = Vec::new();
    for file in scripts() {
        let mut fault = |line: usize, why: &str| faults.push(format!("{}:{line}: {why}", file.path));
        let mode = fs::metadata(root().join(&file.path)).expect("stat").permissions().mode();
        let first = file.text.lines().next().unwrap_or_default();
        // C that a script compiles is no program by itself.
        if file.path.ends_with(".c") {
            if !first.starts_with("//") && !first.starts_with("/*") {
                fault(1, "no comment that says what it is for");
            }
            continue;
        }
        if mode & 0o111 != 0o111 {
            fault(1, "not executable");
        }
        if !first.starts_with("#!/") {
            fault(1, "no #! line");
        }
        if !file.text.lines().nth(1).is_some_and(|line| line.starts_with("# ") || line.starts_with("\"\"\""))
        {
            fault(2, "no comment that says what it does");
        }
        if first.ends_with("sh") && !file.text.lines().any(|line| line.starts_with("set -e")) {
            fault(1, "no set -e");
        }
    }
    none(&faults, "chmod +x; a #! line, a comment that says what it does, and set -euo pipefail");
}

#[test]
fn shell_scripts_parse() {
    let mut faults = Vec::new();
    for file in scripts().iter().filter(|f| f.text.lines().next().is_some_and(|line| line.ends_with("bash")))
    {
        match Command::new("bash").current_dir(root()).args(["-n", &file.path]).output() {
            Ok(out) if out.status.success() => {}
            Ok(out) => faults.push(String::from_utf8_lossy(&out.stderr).into_owned()),
            Err(why) => return skip("shell_scripts_parse", &format!("no bash here: {why}")),
        }
    }
    none(&faults, "bash -n says where");
}

#[test]
fn changes_are_told() {
    let log = fs::read_to_string(root().join("CHANGELOG.md")).expect("CHANGELOG.md");
    let version = env!("CARGO_PKG_VERSION");
    let told = log
        .lines()
        .any(|line| line.starts_with("## Unreleased") || line.starts_with(&format!("## {version}")));
    assert!(
        told,
        "CHANGELOG.md:1: neither an Unreleased section nor one for {version}\nnext: add `## Unreleased`"
    );
}

#[test]
fn every_example_is_whole() {
    let dir = root().join("oci-examples");
    let mut faults = Vec::new();
    for example in fs::read_dir(dir).expect("oci-examples").map(|entry| entry.expect("readdir(3)").path()) {
        for file in ["config.json", "README.md", "plan.txt"] {
            if !example.join(file).is_file() {
                faults.push(format!(
                    "oci-examples/{}: no {file}",
                    example.file_name().unwrap_or_default().display()
                ));
            }
        }
    }
    none(&faults, "see the other examples; JUG_BLESS=1 cargo test --test examples writes plan.txt");
}

/// The rules above are worth as much as the reader of source below them.
#[test]
fn the_reader_of_source_reads() {
    let text = "use std::{fs, path::{self, Path as P}};\n// std::net\nfn a(x: [u8; 2]) -> P {\n    let c = '\"'; \
                fs::read(r#\"std::env\"#)\n}\nfn b<'a>();\n";
    let code = source::code(text);
    assert!(!code.contains("net") && !code.contains("env") && code.contains("fs::read("), "{code}");
    let paths: Vec<String> = source::paths(&code).into_iter().map(|(_, path)| path).collect();
    assert_eq!(paths, ["std::fs", "std::path", "std::path::Path", "std::path::Path", "std::fs::read"]);
    assert_eq!(source::functions(&code), [(3, "a".to_owned(), 3)]);
    assert!(is_pure("libc::MS_REC") && !is_pure("libc::mount") && !is_pure("crate::host::Host::look"));
}
