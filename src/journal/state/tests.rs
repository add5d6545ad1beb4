//! Which state each sequence of entries comes to.

use std::collections::BTreeMap;

use chrono::DateTime;
use proptest::prelude::*;

use super::*;
use crate::journal::entry::{Entry, Fact, Found, Identity, Swap};
use crate::names::{DatabaseName, StepName};

fn name(text: &str) -> DatabaseName {
    DatabaseName::new(text).expect("a name")
}

fn begin() -> Fact {
    let migrations = BTreeMap::from([("001".to_owned(), "a".to_owned())]);
    let identity = |database| Identity { name: name(database), dbname: database.into(), server: "1".into(), oid: 5 };
    Fact::Begin {
        command: Command::Apply,
        plan: "mobius".into(),
        target: TargetName::new("local").expect("a name"),
        databases: vec![identity("rag"), identity("chat")],
        no_snapshot: None,
        work: vec![Work { step: step("s"), database: name("rag"), migrations }],
    }
}

fn step(text: &str) -> StepName {
    StepName::new(text).expect("a name")
}

fn swap(database: &str) -> Swap {
    Swap {
        database: name(database),
        dbname: database.into(),
        oid: 5,
        side: "side".into(),
        side_oid: 6,
        kept_as: "kept".into(),
    }
}

fn fold(facts: impl IntoIterator<Item = Fact>) -> RunState {
    let by = Writer { host: "h".into(), user: "u".into(), pid: 1, version: "0".into() };
    let entries: Vec<Entry> = std::iter::once(begin())
        .chain(facts)
        .zip(1..)
        .map(|(fact, seq)| Entry { format: 1, seq, at: DateTime::UNIX_EPOCH, by: by.clone(), fact })
        .collect();
    RunState::fold(RunId::new("20261121-174311-482k3f").expect("an id"), &entries)
}

fn started() -> Fact {
    let (pending, replaced) = (vec!["001".into()], BTreeMap::new());
    Fact::StepStart { step: step("s"), database: name("rag"), pending, replaced, roles: vec!["app".into()] }
}

fn failed(left_something: bool) -> Fact {
    Fact::StepFailed { step: step("s"), database: name("rag"), applied: vec![], left_something, message: String::new() }
}

fn done() -> Fact {
    Fact::StepDone { step: step("s"), database: name("rag"), applied: vec!["001".into()], seconds: 0.0 }
}

#[test]
fn a_step_that_started_may_have_changed_its_database() {
    assert_eq!(fold([]).databases[&name("rag")].changed, Changed::No);
    assert_eq!(fold([started()]).databases[&name("rag")].changed, Changed::Maybe);
    assert_eq!(fold([started(), failed(false)]).databases[&name("rag")].changed, Changed::No);
    assert_eq!(fold([started(), failed(true)]).databases[&name("rag")].changed, Changed::Yes);
    assert_eq!(fold([started(), done(), started(), failed(false)]).databases[&name("rag")].changed, Changed::Yes);
    assert_eq!(fold([started(), done()]).databases[&name("chat")].changed, Changed::No);
    // A step that is cut starts once for each of its segments; what one of them did stays done.
    assert_eq!(fold([started(), done(), started()]).databases[&name("rag")].changed, Changed::Yes);
    assert_eq!(fold([started(), done(), started(), done()]).databases[&name("rag")].applied, 2);
}

fn rollback(only: bool) -> Fact {
    Fact::RollbackStart { databases: vec![name("rag")], why: "request".into(), via: Some("down".into()), only }
}

fn resumed(found: bool) -> Fact {
    let it = Found { step: step("s"), database: name("rag"), applied: vec!["001".into()] };
    let changed = if found { vec![name("rag")] } else { vec![] };
    Fact::ResumeStart { found: Vec::from_iter(found.then_some(it)), changed }
}

fn ended(outcome: Outcome) -> Fact {
    Fact::End { outcome, message: None }
}

