//! The figures of a report, drawn from the samples: one place, so that terminal, page and comparison say the same.

use std::collections::BTreeMap;

use crate::bench::results::{
    Class, FOLDED, FOUR_WIDE, Growth, IDLE, NATIVE, Named, Point, Results, SERIAL, Starts,
};
use crate::bench::stats::{self, Blocks, Dice, Line};

/// What a program that idles costs on top, in KiB for one more instance: MemTotal - MemAvailable over N.
pub fn memory_line(growth: &Growth) -> Option<Line> {
    line(growth, |point| point.used)
}

/// The same by what the kernel and the processes own up to: Slab, KernelStack, PageTables, Percpu, and the sum of Pss.
pub fn accounted_line(growth: &Growth) -> Option<Line> {
    line(growth, |point| point.kernel() + point.pss + point.state)
}

/// The line to quote, and by what: memory available, unless the machine did other things meanwhile, and then what is
/// accounted for.
pub fn best_line(growth: &Growth) -> Option<(Line, &'static str)> {
    let (used, accounted) = (memory_line(growth)?, accounted_line(growth)?);
    let good = used.r2 > 0.99 && used.slope > 0.0;
    Some(if good { (used, "by MemAvailable") } else { (accounted, "by accounts") })
}

/// The contender's own processes and files.
pub fn own_line(growth: &Growth) -> Option<Line> {
    line(growth, |point| point.own + point.state)
}

/// The kernel's part.
pub fn kernel_line(growth: &Growth) -> Option<Line> {
    line(growth, Point::kernel)
}

/// Without the machine as it was before the first instance, which brings what all of them share.
fn line(growth: &Growth, of: impl Fn(&Point) -> f64) -> Option<Line> {
    let points: Vec<_> =
        growth.points.iter().filter(|point| point.n > 0).map(|point| (point.n as f64, of(point))).collect();
    stats::growth_line(&points)
}

/// Instances in a GiB of memory; 0 where the slope says nothing.
pub fn per_gib(line: &Line) -> f64 {
    if line.slope > 0.0 { f64::from(1 << 20) / line.slope } else { 0.0 }
}

/// The entries of a map, with that of `name` before all others.
pub fn first<'m, T>(all: &'m BTreeMap<String, T>, name: &str) -> Vec<(&'m String, &'m T)> {
    let mut all: Vec<_> = all.iter().collect();
    all.sort_by_key(|(key, _)| *key != name);
    all
}

/// Starts and stops per second, where they follow one another at once.
pub fn rate(manner: &str, row: &Starts) -> Option<f64> {
    let at_once = [SERIAL, FOUR_WIDE].contains(&manner);
    at_once.then(|| row.wall_ms.len() as f64 / row.seconds.max(1e-9))
}

/// The idle growth of one contender.
pub fn idle<'r>(results: &'r Results, name: &str) -> Option<&'r Growth> {
    results.growth.get(IDLE)?.get(name)
}

/// Contenders with a kernel of their own, idle, and their line, to which the others are a ratio; then the same with KSM
/// on, by a name that says so.
pub fn machines(results: &Results) -> Vec<(String, &Named, Line)> {
    let mut machines = Vec::new();
    for variant in [IDLE, FOLDED] {
        let how = variant.strip_prefix(IDLE).unwrap_or(variant);
        let Some(rows) = results.growth.get(variant) else { continue };
        for contender in results.contenders.iter().filter(|contender| contender.class.has_own_kernel()) {
            let line = rows.get(&contender.name).and_then(best_line);
            machines.extend(line.map(|(line, _)| (format!("{}{how}", contender.name), contender, line)));
        }
    }
    machines
}

/// What a figure of the payload is called, and its unit. MB/s are better the more they are.
pub fn overhead_words(figure: &str) -> (&'static str, &'static str) {
    match figure {
        "cpu_ns" => ("a multiplication", "ns"),
        "syscall_ns" => ("a system call", "ns"),
        "fault_ns" => ("a page fault", "ns"),
        "fork_ns" => ("fork and wait", "ns"),
        "switch_ns" => ("a context switch", "ns"),
        "create_ns" => ("create, write, remove a file", "ns"),
        "write_mb_s" => ("write a file", "MB/s"),
        "read_mb_s" => ("read a file", "MB/s"),
        "loopback_trip_ns" => ("loopback, there and back", "ns"),
        "loopback_mb_s" => ("loopback throughput", "MB/s"),
        "veth_trip_ns" => ("veth pair (native: loopback)", "ns"),
        "veth_mb_s" => ("veth throughput (loopback)", "MB/s"),
        _ => ("an unknown figure", "?"),
    }
}

