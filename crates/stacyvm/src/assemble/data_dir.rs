//! The data directory: made once, marked as ours, never anybody else's.

use std::fs::{DirBuilder, File};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::Access;

/// The file that says whose directory it is.
const MARKER: &str = "stacyvm-data";
/// What stands in it; the number is that of the layout.
const WORDS: &str = "StacyVM data directory, layout ";
const LAYOUT: u32 = 1;
/// Far beyond what stands in one.
const MAX_MARKER: u64 = 4096;
/// So much of an installation's id stands in the names of its control groups.
const SHORT_ID: usize = 12;
/// What a fresh file system holds.
const LOST: &str = "lost+found";

/// A directory that is ours.
#[derive(Debug, Clone)]
pub struct DataDir(PathBuf);

/// Why it cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    #[error(
        "the data directory {0} is not empty and does not bear StacyVM's marker: nothing in it \
         was touched. Set data_dir (STACYVM_DATA_DIR) to an empty directory"
    )]
    Foreign(PathBuf),
    #[error("the data directory {0} was made by a newer release: upgrade, or set another data_dir")]
    Newer(PathBuf),
    #[error(
        "the data directory {path} cannot be used: {source}. Set data_dir (STACYVM_DATA_DIR) to \
         a directory that this user may write"
    )]
    Unusable {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
}

impl DataDir {
    /// Opens it, or makes and marks it.
    pub fn open(path: &Path) -> Result<Self, DataDirError> {
        let unusable = |source| DataDirError::Unusable { path: path.to_owned(), source };
        // Root's sandboxes run as other users, who pass through but may not look around.
        let mode = if rustix::process::geteuid().is_root() { 0o711 } else { 0o700 };
        DirBuilder::new().recursive(true).mode(mode).create(path).map_err(unusable)?;
        let path = path.canonicalize().map_err(unusable)?;
        let marker = path.join(MARKER);
        if let Some(layout) = read_marker(&marker).map_err(unusable)? {
            return if layout > LAYOUT { Err(DataDirError::Newer(path)) } else { Ok(Self(path)) };
        }
        if !is_empty(&path).map_err(unusable)? {
            // Somebody may have made it ours between the two looks.
            return match read_marker(&marker).map_err(unusable)? {
                Some(_) => Ok(Self(path)),
                None => Err(DataDirError::Foreign(path)),
            };
        }
        match File::options().write(true).create_new(true).open(&marker) {
            Ok(mut file) => writeln!(file, "{WORDS}{LAYOUT}").map_err(unusable)?,
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
            Err(e) => return Err(unusable(e)),
        }
        Ok(Self(path))
    }

    /// Whether [`DataDir::open`] would succeed, without making anything. `None`: it would be made.
    pub fn look(path: &Path) -> Result<Option<Self>, DataDirError> {
        let unusable = |source| DataDirError::Unusable { path: path.to_owned(), source };
        if path.join(MARKER).exists() || path.exists() && !is_empty(path).map_err(unusable)? {
            rustix::fs::access(path, Access::WRITE_OK).map_err(|e| unusable(e.into()))?;
            return match read_marker(&path.join(MARKER)).map_err(unusable)? {
                Some(layout) if layout > LAYOUT => Err(DataDirError::Newer(path.to_owned())),
                Some(_) => path.canonicalize().map(|path| Some(Self(path))).map_err(unusable),
                None => Err(DataDirError::Foreign(path.to_owned())),
            };
        }
        let there = path.ancestors().find(|p| p.exists()).unwrap_or(path);
        rustix::fs::access(there, Access::WRITE_OK).map_err(|e| unusable(e.into()))?;
        if there.is_dir() {
            return Ok(None);
        }
        Err(unusable(ErrorKind::NotADirectory.into()))
    }

    /// Adds to the marker under which name an installation's things are found on the host.
    pub fn note_installation(&self, id: &str) -> std::io::Result<()> {
        let line = format!("installation {}", id.chars().take(SHORT_ID).collect::<String>());
        let marker = self.0.join(MARKER);
        let text = std::fs::read_to_string(&marker)?;
        if text.lines().any(|l| l == line) || text.len() as u64 > MAX_MARKER / 2 {
            return Ok(());
        }
        writeln!(File::options().append(true).open(&marker)?, "{line}")
    }

    /// The store of images, shared by everybody with this directory.
    pub fn images(&self) -> PathBuf {
        self.0.join("images")
    }

    /// The folder of a worker.
    pub fn worker(&self, id: &types::WorkerId) -> PathBuf {
        self.0.join("workers").join(id.as_str())
    }

    /// Where the disk store is, or will be.
    pub fn disk(&self) -> PathBuf {
        self.0.join("disk")
    }

    /// Where one-shot runs have their folders.
    pub fn runs(&self) -> PathBuf {
        self.0.join("run")
    }
}

/// The layout that a marker names; `None` without one. One that is being written counts as ours.
fn read_marker(path: &Path) -> std::io::Result<Option<u32>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    let mut text = String::new();
    file.take(MAX_MARKER).read_to_string(&mut text)?;
    let first = text.lines().next().unwrap_or_default();
    let layout = first.strip_prefix(WORDS).and_then(|n| n.trim().parse().ok());
    Ok(Some(layout.unwrap_or(if text.is_empty() { LAYOUT } else { u32::MAX })))
}

fn is_empty(path: &Path) -> std::io::Result<bool> {
    for entry in path.read_dir()? {
        if entry?.file_name() != LOST {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_or_missing_one_becomes_ours() {
        let dir = tempfile::tempdir().unwrap();
        let fresh = dir.path().join("a/b");
        assert!(DataDir::look(&fresh).unwrap().is_none() && !fresh.exists());
        for _ in 0..2 {
            DataDir::open(&fresh).unwrap();
        }
        assert!(fresh.join(MARKER).is_file());
        std::fs::write(fresh.join("more"), "").unwrap();
        DataDir::open(&fresh).unwrap();
        assert!(DataDir::look(&fresh).unwrap().is_some());
    }

    #[test]
    fn installations_are_noted_once() {
        let dir = tempfile::tempdir().unwrap();
        let ours = DataDir::open(dir.path()).unwrap();
        for _ in 0..3 {
            ours.note_installation("0123456789abcdef").unwrap();
        }
        let text = std::fs::read_to_string(dir.path().join(MARKER)).unwrap();
        assert_eq!(text, format!("{WORDS}1\ninstallation 0123456789ab\n"));
        DataDir::open(dir.path()).unwrap();
    }

    #[test]
    fn a_foreign_one_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("stacyvm.db"), "theirs").unwrap();
        assert!(matches!(DataDir::look(dir.path()), Err(DataDirError::Foreign(_))));
        assert!(matches!(DataDir::open(dir.path()), Err(DataDirError::Foreign(_))));
        let names: Vec<_> =
            dir.path().read_dir().unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, ["stacyvm.db"]);
    }

    #[test]
    fn a_newer_one_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(MARKER), format!("{WORDS}2\n")).unwrap();
        assert!(matches!(DataDir::look(dir.path()), Err(DataDirError::Newer(_))));
        assert!(matches!(DataDir::open(dir.path()), Err(DataDirError::Newer(_))));
    }

    #[test]
    fn a_file_is_no_directory() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(DataDir::look(file.path()).is_err());
        let error = DataDir::open(file.path()).unwrap_err();
        assert!(error.to_string().contains("STACYVM_DATA_DIR"), "{error}");
    }
}
