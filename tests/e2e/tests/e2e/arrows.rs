//! Holds the floor plan: which crate may know which, where a library may be seen, how long a file
//! may grow. The rules stand in ARCHITECTURE.md.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use serde_json::Value;

/// Of our crates, which may a crate's product know, and which its tests beside those.
#[rustfmt::skip]
const ARROWS: &[(&str, &[&str], &[&str])] = &[
    ("types",     &[], &[]),
    ("protocol",  &["types"], &[]),
    ("store",     &["types", "protocol"], &[]),
    ("agent",     &["types", "protocol"], &[]),
    ("providers", &["types", "protocol"], &[]),
    // A program of the native provider's own: it forks into the agent.
    ("spawner",   &["types", "protocol", "agent"], &[]),
    ("client",    &["types", "protocol"], &[]),
    ("control",   &["types", "protocol", "store"], &[]),
    ("worker",    &["types", "protocol", "providers"], &[]),
    // Its tests run over the real store.
    ("server",    &["types", "protocol", "control"], &["store", "testkit"]),
    ("stacyvm",   &["types", "protocol", "store", "providers", "client", "control", "worker", "server"], &[]),
    ("testkit",   &["types", "client"], &[]),
    ("bench",     &["testkit", "client"], &[]),
    ("e2e",       &[], &["types", "client", "testkit"]),
];

/// What only some crates may see, however it gets there.
const HOMES: &[(&str, &[&str])] = &[
    ("rusqlite", &["store"]),
    ("axum", &["server", "worker"]),
    ("hyper", &["server", "worker"]),
    ("reqwest", &["client", "providers", "e2e"]),
    ("clap", &["stacyvm"]),
];

/// Lines of code, without comments and empty ones, at which a file stops.
const LONGEST: usize = 500;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the tree is there")
}

/// For each member of the workspace: its direct dependencies, and those of its tests.
fn members() -> BTreeMap<String, (BTreeSet<String>, BTreeSet<String>)> {
    #[allow(clippy::disallowed_methods)] // a test's own tool, not the product's configuration
    let cargo = env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let told = Command::new(cargo)
        .args(["metadata", "--no-deps", "--format-version", "1", "--locked", "--offline"])
        .current_dir(root())
        .output()
        .expect("cargo can be run");
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
    let told: Value = serde_json::from_slice(&told.stdout).expect("cargo speaks JSON");
    let text = |v: &Value| v.as_str().expect("a name is text").to_owned();
    let member = |package: &Value| {
        let (mut product, mut tests) = (BTreeSet::new(), BTreeSet::new());
        for dependency in package["dependencies"].as_array().expect("dependencies are a list") {
            let set = if dependency["kind"] == "dev" { &mut tests } else { &mut product };
            set.insert(text(&dependency["name"]));
        }
        (text(&package["name"]), (product, tests))
    };
    told["packages"].as_array().expect("packages are a list").iter().map(member).collect()
}

#[test]
fn arrows_point_where_the_plan_says() {
    let members = members();
    let planned: BTreeSet<_> = ARROWS.iter().map(|(name, ..)| (*name).to_owned()).collect();
    let there: BTreeSet<_> = members.keys().cloned().collect();
    assert_eq!(there, planned, "every crate of the workspace stands in the plan");
    let mut wrong = Vec::new();
    for (name, may, tests_may) in ARROWS {
        let (product, tests) = &members[*name];
        let ours = |set: &BTreeSet<String>| -> BTreeSet<String> {
            set.intersection(&there).cloned().collect()
        };
        let strange = |d: &String, allowed: &[&str]| !allowed.contains(&d.as_str());
        let product = ours(product).into_iter().filter(|d| strange(d, may));
        wrong.extend(product.map(|d| format!("{name} → {d}")));
        let both = [*may, *tests_may].concat();
        let tests = ours(tests).into_iter().filter(|d| strange(d, &both));
        wrong.extend(tests.map(|d| format!("tests of {name} → {d}")));
    }
    assert_eq!(wrong, [] as [String; 0]);
}

#[test]
fn libraries_stay_in_their_rooms() {
    let mut wrong = Vec::new();
    for (name, (product, tests)) in members() {
        for (library, homes) in HOMES {
            let seen = product.contains(*library) || tests.contains(*library);
            if seen && !homes.contains(&name.as_str()) {
                wrong.push(format!("{name} sees {library}"));
            }
        }
    }
    assert_eq!(wrong, [] as [String; 0]);
}

#[test]
fn every_crate_takes_the_lints_of_the_house() {
    for manifest in files("Cargo.toml") {
        let text = fs::read_to_string(root().join(&manifest)).unwrap();
        assert!(text.contains("[lints]\nworkspace = true"), "{manifest}");
    }
}

#[test]
fn unsafe_stays_where_a_process_is_made() {
    let homes = ["crates/agent/", "crates/providers/"];
    let wrong: Vec<_> = sources()
        .into_iter()
        .filter(|(path, _)| !homes.iter().any(|home| path.starts_with(home)))
        .filter(|(_, text)| code(text).any(|line| line.contains(concat!("unsafe", " "))))
        .map(|(path, _)| path)
        .collect();
    assert_eq!(wrong, [] as [String; 0]);
}

#[test]
fn every_file_opens_with_what_lives_in_it_and_ends_in_time() {
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        if !text.starts_with("//!") {
            wrong.push(format!("{path} does not say what it is for"));
        }
        let lines = code(&text).count();
        if lines > LONGEST {
            wrong.push(format!("{path} has {lines} lines of code"));
        }
    }
    assert_eq!(wrong, [] as [String; 0]);
}

#[test]
fn the_product_neither_panics_nor_postpones() {
    // Cut in two, so that this file does not hold them.
    let never = [
        concat!(".unw", "rap()"),
        concat!("to", "do!("),
        concat!("unimple", "mented!("),
        concat!("db", "g!("),
    ];
    let mut wrong = Vec::new();
    for (path, text) in sources().into_iter().filter(|(path, _)| is_product(path)) {
        let product = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        for line in code(product) {
            if never.iter().any(|word| line.contains(word)) {
                wrong.push(format!("{path}: {}", line.trim()));
            }
        }
    }
    assert_eq!(wrong, [] as [String; 0]);
}

fn is_product(path: &str) -> bool {
    let helper = ["tests/", "benches/", "crates/testkit/"].iter().any(|d| path.starts_with(d));
    !helper && !path.contains("/tests/") && !path.ends_with("tests.rs")
}

/// Lines that are neither empty nor a comment.
fn code(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| {
        let line = line.trim_start();
        !line.is_empty() && !line.starts_with("//")
    })
}

/// Every Rust file of the workspace with its text, by its path from the root.
fn sources() -> Vec<(String, String)> {
    let read = |path: String| {
        let text = fs::read_to_string(root().join(&path)).expect("a source can be read");
        (path, text)
    };
    let found: Vec<_> = files(".rs").into_iter().map(read).collect();
    assert!(found.len() > 200, "only {} files were found", found.len());
    found
}

fn files(ending: &str) -> Vec<String> {
    let root = root();
    let mut found = Vec::new();
    let mut open: Vec<_> = ["crates", "tests", "benches"].map(|dir| root.join(dir)).into();
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(dir).expect("the tree can be read").flatten() {
            let path = entry.path();
            if path.is_dir() {
                open.push(path);
            } else if path.to_string_lossy().ends_with(ending) {
                let below = path.strip_prefix(&root).expect("it was found below");
                found.push(below.to_string_lossy().into_owned());
            }
        }
    }
    found.sort();
    found
}
