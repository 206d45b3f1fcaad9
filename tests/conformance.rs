//! docs/spec-conformance.md is true as far as a reader of files can tell: each property of the specification has a row,
//! and each row names code and tests that exist. The list of properties was written down from the specification's text.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

fn read(path: &str) -> Option<String> {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).ok()
}

/// The cells of each row: property, done in, shown by.
fn rows() -> Vec<[String; 3]> {
    let text = read("docs/spec-conformance.md").expect("docs/spec-conformance.md");
    let row = |line: &str| {
        let cells: Vec<&str> = line.strip_prefix("| ")?.split(" | ").collect();
        let whole = cells.len() == 4 && cells[0] != "property";
        whole.then(|| [cells[0], cells[1], cells[2]].map(str::to_owned))
    };
    let rows: Vec<_> = text.lines().filter_map(row).collect();
    assert!(rows.len() > 100, "{} rows were read", rows.len());
    rows
}

/// `file: name` of every code span of a cell.
fn named(cell: &str) -> Vec<(&str, &str)> {
    let spans: Vec<&str> = cell.split('`').skip(1).step_by(2).collect();
    spans
        .iter()
        .map(|span| span.split_once(": ").unwrap_or_else(|| panic!("{span:?} names nothing in a file")))
        .collect()
}

#[test]
fn every_property_has_a_row() {
    let list = read("tests/fixtures/properties-1.3.0.txt").expect("the list of properties");
    let rows: BTreeSet<String> = rows().into_iter().map(|[property, ..]| property.replace('`', "")).collect();
    let missing: Vec<&str> = list.lines().filter(|property| !rows.contains(*property)).collect();
    assert!(missing.is_empty(), "no row in docs/spec-conformance.md for {missing:#?}");
    let listed: BTreeSet<&str> = list.lines().collect();
    let odd: Vec<&String> = rows.iter().filter(|row| !listed.contains(row.as_str())).collect();
    assert!(odd.is_empty(), "rows for what the list of properties has not: {odd:#?}");
}

#[test]
fn every_row_names_code_that_exists() {
    let mut faults = Vec::new();
    for [property, code, _] in rows() {
        let all = named(&code);
        assert!(!all.is_empty(), "{property}: no code");
        for (file, name) in all {
            let Some(text) = read(&format!("src/{file}")) else {
                faults.push(format!("{property}: src/{file} does not exist"));
                continue;
            };
            if !text.contains(&format!("fn {name}")) && !text.contains(&format!("const {name}:")) {
                faults.push(format!("{property}: src/{file} has no {name}"));
            }
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn every_row_names_tests_that_exist() {
    let mut faults = Vec::new();
    for [property, _, tests] in rows() {
        let all = named(&tests);
        assert!(!all.is_empty(), "{property}: no test");
        for (file, name) in all {
            let path = if file.starts_with("src/") { file.to_owned() } else { format!("tests/{file}.rs") };
            let Some(text) = read(&path) else {
                faults.push(format!("{property}: {path} does not exist"));
                continue;
            };
            let at = text.find(&format!("fn {name}()"));
            let attribute =
                at.and_then(|at| text[..at].rfind("#[test]").map(|attribute| &text[attribute..at]));
            // Nothing but the attribute and its like stands between.
            if attribute.is_none_or(|between| between.contains('}')) {
                faults.push(format!("{property}: {path} has no test {name}"));
            }
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}
