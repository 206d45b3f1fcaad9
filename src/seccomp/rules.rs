//! An OCI profile, read and checked: actions as the kernel's return values, conditions as comparisons.
//!
//! Faults of the profile are reported here with their JSON pointer; everything after this file can only run out of
//! instructions. Nothing here knows numbers or instructions.

use crate::error::{Error, Result};
use oci_spec::runtime::{
    LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompOperator, LinuxSyscall,
};

/// `SECCOMP_RET_KILL_THREAD`, which libseccomp calls `SCMP_ACT_KILL` and answers an unlisted architecture with.
pub const KILL_THREAD: u32 = 0;
/// `SECCOMP_RET_ERRNO | ENOSYS`.
pub const ENOSYS: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;

/// The highest error number a system call can return.
const MAX_ERRNO: u32 = 4095;

/// A comparison of one argument. Less-than and not-equal are the negations of the others, hence `negated`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Condition {
    pub arg: u8,
    pub test: Test,
    pub negated: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Test {
    /// `argument & mask == value`; `value` has no bits outside `mask`.
    Masked {
        mask: u64,
        value: u64,
    },
    Greater(u64),
    GreaterOrEqual(u64),
}

impl Condition {
    pub fn equal(arg: u8, value: u64) -> Self {
        Condition { arg, test: Test::Masked { mask: u64::MAX, value }, negated: false }
    }

    /// The condition as an architecture can test it, with 64 bits (`wide`) or the low 32; `None` when it always holds.
    pub fn on(self, wide: bool) -> Option<Self> {
        match self.test {
            Test::Masked { mask: 0, .. } => return None,
            _ if wide => return Some(self),
            _ => {}
        }
        let low = |value: u64| value & u64::from(u32::MAX);
        let test = match self.test {
            Test::Masked { mask, .. } if low(mask) == 0 => return None,
            Test::Masked { mask, value } => Test::Masked { mask: low(mask), value: low(value) },
            Test::Greater(value) => Test::Greater(low(value)),
            Test::GreaterOrEqual(value) => Test::GreaterOrEqual(low(value)),
        };
        Some(Condition { test, ..self })
    }
}

/// One entry of `syscalls`: for these names, `action` when any of `alternatives` holds in all its conditions.
/// An entry without `args` has one alternative without conditions.
pub struct Rule<'a> {
    pub names: &'a [String],
    pub action: u32,
    pub alternatives: Vec<Vec<Condition>>,
}

/// A whole profile, its architectures and flags apart.
pub struct Rules<'a> {
    pub default_action: u32,
    pub rules: Vec<Rule<'a>>,
    /// Some rule hands calls to a listener.
    pub notify: bool,
    /// Numbers past the newest call the profile names are answered with ENOSYS instead of the default action.
    pub enosys_past_newest: bool,
}

/// Reads `profile` the way runc's `InitSeccomp` does.
pub fn read(profile: &LinuxSeccomp) -> Result<Rules<'_>> {
    use LinuxSeccompAction::{ScmpActAllow, ScmpActLog, ScmpActNotify, ScmpActTrace};
    let default = profile.default_action();
    if default == ScmpActNotify {
        return Err(Error::new(
            "/linux/seccomp/defaultAction: SCMP_ACT_NOTIFY cannot be used as default action",
        )
        .why(
            "every call of the container, even those that reach the listener, would wait for the listener",
        ));
    }
    let default_action =
        return_value(default, profile.default_errno_ret(), || "/linux/seccomp/defaultErrnoRet".to_owned())?;
    let entries = profile.syscalls().as_deref().unwrap_or_default();
    let mut rules = Vec::with_capacity(entries.len());
    for (at, entry) in entries.iter().enumerate() {
        rules.push(read_entry(at, entry)?);
    }
    Ok(Rules {
        default_action,
        rules,
        notify: entries.iter().any(|entry| entry.action() == ScmpActNotify),
        // runc's patchbpf: a profile that lets unknown calls pass, or a tracer decide, is left alone.
        enosys_past_newest: !matches!(default, ScmpActAllow | ScmpActLog | ScmpActTrace),
    })
}

