//! Reading a directory piece by piece.

use std::ffi::CString;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;

use rustix::fs::{FileType, RawDir, SeekFrom, seek};
use rustix::io::Errno;

/// Bytes of names asked of the kernel at once: a few hundred names, well within a slice.
const PIECE: usize = 8 * 1024;

/// An open directory.
pub(super) struct Scan {
    pub dir: OwnedFd,
}

impl Scan {
    /// Hands the next names to `each`, without `.` and `..`; `false` at the end.
    pub(super) fn next(&self, mut each: impl FnMut(CString, FileType)) -> Result<bool, Errno> {
        let mut buffer = [MaybeUninit::uninit(); PIECE];
        let mut names = RawDir::new(&self.dir, &mut buffer);
        let mut any = false;
        while let Some(entry) = names.next() {
            let entry = entry?;
            any = true;
            if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                each(entry.file_name().to_owned(), entry.file_type());
            }
            // Asking on would read the next piece.
            if names.is_buffer_empty() {
                return Ok(true);
            }
        }
        Ok(any)
    }

    pub(super) fn rewind(&self) -> Result<(), Errno> {
        seek(&self.dir, SeekFrom::Start(0)).map(|_| ())
    }
}
