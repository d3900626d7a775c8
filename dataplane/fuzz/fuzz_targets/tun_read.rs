#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ployz_fuzz::tun_read(data));
