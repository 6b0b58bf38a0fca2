//! The few btrfs calls we need, on descriptors.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// `_IOC(direction, 0x94, number, size)`.
const fn request(direction: u64, number: u64, size: usize) -> libc::c_ulong {
    (direction << 30) | ((size as u64) << 16) | (0x94 << 8) | number
}
const WRITE: u64 = 1;
const READ: u64 = 2;

/// `struct btrfs_ioctl_vol_args`.
#[repr(C)]
struct VolArgs {
    fd: i64,
    name: [u8; 4088],
}

/// `struct btrfs_ioctl_qgroup_limit_args`.
#[repr(C)]
#[derive(Default)]
struct LimitArgs {
    qgroupid: u64,
    flags: u64,
    max_referenced: u64,
    max_exclusive: u64,
    reserved_referenced: u64,
    reserved_exclusive: u64,
}

#[repr(C)]
#[derive(Default)]
struct QuotaArgs {
    command: u64,
    status: u64,
}

/// `struct btrfs_ioctl_fs_info_args`.
#[repr(C)]
struct FsInfo {
    max_id: u64,
    num_devices: u64,
    fsid: [u8; 16],
    rest: [u8; 992],
}

/// `struct btrfs_ioctl_ino_lookup_args`.
#[repr(C)]
struct InoLookup {
    treeid: u64,
    objectid: u64,
    name: [u8; 4080],
}

/// The inode number that every subvolume's own directory has.
const SUBVOLUME_ROOT: u64 = 256;

const RESIZE: libc::c_ulong = request(WRITE, 3, size_of::<VolArgs>());
const SUBVOL_CREATE: libc::c_ulong = request(WRITE, 14, size_of::<VolArgs>());
const SNAP_DESTROY: libc::c_ulong = request(WRITE, 15, size_of::<VolArgs>());
const INO_LOOKUP: libc::c_ulong = request(READ | WRITE, 18, size_of::<InoLookup>());
const FS_INFO: libc::c_ulong = request(READ, 31, size_of::<FsInfo>());
const QUOTA_CTL: libc::c_ulong = request(READ | WRITE, 40, size_of::<QuotaArgs>());
const QGROUP_LIMIT: libc::c_ulong = request(READ, 43, size_of::<LimitArgs>());

const LIMIT_REFERENCED: u64 = 1;
const QUOTA_ENABLE: u64 = 1;
/// Since Linux 6.7: counts an extent for the subvolume that wrote it, and costs less.
const QUOTA_ENABLE_SIMPLE: u64 = 4;

/// Makes a subvolume in the directory.
pub(super) fn create(parent: BorrowedFd<'_>, name: &str) -> io::Result<()> {
    call(parent, SUBVOL_CREATE, &mut vol_args(name)?)
}

/// Removes a subvolume with all it holds; the space is freed later, by the kernel.
pub(super) fn destroy(parent: BorrowedFd<'_>, name: &str) -> io::Result<()> {
    call(parent, SNAP_DESTROY, &mut vol_args(name)?)
}

/// Limits what the subvolume of this directory may hold.
pub(super) fn limit(subvolume: BorrowedFd<'_>, bytes: u64) -> io::Result<()> {
    // qgroupid 0 means the one of the descriptor's subvolume.
    let mut args =
        LimitArgs { flags: LIMIT_REFERENCED, max_referenced: bytes, ..Default::default() };
    call(subvolume, QGROUP_LIMIT, &mut args)
}

/// The number of the subvolume that this directory is.
pub(super) fn subvolume_id(subvolume: BorrowedFd<'_>) -> io::Result<u64> {
    let mut args = InoLookup { treeid: 0, objectid: SUBVOLUME_ROOT, name: [0; 4080] };
    call(subvolume, INO_LOOKUP, &mut args)?;
    Ok(args.treeid)
}

/// Switches limits on; the simple kind where the kernel has it. Repeating it changes nothing.
pub(super) fn enable_quota(fs: BorrowedFd<'_>) -> io::Result<()> {
    let enable = |command| call(fs, QUOTA_CTL, &mut QuotaArgs { command, status: 0 });
    match enable(QUOTA_ENABLE_SIMPLE).or_else(|_| enable(QUOTA_ENABLE)) {
        Err(e) if e.raw_os_error() != Some(libc::EEXIST) => Err(e),
        _ => Ok(()),
    }
}

/// Grows the file system to all of its device.
pub(super) fn resize_to_device(fs: BorrowedFd<'_>) -> io::Result<()> {
    call(fs, RESIZE, &mut vol_args("1:max")?)
}

/// The file system's id, as its directory in sysfs is called.
pub(super) fn uuid(fs: BorrowedFd<'_>) -> io::Result<String> {
    let mut info = FsInfo { max_id: 0, num_devices: 0, fsid: [0; 16], rest: [0; 992] };
    call(fs, FS_INFO, &mut info)?;
    let hex = data_encoding::HEXLOWER.encode(&info.fsid);
    let parts = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]];
    Ok(parts.join("-"))
}

fn vol_args(name: &str) -> io::Result<VolArgs> {
    let mut args = VolArgs { fd: 0, name: [0; 4088] };
    if name.is_empty() || name.len() > 255 || name.contains(['/', '\0']) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    args.name[..name.len()].copy_from_slice(name.as_bytes());
    Ok(args)
}

fn call<T>(fd: BorrowedFd<'_>, request: libc::c_ulong, args: &mut T) -> io::Result<()> {
    debug_assert_eq!((request >> 16) & 0x3fff, size_of::<T>() as libc::c_ulong);
    // SAFETY: every request constant is made with the size of the structure it is used with, which
    // is repr(C), as the kernel declares it, and lives until the call returns; the kernel reads and
    // writes no more than that size. A descriptor that is not btrfs is refused with ENOTTY.
    match unsafe { libc::ioctl(fd.as_raw_fd(), request, std::ptr::from_mut(args)) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}
