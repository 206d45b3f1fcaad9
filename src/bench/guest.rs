//! Machines around the payload: the kernel, whether the processor's virtualization really boots it, and the smallest
//! memory in which the payload comes up. It writes only to jug's cache.

use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use super::contender::{Contender, Kind, ON_DISK, cached};
use super::image::{Payload, Variant};
use super::instance::World;
use super::results::Class;
use super::{modules, place, progress};
use crate::error::{Error, Result};

#[derive(Clone)]
pub struct Guest {
    pub kernel: PathBuf,
    /// What it boots; without a disk for its root that is all it has.
    pub initrd: PathBuf,
    /// The root file system, read-only.
    pub root: Option<PathBuf>,
    /// `initrd` with all modules that disks and balloons need; or why there are none.
    pub modules: std::result::Result<PathBuf, String>,
    /// MiB.
    pub memory: u32,
}

/// In which any kernel of Debian comes up, in MiB.
const PLENTY: u32 = 256;

/// How long a boot may take before the accelerator counts as none.
const KVM_PATIENCE: Duration = Duration::from_secs(12);

/// Makes a contender with a kernel of its own ready, or says why it cannot be.
pub fn prepare(contender: &mut Contender, world: &World, kernel: Option<&Path>, quick: bool) -> Result<()> {
    let found = match (kernel, contender.kind) {
        // It is its own kernel.
        (_, Kind::UserModeLinux) => PathBuf::new(),
        (Some(kernel), _) => kernel.to_owned(),
        (None, _) => debian_kernel()?,
    };
    let packed = found;
    let found = match contender.kind {
        Kind::Firecracker | Kind::CloudHypervisor => unpacked(&packed, &world.image.dir)?,
        _ => packed.clone(),
    };
    let root = root_of(contender, world)?;
    let initrd = world.image.initrd.clone();
    let dir = &world.image.dir;
    let (initrd, modules) = match (contender.kind, &root) {
        (Kind::UserModeLinux, _) => (initrd, Err("user-mode Linux has its own disks".into())),
        (_, None) => (initrd.clone(), modules::with_modules(&packed, &modules::ALL, &initrd, dir)),
        (_, Some(_)) => {
            // A kernel that somebody built may have them in itself: whether it finds the disk, its first start tells.
            let own = modules::with_modules(&packed, &modules::DISK, &initrd, dir);
            let own = own.unwrap_or_else(|_| initrd.clone());
            (own, modules::with_modules(&packed, &modules::ALL, &initrd, dir))
        }
    };
    contender.guest = Some(Guest { kernel: found, initrd, root, modules, memory: PLENTY });
    let accelerator = choose_accelerator(contender, world)?;
    let memory = smallest_memory(contender, world, quick)?;
    // It did boot: that it did not before was the accelerator's fault, or that of the end of the run.
    if let Some(known) = accelerator.filter(|_| !world.is_over()) {
        remember(&known, if contender.class == Class::Hardware { "kvm" } else { "none" });
    }
    if let Some(guest) = &mut contender.guest {
        guest.memory = memory;
    }
    Ok(())
}

/// The disk, for who has its root there: an image that was unpacked into an initramfs would be the machine's memory.
fn root_of(contender: &Contender, world: &World) -> Result<Option<PathBuf>> {
    let of_image = !world.image.base.is_empty();
    match contender.name.strip_suffix(ON_DISK) {
        Some(same) if of_image => Err(Error::new(format!("with an image as payload, {same} is the same"))),
        None if !of_image => Ok(None),
        _ => {
            let made = world.image.root_disk();
            made.map(Some).map_err(|why| Error::new(format!("the root on a disk: {why}")))
        }
    }
}

/// A device that is there may still boot nothing (nested, or without nesting): only a boot tells. Gives the name under
/// which the answer can be kept, where it is new.
fn choose_accelerator(contender: &mut Contender, world: &World) -> Result<Option<String>> {
    if !matches!(contender.kind, Kind::Qemu | Kind::Firecracker | Kind::CloudHypervisor) {
        return Ok(None);
    }
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let known = format!("bench-accel-{}-{}", contender.name, boot.trim());
    let answer = cached(&known).and_then(|found| fs::read_to_string(found.first()?).ok());
    let works = match &answer {
        Some(answer) => answer == "kvm",
        None => {
            contender.class = Class::Hardware;
            let device = fs::OpenOptions::new().read(true).write(true).open("/dev/kvm").is_ok();
            let works = device && world.start_within(contender, KVM_PATIENCE).is_ok();
            place::check()?;
            works
        }
    };
    contender.class = if works { Class::Hardware } else { Class::Emulated };
    if !works && contender.kind != Kind::Qemu {
        return Err(Error::new(format!(
            "/dev/kvm boots no guest here, and {} needs one that does",
            contender.name
        )));
    }
    Ok(answer.is_none().then_some(known))
}

