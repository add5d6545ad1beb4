//! The plan file: whatever it holds, it is read or refused with a place that lies in it; and what is kept of one with a run is read
//! again as the same.

#![no_main]

use std::collections::BTreeMap;

use libfuzzer_sys::fuzz_target;
use miette::Diagnostic;
use migrate::plan::{Plan, PlanError};

/// Every variable that the seeds name, and some that lead nowhere.
const VARIABLES: [(&str, &str); 8] = [
    ("MOBIUS_DATABASE_URL", "postgresql://u@h/a"),
    ("DATABASE_URL", "postgresql+asyncpg://u:p@h/b"),
    ("CHAT_RAG_DATABASE_URL", "postgresql://u@/c?host=/cloudsql/p:r:i"),
    ("USER_DATABASE_URL", "postgresql://u@h/d"),
    ("MIGRATE_STORE", "file:///tmp/store"),
    ("RAG_URL", "postgresql://h/e"),
    ("CHAT_URL", "no URL"),
    ("EMPTY", ""),
];

fuzz_target!(|text: &str| {
    let env: BTreeMap<String, String> =
        VARIABLES.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    for target in ["local", "production"] {
        match Plan::load_stored(text, "plans/fuzz.toml", target, &env, None) {
            Ok(plan) => {
                let again = Plan::load_stored(&plan.text, "plans/fuzz.toml", target, &env, None);
                let again = again.expect("what is kept with a run can be read");
                assert_eq!(format!("{again:?}"), format!("{plan:?}"), "and is the same");
            }
            Err(error) => shown(&error),
        }
    }
});

/// Every place that an error points at lies in the text that it shows.
fn shown(error: &PlanError) {
    let _ = format!("{error} {}", error.help().map(|it| it.to_string()).unwrap_or_default());
    let Some(source) = error.source_code() else { return };
    for label in error.labels().into_iter().flatten() {
        assert!(source.read_span(label.inner(), 0, 0).is_ok(), "{label:?} is not in the text");
    }
}