fn read_entry(at: usize, entry: &LinuxSyscall) -> Result<Rule<'_>> {
    for (name_at, name) in entry.names().iter().enumerate() {
        let pointer = || format!("/linux/seccomp/syscalls/{at}/names/{name_at}");
        if name.is_empty() {
            return Err(Error::new(format!("{}: empty string is not a valid syscall", pointer())));
        }
        if name == "write" && entry.action() == LinuxSeccompAction::ScmpActNotify {
            return Err(Error::new(format!(
                "{}: SCMP_ACT_NOTIFY cannot be used for the write syscall",
                pointer()
            ))
            .why("the runtime writes to hand the listener over, and would wait for itself"));
        }
    }
    let action =
        return_value(entry.action(), entry.errno_ret(), || format!("/linux/seccomp/syscalls/{at}/errnoRet"))?;
    let args = entry.args().as_deref().unwrap_or_default();
    let mut conditions = Vec::with_capacity(args.len());
    for (arg_at, arg) in args.iter().enumerate() {
        if arg.index() > 5 {
            return Err(Error::new(format!(
                "/linux/seccomp/syscalls/{at}/args/{arg_at}/index: {} is no argument of a system call",
                arg.index()
            ))
            .why("system calls have six arguments, 0 to 5"));
        }
        conditions.push(condition(arg));
    }
    Ok(Rule { names: entry.names(), action, alternatives: alternatives(conditions) })
}

/// All conditions must hold, except that runc makes every condition a rule of its own as soon as two of them look at
/// the same argument: such profiles meant "or" before libseccomp could say "and", and still do.
fn alternatives(mut conditions: Vec<Condition>) -> Vec<Vec<Condition>> {
    let repeated = conditions
        .iter()
        .enumerate()
        .any(|(at, condition)| conditions[..at].iter().any(|earlier| earlier.arg == condition.arg));
    if repeated {
        return conditions.into_iter().map(|condition| vec![condition]).collect();
    }
    conditions.sort_by_key(|condition| condition.arg);
    vec![conditions]
}

fn condition(arg: &LinuxSeccompArg) -> Condition {
    use LinuxSeccompOperator as Op;
    let value = arg.value();
    let equal = Test::Masked { mask: u64::MAX, value };
    let (test, negated) = match arg.op() {
        Op::ScmpCmpEq => (equal, false),
        Op::ScmpCmpNe => (equal, true),
        Op::ScmpCmpGt => (Test::Greater(value), false),
        Op::ScmpCmpLe => (Test::Greater(value), true),
        Op::ScmpCmpGe => (Test::GreaterOrEqual(value), false),
        Op::ScmpCmpLt => (Test::GreaterOrEqual(value), true),
        // config-linux.md#seccomp: value is the mask, valueTwo what is left of the argument under it.
        Op::ScmpCmpMaskedEq => {
            (Test::Masked { mask: value, value: arg.value_two().unwrap_or(0) & value }, false)
        }
    };
    // Checked by the caller to be at most 5.
    Condition { arg: arg.index() as u8, test, negated }
}

/// The value the filter returns: the action in the high half, errno or trace data in the low one (seccomp(2)).
fn return_value(action: LinuxSeccompAction, errno: Option<u32>, pointer: impl Fn() -> String) -> Result<u32> {
    let data = |limit| match errno {
        // runc's default when the profile says nothing.
        None => Ok(libc::EPERM as u32),
        Some(errno) if errno <= limit => Ok(errno),
        Some(errno) => Err(Error::new(format!("{}: {errno} is above {limit}", pointer()))
            .why("the kernel would cut it down and return another number")),
    };
    Ok(match action {
        LinuxSeccompAction::ScmpActKill | LinuxSeccompAction::ScmpActKillThread => KILL_THREAD,
        LinuxSeccompAction::ScmpActKillProcess => libc::SECCOMP_RET_KILL_PROCESS,
        LinuxSeccompAction::ScmpActTrap => libc::SECCOMP_RET_TRAP,
        LinuxSeccompAction::ScmpActErrno => libc::SECCOMP_RET_ERRNO | data(MAX_ERRNO)?,
        LinuxSeccompAction::ScmpActTrace => libc::SECCOMP_RET_TRACE | data(libc::SECCOMP_RET_DATA)?,
        LinuxSeccompAction::ScmpActNotify => libc::SECCOMP_RET_USER_NOTIF,
        LinuxSeccompAction::ScmpActLog => libc::SECCOMP_RET_LOG,
        LinuxSeccompAction::ScmpActAllow => libc::SECCOMP_RET_ALLOW,
    })
}
