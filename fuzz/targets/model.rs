#![no_main]

cuewire_fuzz::target!(cuewire_fuzz::model);
