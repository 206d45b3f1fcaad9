//! How quick the machine is that the payload sees: loops, calls, faults, switches, files and the loopback device. Every
//! figure is the median of several short passes, so that one interruption does not count. It must not compare: the
//! harness does.

use crate::kernel;
use std::fs;
use std::hint::black_box;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

const PASSES: usize = 7;

/// For a connection to somebody on the same machine.
const PATIENCE: Duration = Duration::from_secs(2);

/// All measurements as JSON: name, and nanoseconds (less is better) or MB/s (more is better).
pub fn all(dir: &str) -> String {
    let dir = if dir.is_empty() { "/" } else { dir };
    let mut figures = vec![
        ("cpu_ns", time(2_000_000, cpu)),
        ("syscall_ns", time(20_000, |n| (0..n).for_each(|_| kernel::get_parent()))),
        ("fault_ns", time(2_048, kernel::fault_in)),
        ("fork_ns", time(40, |n| (0..n).for_each(|_| _ = kernel::in_child(|| 0)))),
    ];
    figures.extend(switches().map(|ns| ("switch_ns", ns)));
    figures.extend(files(dir).unwrap_or_default());
    figures.extend(loopback().unwrap_or_default());
    json(figures)
}

/// What concerns the disk alone.
pub fn disk(dir: &str) -> String {
    json(files(dir).unwrap_or_default())
}

fn json(figures: Vec<(&str, f64)>) -> String {
    let words: Vec<String> = figures.iter().map(|(name, figure)| format!("\"{name}\":{figure:.2}")).collect();
    format!("{{{}}}", words.join(","))
}

/// Nanoseconds for one of `n` repetitions: the median pass.
fn time(n: usize, mut deed: impl FnMut(usize)) -> f64 {
    deed(n / 4 + 1);
    let passes = (0..PASSES).map(|_| {
        let begun = Instant::now();
        deed(n);
        begun.elapsed().as_nanos() as f64 / n as f64
    });
    median(passes.collect())
}

fn median(mut passes: Vec<f64>) -> f64 {
    passes.sort_by(f64::total_cmp);
    passes[passes.len() / 2]
}

/// A chain of multiplications that no compiler shortens.
fn cpu(n: usize) {
    let mut x = black_box(0x2545_F491_4F6C_DD1Du64);
    for _ in 0..n {
        x = black_box(x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
    }
}

/// A byte to another process on the same CPU and back: two switches.
fn switches() -> Option<f64> {
    const TRIPS: usize = 2_000;
    let (mut here, mut to_there) = std::io::pipe().ok().map(|(r, w)| (Some(r), Some(w)))?;
    let (mut from_there, mut back) = std::io::pipe().ok().map(|(r, w)| (Some(r), Some(w)))?;
    let child = kernel::fork();
    kernel::stay_on_one_cpu();
    let mut byte = [0];
    if child == 0 {
        drop((to_there.take(), from_there.take()));
        let (mut reader, mut writer) = (here.take()?, back.take()?);
        while reader.read_exact(&mut byte).is_ok() && writer.write_all(&byte).is_ok() {}
        kernel::exit(0);
    }
    drop((here.take(), back.take()));
    let (mut writer, mut reader) = (to_there.take()?, from_there.take()?);
    let ns = time(TRIPS, |n| {
        for _ in 0..n {
            let _ = writer.write_all(&byte).and_then(|()| reader.read_exact(&mut byte));
        }
    });
    drop((writer, reader));
    kernel::wait(child);
    Some(ns / 2.0)
}

/// Small files made and removed; a large one written and read back, through the page cache.
fn files(dir: &str) -> Option<Vec<(&'static str, f64)>> {
    const SIZE: usize = 16 << 20;
    let (small, large) = (format!("{dir}/jug-small"), format!("{dir}/jug-large"));
    fs::write(&small, [1; 4096]).ok()?;
    let create = time(100, |n| {
        for _ in 0..n {
            let _ = fs::write(&small, [1; 4096]).and_then(|()| fs::remove_file(&small));
        }
    });
    let block = vec![7u8; 1 << 20];
    let write = time(1, |_| {
        let Ok(mut file) = fs::File::create(&large) else { return };
        for _ in 0..SIZE / block.len() {
            let _ = file.write_all(&block);
        }
    });
    let mut buffer = vec![0u8; 1 << 20];
    let read = time(1, |_| {
        let Ok(mut file) = fs::File::open(&large) else { return };
        while file.read(&mut buffer).is_ok_and(|bytes| bytes > 0) {}
    });
    let _ = fs::remove_file(&large);
    let rate = |ns: f64| SIZE as f64 / ns * 1e3;
    Some(vec![("create_ns", create), ("write_mb_s", rate(write)), ("read_mb_s", rate(read))])
}

/// The way to an `echo` at that address, as JSON.
pub fn far(address: &str) -> String {
    let stream = address.parse().ok().and_then(|to| TcpStream::connect_timeout(&to, PATIENCE).ok());
    let figures = stream.and_then(|stream| through(stream).ok());
    figures.map_or_else(
        || "{}".into(),
        |(trip, rate)| format!("{{\"veth_trip_ns\":{trip:.2},\"veth_mb_s\":{rate:.2}}}"),
    )
}

/// The same over the loopback device.
fn loopback() -> Option<Vec<(&'static str, f64)>> {
    let listener = TcpListener::bind("127.0.0.1:0").ok()?;
    let address = listener.local_addr().ok()?;
    let child = kernel::fork();
    if child == 0 {
        echo(&listener);
        kernel::exit(0);
    }
    let figures = TcpStream::connect(address).and_then(through);
    kernel::wait(child);
    let (trip, rate) = figures.ok()?;
    Some(vec![("loopback_trip_ns", trip), ("loopback_mb_s", rate)])
}

/// Nanoseconds for one byte there and back, and MB/s of as many as go through, over TCP.
fn through(mut stream: TcpStream) -> std::io::Result<(f64, f64)> {
    const SIZE: usize = 32 << 20;
    stream.set_nodelay(true)?;
    let mut byte = [1];
    let trip = time(1_000, |n| {
        for _ in 0..n {
            let _ = stream.write_all(&byte).and_then(|()| stream.read_exact(&mut byte));
        }
    });
    let block = vec![0u8; 1 << 16];
    let through = time(1, |_| {
        for _ in 0..SIZE / block.len() {
            let _ = stream.write_all(&block);
        }
        // The other side answers a 1 when it has read everything up to it.
        let _ = stream.write_all(&[1]).and_then(|()| stream.read_exact(&mut byte));
    });
    Ok((trip, SIZE as f64 / through * 1e3))
}

/// Answers each 1 with a 1, and passes over zeroes.
pub fn echo(listener: &TcpListener) {
    let Ok((mut stream, _)) = listener.accept() else { return };
    let _ = stream.set_nodelay(true);
    let mut buffer = vec![0u8; 1 << 16];
    while let Ok(bytes) = stream.read(&mut buffer) {
        if bytes == 0 || (buffer[bytes - 1] == 1 && stream.write_all(&[1]).is_err()) {
            return;
        }
    }
}
