//! From the kernel's errors to the protocol's. Messages name paths inside the sandbox only.

use protocol::agent::{AgentError, AgentErrorCode};
use rustix::io::Errno;

pub(crate) type Outcome<T> = Result<T, AgentError>;

/// Characters of a path that a message repeats; paths may have 4096 bytes.
const SHOWN: usize = 256;

pub(crate) fn fail(code: AgentErrorCode, message: impl Into<String>) -> AgentError {
    AgentError { code, message: message.into() }
}

pub(crate) fn bad_request(message: impl Into<String>) -> AgentError {
    fail(AgentErrorCode::BadRequest, message)
}

/// What an operation on `path` met.
pub(crate) fn on_path(errno: Errno, path: &str) -> AgentError {
    use AgentErrorCode as C;
    let (code, words) = match errno {
        Errno::NOENT => (C::FileNotFound, "no such file or directory"),
        Errno::NOTDIR => (C::NotADirectory, "not a directory"),
        Errno::ISDIR => (C::NotAFile, "is a directory"),
        Errno::NXIO | Errno::NODEV => (C::NotAFile, "is not a regular file"),
        Errno::NOTEMPTY | Errno::EXIST => (C::Conflict, "directory is not empty"),
        Errno::BUSY | Errno::TXTBSY => (C::Conflict, "is in use"),
        Errno::NOSPC | Errno::DQUOT => (C::DiskFull, "no space left on the sandbox's disk"),
        Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::AGAIN => {
            (C::NoResources, "no descriptor or memory left in the sandbox")
        }
        Errno::ACCESS | Errno::PERM => (C::Denied, "permission denied"),
        Errno::ROFS => (C::Denied, "read-only file system"),
        Errno::NAMETOOLONG => (C::BadRequest, "path is too long"),
        Errno::LOOP => (C::BadRequest, "too many symbolic links"),
        Errno::INVAL => (C::BadRequest, "invalid path"),
        Errno::XDEV => (C::BadRequest, "lies on another file system"),
        Errno::FBIG => (C::TooLarge, "file is too large"),
        other => {
            let text = format!("{}: error {}", shown(path), other.raw_os_error());
            return fail(C::Internal, text);
        }
    };
    fail(code, format!("{}: {words}", shown(path)))
}

/// A path as a message repeats it.
pub(crate) fn shown(path: &str) -> String {
    if path.chars().count() <= SHOWN {
        return path.to_owned();
    }
    let mut text: String = path.chars().take(SHOWN).collect();
    text.push('…');
    text
}
