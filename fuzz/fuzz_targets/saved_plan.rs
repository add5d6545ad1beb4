//! A saved plan: it is read or refused, and its text is kept as it was.

#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use migrate::run::saved::SavedPlan;

fuzz_target!(|text: &str| {
    let path = Path::new("release.json");
    match SavedPlan::parse(path, text.to_owned()) {
        Ok(saved) => {
            assert_eq!(saved.text, text);
            let again = SavedPlan::parse(path, saved.text.clone()).expect("what was kept can be read");
            assert_eq!(format!("{again:?}"), format!("{saved:?}"));
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
