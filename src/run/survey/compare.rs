//! Ledger and files, held against each other: what is pending, and where they disagree. No database is asked.

use std::collections::{BTreeMap, BTreeSet};

use crate::journal::ledger::Applied;
use crate::kind::Migration;
use crate::kind::alembic::{Alembic, Revisions};
use crate::kind::command::{Command, RunWhen};

use super::super::drift::Drift;
use super::{Replaced, StepState};

/// The pending migrations of a step, by its ledger rows alone.
pub(super) fn compare(files: &[Migration], rows: &[&Applied]) -> StepState {
    let mut state = drift_of(files, rows);
    let rows: BTreeMap<&str, &Applied> = rows.iter().map(|row| (row.name.as_str(), *row)).collect();
    let row = |it: &Migration| rows.get(it.name.as_str()).copied();
    let last = files.iter().rposition(|it| !it.turn.repeatable && row(it).is_some());
    for (index, file) in files.iter().enumerate() {
        match (row(file), last) {
            (Some(row), _) if file.turn.repeatable && row.finished && row.checksum != file.checksum => {
                state.pending.push(index);
                let (checksum, run) = (row.checksum.clone(), row.run.clone());
                state.replaced.insert(index, Replaced { checksum, text: None, run });
            }
            (Some(_), _) => {}
            (None, Some(last)) if index < last => state.drift.push(Drift::OutOfOrder {
                name: file.name.clone(),
                path: file.path.clone(),
                applied: files[last].name.clone(),
            }),
            (None, _) => state.pending.push(index),
        }
    }
    state
}

/// A command has one unit, and no order to be out of. One that was cut off is asked about by its probe when it is run.
pub(super) fn look_at_command(it: &Command, rows: &[&Applied]) -> StepState {
    let row = rows.first();
    let due = match it.run {
        RunWhen::Always => true,
        RunWhen::Once => !row.is_some_and(|row| row.finished),
        RunWhen::OnChange => !row
            .is_some_and(|row| row.finished && it.migrations.first().is_some_and(|unit| unit.checksum == row.checksum)),
    };
    let cut_off = row.filter(|row| !row.finished && it.probe.is_none());
    let drift =
        cut_off.map(|row| Drift::Interrupted { name: row.name.clone(), run: row.run.clone(), ended: row.progress });
    StepState {
        pending: if due { vec![0] } else { Vec::new() },
        drift: drift.into_iter().collect(),
        command_ran_in: row.filter(|row| row.finished).map(|row| row.run.clone()),
        ..StepState::default()
    }
}

/// `alembic_version` says what is applied; ledger and files must not contradict it.
pub(super) fn look_at_alembic(it: &Alembic, revisions: &Revisions, current: &[String], rows: &[&Applied]) -> StepState {
    let mut state = drift_of(&revisions.migrations, rows);
    // One that was cut off took effect or did not, together with its row in Alembic's table.
    state.drift.retain(|drift| !matches!(drift, Drift::Interrupted { .. }));
    match revisions.applied(current) {
        Err(unknown) => state.drift.push(Drift::Alembic(format!(
            "Alembic can't locate revision `{unknown}`, which {} has, in {}: the checkout is older than the database, or a \
             file is missing",
            revisions.version_table,
            it.shown.display()
        ))),
        Ok(applied) => {
            let denied = rows.iter().filter(|row| row.finished && !applied.contains(&row.name));
            state.drift.extend(denied.map(|row| {
                let (name, table) = (&row.name, &revisions.version_table);
                Drift::Alembic(format!("the ledger has `{name}`, and by {table} it is not applied"))
            }));
            // Of what took effect and is not said to have ended, that is still to be written down.
            let open: BTreeSet<&str> = rows.iter().filter(|row| !row.finished).map(|row| row.name.as_str()).collect();
            let is_pending = |it: &Migration| !applied.contains(&it.name) || open.contains(it.name.as_str());
            let pending = revisions.migrations.iter().enumerate().filter(|(_, it)| is_pending(it));
            state.pending = pending.map(|(index, _)| index).collect();
        }
    }
    state
}

