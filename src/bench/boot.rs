//! The command lines that boot a kernel of its own around the payload: virtual machines and user-mode Linux. Each with
//! the least that it needs: a serial line and no network; a disk for the root, or for the payload that writes files,
//! and a balloon where that is the question. It must not start anything.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;

use serde_json::json;

use super::contender::{Contender, Kind};
use super::image::{Image, Payload, Variant};
use super::results::Class;

const QEMU_FLAGS: [&str; 15] = [
    "-smp",
    "1",
    "-nodefaults",
    "-no-user-config",
    "-display",
    "none",
    "-no-reboot",
    "-chardev",
    "stdio,id=c,signal=off",
    "-serial",
    "chardev:c",
    "-cpu",
    "max",
    "-msg",
    "timestamp=off",
];

/// What every kernel of a virtual machine is told: `-1` restarts at once after a panic, which ends the machine.
const KERNEL: &str = "quiet panic=-1 mitigations=off";

/// An emulated clock on a busy host is none to calibrate by: the kernel would give up, and hang.
const EMULATED_CLOCK: &str = "tsc_early_khz=2000000 lpj=4000000 no_timer_check";

/// Programs inside a user-mode Linux without wide registers (jug-payload's `narrow`) must not use them: tunables of the
/// GNU C library, from the environment of init.
const NARROW: &str = "GLIBC_TUNABLES=glibc.cpu.hwcaps=-AVX512F,-AVX512VL,-AVX2,-AVX,-AVX_Fast_Unaligned_Load";

/// What the memory of `touch`, and the files of `work`, add to the smallest in which the payload comes up.
const ROOM: u32 = 64;

/// Blocks of 2^5 pages are reported as free. Linux takes those of 2^9 if it is told nothing, and reports while room for
/// 32 more is free in a zone (mm/page_reporting.c): never, in a machine as small as these.
const REPORTING: &str = "page_reporting.page_reporting_order=5";

/// What the modules for a disk or a balloon add.
const DRIVERS: u32 = 4;

