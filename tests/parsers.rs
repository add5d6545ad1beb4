//! The parsers of plans, journals, manifests and saved plans, over what chance makes of fuzz/seeds: none panics, what one points at lies in
//! the text, and what one reads and writes is read again as the same. The targets of fuzz/ do this for as long as one lets them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use miette::Diagnostic as _;
use migrate::journal::entry::Entry;
use migrate::journal::state::RunState;
use migrate::names::RunId;
use migrate::plan::Plan;
use migrate::run::recover::stand;
use migrate::run::saved::SavedPlan;
use migrate::snapshot::manifest::Manifest;

/// Texts made of each seed.
const MADE: u64 = 400;

/// The numbers of a seed: splitmix64.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let it = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let it = (it ^ (it >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((it ^ (it >> 31)) % (limit.max(1) as u64)).expect("it is below a size")
    }
}

/// The seeds of a target, and what chance makes of them.
fn texts(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
    let mut paths: Vec<_> = fs::read_dir(folder).expect("seeds").map(|it| it.expect("a seed").path()).collect();
    paths.sort();
    let seeds: Vec<Vec<u8>> = paths.iter().map(|path| fs::read(path).expect("a seed")).collect();
    let mut dice = Dice(7);
    let made: Vec<Vec<u8>> =
        seeds.iter().flat_map(|seed| (0..MADE).map(|_| mutated(seed, &seeds, &mut dice)).collect::<Vec<_>>()).collect();
    seeds.into_iter().chain(made).collect()
}

/// Numbers and words that parsers stumble over.
const WORDS: [&str; 12] = [
    "null",
    "-1",
    "0",
    "18446744073709551615",
    "1e308",
    "\"\"",
    "[]",
    "{}",
    "\u{feff}",
    "ü",
    "9999-12-31T23:59:60Z",
    "\n",
];

fn mutated(seed: &[u8], seeds: &[Vec<u8>], dice: &mut Dice) -> Vec<u8> {
    let mut text = seed.to_vec();
    for _ in 0..=dice.below(4) {
        let at = dice.below(text.len());
        match dice.below(6) {
            0 if !text.is_empty() => text[at] ^= 1 << dice.below(7),
            1 => drop(text.splice(at..at, WORDS[dice.below(WORDS.len())].bytes())),
            2 => {
                let end = (at + dice.below(40)).min(text.len());
                drop(text.drain(at..end));
            }
            3 => {
                let end = (at + dice.below(200)).min(text.len());
                let twice = text[at..end].to_vec();
                drop(text.splice(at..at, twice));
            }
            4 => replace_a_value(&mut text, at, dice),
            _ => {
                let other = &seeds[dice.below(seeds.len())];
                let from = dice.below(other.len());
                let end = (from + dice.below(200)).min(other.len());
                drop(text.splice(at..at, other[from..end].iter().copied()));
            }
        }
    }
    text
}

/// The next number or text becomes something else.
fn replace_a_value(text: &mut Vec<u8>, at: usize, dice: &mut Dice) {
    let Some(begin) = text[at..].iter().position(|it| it.is_ascii_digit()).map(|it| it + at) else { return };
    let length = text[begin..].iter().take_while(|it| it.is_ascii_digit()).count();
    drop(text.splice(begin..begin + length, WORDS[dice.below(WORDS.len())].bytes()));
}

#[test]
fn plans() {
    let env: BTreeMap<String, String> =
        ["MOBIUS_DATABASE_URL", "DATABASE_URL", "CHAT_RAG_DATABASE_URL", "USER_DATABASE_URL", "RAG_URL", "CHAT_URL"]
            .iter()
            .enumerate()
            .map(|(at, name)| ((*name).to_owned(), format!("postgresql://u@h/d{at}")))
            .collect();
    let (mut good, mut bad) = (0, 0);
    for text in texts("plan") {
        let Ok(text) = String::from_utf8(text) else { continue };
        let load = |text: &str| Plan::load_stored(text, "plans/seed.toml", "local", &env, None);
        match load(&text) {
            Ok(plan) => {
                let again = load(&plan.text).expect("what is kept with a run can be read");
                assert_eq!(format!("{again:?}"), format!("{plan:?}"), "{text}");
                good += 1;
            }
            Err(error) => {
                let source = error.source_code();
                for label in error.labels().into_iter().flatten() {
                    let source = source.expect("who points at something shows it");
                    assert!(source.read_span(label.inner(), 0, 0).is_ok(), "{error}: {label:?} is not in\n{text}");
                }
                bad += 1;
            }
        }
    }
    assert!(good > 50 && bad > 50, "{good} were read and {bad} refused");
}

#[test]
fn journals() {
    let (mut read, run) = (0, RunId::new("20261121-174311-482k3f").expect("an id"));
    for text in texts("journal") {
        let entries = serde_json::Deserializer::from_slice(&text).into_iter::<Entry>();
        let entries: Vec<Entry> = entries.map_while(Result::ok).collect();
        for entry in &entries {
            let written = serde_json::to_vec_pretty(entry).expect("an entry can be written");
            let again: Entry = serde_json::from_slice(&written).expect("what was written can be read");
            // A float may lose its last digit the first time, and no more.
            let twice: Entry =
                serde_json::from_slice(&serde_json::to_vec_pretty(&again).expect("again")).expect("again");
            assert_eq!(twice, again);
            assert_eq!((again.seq, again.at, &again.by), (entry.seq, entry.at, &entry.by));
            read += 1;
        }
        for end in 1..=entries.len() {
            let state = RunState::fold(run.clone(), &entries[..end]);
            let _ = (state.unfinished(), state.word(), state.changed().count(), stand(&state));
        }
    }
    assert!(read > 1000, "{read} entries were read");
}

#[test]
fn manifests() {
    let mut read = 0;
    for text in texts("manifest") {
        let Ok(manifest) = Manifest::read(&text) else { continue };
        let written = serde_json::to_vec_pretty(&manifest).expect("a manifest can be written");
        let again = Manifest::read(&written).expect("what was written can be read");
        assert_eq!(again, manifest, "{}", String::from_utf8_lossy(&text));
        let _ = (manifest.bytes(), manifest.stored_bytes(), manifest.rows(), manifest.sha256());
        read += 1;
    }
    assert!(read > 50, "{read} were read");
}

#[test]
fn saved_plans() {
    let (mut read, path) = (0, Path::new("release.json"));
    for text in texts("saved_plan") {
        let Ok(text) = String::from_utf8(text) else { continue };
        let Ok(saved) = SavedPlan::parse(path, text.clone()) else { continue };
        let again = SavedPlan::parse(path, saved.text.clone()).expect("what was kept can be read");
        assert_eq!((format!("{again:?}"), &saved.text), (format!("{saved:?}"), &text));
        read += 1;
    }
    assert!(read > 50, "{read} were read");
}
