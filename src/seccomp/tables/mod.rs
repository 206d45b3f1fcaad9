//! System call names and numbers.
//!
//! Static and sorted: a look-up is a binary search and nothing is built at start-up. This file must not know rules.

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

/// Names of `length` bytes lie from `BY_LENGTH[length]` to `BY_LENGTH[length + 1]`.
static BY_LENGTH: [u16; 34] = {
    let mut starts = [0; 34];
    let (mut length, mut row) = (0, 0);
    while length < starts.len() {
        while row < numbers::NUMBERS.len() && numbers::NUMBERS[row].0.len() < length {
            row += 1;
        }
        starts[length] = row as u16;
        length += 1;
    }
    starts
};

/// The row of `name`; `None` for a name no architecture knows.
pub fn numbers(name: &str) -> Option<Numbers> {
    let (start, end) = (*BY_LENGTH.get(name.len())?, *BY_LENGTH.get(name.len() + 1)?);
    let rows = &numbers::NUMBERS[usize::from(start)..usize::from(end)];
    let at = rows.binary_search_by(|(known, ..)| known.as_bytes().cmp(name.as_bytes()));
    at.ok().map(|at| Numbers(&rows[at]))
}

/// Every name the tables know, with its numbers.
pub fn all() -> impl Iterator<Item = (&'static str, Numbers)> {
    numbers::NUMBERS.iter().map(|row| (row.0, Numbers(row)))
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
