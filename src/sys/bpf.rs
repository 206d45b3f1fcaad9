//! bpf(2), for the one program kind of a container: the device filter of a cgroup (BPF_PROG_TYPE_CGROUP_DEVICE).

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use super::fd::owned;
use super::{check, shown};
use crate::error::Result;

const BPF_PROG_LOAD: i32 = 5;
const BPF_PROG_ATTACH: i32 = 8;
const BPF_PROG_QUERY: i32 = 16;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
const BPF_F_ALLOW_MULTI: u32 = 2;

#[repr(C)]
#[derive(Default)]
struct QueryAttr {
    target_fd: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    prog_cnt: u32,
    reserved: u32,
}

/// One eBPF instruction as the kernel reads it.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instruction {
    pub code: u8,
    /// Destination register in the low four bits, source in the high four.
    pub registers: u8,
    pub offset: i16,
    pub immediate: i32,
}

#[repr(C)]
#[derive(Default)]
struct LoadAttr {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
}

#[repr(C)]
#[derive(Default)]
struct AttachAttr {
    target_fd: u32,
    attach_bpf_fd: u32,
    attach_type: u32,
    attach_flags: u32,
    replace_bpf_fd: u32,
}

/// Loads a device program.
pub fn load_device_program(program: &[Instruction]) -> Result<OwnedFd> {
    let mut attr = LoadAttr {
        prog_type: BPF_PROG_TYPE_CGROUP_DEVICE,
        insn_cnt: program.len() as u32,
        insns: program.as_ptr() as u64,
        license: c"Apache".as_ptr() as u64,
        ..Default::default()
    };
    attr.prog_name[..11].copy_from_slice(b"jug_devices");
    let fd = check!(
        // SAFETY: the attribute, the program and the licence string live across the call; the size is the attribute's.
        unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, &raw const attr, size_of::<LoadAttr>()) },
        "bpf(BPF_PROG_LOAD, CGROUP_DEVICE, {} instructions)",
        program.len()
    )?;
    Ok(owned(fd))
}

/// Attaches a device program to a cgroup; it goes when the cgroup goes.
pub fn attach_device_program(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>) -> Result<()> {
    let attr = AttachAttr {
        target_fd: cgroup.as_raw_fd() as u32,
        attach_bpf_fd: program.as_raw_fd() as u32,
        attach_type: BPF_CGROUP_DEVICE,
        attach_flags: BPF_F_ALLOW_MULTI,
        replace_bpf_fd: 0,
    };
    check!(
        // SAFETY: the attribute lives across the call; the size is its own.
        unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_ATTACH, &raw const attr, size_of::<AttachAttr>()) },
        "bpf(BPF_PROG_ATTACH, {}, BPF_CGROUP_DEVICE)",
        shown(cgroup)
    )?;
    Ok(())
}

/// How many device programs are attached to a cgroup itself.
pub fn device_programs(cgroup: BorrowedFd<'_>) -> Result<u32> {
    let mut attr = QueryAttr {
        target_fd: cgroup.as_raw_fd() as u32,
        attach_type: BPF_CGROUP_DEVICE,
        ..Default::default()
    };
    check!(
        // SAFETY: the attribute lives across the call and the size is its own; with room for no ids only the count is
        // written, into the attribute.
        unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_QUERY, &raw mut attr, size_of::<QueryAttr>()) },
        "bpf(BPF_PROG_QUERY, {}, BPF_CGROUP_DEVICE)",
        shown(cgroup)
    )?;
    Ok(attr.prog_cnt)
}
