//! Names of images: what may be written, and the one form each has inside.

use std::fmt;

use types::Fault;

/// Longest name, so that each fits one file name.
const MOST: usize = 240;

/// A checked name in its one form: `alpine` is `alpine:latest`, and Docker Hub's own prefixes
/// (`docker.io/library/`) are dropped.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ImageName {
    /// The view of this machine's own programs.
    Host,
    /// By the digest of its manifest alone: 64 hex digits.
    Digest(String),
    /// `[registry/]path:tag`, or `[registry/]path[:tag]@sha256:…`.
    Reference { name: String, digest: Option<String> },
}

impl ImageName {
    /// Parses what a caller wrote. Whatever is not a name is a bad request.
    pub fn parse(text: &str) -> Result<Self, Fault> {
        if text.is_empty() {
            return Err(Fault::bad_request("an image needs a name"));
        }
        if text.len() > MOST {
            return Err(Fault::bad_request(format!(
                "the name of an image has at most {MOST} characters"
            )));
        }
        if text == "host" {
            return Ok(Self::Host);
        }
        parse_reference(text).ok_or_else(|| {
            Fault::bad_request(format!(
                "'{}' is not the name of an image ([registry/]name[:tag][@sha256:digest])",
                super::fault::shown(text.as_bytes())
            ))
        })
    }

    /// A name that an image can be given: no digest, not `host`.
    pub fn parse_tag(text: &str) -> Result<String, Fault> {
        match Self::parse(text)? {
            Self::Reference { name, digest: None } if repository(&name) == "host" => {
                Err(reserved())
            }
            Self::Host => Err(reserved()),
            Self::Reference { name, digest: None } => Ok(name),
            Self::Digest(_) | Self::Reference { digest: Some(_), .. } => {
                Err(Fault::bad_request("a tag can't hold a digest"))
            }
        }
    }
}

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host => f.write_str("host"),
            Self::Digest(hex) => write!(f, "sha256:{hex}"),
            Self::Reference { name, digest: None } => f.write_str(name),
            Self::Reference { name, digest: Some(hex) } => write!(f, "{name}@sha256:{hex}"),
        }
    }
}

/// The registry of a name in its one form (none: Docker Hub), and what it calls the repository.
pub(super) fn registry_of(name: &str) -> (Option<&str>, String) {
    let path = match name.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') => path,
        _ => name,
    };
    match path.split_once('/') {
        Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => {
            (Some(first), rest.to_owned())
        }
        Some(_) => (None, path.to_owned()),
        None => (None, format!("library/{path}")),
    }
}

/// The tag of a name in its one form.
pub(super) fn tag_of(name: &str) -> &str {
    match name.rsplit_once(':') {
        Some((_, tag)) if !tag.contains('/') => tag,
        _ => "latest",
    }
}

/// The file under `refs/` that stands for a name. One to one: a name holds no `+`.
pub(super) fn ref_file(name: &str) -> String {
    name.replace('/', "+")
}

/// The file under `refs/` that stands for a digest in registries. No name begins like that.
pub(super) fn digest_file(hex: &str) -> String {
    format!("@{hex}")
}

/// The name that a file under `refs/` stands for.
pub(super) fn ref_name(file: &str) -> String {
    file.replace('+', "/")
}

fn reserved() -> Fault {
    Fault::bad_request("the name 'host' means this machine's own programs and can't be given")
}

fn repository(name: &str) -> &str {
    name.rsplit_once(':').map_or(name, |(repository, _)| repository)
}

fn parse_reference(text: &str) -> Option<ImageName> {
    if let Some(hex) = text.strip_prefix("sha256:") {
        // `sha256` could be a repository and this its tag; nobody means that.
        return is_digest(hex).then(|| ImageName::Digest(hex.to_owned()));
    }
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => {
            let hex = digest.strip_prefix("sha256:").filter(|h| is_digest(h))?;
            (rest, Some(hex.to_owned()))
        }
        None => (text, None),
    };
    // A colon after the last slash starts a tag; one before it belongs to a registry's port.
    let (path, tag) = match rest.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') => (path, Some(tag)),
        _ => (rest, None),
    };
    if !tag.is_none_or(is_tag) {
        return None;
    }
    let path = short_path(path)?;
    let name = match (tag, &digest) {
        (Some(tag), _) => format!("{path}:{tag}"),
        (None, None) => format!("{path}:latest"),
        (None, Some(_)) => path.to_owned(),
    };
    (name.len() <= MOST).then_some(ImageName::Reference { name, digest })
}

