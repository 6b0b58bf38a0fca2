//! The base: what a sandbox needs and an image may lack. It lies beneath the image's own layers,
//! so that whatever the image has is the image's.

use super::files::Files;

pub(super) const HOSTS: &str = "127.0.0.1\tlocalhost\n\
    ::1\tlocalhost ip6-localhost ip6-loopback\n\
    127.0.1.1\tsandbox\n";
pub(super) const HOSTNAME: &str = "sandbox\n";

/// `*`: no password fits, and none is looked for in a shadow file that is not there.
const PASSWD: &str = "root:*:0:0:root:/root:/bin/sh\n\
    nobody:*:65534:65534:nobody:/:/bin/false\n";
const GROUP: &str = "root:*:0:\n\
    nogroup:*:65534:\n";

pub(super) fn files() -> Files {
    let mut files = Files::default();
    for path in ["proc", "dev", "sys", "run", "home", "workspace", "etc", "var"] {
        files.dir(path, 0o755);
    }
    files
        .dir("root", 0o700)
        .dir("tmp", 0o1777)
        .dir("var/tmp", 0o1777)
        .file("etc/hosts", 0o644, HOSTS)
        .file("etc/hostname", 0o644, HOSTNAME)
        .file("etc/resolv.conf", 0o644, "")
        .file("etc/passwd", 0o644, PASSWD)
        .file("etc/group", 0o644, GROUP);
    files
}
