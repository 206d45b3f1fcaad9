//! Loop devices: a file as a block device, for file systems that mount nothing else (loop(4)).

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use super::{check, path, shown};
use crate::error::{Error, Result};

const LOOP_CTL_GET_FREE: libc::c_ulong = 0x4C82;
const LOOP_CONFIGURE: libc::c_ulong = 0x4C0A;
const LO_FLAGS_READ_ONLY: u32 = 1;
const LO_FLAGS_AUTOCLEAR: u32 = 4;

/// struct loop_info64 (linux/loop.h).
#[repr(C)]
struct Info {
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

/// struct loop_config (linux/loop.h, Linux 5.8).
#[repr(C)]
struct Config {
    fd: u32,
    block_size: u32,
    info: Info,
    reserved: [u64; 8],
}

/// A loop device that reads `file`, and goes when nobody has it open or mounted any more.
pub fn read_only(file: BorrowedFd<'_>) -> Result<OwnedFd> {
    let control = path::open(Path::new("/dev/loop-control"), libc::O_RDWR)?;
    // Between the answer and its use anybody may take the device.
    for _ in 0..64 {
        let number = check!(
            // SAFETY: the request takes no argument.
            unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE as _) },
            "ioctl(/dev/loop-control, LOOP_CTL_GET_FREE)"
        )?;
        let device = path::open(Path::new(&format!("/dev/loop{number}")), libc::O_RDONLY)?;
        match configure(device.as_fd(), file) {
            Err(e) if e.errno() == libc::EBUSY => {}
            other => return other.map(|()| device),
        }
    }
    Err(Error::new("every loop device that is free is taken by somebody else at once"))
}

fn configure(device: BorrowedFd<'_>, file: BorrowedFd<'_>) -> Result<()> {
    let info = Info {
        device: 0,
        inode: 0,
        rdevice: 0,
        offset: 0,
        size_limit: 0,
        number: 0,
        encrypt_type: 0,
        encrypt_key_size: 0,
        flags: LO_FLAGS_READ_ONLY | LO_FLAGS_AUTOCLEAR,
        file_name: [0; 64],
        crypt_name: [0; 64],
        encrypt_key: [0; 32],
        init: [0; 2],
    };
    let config = Config { fd: file.as_raw_fd() as u32, block_size: 0, info, reserved: [0; 8] };
    check!(
        // SAFETY: config is a struct loop_config that lives across the call.
        unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE as _, &raw const config) },
        "ioctl({}, LOOP_CONFIGURE)",
        shown(device)
    )?;
    Ok(())
}
