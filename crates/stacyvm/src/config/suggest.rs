//! What somebody may have meant who wrote a name that is not known.

/// The known name that is nearest to `written`, if one is near.
pub fn nearest<'a>(written: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let limit = (written.len() / 3).max(2);
    known
        .map(|name| (score(written, name), name))
        .min()
        .filter(|(score, _)| *score <= limit)
        .map(|(_, name)| name)
}

/// Letters to change; a right name in the wrong section counts as one.
fn score(written: &str, name: &str) -> usize {
    let last = |t: &str| t.rsplit('.').next().unwrap_or_default().replace('_', "");
    let whole = distance(written, name);
    if last(written) == last(name) { whole.min(1) } else { whole }
}

/// Levenshtein's distance, in characters.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let change = corner + usize::from(ca != *cb);
            corner = row[j + 1];
            row[j + 1] = change.min(corner + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_seen_through() {
        let known = ["server.host", "server.port", "auth.api_key", "defaults.max_ttl"];
        let near = |t: &str| nearest(t, known.into_iter());
        assert_eq!(near("server.prot"), Some("server.port"));
        assert_eq!(near("auth.apikey"), Some("auth.api_key"));
        assert_eq!(near("api_key"), Some("auth.api_key"));
        assert_eq!(near("default.max_ttl"), Some("defaults.max_ttl"));
        assert_eq!(near("something.else.entirely"), None);
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
