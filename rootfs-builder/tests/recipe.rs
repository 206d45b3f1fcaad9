//! Mistakes in recipes and flags: one clear error that names the key, the line or the file, and exit code 1.

#[path = "../../tests/support/program.rs"]
mod program;
mod support;

use support::Bench;

fn said(text: &str) -> String {
    let bench = Bench::new();
    bench.write("bad.toml", text);
    bench.refuse(&["bad.toml", "--output", "tar:x.tar"])
}

#[test]
fn mistakes_are_named_with_their_line() {
    for (text, words) in [
        ("\ntga = 'x'", ["bad.toml, line 2", "`tga`"]),
        ("[config]\ncmd = []\nentrypoint = 'x'", ["line 3", "entrypoint"]),
        ("[config]\nEnv = []", ["line 2", "`Env`"]),
        ("[[layer]]\n\nfrom = 'bussybox'", ["line 3", "`bussybox`"]),
        ("[[layer]]\nfrom = { drr = 'x' }", ["line 2", "`drr`"]),
        ("[[layer]]\nfrom = { dir = 'x', tar = 'y' }", ["line 2", "exactly one"]),
        ("[[layer]]\nfrom = { dir = 'x', include = ['y'] }", ["line 2", "`include`"]),
        (
            "[[layer]]\nfiles = [\n { path = '/a', content = '' },\n { path = '/b', contnt = '' } ]",
            ["line 4", "`contnt`"],
        ),
        ("[[layer]]\nfiles = [ { path = '/a' } ]", ["line 2", "`/a`"]),
        ("[[layer]]\nfiles = [ { path = '/a', dir = true, fifo = true } ]", ["line 2", "exactly one"]),
        ("[[layer]]\nfiles = [ { path = '/a', device = 'c 1' } ]", ["line 2", "`c 1`"]),
        ("[[layer]]\nfiles = [ { path = '/../a', dir = true } ]", ["line 2", "'..'"]),
        ("[[layer]]\nfiles = [ { path = '/a', content = '', mode = 755000 } ]", ["line 2", "`mode`"]),
        ("[[layer]]\nwhiteouts = ['/']", ["layer 1", "root"]),
        ("[[layer]]\nfrom = { debian = '--hook' }", ["line 2", "--hook"]),
        ("tag = [", ["line 1", "unclosed"]),
        ("compression = 'lzma'", ["`lzma`", "gzip"]),
    ] {
        let said = said(text);
        assert!(words.iter().all(|word| said.contains(word)), "{text}\n{said}");
    }
}

#[test]
fn what_is_missing_is_named_with_the_next_step() {
    let bench = Bench::new();
    for (args, words) in [
        (vec!["none.toml"], ["none.toml", "No such file"]),
        (vec!["--from", "dir:gone"], ["gone", "No such file"]),
        (vec!["--from", "tar:gone.tar"], ["gone.tar", "No such file"]),
        (vec!["--from", "busybox:gone"], ["gone", "No such file"]),
        (vec!["--from", "debian:bookworm:hello", "--offline"], ["not in the cache", "next: build once"]),
        (vec!["--from", "busybox", "--env", "novalue"], ["`novalue`", "NAME=VALUE"]),
        (vec!["--from", "what"], ["`what`", "busybox"]),
    ] {
        let said = bench.refuse(&[&args[..], &["--output", "tar:x.tar"]].concat());
        assert!(words.iter().all(|word| said.contains(word)), "{args:?}\n{said}");
    }
    let said = bench.refuse(&["--from", "busybox", "--output", "zip:x"]);
    assert!(said.contains("docker-archive"), "{said}");
}

#[test]
fn a_dynamic_busybox_is_refused() {
    let bench = Bench::new();
    let said = bench.refuse(&["--from", "busybox:/bin/bash", "--output", "tar:x.tar"]);
    assert!(said.contains("dynamically linked") && said.contains("busybox-static"), "{said}");
}

#[test]
fn paths_start_at_the_recipe() {
    let bench = Bench::new();
    bench.write("sub/data", "x");
    bench.write("sub/r.toml", "[[layer]]\nfiles = [{ path = '/data', copy = 'data' }]");
    bench.build(&["sub/r.toml", "--output", "tree:root", "--no-chown"]);
    assert!(bench.path("root/data").exists());
}

/// A cache that was filled once needs neither network nor mmdebstrap; the key is in the file's name.
#[test]
fn debian_comes_from_the_cache() {
    let bench = Bench::new();
    let said = bench.refuse(&[
        "--from",
        "debian:bookworm:hello",
        "--arch",
        "amd64",
        "--offline",
        "--output",
        "tar:x.tar",
    ]);
    let start = said.find("there is no ").unwrap() + "there is no ".len();
    let path = &said[start..start + said[start..].find(" and").unwrap()];
    std::fs::create_dir_all(std::path::Path::new(path).parent().unwrap()).unwrap();
    std::fs::write(path, support::RawTar::default().file("./etc/debian_version", "12\n").bytes()).unwrap();
    let args = ["--arch", "amd64", "--offline", "--output", "tree:root", "--no-chown"];
    bench.build(&[&["--from", "debian:bookworm:hello"], &args[..]].concat());
    assert!(bench.path("root/etc/debian_version").exists());
}

/// The probe is looked for beside the program, so a copy of the program beside any static binary shows it.
#[test]
fn the_probe_is_found_beside_the_program() {
    let bench = Bench::new();
    let program = bench.path("rootfs-builder");
    program::install(env!("CARGO_BIN_EXE_rootfs-builder"), &program);
    let run = |args: &[&str]| {
        std::process::Command::new(&program).args(args).current_dir(bench.path("")).output().unwrap()
    };
    let missing = run(&["probe", "--output", "out"]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&missing.stderr).contains("next: build it"), "{missing:?}");
    std::fs::copy("/bin/busybox", bench.path("probe")).unwrap();
    assert!(run(&["probe", "--output", "out"]).status.success());
    assert!(std::fs::read(bench.path("out")).unwrap() == std::fs::read("/bin/busybox").unwrap());
    assert!(run(&["build", "--from", "probe", "--no-chown", "--output", "tree:root"]).status.success());
    assert!(bench.path("root/bin/probe").is_file());
}

#[test]
fn the_recipe_of_the_readme_is_one() {
    let readme = include_str!("../README.md");
    let start = readme.find("```toml\n").unwrap() + "```toml\n".len();
    let text = &readme[start..start + readme[start..].find("```").unwrap()];
    let recipe = rootfs_builder::recipe::Recipe::parse(text, "README.md").unwrap();
    assert_eq!(recipe.layers[0].files.len(), 8);
    for line in text.lines().filter_map(|line| line.strip_prefix("# from")) {
        let layer = format!("[[layer]]\nfrom{line}\n");
        rootfs_builder::recipe::Recipe::parse(&layer, "README.md").unwrap();
    }
}
