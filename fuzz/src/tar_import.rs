//! The tar reader: whatever the archive, nothing outside the directory is touched, bounds hold, and
//! what is left can be removed.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use providers::images::{Limits, Unpacked, unpack_archive};
use rustix::fs::{Mode, OFlags};
use types::{ErrorCode, Fault};

const ENTRIES: u64 = 64;
const BYTES: u64 = 1 << 20;
const BLOCK: usize = 512;

pub fn tar_import(data: &[u8]) {
    let plain = unpack(data);
    let checked = with_checksums(data);
    if checked != data {
        // A changed header is refused for its checksum alone; the rest of the reader wants work.
        let _ = unpack(&checked);
    } else if let Ok(one) = plain {
        assert_eq!(one.id, unpack(data).expect("it worked before").id);
    }
}

fn unpack(data: &[u8]) -> Result<Unpacked, Fault> {
    let ground = tempfile::tempdir().expect("a temporary directory");
    let (root, outside) = (ground.path().join("root"), ground.path().join("outside"));
    fs::create_dir(&root).expect("making a directory");
    fs::create_dir(&outside).expect("making a directory");
    fs::write(outside.join("file"), "untouched").expect("writing a file");
    let limits = Limits {
        total_bytes: BYTES,
        entries: ENTRIES,
        depth: 16,
        reserve_bytes: 0,
        ..Limits::default()
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = rustix::fs::open(&root, flags, Mode::empty()).expect("opening a directory");
    let done = unpack_archive(data, fd, &limits);

    let file = outside.join("file");
    assert_eq!(fs::read(&file).expect("it is there"), b"untouched");
    let mode = fs::metadata(&file).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o7022, 0, "its mode was changed");
    assert_eq!(count(&outside), 1, "something was made outside");
    assert_eq!(fs::read_dir(ground.path()).expect("it is there").count(), 2);
    match &done {
        Ok(unpacked) => {
            let found = count(&root) as u64;
            assert!(found <= unpacked.entries && unpacked.entries <= ENTRIES);
            assert!(unpacked.size_bytes <= BYTES);
        }
        Err(fault) => {
            assert_eq!(fault.code, ErrorCode::BadRequest, "{fault}: {:?}", fault.source);
            assert!(fault.message.chars().all(|c| !c.is_control()));
            assert!(!fault.message.contains(ground.path().to_str().expect("it is ASCII")));
        }
    }
    done
}

/// Everything beneath a directory, whatever its modes: the archive may have closed some.
fn count(dir: &Path) -> usize {
    let _ = fs::set_permissions(dir, fs::Permissions::from_mode(0o700));
    let mut found = 0;
    for entry in fs::read_dir(dir).expect("it is readable").flatten() {
        found += 1;
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            found += count(&entry.path());
        }
    }
    found
}

/// The same archive with right checksums in all that looks like headers.
pub(crate) fn with_checksums(data: &[u8]) -> Vec<u8> {
    let mut out = data.to_vec();
    for block in out.chunks_exact_mut(BLOCK) {
        if &block[257..262] == b"ustar" {
            block[148..156].fill(b' ');
            let sum: u32 = block.iter().map(|&b| u32::from(b)).sum();
            block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
    }
    out
}
