//! The two sides of a copy.

use std::path::Path;

use crate::failure::Failure;

#[derive(Debug, PartialEq, Eq)]
pub enum Place<'a> {
    /// Standard input or output.
    Pipe,
    Here(&'a Path),
    Inside {
        id: &'a str,
        path: &'a str,
    },
}

impl<'a> Place<'a> {
    /// `ID:/path` is a sandbox's. A file here whose name holds a colon is written with a slash
    /// before it, like `./a:b`.
    pub fn parse(text: &'a str) -> Self {
        if text == "-" {
            return Self::Pipe;
        }
        match text.split_once(':') {
            Some((id, path)) if !id.is_empty() && !id.contains('/') && !path.is_empty() => {
                Self::Inside { id, path }
            }
            _ => Self::Here(Path::new(text)),
        }
    }
}

/// The last name of a path.
pub fn base(path: &Path) -> Result<String, Failure> {
    let name = path.file_name().and_then(|name| name.to_str());
    let none = || Failure::new(format!("{}: no name to copy to", path.display()));
    name.map(str::to_owned).ok_or_else(none)
}

pub fn joined(dir: &str, name: &str) -> String {
    format!("{}/{name}", dir.trim_end_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sandbox_is_told_from_a_file() {
        assert_eq!(Place::parse("-"), Place::Pipe);
        assert_eq!(Place::parse("sb-1:/a:b"), Place::Inside { id: "sb-1", path: "/a:b" });
        assert_eq!(Place::parse("sb-1:a"), Place::Inside { id: "sb-1", path: "a" });
        for here in ["a", "/a:b", "./a:b", "sb-1:", ":/a"] {
            assert_eq!(Place::parse(here), Place::Here(Path::new(here)), "{here}");
        }
        assert_eq!(base(Path::new("/a/b/")).unwrap(), "b");
        assert!(base(Path::new("/")).is_err() && base(Path::new("..")).is_err());
        assert_eq!((joined("/", "a"), joined("/d/", "a")), ("/a".into(), "/d/a".into()));
    }
}
