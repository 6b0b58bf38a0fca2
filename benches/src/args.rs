//! The command line.

use std::path::PathBuf;

/// Every scenario, in the order in which they run.
pub const SCENARIOS: &[&str] = &[
    "cold",
    "warm",
    "exec",
    "terminal",
    "burst",
    "sustained",
    "stream",
    "files",
    "bulk",
    "idle",
    "pull",
    "requests",
    "growth",
];

const USAGE: &str = "usage: scripts/bench [--quick] [--no-docker] [--only NAME,NAME…] [--write]";

pub struct Args {
    /// Fewer repetitions: for looking at a change, not for the table.
    pub quick: bool,
    pub docker: bool,
    pub only: Vec<String>,
    /// The file that gets the table.
    pub write: Option<PathBuf>,
}

impl Args {
    pub fn read() -> Result<Self, String> {
        let mut args = Self { quick: false, docker: true, only: Vec::new(), write: None };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            match word.as_str() {
                "--quick" => args.quick = true,
                "--no-docker" => args.docker = false,
                "--write" => {
                    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../SPECIFICATION.md");
                    args.write = Some(PathBuf::from(root));
                }
                "--only" => {
                    let names = words.next().ok_or(USAGE)?;
                    args.only = names.split(',').map(str::to_owned).collect();
                }
                _ => return Err(format!("{USAGE}\nscenarios: {}", SCENARIOS.join(", "))),
            }
        }
        match args.only.iter().find(|n| !SCENARIOS.contains(&n.as_str())) {
            Some(name) => Err(format!("no scenario {name}; there are: {}", SCENARIOS.join(", "))),
            None => Ok(args),
        }
    }

    pub fn wants(&self, scenario: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|n| n == scenario)
    }

    /// `full` repetitions, or a tenth of them.
    pub fn times(&self, full: usize) -> usize {
        if self.quick { (full / 10).max(3) } else { full }
    }
}
