//! What is not built yet, and the part it waits for. This table only shrinks.

/// File, scenario (`*`: all of it), the part it waits for.
pub const WAITING: &[(&str, &str, &str)] = &[
    ("system", "numbers", "metrics and diagnostics"),
    ("system", "environments", "environments"),
    ("system", "worker routes", "remote workers"),
    ("door-open", "worker doors without worker credentials", "remote workers"),
    ("worker", "*", "remote workers"),
    ("control-plane", "*", "remote workers"),
];

/// The part that a scenario waits for.
pub fn waits(file: &str, scenario: &str) -> Option<&'static str> {
    let mut rows = WAITING.iter().filter(|(f, s, _)| *f == file && (*s == scenario || *s == "*"));
    rows.next().map(|(_, _, part)| *part)
}

mod tests {
    use super::super::transcript::load;
    use super::WAITING;

    #[test]
    fn the_table_names_what_exists() {
        for (file, scenario, _) in WAITING.iter().filter(|(_, s, _)| *s != "*") {
            let known = load(file).scenarios.iter().any(|s| s.name == *scenario);
            assert!(known, "{file} has no scenario {scenario}");
        }
    }
}
