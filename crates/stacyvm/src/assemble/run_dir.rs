//! The folder of a one-shot run, and what earlier ones left when they were killed.

use std::fs::{DirBuilder, File};
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ::providers::native::remove_remains;
use rustix::fs::{FlockOperation, flock};

use super::{DataDir, native_config};
use crate::config::Config;
use crate::failure::Failure;

/// Locked as long as its run lives.
const ALIVE: &str = "alive";
/// Names under which one-shot runs find their things again; the folder tells them apart.
pub const INSTALLATION: &str = "run";
/// How many dead runs one run clears away: a user waits for it.
const SWEEP_AT_MOST: usize = 8;
const SWEEP_DEADLINE: Duration = Duration::from_secs(10);

/// A folder of our own. The kernel lets go of it when this process ends, however it ends.
pub struct RunDir {
    path: PathBuf,
    _alive: File,
}

impl RunDir {
    /// Makes one.
    pub fn make(data_dir: &DataDir) -> Result<Self, Failure> {
        let runs = data_dir.runs();
        let failed = |e: std::io::Error| Failure::because("cannot make a folder for the run", &e);
        std::fs::create_dir_all(&runs).map_err(failed)?;
        // A sweeper may find the folder before its lock, and remove it: then there is another name.
        for _ in 0..16 {
            let path = runs.join(random_name()?);
            DirBuilder::new().mode(0o711).create(&path).map_err(failed)?;
            let file = match File::create(path.join(ALIVE)) {
                Ok(file) => file,
                Err(e) if e.kind() == ErrorKind::NotFound => continue,
                Err(e) => return Err(failed(e)),
            };
            if flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() && path.exists() {
                return Ok(Self { path, _alive: file });
            }
        }
        Err(Failure::new("cannot make a folder for the run: others keep removing it"))
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes it, the lock last.
    pub fn remove(self) {
        if let Err(e) = std::fs::remove_dir_all(&self.path) {
            tracing::warn!(error = %e, "the folder of the run stays");
        }
    }
}

/// Clears away what killed runs left behind. What cannot be cleared waits for the next run.
pub async fn sweep(config: &Config, data_dir: &DataDir) {
    let runs = data_dir.runs();
    let dead = tokio::task::spawn_blocking(move || dead_runs(&runs)).await.unwrap_or_default();
    for run in dead {
        let swept = async {
            let native = native_config(config, data_dir, run.path(), INSTALLATION)?;
            remove_remains(&native).await.map_err(Failure::from)
        };
        match tokio::time::timeout(SWEEP_DEADLINE, swept).await {
            Ok(Ok(_)) => run.remove(),
            Ok(Err(failure)) => tracing::warn!(error = failure.text, "a dead run stays"),
            Err(_) => tracing::warn!("clearing a dead run away takes too long"),
        }
    }
}

/// Folders whose run is no more, taken over.
fn dead_runs(runs: &Path) -> Vec<RunDir> {
    let Ok(entries) = runs.read_dir() else { return Vec::new() };
    entries.flatten().filter_map(|e| take_over(e.path())).take(SWEEP_AT_MOST).collect()
}

fn take_over(path: PathBuf) -> Option<RunDir> {
    let Ok(file) = File::open(path.join(ALIVE)) else {
        // Died before its lock, or about to take it: only an empty folder goes.
        let _ = std::fs::remove_dir(&path);
        return None;
    };
    flock(&file, FlockOperation::NonBlockingLockExclusive).ok()?;
    path.join(ALIVE).exists().then_some(RunDir { path, _alive: file })
}

fn random_name() -> Result<String, Failure> {
    let mut bytes = [0; 10];
    getrandom::fill(&mut bytes).map_err(|e| Failure::because("no randomness", &e))?;
    Ok(data_encoding::BASE32_NOPAD.encode(&bytes).to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_dead_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::open(dir.path()).unwrap();
        let living = RunDir::make(&data).unwrap();
        let dead = RunDir::make(&data).unwrap();
        let dead_path = dead.path().to_owned();
        drop(dead);
        std::fs::create_dir(data.runs().join("half-made")).unwrap();
        let found: Vec<_> = dead_runs(&data.runs()).iter().map(|r| r.path.clone()).collect();
        assert_eq!(found, [dead_path]);
        assert!(living.path().exists() && !data.runs().join("half-made").exists());
        let path = living.path().to_owned();
        living.remove();
        assert!(!path.exists());
    }
}
