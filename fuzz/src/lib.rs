//! What all targets share: how they are run, and an allocator that refuses what no input of theirs can need.
//!
//! In: allocations. Out: the system's, or an end of the process that libFuzzer takes for a find, with the input kept.
//! Memory that is asked for and never touched shows in no other limit.

use std::alloc::{GlobalAlloc, Layout, System};

mod model;

pub use model::model;

/// A target that gives its bytes to a function of this path. A test that does the same again calls it by that path.
#[macro_export]
macro_rules! target {
    ($body:path) => {
        libfuzzer_sys::fuzz_target!(|data: &[u8]| cuewire::fuzz::run(stringify!($body), $body, data));
    };
}

/// The largest allocation: inputs have up to a megabyte, the models that are changed a few.
pub const MOST_BYTES: usize = 64 << 20;

struct Bounded;

#[global_allocator]
static ALLOCATOR: Bounded = Bounded;

fn check(bytes: usize) {
    if bytes > MOST_BYTES {
        // No formatting: that may allocate.
        const TEXT: &[u8] = b"an allocation of more than 64 MiB: its size came from outside and was not bounded\n";
        let _ = std::io::Write::write_all(&mut std::io::stderr(), TEXT);
        std::process::abort();
    }
}

// SAFETY: every call is handed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Bounded {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        check(layout.size());
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        check(layout.size());
        // SAFETY: the caller's promise.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        check(size);
        // SAFETY: the caller's promise.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }
}