/// The smallest memory in which the payload comes up. A quick run tries a few sizes, upwards, and a full one halves the
/// interval until it is 2 MiB wide, and adds as much: five boots of five still leave one that fails. The answer holds
/// for the same program, kernel and payload.
fn smallest_memory(contender: &mut Contender, world: &World, quick: bool) -> Result<u32> {
    let known = format!("bench-memory-{:016x}", key(contender, world, quick)?);
    let before = cached(&known).and_then(|found| fs::read_to_string(found.first()?).ok()?.parse().ok());
    if let Some(memory) = before {
        return Ok(memory);
    }
    // The error, if it does not come up at all. Else what it took: who is out of memory may stand still for ever.
    let begun = Instant::now();
    world.start(contender, Variant::of(Payload::Idle))?;
    let patience = (begun.elapsed() * 3).max(Duration::from_secs(3));
    let mut memory = PLENTY;
    if quick {
        for less in [64, 96, 128] {
            if comes_up(contender, world, less, 1, patience)? {
                memory = less;
                break;
            }
        }
    } else {
        let mut fails = 8;
        while memory - fails > 2 {
            let middle = fails + (memory - fails).div_ceil(4) * 2;
            if comes_up(contender, world, middle, TRIALS, patience)? {
                memory = middle
            } else {
                fails = middle
            }
        }
        memory = (memory + MARGIN).min(PLENTY);
    }
    // A boot that the end of the run cut short says nothing of memory.
    if !world.is_over() {
        remember(&known, &memory.to_string());
    }
    Ok(memory)
}

/// How often it has to come up in that memory: with a little less than it needs a machine does so now and then. A quick
/// run asks once, in larger steps.
const TRIALS: usize = 5;

/// MiB beside the smallest that passed.
const MARGIN: u32 = 2;

/// Whether the payload comes up in `memory` MiB.
fn comes_up(
    contender: &mut Contender,
    world: &World,
    memory: u32,
    trials: usize,
    patience: Duration,
) -> Result<bool> {
    progress(format_args!("{}: does it come up in {memory} MiB?", contender.name));
    let plenty = contender.guest.clone();
    if let Some(guest) = &mut contender.guest {
        guest.memory = memory;
    }
    let works = (0..trials).all(|_| world.start_to_stay(contender, patience).is_ok());
    contender.guest = plenty;
    place::check()?;
    Ok(works)
}

/// Everything that the smallest memory depends on: the command that starts the machine, without the names of this run,
/// and the bytes that it boots.
fn key(contender: &Contender, world: &World, quick: bool) -> Result<u64> {
    let failed = |why: std::io::Error| Error::new(format!("{}: {why}", contender.name));
    let mut hasher = DefaultHasher::new();
    (&contender.name, &contender.version, contender.class.words(), quick, TRIALS, MARGIN).hash(&mut hasher);
    let (image, idle) = (&world.image, Variant::of(Payload::Idle));
    let command = contender.start(image, &world.prefix, idle, Path::new("")).map_err(failed)?;
    for word in command.get_args() {
        word.to_string_lossy().replace(&world.prefix, "").hash(&mut hasher);
    }
    image.base.hash(&mut hasher);
    if let Some(guest) = &contender.guest {
        guest.root.is_some().hash(&mut hasher);
        // It is its own kernel.
        let kernel = Some(&guest.kernel).filter(|kernel| !kernel.as_os_str().is_empty());
        for file in kernel.into_iter().chain([&guest.initrd]) {
            fs::read(file).map_err(failed)?.hash(&mut hasher);
        }
    }
    Ok(hasher.finish())
}

fn cache() -> Option<PathBuf> {
    let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache"));
    let dir = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(home)?.join("jug");
    fs::create_dir_all(&dir).ok()?;
    Some(dir)
}

fn remember(name: &str, answer: &str) {
    if let Some(cache) = cache() {
        let _ = fs::write(cache.join(name), answer);
    }
}

/// How Debian compresses kernels: what the stream begins with, and who reads it.
const PACKED: [(&[u8], &str); 2] = [(b"\xfd7zXZ\0", "xz"), (b"\x28\xb5\x2f\xfd", "zstd")];