/// The path without Docker Hub's own prefixes, if it is well formed.
fn short_path(path: &str) -> Option<&str> {
    let (registry, rest) = match path.split_once('/') {
        Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => {
            (Some(first), rest)
        }
        _ => (None, path),
    };
    if !registry.is_none_or(is_registry) || !rest.split('/').all(is_component) {
        return None;
    }
    match registry {
        None | Some("docker.io" | "index.docker.io") => {
            Some(rest.strip_prefix("library/").filter(|r| !r.contains('/')).unwrap_or(rest))
        }
        Some(_) => Some(path),
    }
}

fn is_registry(text: &str) -> bool {
    let (host, port) = match text.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (text, None),
    };
    let label = |l: &str| {
        !l.is_empty()
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !l.starts_with('-')
            && !l.ends_with('-')
    };
    host.split('.').all(label) && port.is_none_or(|p| p.parse::<u16>().is_ok_and(|n| n > 0))
}

/// Lower-case words joined by `.`, `_`, `__` or dashes.
fn is_component(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    let (Some(&first), Some(&last)) = (bytes.first(), bytes.last()) else { return false };
    word(first)
        && word(last)
        && bytes.iter().all(|&b| word(b) || matches!(b, b'.' | b'_' | b'-'))
        && !text.contains("..")
}

fn is_tag(text: &str) -> bool {
    let bytes = text.as_bytes();
    (1..=128).contains(&bytes.len())
        && (bytes[0].is_ascii_alphanumeric() || bytes[0] == b'_')
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

fn is_digest(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(text: &str) -> Option<String> {
        ImageName::parse(text).ok().map(|n| n.to_string())
    }

    #[test]
    fn each_name_has_one_form() {
        let hex = "a".repeat(64);
        for (written, meant) in [
            ("host", "host".to_owned()),
            ("alpine", "alpine:latest".to_owned()),
            ("alpine:3.20", "alpine:3.20".to_owned()),
            ("library/alpine", "alpine:latest".to_owned()),
            ("docker.io/library/alpine", "alpine:latest".to_owned()),
            ("docker.io/org/app", "org/app:latest".to_owned()),
            ("ghcr.io/org/app:v1_2.3-x", "ghcr.io/org/app:v1_2.3-x".to_owned()),
            ("localhost:5000/a/b", "localhost:5000/a/b:latest".to_owned()),
            ("ghcr.io/library/a", "ghcr.io/library/a:latest".to_owned()),
            (&format!("a@sha256:{hex}"), format!("a@sha256:{hex}")),
            (&format!("sha256:{hex}"), format!("sha256:{hex}")),
        ] {
            assert_eq!(form(written).as_deref(), Some(meant.as_str()), "{written}");
        }
    }

    #[test]
    fn a_name_says_where_it_is_pulled_from() {
        for (name, registry, repository, tag) in [
            ("alpine:latest", None, "library/alpine", "latest"),
            ("org/app:1", None, "org/app", "1"),
            ("ghcr.io/org/app:v2", Some("ghcr.io"), "org/app", "v2"),
            ("localhost:5000/a:x", Some("localhost:5000"), "a", "x"),
            ("localhost:5000/a", Some("localhost:5000"), "a", "latest"),
        ] {
            assert_eq!(registry_of(name), (registry, repository.to_owned()), "{name}");
            assert_eq!(tag_of(name), tag, "{name}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        let long = "a".repeat(300);
        for text in [
            "",
            "A",
            "-a",
            "a-",
            "a b",
            "a/../b",
            "../a",
            "/a",
            "a/",
            "a//b",
            "a:",
            "a:-x",
            "a@sha256:12",
            "a@md5:00",
            "a+b",
            "a\nb",
            "sha256:12",
            "x.y:0/a",
            "x.y:99999/a",
            "..",
            ".",
            "a..b",
            &long,
        ] {
            assert_eq!(form(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_tag_is_a_name_and_never_host() {
        assert_eq!(ImageName::parse_tag("alpine").unwrap(), "alpine:latest");
        for text in ["host", "host:latest", &format!("a@sha256:{}", "a".repeat(64))] {
            assert!(ImageName::parse_tag(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_name_and_its_file_are_one_to_one() {
        let name = "localhost:5000/a/b_c.d:latest";
        assert!(!ref_file(name).contains('/'));
        assert_eq!(ref_name(&ref_file(name)), name);
    }
}
