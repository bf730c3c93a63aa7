//! What the fuzz targets do. Behind the feature `fuzz`, which no release has; not part of the promised interface.
//!
//! In: bytes, whatever they are. Out: nothing, or a panic that says which promise broke, and before it a test that does it
//! again. `fuzz/` in the repository holds the targets, which only call these, and the seeds.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a broken promise is a panic here")]

mod audio;
mod config;
mod model;
mod pcm;
mod rtp;
mod session;
mod text;
mod trace;
mod transcript;

use std::any::Any;
use std::cell::Cell;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Once;

pub use audio::audio;
pub use config::config;
pub use model::{Files, model};
pub use pcm::pcm;
pub use rtp::rtp;
pub use session::session;
pub use text::text;
pub use trace::trace;
pub use transcript::transcript;

thread_local! {
    /// Where the last panic of this thread was.
    static PLACE: Cell<Option<String>> = const { Cell::new(None) };
}

/// Gives `data` to `body`, which is called `path`. Where that panics, prints a test that gives it the same bytes, and aborts.
///
/// Panics that code under test catches, as the reader of recordings does with those of its decoders, are none.
/// With `CUEWIRE_FUZZ_SHOW` set the test is printed whatever happens: for what takes too long or too much memory.
#[allow(clippy::print_stderr, reason = "this is what it is for")]
pub fn run(path: &str, body: fn(&[u8]), data: &[u8]) {
    static HOOK: Once = Once::new();
    // libFuzzer's own hook aborts at once, also where the panic is caught.
    HOOK.call_once(|| {
        std::panic::set_hook(Box::new(|panic| {
            let place = panic.location().map(ToString::to_string);
            PLACE.with(|last| last.set(place));
        }));
    });
    if std::env::var_os("CUEWIRE_FUZZ_SHOW").is_some() {
        eprintln!("{}", reproducer(path, data));
    }
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| body(data))) {
        let place = PLACE.take().unwrap_or_default();
        eprintln!("{place}: {}\n\n{}", message(&*panic), reproducer(path, data));
        std::process::abort();
    }
}

/// Calls `body` with a folder of this process that holds these files, and no others.
fn on_disk(files: &[(&str, &[u8])], body: impl FnOnce(&Path)) {
    let folder = std::env::temp_dir().join(format!("cuewire-fuzz-{}", std::process::id()));
    // Another process had the number before, and ended in the middle.
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).expect("there is room for temporary files");
    for (name, bytes) in files {
        fs::write(folder.join(name), bytes).expect("there is room for temporary files");
    }
    body(&folder);
    fs::remove_dir_all(&folder).expect("temporary files can be removed");
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without words")
}

/// A test that can be pasted.
fn reproducer(path: &str, data: &[u8]) -> String {
    let (name, bytes) = (path.rsplit(':').next().unwrap_or_default(), data.escape_ascii());
    format!("#[test]\nfn {name}_found() {{\n    {path}(b\"{bytes}\");\n}}")
}

#[cfg(test)]
mod tests {
    use super::reproducer;

    #[test]
    fn a_reproducer_is_rust() {
        let test = reproducer("cuewire::fuzz::text", b"a\"\\\n\xff");
        assert_eq!(test, "#[test]\nfn text_found() {\n    cuewire::fuzz::text(b\"a\\\"\\\\\\n\\xff\");\n}");
    }
}