#[test]
fn what_was_found_when_a_run_was_taken_up_stays_changed() {
    let state = fold([started(), ended(Outcome::Halted), resumed(true)]);
    assert_eq!((state.outcome, state.ended_at, state.unfinished()), (None, None, true));
    assert_eq!(state.units[&step("s")]["001"], Journaled::Applied);
    let rag = |facts: Vec<Fact>| {
        let rag = &fold(facts).databases[&name("rag")];
        (rag.changed, rag.applied)
    };
    // The rest of the step fails and leaves nothing: what an earlier process did is there all the same.
    assert_eq!(rag(vec![started(), resumed(true), started(), failed(false)]), (Changed::Yes, 1));
    assert_eq!(rag(vec![started(), resumed(false), started(), failed(false)]), (Changed::No, 0));
    // What the journal knew already is not counted twice.
    assert_eq!(rag(vec![started(), done(), resumed(true)]), (Changed::Yes, 1));
    // What a step left stays, whatever becomes of the step when it is tried again.
    assert_eq!(rag(vec![started(), failed(true), resumed(false), started(), failed(false)]), (Changed::Yes, 0));
}

#[test]
fn a_rollback_that_was_cut_off_is_known_with_its_way() {
    let back = |facts: Vec<Fact>| fold(facts).going_back.map(|it| (it.via, it.only, it.before));
    assert_eq!(back(vec![done()]), None);
    let down = Some("down".to_owned());
    let once = vec![done(), ended(Outcome::Succeeded), rollback(true)];
    assert_eq!(back(once.clone()), Some((down.clone(), true, Some(Outcome::Succeeded))));
    // Begun a second time, it is still what it was before the first.
    assert_eq!(back([once.clone(), vec![rollback(false)]].concat()), Some((down, false, Some(Outcome::Succeeded))));
    assert_eq!(back([once, vec![ended(Outcome::RolledBack)]].concat()), None);
}

#[test]
fn what_became_of_each_migration_is_known() {
    let unit = |facts: Vec<Fact>| fold(facts).units[&step("s")]["001"];
    assert_eq!(unit(vec![]), Journaled::Meant);
    assert_eq!(unit(vec![started()]), Journaled::Begun);
    assert_eq!(unit(vec![started(), failed(true)]), Journaled::Begun);
    assert_eq!(unit(vec![started(), done()]), Journaled::Applied);
    assert_eq!(unit(vec![started(), done(), Fact::AllUndone { database: name("rag") }]), Journaled::Undone);
    assert_eq!(
        unit(vec![started(), done(), Fact::Swapped { swaps: vec![swap("rag")], seconds: None }]),
        Journaled::Undone
    );
}

#[test]
fn a_swap_makes_a_database_unchanged_and_keeps_where_the_replaced_one_is() {
    let state = fold([started(), done(), Fact::SwapStart { swaps: vec![swap("rag")] }]);
    assert_eq!(state.databases[&name("rag")].restore, Restore::Swapping(swap("rag")));
    let state = fold([started(), done(), Fact::Swapped { swaps: vec![swap("rag")], seconds: None }]);
    assert_eq!(state.databases[&name("rag")].changed, Changed::No);
    assert_eq!(state.changed().count(), 0);
}

#[test]
fn a_warm_copy_is_one_once_it_was_made_and_tells_the_way() {
    let (standby, database) = ("side".to_owned(), name("rag"));
    let begun = Fact::StandbyStart { database: database.clone(), standby: standby.clone() };
    let horizon = "10:10:".to_owned();
    let made = Fact::StandbyMade { database, standby, oid: 6, bytes: 1, seconds: 0.5, horizon };
    let rag = |facts: Vec<Fact>| fold(facts).databases[&name("rag")].clone();
    assert_eq!(rag(vec![begun.clone()]).standby, Standby::Begun("side".into()));
    assert_eq!(rag(vec![begun.clone()]).via(&swap("rag")), "snapshot");
    let state = rag(vec![begun, made]);
    assert!(matches!(&state.standby, Standby::Made(copy) if copy.oid == 6), "{state:?}");
    assert_eq!((state.via(&swap("rag")), state.changed), ("standby", Changed::No));
}

