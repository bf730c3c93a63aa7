#![no_main]

cuewire_fuzz::target!(cuewire::fuzz::rtp);
