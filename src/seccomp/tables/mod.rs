//! System call names and numbers.
//!
//! All static: the compiler builds the index, so nothing is done at start-up and a look-up is one comparison or two
//! (a profile names 400 calls; a binary search for each took half of the time of compiling it). This file must not know
//! rules.

mod numbers;

use super::arch::Arch;

/// One row: a name, its numbers by the position of an architecture in [`Arch::ALL`], its x86 multiplexer.
type Row = (&'static str, [i32; 5], (u8, u8));

/// The numbers of one call.
#[derive(Clone, Copy)]
pub struct Numbers(&'static Row);

/// A call that x86 also (or only) reaches through `socketcall(2)` or `ipc(2)`, whose first argument says which.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Multiplexed {
    /// 102 (socketcall) or 117 (ipc).
    pub number: u32,
    /// The value of the multiplexer's first argument: `SYS_*` of linux/net.h, or linux/ipc.h.
    pub call: u32,
}

impl Numbers {
    /// The number as a filter sees it; `None` where the architecture has no such call.
    pub fn on(self, arch: Arch) -> Option<u32> {
        u32::try_from(self.0.1[arch as usize]).ok().map(|number| number | arch.number_bit())
    }

    /// How x86, and x86 alone, multiplexes the call.
    pub fn multiplexed(self) -> Option<Multiplexed> {
        let (number, call) = self.0.2;
        (number != 0).then_some(Multiplexed { number: number.into(), call: call.into() })
    }
}

/// Rows by the hash of their name, each in the first free slot from there on; `FREE` ends a search.
static SLOTS: [u16; 1024] = {
    let mut slots = [FREE; 1024];
    let mut row = 0;
    while row < numbers::NUMBERS.len() {
        let mut slot = hash(numbers::NUMBERS[row].0.as_bytes());
        while slots[slot] != FREE {
            slot = (slot + 1) % slots.len();
        }
        slots[slot] = row as u16;
        row += 1;
    }
    slots
};

const FREE: u16 = u16::MAX;

/// FNV-1a, folded to a slot.
const fn hash(name: &[u8]) -> usize {
    let mut hash: u32 = 0x811c_9dc5;
    let mut at = 0;
    while at < name.len() {
        hash = (hash ^ name[at] as u32).wrapping_mul(0x0100_0193);
        at += 1;
    }
    (hash ^ hash >> 16) as usize % 1024
}

/// The row of `name`; `None` for a name no architecture knows.
pub fn numbers(name: &str) -> Option<Numbers> {
    let mut at = hash(name.as_bytes());
    while SLOTS[at] != FREE {
        let row = &numbers::NUMBERS[usize::from(SLOTS[at])];
        if row.0 == name {
            return Some(Numbers(row));
        }
        at = (at + 1) % SLOTS.len();
    }
    None
}

/// Every name the tables know, with its numbers.
pub fn all() -> impl Iterator<Item = (&'static str, Numbers)> {
    numbers::NUMBERS.iter().map(|row| (row.0, Numbers(row)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_found() {
        for (name, row) in all() {
            let found = numbers(name).map(|found| found.0);
            assert_eq!(found, Some(row.0), "{name}");
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
