//! Root filesystems for images, made of what the machine has.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

const BUSYBOX: &str = "/bin/busybox";

/// Makes a busybox root filesystem in `dir`, or says why it can't.
pub fn busybox_rootfs(dir: &Path) -> Result<(), String> {
    let say = |e: std::io::Error| format!("making a busybox image: {e}");
    let listed = Command::new(BUSYBOX)
        .arg("--list")
        .output()
        .map_err(|e| format!("{BUSYBOX} (Debian: busybox-static): {e}"))?;
    for part in ["bin", "etc", "tmp", "root", "proc", "sys", "dev", "workspace"] {
        fs::create_dir_all(dir.join(part)).map_err(say)?;
    }
    let bin = dir.join("bin");
    fs::copy(BUSYBOX, bin.join("busybox")).map_err(say)?;
    for applet in String::from_utf8_lossy(&listed.stdout).lines().filter(|a| *a != "busybox") {
        symlink("busybox", bin.join(applet)).map_err(say)?;
    }
    fs::write(dir.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n").map_err(say)?;
    fs::write(dir.join("etc/group"), "root:x:0:\n").map_err(say)
}
