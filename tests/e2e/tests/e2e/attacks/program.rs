//! The attacking program: built from its sources here, and what it says.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

static BUILT: OnceLock<PathBuf> = OnceLock::new();

/// What came of one attack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// `NAME` or `NAME=ARGUMENT`, as asked.
    pub attack: String,
    /// `held:…`, `broke:…`, `died:…`.
    pub words: String,
}

impl Verdict {
    pub fn broke(&self) -> bool {
        self.words.starts_with("broke:")
    }

    /// The error that it was held with.
    pub fn error(&self) -> Option<&str> {
        self.words.strip_prefix("held:")?.split(' ').next()
    }

    /// How far it came: `n=…`.
    pub fn count(&self) -> Option<u64> {
        self.words.split("n=").nth(1)?.split(' ').next()?.parse().ok()
    }
}

pub fn verdicts(output: &str) -> Vec<Verdict> {
    let lines = output.lines().filter_map(|line| line.split_once(' '));
    lines.map(|(attack, words)| Verdict { attack: attack.into(), words: words.into() }).collect()
}

/// The static program.
pub fn attacker() -> &'static Path {
    BUILT.get_or_init(build)
}

fn build() -> PathBuf {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/attacker");
    let read = std::fs::read_dir(&sources).expect("the sources are there");
    let mut files: Vec<PathBuf> = read.flatten().map(|e| e.path()).collect();
    files.retain(|f| f.extension().is_some_and(|e| e == "c"));
    files.sort();
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let (made, place) =
        (folder.join(format!("attacker-{}", std::process::id())), folder.join("attacker"));
    let mut compiler = Command::new("cc");
    compiler.args(["-static", "-O1", "-Wall", "-Wextra", "-Wno-unused-parameter", "-s", "-o"]);
    let done = compiler.arg(&made).args(files).status().expect("a C compiler is there");
    assert!(done.success(), "the attacker cannot be built");
    // Another run of the tests may be using the old one.
    std::fs::rename(&made, &place).expect("the folder is ours");
    place
}

/// Every attack that the program knows.
pub fn known() -> Vec<String> {
    let listed = Command::new(attacker()).output().expect("it runs");
    String::from_utf8_lossy(&listed.stdout).lines().map(str::to_owned).collect()
}