#[test]
fn who_heard_of_a_freeze_is_owed_its_end_whatever_came_between() {
    let of = |names: &[&str]| names.iter().map(|it| name(it)).collect::<Vec<_>>();
    let freeze = |names: &[&str]| Fact::FreezeStart { databases: of(names) };
    let unfrozen = |names: &[&str]| Fact::Unfrozen { databases: of(names) };
    let owed = |facts: Vec<Fact>| fold(facts).frozen.into_iter().collect::<Vec<_>>();
    assert_eq!(owed(vec![started()]), of(&[]));
    assert_eq!(owed(vec![freeze(&["rag", "chat"])]), of(&["chat", "rag"]));
    assert_eq!(owed(vec![freeze(&["rag", "chat"]), unfrozen(&["chat"])]), of(&["rag"]));
    assert_eq!(owed(vec![freeze(&["rag"]), unfrozen(&["rag"]), freeze(&["rag"])]), of(&["rag"]));
    assert_eq!(owed(vec![freeze(&["rag"]), resumed(false), rollback(false)]), of(&["rag"]));
}

#[test]
fn a_database_is_unchanged_once_all_is_undone_and_not_before() {
    let undone =
        || Fact::Undone { step: step("s"), database: name("rag"), migrations: vec!["001".into()], seconds: 0.0 };
    let state = fold([started(), done(), undone()]);
    let rag = &state.databases[&name("rag")];
    assert_eq!((rag.changed, rag.applied, rag.undone), (Changed::Yes, 0, false));
    let state = fold([started(), done(), undone(), Fact::AllUndone { database: name("rag") }]);
    assert_eq!((state.changed().count(), state.databases[&name("rag")].undone), (0, true));
}

#[test]
fn what_strayed_is_known_until_its_database_was_exchanged() {
    let astray = || Fact::Strayed { step: step("s"), databases: vec![name("chat")], what: String::new() };
    let chat = |state: RunState| (state.databases[&name("chat")].changed, state.databases[&name("chat")].strayed);
    assert_eq!(chat(fold([astray()])), (Changed::Yes, true));
    assert_eq!(
        chat(fold([astray(), Fact::Swapped { swaps: vec![swap("chat")], seconds: None }])),
        (Changed::No, false)
    );
}

#[test]
fn a_rollback_makes_a_finished_run_unfinished_until_it_ends() {
    let end = |outcome| Fact::End { outcome, message: None };
    let rollback = || rollback(false);
    assert!(fold([]).unfinished());
    assert!(!fold([end(Outcome::Succeeded)]).unfinished());
    assert!(fold([end(Outcome::Halted)]).unfinished());
    assert!(fold([end(Outcome::Succeeded), rollback()]).unfinished());
    assert!(!fold([end(Outcome::Succeeded), rollback(), end(Outcome::RolledBack)]).unfinished());
}

#[test]
fn an_entry_of_a_newer_version_is_seen() {
    assert_eq!(fold([Fact::Unknown]).newer.as_deref(), Some("0"));
    // One that cannot even be told whose it is stands in everybody's way.
    let by = Writer { host: "h".into(), user: "u".into(), pid: 1, version: "9".into() };
    let only = Entry { format: 2, seq: 1, at: DateTime::UNIX_EPOCH, by, fact: Fact::Unknown };
    let state = RunState::fold(RunId::new("20261121-174311-482k3f").expect("an id"), &[only]);
    let local = TargetName::new("local").expect("a name");
    assert!(state.unfinished() && state.may_be_release_of(&local) && !state.is_release_of(&local));
}

fn any_fact() -> impl Strategy<Value = Fact> {
    prop_oneof![
        Just(started()),
        Just(done()),
        any::<bool>().prop_map(failed),
        Just(Fact::SwapStart { swaps: vec![swap("rag"), swap("chat")] }),
        Just(Fact::Swapped { swaps: vec![swap("rag")], seconds: None }),
        Just(Fact::Unknown),
        any::<bool>().prop_map(resumed),
        any::<bool>().prop_map(rollback),
        Just(Fact::RestoreStart { database: name("nobody"), side: "x".into() }),
        Just(Fact::End { outcome: Outcome::Failed, message: None }),
    ]
}

proptest! {
    /// What was certain does not become uncertain by a step that ends, and every entry is counted.
    #[test]
    fn folding_any_entries_gives_a_state(facts in proptest::collection::vec(any_fact(), 0..30)) {
        let state = fold(facts.clone());
        prop_assert_eq!(state.entries, facts.len() as u64 + 1);
        prop_assert_eq!(state.databases.len(), 2);
        prop_assert_eq!(state.newer.is_some(), facts.contains(&Fact::Unknown));
    }
}