/// The figures in the order of reports.
pub const OVERHEAD: [&str; 12] = [
    "cpu_ns",
    "syscall_ns",
    "fault_ns",
    "switch_ns",
    "fork_ns",
    "create_ns",
    "write_mb_s",
    "read_mb_s",
    "loopback_trip_ns",
    "loopback_mb_s",
    "veth_trip_ns",
    "veth_mb_s",
];

/// Ways into a kernel besides its system calls, as the payload counts them (payload/entries.rs), in the order of
/// reports.
pub const ENTRIES: [(&str, &str); 13] = [
    ("devices", "device nodes that may be opened"),
    ("drivers", "drivers whose nodes can be made and opened"),
    ("proc_read", "files of /proc that open for reading"),
    ("proc_write", "files of /proc that open for writing"),
    ("sys_read", "files of /sys that open for reading"),
    ("sys_write", "files of /sys that open for writing"),
    ("families", "families of sockets"),
    ("sockets", "families and types of sockets"),
    ("netlink", "netlink protocols"),
    ("filesystems", "types of file systems to mount"),
    ("namespaces", "kinds of namespaces to make, of 8"),
    ("keys", "types of keys to add"),
    ("engines", "of bpf, perf, io_uring, userfaultfd, fanotify"),
];

/// What such a number of a machine's is not.
pub const OWN_KERNEL: &str = concat!(
    "Of a machine they are its own kernel's: of the host's its payload reaches none of these. What stands between is ",
    "the process that is the machine, and who takes that over is on the host what that process is"
);

/// Machines and what their process may ask of the host.
pub fn monitors(results: &Results) -> String {
    let named = |contender: &Named| Some(format!("{}, {}", contender.name, contender.monitor.as_ref()?));
    results.contenders.iter().filter_map(named).collect::<Vec<_>>().join("; ")
}

/// Those that answered what ways into a kernel there are: the host first, then the contenders.
pub fn with_entries(results: &Results) -> Vec<(&str, bool, &BTreeMap<String, u64>)> {
    let contenders =
        results.contenders.iter().map(|named| (named.name.as_str(), named.class.has_own_kernel()));
    let all = [(NATIVE, false)].into_iter().chain(contenders);
    let answered = all.filter_map(|(name, own)| Some((name, own, &results.probes.get(name)?.entries)));
    answered.filter(|(.., entries)| !entries.is_empty()).collect()
}

/// What a figure is held against natively: the way through a veth pair against the loopback device.
pub fn native_of(figure: &str) -> &str {
    match figure {
        "veth_trip_ns" => "loopback_trip_ns",
        "veth_mb_s" => "loopback_mb_s",
        _ => figure,
    }
}

/// What the payload finds at the other end of the veth pair when nothing is around it, in times of loopback.
pub fn native_veth(results: &Results) -> Option<String> {
    let native = results.overhead.get(NATIVE)?;
    let ratio = |figure: &str| {
        Some(stats::median(native.get(figure)?)? / stats::median(native.get(native_of(figure))?)?)
    };
    let (trip, rate) = (ratio("veth_trip_ns")?, 1.0 / ratio("veth_mb_s")?);
    Some(format!("veth pair {trip:.2}, throughput {rate:.2}"))
}

/// Contenders with figures of an emulated machine, which are no speed: each with those of its disk.
pub fn emulated(results: &Results) -> Vec<(&Named, String)> {
    let emulated = results.contenders.iter().filter(|contender| contender.class == Class::Emulated);
    let words = |contender: &Named| {
        let row = results.overhead.get(&contender.name)?;
        let figure = |name: &str| {
            let (words, unit) = overhead_words(name);
            Some(format!("{words} {} {unit}", short(stats::median(row.get(name)?)?)))
        };
        let disk: Vec<String> =
            ["create_ns", "write_mb_s", "read_mb_s"].into_iter().filter_map(figure).collect();
        Some(disk.join(", "))
    };
    emulated.filter_map(|contender| Some((contender, words(contender)?))).collect()
}

