#![no_main]

use cuewire_fuzz as _;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    cuewire::fuzz::run("cuewire_server::fuzz", "call", cuewire_server::fuzz::call, data);
});
