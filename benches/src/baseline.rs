//! What a user would pick instead, and the floor that no sandbox can get below.

use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use tokio::time::Instant;

/// From the start of a program until the first byte of its output.
pub fn first_output(command: &mut Command) -> Result<Duration, String> {
    let begun = Instant::now();
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().map_err(|e| e.to_string())?;
    let mut out = child.stdout.take().expect("it was asked for");
    let mut byte = [0];
    let read = out.read(&mut byte);
    let took = begun.elapsed();
    let mut rest = Vec::new();
    let _ = out.read_to_end(&mut rest);
    let status = child.wait().map_err(|e| e.to_string())?;
    match (read, status.success()) {
        (Ok(1), true) => Ok(took),
        (_, _) => Err(format!("{command:?}: no output, {status}")),
    }
}

/// bubblewrap with all its namespaces around the busybox image.
pub fn bwrap(root: &Path, words: &[&str]) -> Command {
    let mut command = Command::new("bwrap");
    command.args(["--unshare-all", "--die-with-parent", "--ro-bind"]).arg(root).arg("/");
    command.args(["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "--"]).args(words);
    command
}

/// A program on the host, with nothing around it.
pub fn plain(busybox: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(busybox);
    command.args(words);
    command
}

/// Bytes that a program writes through a plain pipe, and how long that takes from start to end.
pub fn through_pipe(command: &mut Command) -> Result<(u64, Duration), String> {
    let begun = Instant::now();
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().map_err(|e| format!("{command:?}: {e}"))?;
    let mut out = child.stdout.take().expect("it was asked for");
    let mut buf = vec![0; 128 << 10];
    let mut total = 0;
    loop {
        match out.read(&mut buf) {
            Ok(0) => break,
            Ok(n) => total += n as u64,
            Err(e) => return Err(format!("{command:?}: {e}")),
        }
    }
    child.wait().map_err(|e| e.to_string())?;
    Ok((total, begun.elapsed()))
}