/// Adds to `command`, which is the contender's program, how to boot the payload.
pub fn begin(
    contender: &Contender,
    command: &mut Command,
    image: &Image,
    id: &str,
    variant: Variant,
) -> io::Result<()> {
    let Some(guest) = &contender.guest else { return Ok(()) };
    let reporting = if variant.reporting { REPORTING } else { "" };
    let first = if guest.root.is_some() { "switch" } else { "machine" };
    let init = format!("{reporting} -- {first} {}", variant.payload.word());
    let writes = variant.payload.writes();
    let drivers = guest.modules.as_ref().ok().filter(|_| writes || variant.reporting);
    let initrd = drivers.unwrap_or(&guest.initrd);
    let room = if variant.payload == Payload::Idle { 0 } else { ROOM };
    let memory = guest.memory + room + drivers.map_or(0, |_| DRIVERS);
    let block = writes.then(|| image.block());
    let disks: Vec<(&Path, bool)> = guest.root.iter().map(|root| (root.as_path(), true)).collect();
    let with_drivers = block.iter().filter(|_| drivers.is_some()).map(|block| (block.as_path(), false));
    let disks: Vec<(&Path, bool)> = disks.into_iter().chain(with_drivers).collect();
    match contender.kind {
        Kind::Qemu => {
            let merge = if variant.folded { "on" } else { "off" };
            command.arg("-M").arg(format!("microvm,isa-serial=on,mem-merge={merge}")).args(QEMU_FLAGS);
            let emulated = contender.class == Class::Emulated;
            let (accelerator, clock) = if emulated { ("tcg,tb-size=8", EMULATED_CLOCK) } else { ("kvm", "") };
            command.args(["-accel", accelerator, "-m", &memory.to_string()]);
            command.arg("-kernel").arg(&guest.kernel).arg("-initrd").arg(initrd);
            for (at, (file, read_only)) in disks.iter().enumerate() {
                let read_only = if *read_only { "on" } else { "off" };
                let drive = format!("if=none,id=d{at},format=raw,readonly={read_only},file=");
                let device = format!("virtio-blk-device,drive=d{at}");
                command.args(["-drive", &(drive + &file.to_string_lossy()), "-device", &device]);
            }
            let balloon = "virtio-balloon-device,free-page-reporting=on";
            command.args(variant.reporting.then_some(["-device", balloon]).into_iter().flatten());
            command.arg("-append").arg(format!("console=ttyS0 reboot=t {KERNEL} {clock} {init}"));
        }
        // docs/getting-started.md of Firecracker: without an API socket the machine stands in a file.
        Kind::Firecracker => {
            let config = image.dir.join(format!("{id}.json"));
            let words = format!("console=ttyS0 reboot=k pci=off {KERNEL} {init}");
            let boot =
                json!({ "kernel_image_path": guest.kernel, "initrd_path": initrd, "boot_args": words });
            let drive = |(at, (file, read_only)): (usize, &(&Path, bool))| {
                json!({ "drive_id": format!("d{at}"), "path_on_host": file, "is_root_device": false,
                        "is_read_only": read_only })
            };
            let drives: Vec<_> = disks.iter().enumerate().map(drive).collect();
            let size = json!({ "vcpu_count": 1, "mem_size_mib": memory });
            fs::write(
                &config,
                json!({ "boot-source": boot, "machine-config": size, "drives": drives }).to_string(),
            )?;
            command.args(["--no-api", "--config-file"]).arg(config);
        }
        Kind::CloudHypervisor => {
            command.arg("--kernel").arg(&guest.kernel).arg("--initramfs").arg(initrd);
            command.args((!disks.is_empty()).then_some("--disk"));
            for (file, read_only) in &disks {
                let read_only = if *read_only { ",readonly=on" } else { "" };
                command.arg(format!("path={}{read_only}", file.display()));
            }
            let balloon = ["--balloon", "size=0,free_page_reporting=on"];
            command.args(variant.reporting.then_some(balloon).into_iter().flatten());
            command.args(["--cpus", "boot=1", "--serial", "tty", "--console", "off", "--memory"]);
            command.arg(format!("size={memory}M,mergeable={}", if variant.folded { "on" } else { "off" }));
            command.arg("--cmdline").arg(format!("console=ttyS0 reboot=t {KERNEL} {init}"));
        }
        _ => {
            command.arg(format!("mem={memory}M"));
            // It has the drivers of its disks, and so needs no initramfs for a root there.
            match &guest.root {
                None => command.arg(format!("initrd={}", guest.initrd.display())),
                Some(root) => {
                    command.arg(format!("ubd0r={}", root.display()));
                    command.args(["root=/dev/ubda", "rootfstype=ext4", "ro", "init=/payload"])
                }
            };
            // No restart after a panic: it would begin again, for ever.
            command.arg(format!("umid={id}")).arg(format!("uml_dir={}/uml/", image.dir.display()));
            command.args(["con=null", "con0=fd:0,fd:1", "quiet"]);
            let at = guest.root.iter().count();
            command.args(block.map(|block| format!("ubd{at}={}", block.display())));
            command.args(has_wide_registers().then_some(NARROW));
            command.args(["--", "machine", variant.payload.word()]);
            command.env("TMPDIR", &image.dir);
        }
    }
    Ok(())
}

/// Words before linux.uml.
pub fn before(image: &Image) -> Vec<OsString> {
    if has_wide_registers() { vec![image.payload().into(), "narrow".into()] } else { Vec::new() }
}

/// Whether the processor has registers for which user-mode Linux 6.1 has no room.
pub fn has_wide_registers() -> bool {
    let cpus = super::machine::read("/proc/cpuinfo");
    let flags = cpus.lines().find(|line| line.starts_with("flags")).unwrap_or_default();
    flags.split(' ').any(|flag| matches!(flag, "amx_tile" | "apx"))
}