/// The ELF file inside of a compressed kernel, for monitors that load nothing else: what scripts/extract-vmlinux of the
/// kernel does.
fn unpacked(kernel: &Path, dir: &Path) -> Result<PathBuf> {
    let failed = |why: &dyn std::fmt::Display| Error::new(format!("{}: {why}", kernel.display()));
    let bytes = fs::read(kernel).map_err(|why| failed(&why))?;
    if bytes.starts_with(b"\x7fELF") {
        return Ok(kernel.to_owned());
    }
    let (packed, whole) = (dir.join("vmlinux.packed"), dir.join("vmlinux"));
    let mut asked = "xz or zstd";
    for (magic, program) in PACKED {
        let begins = bytes.windows(magic.len()).enumerate().filter(|(_, window)| *window == magic);
        for (begins, _) in begins.take(4) {
            asked = program;
            fs::write(&packed, &bytes[begins..]).map_err(|why| failed(&why))?;
            // What follows the stream is not of it, and it says so when it has written everything.
            let script = r#""$1" -dc <"$2" >"$3" 2>/dev/null || :"#;
            let _ = Command::new("sh").args(["-c", script, "sh", program]).args([&packed, &whole]).status();
            let _ = fs::remove_file(&packed);
            if fs::read(&whole).is_ok_and(|bytes| bytes.starts_with(b"\x7fELF")) {
                return Ok(whole);
            }
        }
    }
    Err(failed(&format_args!("{asked} finds no ELF file in it")))
}

/// Debian's cloud kernel: of the cache (scripts/vm has one, of Debian 13), else fetched with apt-get into it.
fn debian_kernel() -> Result<PathBuf> {
    let there = |path: &PathBuf| fs::metadata(path).is_ok_and(|meta| meta.is_file());
    let known = ["bench-kernel", "vm-image-"].iter().filter_map(|prefix| cached(prefix)).flatten();
    if let Some(kernel) = known.map(|dir| dir.join("kernel")).find(there) {
        return Ok(kernel);
    }
    let missing = || {
        Error::new("no kernel for a virtual machine")
            .why("neither the cache nor apt-get has Debian's linux-image-cloud-amd64")
            .next("name one with --kernel")
    };
    let dir = cache().ok_or_else(missing)?.join("bench-kernel");
    progress("fetching Debian's cloud kernel");
    let fetch = r#"set -e
rm -rf "$1.new"; mkdir -p "$1.new"; cd "$1.new"
package=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/.*Depends: //p')
apt-get -qq -o APT::Sandbox::User=root download "$package"
dpkg-deb -x ./*.deb x; mv x/boot/vmlinuz-* kernel; mkdir modules
for name in virtio_mmio virtio_blk virtio_balloon; do
    find x -name "$name.ko*" -exec mv {} modules/ \;
done
rm -rf x ./*.deb
rm -rf "$1"; mv "$1.new" "$1""#;
    let output = Command::new("sh").args(["-c", fetch, "sh"]).arg(&dir).output();
    match output {
        Ok(output) if output.status.success() => Ok(dir.join("kernel")),
        Ok(output) => Err(missing().context(String::from_utf8_lossy(&output.stderr).trim())),
        Err(_) => Err(missing()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Debian's kernels are: something that boots, the packed file somewhere in it, and something behind.
    #[test]
    fn the_kernel_inside_is_found() {
        let dir = std::env::temp_dir().join(format!("jug-bench-unpacked-{}", std::process::id()));
        fs::create_dir_all(&dir).expect("mkdir");
        let elf: Vec<u8> =
            b"\x7fELF".iter().copied().chain((0..100_000u32).map(|n| (n % 251) as u8)).collect();
        fs::write(dir.join("elf"), &elf).expect("write");
        assert_eq!(unpacked(&dir.join("elf"), &dir).expect("an ELF file"), dir.join("elf"));
        for (magic, program) in PACKED {
            let packed = Command::new(program).arg("-c").arg(dir.join("elf")).output().expect(program).stdout;
            assert!(packed.starts_with(magic), "{program}");
            // Bytes that look like a stream and are none come before.
            let bytes = [b"MZ setup ", magic, b"no stream ", &packed[..], b"signature"].concat();
            fs::write(dir.join("kernel"), bytes).expect("write");
            let found = unpacked(&dir.join("kernel"), &dir).expect("the kernel inside");
            assert!(fs::read(found).expect("read") == elf, "{program} gave something else");
        }
        fs::write(dir.join("kernel"), "nothing").expect("write");
        assert!(unpacked(&dir.join("kernel"), &dir).is_err());
        fs::remove_dir_all(&dir).expect("rm");
    }
}