/// How many times the native cost a contender has; the same direction for times and rates: above 1 is worse.
pub fn overhead_ratio(results: &Results, name: &str, figure: &str) -> Option<f64> {
    if results.named(name).is_none_or(|contender| contender.class == Class::Emulated) {
        return None;
    }
    let median = |who: &str, figure: &str| stats::median(results.overhead.get(who)?.get(figure)?);
    let (here, native) = (median(name, figure)?, median(NATIVE, native_of(figure))?);
    Some(if figure.ends_with("mb_s") { native / here } else { here / native })
}

/// The sentence that stands above every report: what the density is paid with.
pub fn headline(results: &Results) -> String {
    let native = results.probes.get(NATIVE);
    let reach = |name: &str| {
        let (reached, all) =
            crate::bench::overhead::reachable(results.named(name)?.class, results.probes.get(name)?, native?);
        Some((reached, all))
    };
    let os_level: Vec<(String, (usize, usize))> = results
        .contenders
        .iter()
        .filter(|contender| !contender.class.has_own_kernel())
        .filter_map(|contender| Some((contender.name.clone(), reach(&contender.name)?)))
        .collect();
    let mut text = String::from(
        "Not the same isolation: containers share the host's kernel, and a fault in it is a way out",
    );
    if let Some((name, (reached, all))) = os_level.first() {
        text += &format!("; under {name} the payload reaches {reached} of its {all} system calls");
    }
    let machine = results.contenders.iter().find(|contender| contender.class.has_own_kernel());
    text += match machine {
        Some(machine) if reach(&machine.name).is_some_and(|(reached, _)| reached == 0) => {
            ", and in a machine of its own none: there the virtual devices and the monitor stand between."
        }
        _ => ". A virtual machine has a kernel of its own, and its devices and monitor stand between.",
    };
    text
}

/// Between what a median start of another run lies, 95 times of a hundred.
pub fn median_start(row: &Starts) -> String {
    let interval = stats::median_interval(&Blocks::new(&row.wall_ms, &row.blocks), &mut Dice::new(1));
    interval.map_or("-".into(), |(low, high)| format!("{} to {}", short(low), short(high)))
}

/// A figure with three digits that count.
pub fn short(figure: f64) -> String {
    match figure.abs() {
        x if x >= 100.0 => group(figure.round() as i64),
        x if x >= 10.0 => format!("{figure:.1}"),
        _ => format!("{figure:.2}"),
    }
}

/// Thousands apart.
fn group(number: i64) -> String {
    let digits = number.abs().to_string();
    let mut text = String::from(if number < 0 { "-" } else { "" });
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine has a row for each of its idle growths, and the second says what it is.
    #[test]
    fn a_machine_with_ksm_has_a_row_of_its_own() {
        let point = |n: usize, used: f64| {
            let mut point: serde_json::Map<_, _> = [
                "not_free",
                "pss",
                "own",
                "state",
                "slab",
                "kernel_stack",
                "page_tables",
                "percpu",
                "shmem",
                "folded",
            ]
            .into_iter()
            .map(|name| (name.to_owned(), 0.0.into()))
            .collect();
            point.extend([("n".to_owned(), n.into()), ("used".to_owned(), used.into())]);
            serde_json::from_value(point.into()).expect("a point")
        };
        let mut results = Results::default();
        results.contenders.push(Named::new("qemu-microvm", Class::Hardware));
        for (variant, each) in [(IDLE, 100.0), (FOLDED, 60.0)] {
            let points = (0..5).map(|n| point(n, each * n as f64)).collect();
            let growth = Growth { points, ..Growth::default() };
            results.growth.entry(variant.into()).or_default().insert("qemu-microvm".into(), growth);
        }
        let rows: Vec<(String, f64)> =
            machines(&results).into_iter().map(|(name, _, line)| (name, line.slope.round())).collect();
        assert_eq!(rows, [("qemu-microvm".into(), 100.0), ("qemu-microvm, KSM on".into(), 60.0)]);
    }

    #[test]
    fn figures_read_well() {
        assert_eq!(
            [short(1_234_567.8), short(-1000.0), short(99.94), short(0.123)],
            ["1,234,568", "-1,000", "99.9", "0.12"]
        );
    }
}
