//! Loop devices: attaching a file, finding the one it is attached to, telling it of new size.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// `struct loop_info64`.
#[repr(C)]
struct LoopInfo {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// `struct loop_config`.
#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo,
    reserved: [u64; 8],
}

const EMPTY: LoopInfo = LoopInfo {
    device: 0,
    inode: 0,
    rdevice: 0,
    offset: 0,
    size_limit: 0,
    number: 0,
    encrypt_type: 0,
    encrypt_key_size: 0,
    flags: 0,
    file_name: [0; 64],
    crypt_name: [0; 64],
    encrypt_key: [0; 32],
    init: [0; 2],
};

const LOOP_GET_STATUS64: libc::c_ulong = 0x4C05;
const LOOP_SET_CAPACITY: libc::c_ulong = 0x4C07;
const LOOP_CONFIGURE: libc::c_ulong = 0x4C0A;
const LOOP_CTL_GET_FREE: libc::c_ulong = 0x4C82;
/// The device lets go of the file when its last user does: nothing is left behind by a crash.
const FLAG_AUTOCLEAR: u32 = 4;
/// Past the page cache: else every byte is cached twice, and charged to the sandbox once more.
const FLAG_DIRECT_IO: u32 = 16;
const BLOCK_SIZE: u32 = 4096;
/// Others may take a free device between our asking and our attaching.
const TRIES: u32 = 16;

/// A device with the file behind it. Gone when this is dropped, unless it was mounted.
pub(super) struct Attached {
    pub path: PathBuf,
    _device: File,
}

pub(super) fn attach(file: &File) -> io::Result<Attached> {
    let control = OpenOptions::new().read(true).write(true).open("/dev/loop-control")?;
    for _ in 0..TRIES {
        // SAFETY: takes no argument and returns a number.
        let number = unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE) };
        if number < 0 {
            return Err(io::Error::last_os_error());
        }
        let path = PathBuf::from(format!("/dev/loop{number}"));
        let device = OpenOptions::new().read(true).write(true).open(&path)?;
        match configure(&device, file, FLAG_AUTOCLEAR | FLAG_DIRECT_IO)
            .or_else(|_| configure(&device, file, FLAG_AUTOCLEAR))
        {
            Ok(()) => return Ok(Attached { path, _device: device }),
            Err(e) if e.raw_os_error() == Some(libc::EBUSY) => {}
            Err(e) => return Err(e),
        }
    }
    Err(io::ErrorKind::ResourceBusy.into())
}

fn configure(device: &File, file: &File, flags: u32) -> io::Result<()> {
    let fd = u32::try_from(file.as_raw_fd()).map_err(io::Error::other)?;
    let config = LoopConfig {
        fd,
        block_size: BLOCK_SIZE,
        info: LoopInfo { flags, ..EMPTY },
        reserved: [0; 8],
    };
    // SAFETY: `config` is the structure that the request reads, and lives until it returns.
    match unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE, &raw const config) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// The device that this very file is attached to, by whomever.
pub(super) fn find(file: &File) -> io::Result<Option<PathBuf>> {
    let wanted = file.metadata()?;
    for entry in std::fs::read_dir("/sys/block")?.flatten() {
        let name = entry.file_name();
        if !name.as_encoded_bytes().starts_with(b"loop") || !entry.path().join("loop").exists() {
            continue;
        }
        let path = Path::new("/dev").join(name);
        let Ok(device) = File::open(&path) else { continue };
        if let Some(info) = status(&device)
            && info.inode == wanted.ino()
            && info.device == wanted.dev()
        {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

fn status(device: &File) -> Option<LoopInfo> {
    let mut info = EMPTY;
    // SAFETY: `info` is the structure that the request fills, writable, and lives until it returns.
    let done = unsafe { libc::ioctl(device.as_raw_fd(), LOOP_GET_STATUS64, &raw mut info) };
    (done == 0).then_some(info)
}

/// Makes the device as large as its file is now.
pub(super) fn take_new_size(path: &Path) -> io::Result<()> {
    let device = OpenOptions::new().read(true).write(true).open(path)?;
    // SAFETY: takes no argument.
    match unsafe { libc::ioctl(device.as_raw_fd(), LOOP_SET_CAPACITY) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}
