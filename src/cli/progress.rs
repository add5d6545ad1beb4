//! Events as people see them: one line each, and bars on a terminal.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::event::{Event, Report, Stage};

use super::console::say;
use super::text::{bytes, count, seconds};

/// Where there is no terminal, what moves is worth a line this often.
const MOVES: Duration = Duration::from_secs(10);

/// One line for each fact, on stderr.
#[derive(Default)]
pub struct Lines {
    /// When work on a database was first heard of, and when it last got a line.
    heard: Mutex<BTreeMap<String, (Instant, Instant)>>,
}

impl Lines {
    /// A line for what moves, if there was none for a while.
    fn moved(&self, event: &Event) -> Option<String> {
        let (name, text) = moving(event)?;
        let mut heard = self.heard.lock().expect("nobody panics while holding this");
        let now = Instant::now();
        let (since, last) = heard.entry(name.to_owned()).or_insert((now, now));
        if now.duration_since(*last) < MOVES {
            return None;
        }
        *last = now;
        Some(format!("  {name}: {text}, {} so far", seconds(now.duration_since(*since).as_secs_f64())))
    }
}

impl Report for Lines {
    fn event(&self, event: &Event) {
        if let Some(name) = ended(event) {
            self.heard.lock().expect("nobody panics while holding this").remove(name);
        }
        if let Some(line) = line(event).or_else(|| self.moved(event)) {
            say(&line);
        }
    }
}

/// The database on which something that moved has ended.
fn ended(event: &Event) -> Option<&str> {
    match event {
        Event::SnapshotTaken { database, .. } | Event::Restored { database, .. } | Event::Copied { database, .. } => {
            Some(database.as_str())
        }
        _ => None,
    }
}

/// A bar for each database at work, with the lines above them.
pub struct Bars {
    all: MultiProgress,
    bars: Mutex<BTreeMap<String, ProgressBar>>,
    style: ProgressStyle,
}

impl Bars {
    /// None yet.
    #[must_use]
    pub fn new(colour: bool) -> Self {
        let template = if colour {
            "{spinner:.cyan} {prefix:.bold} {msg}, {elapsed}"
        } else {
            "{spinner} {prefix} {msg}, {elapsed}"
        };
        let style = ProgressStyle::with_template(template).expect("the template is fixed");
        Self { all: MultiProgress::new(), bars: Mutex::default(), style }
    }

