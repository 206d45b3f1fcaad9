//! The allocator of `jug-oci`: a bump arena with free lists, for a process that lives for a few milliseconds and has
//! one thread. It makes no system call, touches pages in order, and hands freed blocks out again while they are in the
//! cache.
//!
//! What does not fit goes to libc's allocator. Only a program that never starts a thread may use this one.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::UnsafeCell;
use std::ptr::null_mut;

const ARENA: usize = 512 * 1024;
const ALIGN: usize = 16;
/// Free lists: blocks of 16, 32, ... up to this many bytes.
const LARGEST: usize = 2048;

pub struct Bump {
    state: UnsafeCell<State>,
}

struct State {
    used: usize,
    free: [*mut u8; LARGEST / ALIGN + 1],
}

#[repr(align(4096))]
struct Arena(UnsafeCell<[u8; ARENA]>);

// SAFETY: a process with one thread has nobody to share it with (design invariant 4, tests/tidy.rs).
unsafe impl Sync for Arena {}
// SAFETY: as above.
unsafe impl Sync for Bump {}

static MEMORY: Arena = Arena(UnsafeCell::new([0; ARENA]));

impl Bump {
    pub const fn new() -> Self {
        Self { state: UnsafeCell::new(State { used: 0, free: [null_mut(); LARGEST / ALIGN + 1] }) }
    }
}

impl Default for Bump {
    fn default() -> Self {
        Self::new()
    }
}

fn base() -> *mut u8 {
    MEMORY.0.get().cast()
}

fn ours(block: *mut u8) -> bool {
    (block.addr()).wrapping_sub(base().addr()) < ARENA
}

/// The size that a layout takes: a multiple of 16.
fn rounded(size: usize) -> usize {
    size.div_ceil(ALIGN).max(1) * ALIGN
}

// SAFETY: blocks come from one arena without overlap, aligned to 16, or from libc; a freed block goes back to where it
// came from, which its address tells. Not inlined: the code would grow by a tenth, and every line of a start runs once.
unsafe impl GlobalAlloc for Bump {
    /// # Safety
    /// As the trait says.
    #[inline(never)]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: one thread, and no call below leads back here.
        let state = unsafe { &mut *self.state.get() };
        let size = rounded(layout.size());
        if layout.align() <= ALIGN {
            if size <= LARGEST {
                let head = state.free[size / ALIGN];
                if !head.is_null() {
                    // SAFETY: a block on the list is free, at least 16 bytes long, and holds the next one's address.
                    state.free[size / ALIGN] = unsafe { head.cast::<*mut u8>().read() };
                    return head;
                }
            }
            if size <= ARENA - state.used {
                // SAFETY: used + size stays within the arena.
                let block = unsafe { base().add(state.used) };
                state.used += size;
                return block;
            }
        }
        // SAFETY: the caller's layout is passed on.
        unsafe { System.alloc(layout) }
    }

    /// # Safety
    /// As the trait says.
    #[inline(never)]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if !ours(block) {
            // SAFETY: it came from there, with this layout.
            return unsafe { System.dealloc(block, layout) };
        }
        // SAFETY: one thread.
        let state = unsafe { &mut *self.state.get() };
        let size = rounded(layout.size());
        // SAFETY: the end of a block of the arena is within the arena or one past it.
        if unsafe { block.add(size) } == unsafe { base().add(state.used) } {
            state.used -= size;
        } else if size <= LARGEST {
            // SAFETY: the block is free now and at least as long as a pointer.
            unsafe { block.cast::<*mut u8>().write(state.free[size / ALIGN]) };
            state.free[size / ALIGN] = block;
        }
    }

    /// # Safety
    /// As the trait says.
    #[inline(never)]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        if !ours(block) {
            // SAFETY: it came from there, with this layout.
            return unsafe { System.realloc(block, layout, new_size) };
        }
        let (old, new) = (rounded(layout.size()), rounded(new_size));
        if new == old {
            return block;
        }
        {
            // SAFETY: one thread, and the reference ends before anything else is called.
            let state = unsafe { &mut *self.state.get() };
            // SAFETY: as in dealloc.
            let last = unsafe { block.add(old) } == unsafe { base().add(state.used) };
            if last && new <= ARENA - (state.used - old) {
                state.used = state.used - old + new;
                return block;
            }
        }
        // SAFETY: a fresh block of the new size; both are valid for the shorter length and do not overlap.
        unsafe {
            let fresh = self.alloc(Layout::from_size_align_unchecked(new_size, layout.align()));
            if !fresh.is_null() {
                fresh.copy_from_nonoverlapping(block, layout.size().min(new_size));
                self.dealloc(block, layout);
            }
            fresh
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One test, since the arena is one: blocks do not overlap, come back, grow in place, and spill over to libc.
    #[test]
    fn blocks_are_what_they_should_be() {
        let bump = Bump::new();
        let layout = |size| Layout::from_size_align(size, 8).unwrap();
        // SAFETY: every block is used within its layout and freed once.
        unsafe {
            let a = bump.alloc(layout(24));
            let b = bump.alloc(layout(100));
            assert!(a.addr() % ALIGN == 0 && b.addr() >= a.addr() + 24);
            a.write_bytes(1, 24);
            b.write_bytes(2, 100);
            assert_eq!(a.add(23).read(), 1);
            bump.dealloc(a, layout(24));
            assert_eq!(bump.alloc(layout(17)), a, "a freed block of the same class comes back");
            let grown = bump.realloc(b, layout(100), 5000);
            assert_eq!((grown, grown.add(99).read()), (b, 2), "the last block grows in place");
            let big = bump.alloc(layout(ARENA));
            assert!(!big.is_null() && !ours(big));
            big.add(ARENA - 1).write(3);
            bump.dealloc(big, layout(ARENA));
            let wide = Layout::from_size_align(64, 4096).unwrap();
            let page = bump.alloc(wide);
            assert_eq!(page.addr() % 4096, 0);
            bump.dealloc(page, wide);
        }
    }
}
