//! System call names and numbers.
//!
//! Static and sorted: a look-up is a binary search and nothing is built at start-up. This file must not know rules.

mod numbers;

use super::arch::Arch;

/// The numbers of one call, by the position of an architecture in [`Arch::ALL`].
#[derive(Clone, Copy)]
pub struct Numbers(&'static [i32; 5]);

impl Numbers {
    /// The number as a filter sees it; `None` where the architecture has no such call.
    pub fn on(self, arch: Arch) -> Option<u32> {
        u32::try_from(self.0[arch as usize]).ok().map(|number| number | arch.number_bit())
    }
}

/// The row of `name`; `None` for a name no architecture knows.
pub fn numbers(name: &str) -> Option<Numbers> {
    // Length first: most comparisons of the search then cost one machine word.
    let at = numbers::NUMBERS.binary_search_by(|(known, _)| {
        known.len().cmp(&name.len()).then_with(|| known.as_bytes().cmp(name.as_bytes()))
    });
    at.ok().map(|at| Numbers(&numbers::NUMBERS[at].1))
}

/// Every name the tables know, with its numbers.
pub fn all() -> impl Iterator<Item = (&'static str, Numbers)> {
    numbers::NUMBERS.iter().map(|(name, row)| (*name, Numbers(row)))
}

/// A call that x86 also (or only) reaches through `socketcall(2)` or `ipc(2)`, whose first argument says which.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Multiplexed {
    /// 102 (socketcall) or 117 (ipc).
    pub number: u32,
    /// The value of the multiplexer's first argument: `SYS_*` of linux/net.h, or linux/ipc.h.
    pub call: u32,
}

const SOCKETCALL: u32 = 102;
const IPC: u32 = 117;

/// How x86 multiplexes `name`, if it does. `None` for `semtimedop_time64` and the like: those came after.
pub fn multiplexed(name: &str) -> Option<Multiplexed> {
    let (number, call) = match name {
        "socket" => (SOCKETCALL, 1),
        "bind" => (SOCKETCALL, 2),
        "connect" => (SOCKETCALL, 3),
        "listen" => (SOCKETCALL, 4),
        "accept" => (SOCKETCALL, 5),
        "getsockname" => (SOCKETCALL, 6),
        "getpeername" => (SOCKETCALL, 7),
        "socketpair" => (SOCKETCALL, 8),
        "send" => (SOCKETCALL, 9),
        "recv" => (SOCKETCALL, 10),
        "sendto" => (SOCKETCALL, 11),
        "recvfrom" => (SOCKETCALL, 12),
        "shutdown" => (SOCKETCALL, 13),
        "setsockopt" => (SOCKETCALL, 14),
        "getsockopt" => (SOCKETCALL, 15),
        "sendmsg" => (SOCKETCALL, 16),
        "recvmsg" => (SOCKETCALL, 17),
        "accept4" => (SOCKETCALL, 18),
        "recvmmsg" => (SOCKETCALL, 19),
        "sendmmsg" => (SOCKETCALL, 20),
        "semop" => (IPC, 1),
        "semget" => (IPC, 2),
        "semctl" => (IPC, 3),
        "semtimedop" => (IPC, 4),
        "msgsnd" => (IPC, 11),
        "msgrcv" => (IPC, 12),
        "msgget" => (IPC, 13),
        "msgctl" => (IPC, 14),
        "shmat" => (IPC, 21),
        "shmdt" => (IPC, 22),
        "shmget" => (IPC, 23),
        "shmctl" => (IPC, 24),
        _ => return None,
    };
    Some(Multiplexed { number, call })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_found_by_the_search() {
        for (name, row) in all() {
            let found = numbers(name).map(|found| found.0);
            assert_eq!(found, Some(row.0), "{name}: the table is not sorted by length, then name");
        }
        assert!(numbers("no_such_call").is_none());
    }

    #[test]
    fn the_newest_calls_have_one_number_everywhere() {
        for (name, number) in [("mseal", 462), ("setxattrat", 463), ("file_setattr", 469), ("listns", 470)] {
            let row = numbers(name).expect(name);
            for arch in Arch::ALL {
                assert_eq!(row.on(arch), Some(number | arch.number_bit()), "{name} on {arch:?}");
            }
        }
    }

    #[test]
    fn the_tables_agree_with_libc_on_this_architecture() {
        for (name, number) in [
            ("read", libc::SYS_read),
            ("openat2", libc::SYS_openat2),
            ("clone3", libc::SYS_clone3),
            ("futex_waitv", libc::SYS_futex_waitv),
            ("mseal", libc::SYS_mseal),
        ] {
            assert_eq!(
                numbers(name).and_then(|row| row.on(crate::seccomp::native())),
                u32::try_from(number).ok()
            );
        }
    }
}
