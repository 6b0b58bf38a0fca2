//! What failed, for the reply: a step in words that name no path, and the error.

use rustix::io::Errno;

/// A failed step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Failed {
    pub step: &'static str,
    pub errno: i32,
}

pub(crate) type Outcome<T> = Result<T, Failed>;

/// Names the step whose error is passed on.
pub(crate) trait Step<T> {
    fn step(self, step: &'static str) -> Outcome<T>;
}

impl<T, E: Into<Code>> Step<T> for Result<T, E> {
    fn step(self, step: &'static str) -> Outcome<T> {
        self.map_err(|e| Failed { step, errno: e.into().0 })
    }
}

/// An error number, wherever it came from.
pub(crate) struct Code(i32);

impl From<Errno> for Code {
    fn from(errno: Errno) -> Self {
        Self(errno.raw_os_error())
    }
}

impl From<std::io::Error> for Code {
    fn from(error: std::io::Error) -> Self {
        Self(error.raw_os_error().unwrap_or(libc::EIO))
    }
}
