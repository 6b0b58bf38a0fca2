//! Holds the documents to the code: routes, error codes, configuration keys, commands, faults that
//! are said to be fixed, and links.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use types::ErrorCode;

const DOCUMENTS: &[&str] = &[
    "README.md",
    "ARCHITECTURE.md",
    "SPECIFICATION.md",
    "CHANGELOG.md",
    "SECURITY.md",
    "docs/compatibility.md",
    "docs/design/agent-protocol.md",
    "docs/design/journal.md",
];

type Words = BTreeSet<String>;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn text(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// The part of a document between two headings.
fn section(document: &str, from: &str, to: &str) -> String {
    let text = text(document);
    let start = text.find(from).unwrap_or_else(|| panic!("{document} has no {from}"));
    let rest = &text[start..];
    let end = rest.find(to).unwrap_or_else(|| panic!("{document} has no {to} after {from}"));
    rest[..end].to_owned()
}

/// The cells of each row of the tables in a text, heads and rules left out.
fn rows(text: &str) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    let mut in_body = false;
    for line in text.lines() {
        let Some(line) = line.strip_prefix('|') else {
            in_body = false;
            continue;
        };
        if in_body {
            rows.push(line.split('|').map(|cell| cell.trim().to_owned()).collect());
        }
        in_body |= line.starts_with("---");
    }
    rows
}

/// What stands between backticks.
fn quoted(text: &str) -> Words {
    text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

#[test]
fn every_route_is_specified_with_its_scope() {
    let table = text("crates/server/src/table.rs");
    let calls = table.lines().filter_map(|line| line.trim().strip_prefix("row("));
    let built: Words = calls
        .filter_map(|call| {
            let words: Vec<_> = call.split('"').collect();
            let scope = call.split("Scope::").nth(1)?.split(',').next()?.to_lowercase();
            Some(format!("{} {} {scope}", words.get(1)?, words.get(3)?))
        })
        .collect();
    assert!(built.len() > 30, "{built:?}");
    let said: Words = rows(&section("SPECIFICATION.md", "### 1.1", "### 1.2"))
        .iter()
        .map(|row| format!("{} {} {}", row[0], row[1].trim_matches('`'), row[2]))
        .collect();
    assert_eq!(built, said);
}

#[test]
fn every_error_code_is_specified() {
    let there: Words = ErrorCode::ALL.iter().map(|code| code.as_str().to_owned()).collect();
    let said = rows(&section("SPECIFICATION.md", "### 1.6", "### 1.7"));
    let said: Words = said.iter().map(|row| row[0].trim_matches('`').to_owned()).collect();
    assert_eq!(there, said);
}

#[test]
fn every_key_that_is_specified_exists() {
    let shown = stacyvm(&["config", "show", "--json"]);
    let shown: Value = serde_json::from_str(&shown).expect("config show speaks JSON");
    let mut there = Words::new();
    leaves("", &shown, &mut there);
    let rows = rows(&section("SPECIFICATION.md", "## 4.", "## 5."));
    let said: Words = rows.iter().flat_map(|row| quoted(&row[0])).collect();
    let unknown: Vec<_> = said.difference(&there).collect();
    assert!(unknown.is_empty(), "no such keys: {unknown:?}");
    // Of a part that is served, no key goes unsaid.
    let ours = ["providers.native.", "exec.", "retention.", "logging."];
    let unsaid: Vec<_> = there
        .difference(&said)
        .filter(|key| ours.iter().any(|part| key.starts_with(part)))
        .collect();
    assert!(unsaid.is_empty(), "unsaid keys: {unsaid:?}");
}

fn leaves(at: &str, value: &Value, into: &mut Words) {
    match value {
        Value::Object(map) if at.is_empty() || !map.is_empty() => {
            for (name, value) in map {
                let dot = if at.is_empty() { "" } else { "." };
                leaves(&format!("{at}{dot}{name}"), value, into);
            }
        }
        _ => {
            into.insert(at.to_owned());
        }
    }
}

#[test]
fn every_command_is_specified_and_in_the_readme() {
    let help = stacyvm(&["--help"]);
    let list = help.split("Commands:\n").nth(1).expect("help lists commands");
    let list = list.lines().take_while(|line| !line.is_empty());
    let there: Words = list
        .filter_map(|line| line.strip_prefix("  ")?.split(' ').next().map(str::to_owned))
        .filter(|name| !name.is_empty() && name != "help")
        .collect();
    let table = rows(&section("SPECIFICATION.md", "## 5.", "## 6."));
    let commands = table.iter().take(there.len());
    let said: Words = commands.map(|row| row[0].trim_matches('`').to_owned()).collect();
    assert_eq!(there, said);
    let readme = section("README.md", "## Command line", "## What");
    for name in there {
        assert!(readme.contains(&name), "README.md does not name {name}");
    }
}

fn stacyvm(args: &[&str]) -> String {
    let mut command = Command::new(testkit::stacyvm());
    command.args(args).env_clear().env("HOME", "/nonexistent").current_dir("/");
    let output = command.output().expect("the binary can be run");
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("it prints text")
}

#[test]
fn every_fault_said_to_be_fixed_has_a_test_named_after_it() {
    let fixed = section("docs/compatibility.md", "Fixed here", "Wait for");
    let fixed: Vec<_> = rows(&fixed).iter().map(|row| row[0].replace("BUG-", "")).collect();
    assert!(fixed.len() > 20, "{fixed:?}");
    let mut sources = String::new();
    read_below(&root().join("crates"), &mut sources);
    read_below(&root().join("tests"), &mut sources);
    let untested: Vec<_> =
        fixed.iter().filter(|n| !sources.contains(&format!("fn bug_{n}_"))).collect();
    assert!(untested.is_empty(), "no test for: {untested:?}");
}

fn read_below(dir: &Path, into: &mut String) {
    for entry in fs::read_dir(dir).expect("the tree can be read").flatten() {
        let path = entry.path();
        if path.is_dir() {
            read_below(&path, into);
        } else if path.extension().is_some_and(|e| e == "rs") {
            into.push_str(&fs::read_to_string(path).expect("a source can be read"));
        }
    }
}

#[test]
fn links_lead_somewhere() {
    for document in DOCUMENTS {
        let text = text(document);
        let folder = root().join(document);
        let folder = folder.parent().expect("a document lies in a folder");
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let path = link.split('#').next().unwrap_or_default();
            let outside = path.is_empty() || path.contains("://");
            assert!(outside || folder.join(path).exists(), "{document}: {link}");
        }
    }
}
