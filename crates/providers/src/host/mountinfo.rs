//! Reads /proc/self/mountinfo.

use std::io;
use std::path::{Path, PathBuf};

/// One mount, as far as we care.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mount {
    /// `major:minor` of the file system.
    pub device: String,
    pub point: PathBuf,
    pub fs: String,
    pub source: String,
    /// The file system's own options; for cgroup v1 its controllers.
    pub options: Vec<String>,
}

/// Every mount this process sees.
pub(crate) fn mounts() -> io::Result<Vec<Mount>> {
    Ok(parse(&std::fs::read_to_string("/proc/self/mountinfo")?))
}

pub(crate) fn parse(text: &str) -> Vec<Mount> {
    text.lines().filter_map(parse_line).collect()
}

fn parse_line(line: &str) -> Option<Mount> {
    let (left, right) = line.split_once(" - ")?;
    let mut left = left.split(' ');
    let device = left.nth(2)?.to_owned();
    let point = PathBuf::from(unescape(left.nth(1)?));
    let mut right = right.split(' ');
    let fs = right.next()?.to_owned();
    let source = unescape(right.next()?);
    let options = right.next().unwrap_or("").split(',').map(str::to_owned).collect();
    Some(Mount { device, point, fs, source, options })
}

impl Mount {
    pub fn is_at(&self, path: &Path) -> bool {
        self.point == path
    }

    pub fn has(&self, option: &str) -> bool {
        self.options.iter().any(|o| o == option)
    }
}

/// Spaces, tabs, line ends and backslashes are written as three octal digits.
fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let code = rest.get(at + 1..at + 4).and_then(|d| u8::from_str_radix(d, 8).ok());
        match code {
            Some(byte) => {
                out.push(char::from(byte));
                rest = &rest[at + 4..];
            }
            None => {
                out.push('\\');
                rest = &rest[at + 1..];
            }
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_with_optional_fields_and_escapes() {
        let text = "36 35 98:0 /mnt1 /mnt\\0402 rw,noatime master:1 - ext3 /dev/root rw,errors=x\n\
                    38 31 0:35 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct";
        let all = parse(text);
        assert_eq!(all.len(), 2);
        assert_eq!(all[0].point, Path::new("/mnt 2"));
        assert_eq!((all[0].device.as_str(), all[0].fs.as_str()), ("98:0", "ext3"));
        assert!(all[1].has("cpuacct") && !all[1].has("memory"));
        assert!(parse("nonsense\n\n").is_empty());
    }
}