pub(super) fn drift_of(files: &[Migration], rows: &[&Applied]) -> StepState {
    let mut drift = Vec::new();
    let files: BTreeMap<&str, &Migration> = files.iter().map(|file| (file.name.as_str(), file)).collect();
    for row in rows {
        match files.get(row.name.as_str()) {
            None => drift.push(Drift::Missing { name: row.name.clone() }),
            Some(_) if !row.finished => {
                let (name, run, ended) = (row.name.clone(), row.run.clone(), row.progress);
                drift.push(Drift::Interrupted { name, run, ended });
            }
            Some(file) if file.checksum != row.checksum && !file.turn.repeatable => drift.push(Drift::Changed {
                name: row.name.clone(),
                path: file.path.clone(),
                file: file.checksum.clone(),
                ledger: row.checksum.clone(),
                at: row.started_at,
                run: row.run.clone(),
            }),
            Some(_) => {}
        }
    }
    StepState { drift, ..StepState::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kind::Turn;
    use crate::sql::directives::Budget;

    fn file(name: &str, checksum: &str) -> Migration {
        Migration {
            name: name.into(),
            path: format!("m/{name}.sql").into(),
            checksum: checksum.into(),
            up: String::new(),
            down: None,
            irreversible: false,
            transactional: true,
            budget: Budget::default(),
            turn: Turn::default(),
        }
    }

    fn row(name: &str, checksum: &str, finished: bool) -> Applied {
        Applied {
            step: "s".into(),
            name: name.into(),
            checksum: checksum.into(),
            run: "r".into(),
            finished,
            started_at: chrono::DateTime::UNIX_EPOCH,
            progress: None,
            begun: None,
        }
    }

    #[track_caller]
    fn check(files: &[(&str, &str)], rows: &[(&str, &str, bool)], pending: &[usize], drift: &[(&str, &str)]) {
        let files: Vec<Migration> = files.iter().map(|(name, checksum)| file(name, checksum)).collect();
        let rows: Vec<Applied> = rows.iter().map(|(name, checksum, finished)| row(name, checksum, *finished)).collect();
        let state = compare(&files, &rows.iter().collect::<Vec<_>>());
        assert_eq!(state.pending, pending);
        let found: Vec<_> = state.drift.iter().map(|it| (it.reason(), it.name())).collect();
        assert_eq!(found, drift);
    }

    #[test]
    fn what_is_pending_and_what_disagrees() {
        let files = [("1_a", "x"), ("2_b", "y"), ("3_c", "z")];
        check(&files, &[], &[0, 1, 2], &[]);
        check(&files, &[("1_a", "x", true), ("2_b", "y", true)], &[2], &[]);
        check(&files, &[("1_a", "other", true)], &[1, 2], &[("changed", "1_a")]);
        check(&files, &[("0_gone", "x", true)], &[0, 1, 2], &[("missing", "0_gone")]);
        check(&files, &[("2_b", "y", true)], &[2], &[("out_of_order", "1_a")]);
        check(&files, &[("1_a", "x", false)], &[1, 2], &[("interrupted", "1_a")]);
    }

    #[test]
    fn repeatable_ones_are_pending_when_they_are_new_or_changed() {
        let repeatable =
            |name, checksum| Migration { turn: Turn { repeatable: true, ..Turn::default() }, ..file(name, checksum) };
        let files = [file("1_a", "x"), file("2_b", "y"), repeatable("R__a", "z"), repeatable("R__b", "z")];
        let rows = [row("R__a", "other", true), row("R__b", "z", true), row("1_a", "x", true)];
        let state = compare(&files, &rows.iter().collect::<Vec<_>>());
        assert_eq!((state.pending, state.drift), (vec![1, 2], vec![]));
        assert_eq!(
            state.replaced,
            BTreeMap::from([(2, Replaced { checksum: "other".into(), text: None, run: "r".into() })])
        );
        let cut_off = row("R__a", "other", false);
        let state = compare(&files, &[&cut_off]);
        assert_eq!((state.pending, state.drift.len()), (vec![0, 1, 3], 1));
    }
}
