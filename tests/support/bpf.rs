//! Classic BPF as seccomp runs it: the loader's checks and an interpreter.
//!
//! Written from seccomp(2) and linux/filter.h, apart from the compiler, so that the two do not share a mistake. It must
//! know nothing of profiles.

use libc::sock_filter;

/// `struct seccomp_data`, the instruction pointer apart: no filter of ours looks at it.
#[derive(Debug, Clone, Copy)]
pub struct Call {
    pub number: u32,
    pub arch: u32,
    pub args: [u64; 6],
}

impl Call {
    fn word(&self, offset: u32) -> u32 {
        let half = |value: u64, high: bool| (if high { value >> 32 } else { value }) as u32;
        match offset {
            0 => self.number,
            4 => self.arch,
            8 | 12 => 0,
            16..64 if offset.is_multiple_of(4) => {
                half(self.args[(offset as usize - 16) / 8], offset % 8 == 4)
            }
            _ => panic!("load from offset {offset} of seccomp_data"),
        }
    }
}

/// What the kernel checks when a filter is loaded: `bpf_check_classic` and `seccomp_check_filter`.
pub fn check(program: &[sock_filter]) -> Result<(), String> {
    if program.is_empty() || program.len() > 4096 {
        return Err(format!("{} instructions", program.len()));
    }
    for (at, insn) in program.iter().enumerate() {
        let inside = |distance: u32| at as u64 + 1 + u64::from(distance) < program.len() as u64;
        let fine = match insn.code {
            0x20 => insn.k < 64 && insn.k.is_multiple_of(4),
            0x05 => inside(insn.k),
            0x15 | 0x25 | 0x35 | 0x45 => inside(insn.jt.into()) && inside(insn.jf.into()),
            0x54 | 0x06 => true,
            _ => false,
        };
        if !fine {
            return Err(format!(
                "instruction {at} is {:#x} {} {} {:#x}",
                insn.code, insn.jt, insn.jf, insn.k
            ));
        }
    }
    match program.last() {
        Some(last) if last.code == 0x06 => Ok(()),
        _ => Err("the last instruction does not return".to_owned()),
    }
}

/// What the filter returns for `call`. The program must have passed [`check`].
pub fn run(program: &[sock_filter], call: &Call) -> u32 {
    let (mut at, mut a) = (0, 0);
    loop {
        let insn = &program[at];
        let branch = |yes: bool| usize::from(if yes { insn.jt } else { insn.jf });
        at += 1 + match insn.code {
            0x06 => return insn.k,
            0x20 => {
                a = call.word(insn.k);
                0
            }
            0x54 => {
                a &= insn.k;
                0
            }
            0x05 => insn.k as usize,
            0x15 => branch(a == insn.k),
            0x25 => branch(a > insn.k),
            0x35 => branch(a >= insn.k),
            0x45 => branch(a & insn.k != 0),
            code => panic!("instruction {code:#x}"),
        };
    }
}
