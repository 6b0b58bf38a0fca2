//! A layer above another: nothing outside its own directory is touched, least of all the layer
//! below, and bounds hold.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;

use providers::images::{Limits, unpack_above};
use rustix::fs::{Mode, OFlags};
use types::ErrorCode;

const ENTRIES: u64 = 64;
const BYTES: u64 = 1 << 20;

pub fn image_layer(data: &[u8]) {
    let ground = tempfile::tempdir().expect("a temporary directory");
    let place = |name: &str| ground.path().join(name);
    for dir in ["root", "outside", "below", "below/dir", "below/usr", "below/usr/lib"] {
        fs::create_dir(place(dir)).expect("making a directory");
    }
    for file in ["outside/file", "below/dir/file", "below/usr/lib/file"] {
        fs::write(place(file), "untouched").expect("writing a file");
    }
    let link = |target: &str, name: &str| {
        std::os::unix::fs::symlink(target, place("below").join(name)).expect("making a link");
    };
    link("usr/lib", "lib");
    link("../outside", "out");
    link("loop", "loop");
    let limits = Limits {
        total_bytes: BYTES,
        entries: ENTRIES,
        depth: 16,
        reserve_bytes: 0,
        ..Limits::default()
    };
    let below = vec![open(&place("below"))];
    let done = unpack_above(data, open(&place("root")), below, &limits);
    for file in ["outside/file", "below/dir/file", "below/usr/lib/file"] {
        assert_eq!(fs::read(place(file)).expect("it is there"), b"untouched", "{file}");
    }
    assert_eq!(fs::read_dir(place("outside")).expect("it is there").count(), 1);
    assert_eq!(fs::read_dir(place("below")).expect("it is there").count(), 5);
    assert_eq!(fs::read_dir(ground.path()).expect("it is there").count(), 3);
    match done {
        Ok(unpacked) => assert!(unpacked.entries <= ENTRIES && unpacked.size_bytes <= BYTES),
        Err(fault) => {
            assert_eq!(fault.code, ErrorCode::BadRequest, "{fault}: {:?}", fault.source);
            assert!(fault.message.chars().all(|c| !c.is_control()));
        }
    }
}

fn open(path: &Path) -> OwnedFd {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).expect("opening a directory")
}
