#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| stacyvm_fuzz::archive_upload(data));
