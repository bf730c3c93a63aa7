#![no_main]

cuewire_fuzz::target!(cuewire_server::fuzz::call);
