//! The man pages are what clap makes of the commands, and the shim's is made of what it says itself:
//! `JUG_BLESS=1 cargo test --all-features --test man` writes them anew.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use clap::{Command, CommandFactory as _};
use clap_mangen::Man;

fn dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("man")
}

/// The page of a command and of each of its verbs, by file name.
fn render(mut command: Command, section: &str, pages: &mut BTreeMap<String, String>) {
    // clap's own `help` verb says nothing that the pages do not.
    command = command.disable_help_subcommand(true);
    command.build();
    let verbs: Vec<Command> = command.get_subcommands().filter(|verb| !verb.is_hide_set()).cloned().collect();
    for verb in verbs {
        render(verb, section, pages);
    }
    // Neither date nor version: a page changes when what it says does.
    let man = Man::new(command).section(section).source("jug").manual("The jug manual");
    let mut page = Vec::new();
    man.render(&mut page).expect("a page in memory");
    // An empty word of .TH is still a word, or the next one takes its place (groff_man(7)).
    let page = String::from_utf8(page).expect("text").replacen("  jug \"", " \"\" jug \"", 1);
    pages.insert(man.get_filename(), page);
}

fn pages() -> BTreeMap<String, String> {
    let mut pages = BTreeMap::new();
    // The name is the program's own, whatever clap takes it for.
    render(
        jug::cli::oci::Cli::command().name("jug-oci").bin_name("jug-oci").display_name("jug-oci"),
        "8",
        &mut pages,
    );
    render(jug::cli::engine::Cli::command(), "1", &mut pages);
    pages.insert("containerd-shim-jug-v2.8".to_owned(), shim(jug::shim::flags::HELP));
    pages
}

/// The shim takes flags in Go's way, which clap does not know: its page is made from what `-help` says. Sections are
/// lines that end with a colon; below them lines of a term, two spaces and what it means.
fn shim(help: &str) -> String {
    let roff = |text: &str| text.replace('-', "\\-").replace('\'', "\\(aq");
    let name = "containerd-shim-jug-v2";
    let mut page = format!(".TH {name} 8 \"\" jug \"The jug manual\"\n");
    let mut text = String::new();
    for (number, line) in help.lines().enumerate() {
        let line = roff(line);
        match (line.trim_start().split_once("  "), line.strip_suffix(':')) {
            _ if number == 0 => text += &format!(".SH NAME\n{} \\- {line}\n", roff(name)),
            (_, Some(section)) => text += &format!(".SH {}\n", section.to_uppercase()),
            (Some((term, means)), _) => text += &format!(".TP\n\\fB{term}\\fR\n{}\n", means.trim()),
            _ => match line.strip_prefix("usage: ") {
                Some(usage) => text += &format!(".SH SYNOPSIS\n\\fB{usage}\\fR\n.SH DESCRIPTION\n"),
                None if line.is_empty() => {}
                None => text += &format!("{line}\n"),
            },
        }
    }
    page += &text;
    page + ".SH SEE ALSO\n\\fBjug\\-oci\\fR(8)\n"
}

#[test]
fn the_pages_are_in_step() {
    let pages = pages();
    if std::env::var_os("JUG_BLESS").is_some() {
        let _ = fs::remove_dir_all(dir());
        fs::create_dir(dir()).expect("mkdir man");
        pages.iter().for_each(|(name, page)| fs::write(dir().join(name), page).expect("write a page"));
    }
    let mut there: Vec<String> = fs::read_dir(dir())
        .expect("man/")
        .map(|entry| entry.expect("readdir(3)").file_name().into_string().expect("text"))
        .collect();
    there.sort();
    assert_eq!(
        there,
        pages.keys().cloned().collect::<Vec<_>>(),
        "JUG_BLESS=1 cargo test --test man writes the pages"
    );
    for (name, page) in pages {
        let file = fs::read_to_string(dir().join(&name)).expect("a page");
        assert!(file == page, "man/{name} is not in step: JUG_BLESS=1 cargo test --test man writes it");
    }
}

#[test]
fn every_verb_has_a_page_that_says_what_it_does() {
    for (name, page) in pages() {
        let line = page.lines().skip_while(|line| *line != ".SH NAME").nth(1).unwrap_or_default();
        assert!(
            line.contains(" \\- "),
            "{name}: the doc comment of its struct is the line of whatis(1): {line:?}"
        );
        assert!(page.contains(".SH SYNOPSIS"), "{name}: no synopsis");
    }
}