    fn show(&self, name: &str, text: String) {
        let mut bars = self.bars.lock().expect("nobody panics while holding this");
        let bar = bars.entry(name.to_owned()).or_insert_with(|| {
            let bar = self.all.add(ProgressBar::new_spinner().with_style(self.style.clone()));
            bar.set_prefix(name.to_owned());
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        bar.set_message(text);
    }

    fn clear(&self, name: &str) {
        if let Some(bar) = self.bars.lock().expect("nobody panics while holding this").remove(name) {
            bar.finish_and_clear();
        }
    }
}

impl Report for Bars {
    fn event(&self, event: &Event) {
        if let Some((name, text)) = moving(event) {
            self.show(name, text);
        }
        if let Some(line) = line(event) {
            // `println` of the bars would leave the cursor behind the line where there is no bar.
            self.all.suspend(|| say(&line));
        }
        if let Some(name) = ended(event) {
            self.clear(name);
        }
    }
}

/// What changes from moment to moment, and is worth no line.
fn moving(event: &Event) -> Option<(&str, String)> {
    match event {
        Event::SnapshotProgressed { database, bytes: so_far } => {
            Some((database.as_str(), format!("snapshot: {} dumped", bytes(*so_far))))
        }
        Event::RestoreProgressed { database, stored_bytes, of } => {
            Some((database.as_str(), format!("restore: {} of {}", bytes(*stored_bytes), bytes(*of))))
        }
        Event::CopyProgressed { database, rows, bytes: so_far, .. } => {
            Some((database.as_str(), format!("copy: {} rows, {}", count(*rows), bytes(*so_far))))
        }
        _ => None,
    }
}

fn stage(stage: Stage) -> &'static str {
    match stage {
        Stage::Preflight => "Looking at the databases",
        Stage::Gates => "Checking what must hold before",
        Stage::Snapshots => "Taking snapshots",
        Stage::Drill => "Restoring the snapshots in a drill",
        Stage::Standbys => "Copying databases on their servers, for the way back",
        Stage::Migrations => "Applying",
        Stage::Checks => "Checking what must hold after",
        Stage::Verification => "Rolling back: reading the archives",
        Stage::Restore => "Restoring beside the live databases",
        Stage::Swap => "Exchanging the databases",
        Stage::Undo => "Rolling back: undoing the migrations, the last one first",
    }
}

fn line(event: &Event) -> Option<String> {
    Some(match event {
        Event::RunBegan { run, store } => format!("Run {run}, recorded in {store}"),
        Event::RunResumed { run, store } => format!("Run {run} goes on, recorded in {store}"),
        Event::Stage(it) => stage(*it).into(),
        Event::SnapshotTaken { database, bytes: all, stored_bytes, rows, seconds: took } => format!(
            "  {database}: snapshot of {} rows, {} as {}, in {}",
            count(*rows),
            bytes(*all),
            bytes(*stored_bytes),
            seconds(*took)
        ),
        Event::StandbyBegan { database, bytes: size } => {
            format!("  {database}: ending its sessions and copying {}; new ones wait for the copy", bytes(*size))
        }
        Event::StandbyMade { database, standby, bytes: size, seconds: took } => {
            format!("  {database}: {} copied as {standby}, unreachable for {}", bytes(*size), seconds(*took))
        }
        Event::MigrationApplied { database, step, name, seconds: took } => {
            format!("  {database}: applied {step}/{name} in {}", seconds(*took))
        }
        Event::LockMissed { database, name, attempt, wait_ms, blockers } => {
            let missed = format!("{name} did not get its lock (attempt {attempt}), trying again in {wait_ms} ms");
            let blockers = blockers.iter().map(|it| format!("\n    in the way: {it}"));
            format!("  {database}: {missed}{}", blockers.collect::<String>())
        }
        Event::GoingOn { database, name, how } => format!("  {database}: {name}: {how}"),
        Event::OlderTransactions { database, name, transactions } => {
            let older = transactions.iter().map(|it| format!("\n    older: {it}")).collect::<String>();
            format!("  {database}: {name} waits until these transactions have ended{older}")
        }
        Event::Copied { step, database, read, inserted, updated, deleted, seconds: took } => format!(
            "  {database}: {step} read {} rows: {} inserted, {} updated, {} deleted, in {}",
            count(*read),
            count(*inserted),
            count(*updated),
            count(*deleted),
            seconds(*took)
        ),
        Event::Checked { check, holds, detail } => {
            format!("  {check}: {}, {detail}", if *holds { "passed" } else { "FAILED" })
        }
        Event::Failed { message } => format!("FAILED: {message}"),
        Event::Drilled { database, passed, seconds: took } => {
            let verdict = if *passed { "drill passed" } else { "drill FAILED" };
            format!("  {database}: {verdict}, restored in {}", seconds(*took))
        }
        Event::SnapshotVerified { database, stored_bytes } => {
            format!("  {database}: archive read back, {} as sent", bytes(*stored_bytes))
        }
        Event::Restored { database, side, rows, seconds: took } => {
            format!("  {database}: restored as {side}, {} rows as in the snapshot, in {}", count(*rows), seconds(*took))
        }
        Event::Swapped { databases, seconds: took } => {
            let names: Vec<&str> = databases.iter().map(|(name, _)| name.as_str()).collect();
            format!("  {}: exchanged in one transaction, unreachable for {}", names.join(", "), seconds(*took))
        }
        Event::WritesSaved { database, folder, rows } => {
            format!("  {database}: {} rows that were written since saved in {folder}", count(*rows))
        }
        Event::Undone { database, step, migrations, seconds: took } => {
            let names: Vec<String> = migrations.iter().map(|name| format!("{step}/{name}")).collect();
            format!("  {database}: undid {} in {}", names.join(", "), seconds(*took))
        }
        Event::Hooked { on, what, failed: None } => format!("hook on {on}: {what} called"),
        Event::Hooked { on, what, failed: Some(why) } => format!("hook on {on}: {what} FAILED, {why}"),
        Event::Noted(text) => format!("note: {text}"),
        Event::SnapshotProgressed { .. } | Event::RestoreProgressed { .. } | Event::CopyProgressed { .. } => {
            return None;
        }
    })
}
