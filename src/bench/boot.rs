//! The command lines that boot a kernel of its own around the payload: virtual machines and user-mode Linux. Each with
//! the least that it needs: a serial line and no network; a disk for the payload that writes files, and a balloon where
//! that is the question. It must not start anything.

use std::ffi::OsString;
use std::fs;
use std::io;
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
    let init = format!("{reporting} -- {}", variant.payload.word());
    let disk = variant.payload.writes();
    let drivers = guest.modules.as_ref().ok().filter(|_| disk || variant.reporting);
    let initrd = drivers.unwrap_or(&guest.initrd);
    let room = if variant.payload == Payload::Idle { 0 } else { ROOM };
    let memory = guest.memory + room + drivers.map_or(0, |_| DRIVERS);
    let block = image.block();
    match contender.kind {
        Kind::Qemu => {
            let merge = if variant.folded { "on" } else { "off" };
            command.arg("-M").arg(format!("microvm,isa-serial=on,mem-merge={merge}")).args(QEMU_FLAGS);
            let emulated = contender.class == Class::Emulated;
            let (accelerator, clock) = if emulated { ("tcg,tb-size=8", EMULATED_CLOCK) } else { ("kvm", "") };
            command.args(["-accel", accelerator, "-m", &memory.to_string()]);
            command.arg("-kernel").arg(&guest.kernel).arg("-initrd").arg(initrd);
            if disk && drivers.is_some() {
                let drive = format!("if=none,id=d,format=raw,file={}", block.display());
                command.args(["-drive", &drive, "-device", "virtio-blk-device,drive=d"]);
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
            let drive = json!({ "drive_id": "d", "path_on_host": block, "is_root_device": false,
                                "is_read_only": false });
            let drives: Vec<_> = Some(drive).filter(|_| disk && drivers.is_some()).into_iter().collect();
            let size = json!({ "vcpu_count": 1, "mem_size_mib": memory });
            fs::write(
                &config,
                json!({ "boot-source": boot, "machine-config": size, "drives": drives }).to_string(),
            )?;
            command.args(["--no-api", "--config-file"]).arg(config);
        }
        Kind::CloudHypervisor => {
            command.arg("--kernel").arg(&guest.kernel).arg("--initramfs").arg(initrd);
            if disk && drivers.is_some() {
                command.arg("--disk").arg(format!("path={}", block.display()));
            }
            let balloon = ["--balloon", "size=0,free_page_reporting=on"];
            command.args(variant.reporting.then_some(balloon).into_iter().flatten());
            command.args(["--cpus", "boot=1", "--serial", "tty", "--console", "off", "--memory"]);
            command.arg(format!("size={memory}M,mergeable={}", if variant.folded { "on" } else { "off" }));
            command.arg("--cmdline").arg(format!("console=ttyS0 reboot=t {KERNEL} {init}"));
        }
        _ => {
            command.arg(format!("mem={memory}M")).arg(format!("initrd={}", guest.initrd.display()));
            // No restart after a panic: it would begin again, for ever.
            command.arg(format!("umid={id}")).arg(format!("uml_dir={}/uml/", image.dir.display()));
            command.args(["con=null", "con0=fd:0,fd:1", "quiet"]);
            command.args(disk.then(|| format!("ubd0={}", block.display())));
            command.args(has_wide_registers().then_some(NARROW)).arg("--").arg(variant.payload.word());
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
