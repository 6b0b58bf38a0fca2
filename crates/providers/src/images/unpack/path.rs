//! Paths out of archives: beneath the root or refused.

use types::Fault;

use super::super::Limits;
use super::super::fault::shown;
use super::super::limits::NAME_BYTES;

/// The path relative to the root, without empty and `.` components; empty for the root itself.
/// A leading slash means the root, `..` is refused.
pub(in super::super) fn relative(path: &[u8], limits: &Limits) -> Result<Vec<u8>, Fault> {
    if path.len() > limits.path_bytes {
        return Err(Fault::bad_request(format!("the path '{}' is too long", shown(path))));
    }
    if path.contains(&0) {
        return Err(Fault::bad_request(format!("the path '{}' holds a NUL", shown(path))));
    }
    let mut clean = Vec::with_capacity(path.len());
    let mut depth = 0;
    for part in path.split(|&b| b == b'/') {
        match part {
            b"" | b"." => continue,
            b".." => {
                return Err(Fault::bad_request(format!(
                    "the path '{}' leads out of the image",
                    shown(path)
                )));
            }
            name if name.len() > NAME_BYTES => {
                return Err(Fault::bad_request(format!("the name '{}' is too long", shown(name))));
            }
            name => {
                if !clean.is_empty() {
                    clean.push(b'/');
                }
                clean.extend_from_slice(name);
                depth += 1;
            }
        }
    }
    if depth > limits.depth {
        return Err(Fault::bad_request(format!(
            "the path '{}' has more than {} directories",
            shown(path),
            limits.depth
        )));
    }
    Ok(clean)
}

/// The parent (empty for the root) and the name. The path is not empty.
pub(super) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&b| b == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (&[], path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn clean(path: &str) -> Option<String> {
        relative(path.as_bytes(), &Limits::default()).ok().map(|p| String::from_utf8(p).unwrap())
    }

    #[test]
    fn paths_stay_beneath() {
        assert_eq!(clean("./a//b/./c/").as_deref(), Some("a/b/c"));
        assert_eq!(clean("/etc/passwd").as_deref(), Some("etc/passwd"));
        assert_eq!(clean("./").as_deref(), Some(""));
        assert_eq!(clean("a..b/...").as_deref(), Some("a..b/..."));
        for bad in ["..", "a/../b", "../a", "a/..", "a\0b"] {
            assert_eq!(clean(bad), None, "{bad:?}");
        }
        assert_eq!(clean(&"a/".repeat(300)), None);
        assert_eq!(clean(&"a".repeat(256)), None);
    }

    proptest! {
        #[test]
        fn whatever_passes_has_only_plain_names(path in prop::collection::vec(
            prop_oneof![Just(b'/'), Just(b'.'), Just(b'a'), any::<u8>()], 0..40)) {
            if let Ok(clean) = relative(&path, &Limits::default()) {
                prop_assert!(clean.is_empty() || clean.split(|&b| b == b'/')
                    .all(|p| !p.is_empty() && p != b"." && p != b".." && !p.contains(&0)));
            }
        }
    }
}
