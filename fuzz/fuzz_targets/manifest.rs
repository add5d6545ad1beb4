//! The manifest of a snapshot: what can be read is written as it was, of this format or an earlier one.

#![no_main]

use libfuzzer_sys::fuzz_target;
use migrate::snapshot::manifest::Manifest;

fuzz_target!(|data: &[u8]| {
    let Ok(manifest) = Manifest::read(data) else { return };
    let text = serde_json::to_vec_pretty(&manifest).expect("a manifest can be written");
    assert_eq!(Manifest::read(&text).expect("what was written can be read"), manifest);
    let _ = (manifest.bytes(), manifest.stored_bytes(), manifest.rows(), manifest.sha256());
});
