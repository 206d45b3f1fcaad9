//! tests/mutants.toml beside the source: what scripts/mutants takes out stands there, once, and the tests that must
//! notice exist. The mutants themselves are built and run by that script, which takes an hour.
#![cfg(feature = "engine")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

#[derive(serde::Deserialize)]
struct Table {
    mutant: Vec<Mutant>,
    witnesses: std::collections::BTreeMap<String, String>,
}

#[derive(serde::Deserialize)]
struct Mutant {
    rule: String,
    without: String,
    tests: Vec<String>,
    #[serde(default)]
    witnesses: Vec<String>,
    edit: Vec<Edit>,
}

#[derive(serde::Deserialize)]
struct Edit {
    file: String,
    old: String,
    new: String,
}

fn text(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|why| panic!("{}: {why}", path.display()))
}

fn table() -> Table {
    toml::from_str(&text("tests/mutants.toml")).expect("tests/mutants.toml")
}

#[test]
fn what_is_taken_out_stands_in_the_source_once() {
    let mut faults = Vec::new();
    for mutant in table().mutant {
        for edit in &mutant.edit {
            let found = text(&edit.file).matches(&edit.old).count();
            if found != 1 || edit.old == edit.new {
                faults.push(format!("{}, {}: {found} times {:?}", mutant.rule, edit.file, edit.old));
            }
        }
    }
    assert!(
        faults.is_empty(),
        "{}\nnext: mend tests/mutants.toml, scripts/mutants tries it",
        faults.join("\n")
    );
}

/// Whether `FILE::NAME` is a test: of a file in tests/, or (`lib::room::tests::name`) of the library.
fn is_test(test: &str) -> bool {
    let (file, name) = test.split_once("::").expect("FILE::NAME");
    let (path, name) = match (file, name.rsplit_once("::tests::")) {
        ("lib", Some((module, name))) => (format!("src/{}.rs", module.replace("::", "/")), name),
        _ => (format!("tests/{file}.rs"), name),
    };
    text(&path).contains(&format!("#[test]\nfn {name}()"))
        || text(&path).contains(&format!("#[test]\n    fn {name}()"))
}

#[test]
fn the_tests_that_must_notice_exist() {
    let table = table();
    let named = table.mutant.iter().flat_map(|mutant| mutant.tests.iter().chain(&mutant.witnesses).cloned());
    let witnesses = table.witnesses.iter().map(|(file, name)| format!("{file}::{name}"));
    let missing: Vec<String> = named.chain(witnesses).filter(|test| !is_test(test)).collect();
    assert!(missing.is_empty(), "{missing:?}");
    let empty: Vec<&str> = table
        .mutant
        .iter()
        .filter(|mutant| mutant.tests.is_empty() || mutant.edit.is_empty())
        .map(|mutant| mutant.without.as_str())
        .collect();
    assert!(empty.is_empty(), "{empty:?}");
}

#[test]
fn every_rule_has_a_mutant() {
    let rules: BTreeSet<String> = table().mutant.into_iter().map(|mutant| mutant.rule).collect();
    let all: BTreeSet<String> = (1..=21).map(|n| format!("R{n}")).collect();
    assert_eq!(rules, all);
}
