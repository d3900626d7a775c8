#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ployz_api_fuzz::frame(data));
