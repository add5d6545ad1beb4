//! Entries of a journal, one behind the other: what can be read is written as it was, and every beginning of it comes to a state.

#![no_main]

use libfuzzer_sys::fuzz_target;
use migrate::journal::entry::Entry;
use migrate::journal::state::RunState;
use migrate::names::RunId;
use migrate::run::recover::stand;

fuzz_target!(|data: &[u8]| {
    let read = serde_json::Deserializer::from_slice(data).into_iter::<Entry>();
    let entries: Vec<Entry> = read.map_while(Result::ok).collect();
    let run = RunId::new("20261121-174311-482k3f").expect("an id");
    for entry in &entries {
        let text = serde_json::to_vec_pretty(entry).expect("an entry can be written");
        let again: Entry = serde_json::from_slice(&text).expect("what was written can be read");
        assert_eq!(again, *entry);
    }
    for end in 1..=entries.len() {
        let state = RunState::fold(run.clone(), &entries[..end]);
        let _ = (state.unfinished(), state.word(), state.changed().count(), stand(&state));
    }
});
