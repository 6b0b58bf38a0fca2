//! The embedded program as something that can be executed: a sealed memory file.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::io::fcntl_dupfd_cloexec;

use super::process::SOCKET_FD;

pub(super) struct Program(OwnedFd);

impl Program {
    /// Copies the bytes once, some 300 µs a megabyte; every start uses the same file.
    pub fn load(bytes: &[u8]) -> io::Result<Self> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        // Kernels before 6.3 don't know that flag and need none.
        let fd = memfd_create("stacyvm-agent", flags | MemfdFlags::EXEC)
            .or_else(|_| memfd_create("stacyvm-agent", flags))?;
        let mut file = File::from(fd);
        file.write_all(bytes)?;
        let fd = OwnedFd::from(file);
        let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
        fcntl_add_seals(fd.as_fd(), seals)?;
        // Not where the child's socket goes, which would replace it before it is executed.
        Ok(Self(fcntl_dupfd_cloexec(&fd, SOCKET_FD + 1)?))
    }

    /// Valid in this process and, until it executes it, in a child.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.0.as_raw_fd()))
    }
}
