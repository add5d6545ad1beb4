//! What is to be undone, and what stands in the way: asked of the ledgers, before anything is changed.

use std::collections::BTreeSet;
use std::path::PathBuf;

use crate::journal;
use crate::journal::ledger::{self, Written};
use crate::journal::state::{Begun, Changed, DatabaseState};
use crate::kind::alembic::AlembicMode;
use crate::kind::{Kind, Migration, Turn, refinery_history};
use crate::names::DatabaseName;
use crate::outside::postgres::connect;
use crate::sql::{checksum, directives};

use super::super::rollback::RollbackError;
use super::super::subject::failed;
use super::{Ahead, How, Undo, UndoError, Unit};

/// A row of the run, and where it is.
pub(super) type Row = (DatabaseName, Written);

impl Undo<'_> {
    /// What is to be undone, in order.
    ///
    /// # Errors
    /// Everything that stands in the way, by name.
    pub(in super::super) async fn look(&self, only: Option<&BTreeSet<DatabaseName>>) -> Result<Ahead, RollbackError> {
        let mut ahead = Ahead::default();
        let (mut rows, mut reasons) = (Vec::new(), Vec::new());
        for it in self.subject.changed(only).await? {
            let found = self.rows(&it.identity.name).await?;
            if found.is_empty() && it.changed == Changed::Maybe {
                continue;
            }
            reasons.extend(self.unknown_leftovers(it));
            ahead.databases.insert(it.identity.name.clone());
            rows.extend(found.into_iter().map(|row| (it.identity.name.clone(), row)));
        }
        self.none_cut_off(&rows)?;
        ahead.units = self.units(rows, &mut reasons).await?;
        if reasons.is_empty() { Ok(ahead) } else { Err(self.no_way(reasons).into()) }
    }

    async fn rows(&self, name: &DatabaseName) -> Result<Vec<Written>, RollbackError> {
        let url = &self.subject.database(name)?.url;
        let mut session = connect(url, "migrate rollback").await.map_err(failed(name))?;
        ledger::of_run(&mut session, &self.subject.state.run).await.map_err(failed(name))
    }

    /// What a program may have left on a database beside its migrations.
    fn unknown_leftovers(&self, it: &DatabaseState) -> Vec<String> {
        let name = &it.identity.name;
        let ran_program = |step: &&_| self.step(step).is_some_and(|step| step.kind.runs_alone());
        let failed = it.left_by.iter().filter(ran_program);
        let failed =
            failed.map(|step| format!("  {step} on {name}: it failed, and what its program left there is not known"));
        let strayed = it.strayed.then(|| format!("  {name}: a program that was not meant for it changed it"));
        failed.chain(strayed).collect()
    }

    fn none_cut_off(&self, rows: &[Row]) -> Result<(), Box<UndoError>> {
        let cut_off = rows.iter().filter(|(_, row)| !row.finished);
        let cut_off: Vec<String> = cut_off.map(|(name, row)| format!("{}/{} on {name}", row.step, row.name)).collect();
        if cut_off.is_empty() {
            return Ok(());
        }
        let run = self.subject.state.run.clone();
        let help = format!(
            "Look at the database and say what became of it: `migrate resolve {run} STEP/NAME --applied` (or \
             `--not-applied`); then go on.{}",
            self.or_snapshot(" Or")
        );
        Err(Box::new(UndoError::CutOff { run, which: cut_off.join(", "), help }))
    }

    fn no_way(&self, reasons: Vec<String>) -> Box<UndoError> {
        let help = match self.subject.state.no_snapshot {
            None => self.or_snapshot(""),
            Some(_) => "The run has no snapshots either: mend the databases by hand.".into(),
        };
        Box::new(UndoError::NoWay { run: self.subject.state.run.clone(), reasons, help: help.trim_start().to_owned() })
    }

    fn or_snapshot(&self, or: &str) -> String {
        let run = &self.subject.state.run;
        match (self.subject.state.no_snapshot.is_none(), or.is_empty()) {
            (false, _) => String::new(),
            (true, true) => format!("Restore the databases: `migrate rollback {run} --via snapshot`."),
            (true, false) => format!("{or} restore the databases: `migrate rollback {run} --via snapshot`."),
        }
    }

    /// The steps, or the parts of them, in the reverse of the order in which they began, and of each its rows, the last applied
    /// first. That order is the journal's alone: where migrations wait for those of other steps, the plan as it was kept does
    /// not say how the steps were cut.
    async fn units(&self, mut rows: Vec<Row>, reasons: &mut Vec<String>) -> Result<Vec<Unit>, RollbackError> {
        let mut units = Vec::new();
        for begun in self.subject.state.begun.iter().rev() {
            let Some(step) = self.step(&begun.step) else { continue };
            let announced = |row: &Written| row.step == begun.step && begun.pending.contains(&row.name);
            let (here, others): (Vec<Row>, _) = rows.into_iter().partition(|(_, row)| announced(row));
            rows = others;
            if matches!(&step.kind, Kind::Alembic(it) if it.mode == AlembicMode::Online) && !here.is_empty() {
                units.extend(self.by_alembic_ahead(&step.name, &here, reasons).await?);
                continue;
            }
            for (database, row) in here {
                match self.unit(&step.kind, begun, database, &row) {
                    Ok(unit) => units.push(unit),
                    Err(reason) => reasons.push(reason),
                }
            }
        }
        let strangers = rows.iter().map(|(database, row)| without(database, row, "its step is not in the run's plan"));
        reasons.extend(strangers);
        Ok(units)
    }

    fn unit(&self, kind: &Kind, begun: &Begun, database: DatabaseName, row: &Written) -> Result<Unit, String> {
        if begun.replaced.contains(&row.name) {
            let folder = journal::folder(&self.subject.state.run);
            let before = format!("{folder}/migrations/{}/{}.before.sql", row.step, row.name);
            let reason =
                format!("it replaced an earlier text of its own, kept as {before}, which no way back brings back");
            return Err(without(&database, row, &reason));
        }
        let script = self.script(row).map_err(|reason| without(&database, row, &reason))?;
        let also = match kind {
            Kind::Refinery(_) => refinery_history::remove_row(&row.name).into_iter().collect(),
            _ => Vec::new(),
        };
        let how = How::Script { script: Box::new(script), also };
        Ok(Unit { database, step: row.step.clone(), migrations: vec![row.name.clone()], how })
    }

    /// The way back as it was stored with the row, in the place of what goes forward.
    fn script(&self, row: &Written) -> Result<Migration, String> {
        let Some(down) = &row.down else { return Err(why_none(row)) };
        let parts = directives::read(down).map_err(|error| format!("its way back cannot be read: {error}"))?;
        let folder = journal::folder(&self.subject.state.run);
        Ok(Migration {
            name: row.name.clone(),
            path: PathBuf::from(format!("{folder}/migrations/{}/{}.down.sql", row.step, row.name)),
            checksum: checksum::checksum(down),
            up: down.clone(),
            down: None,
            irreversible: false,
            transactional: !parts.up.no_transaction,
            budget: parts.up.budget,
            turn: Turn::default(),
        })
    }
}

pub(super) fn without(database: &DatabaseName, row: &Written, reason: &str) -> String {
    format!("  {}/{} on {database}: {reason}", row.step, row.name)
}

/// Why a migration has no down script.
fn why_none(row: &Written) -> String {
    let says_so =
        || row.up.as_deref().and_then(|up| directives::read(up).ok()).is_some_and(|it| it.irreversible.is_some());
    match row.kind.as_str() {
        "python" => "a Python module has no way back".into(),
        "command" => "a command has no way back".into(),
        "copy" => "a copy has no way back: the rows that it replaced are not kept".into(),
        "alembic" => "Alembic could not render its downgrade".into(),
        _ if says_so() => "its file says `-- migrate:irreversible`".into(),
        _ => "it has no down script".into(),
    }
}
