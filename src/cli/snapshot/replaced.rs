//! `migrate snapshot prune --replaced`.

use serde_json::json;

use crate::failure::Exit;
use crate::run::replaced::{Beside, drop_all, find};

use super::super::Ended;
use super::super::context::Context;
use super::super::text::{bytes, table};

pub(super) async fn run(context: &Context<'_>, dry_run: bool, yes: bool) -> Ended {
    let plan = context.plan()?;
    let store = context.store(Some(&plan), None)?;
    let mut all = find(&store, &plan).await?;
    let going: Vec<Beside> = all.iter().filter(|it| it.reason.is_none()).cloned().collect();
    if !dry_run && !going.is_empty() {
        context.console.confirm(yes, &text(&all, "to be dropped"), &["prune".into()])?;
        all = drop_all(context.world, &store, &plan, &going).await?;
    }
    if context.console.json {
        let (kept, dropped): (Vec<_>, Vec<_>) = all.iter().partition(|it| it.reason.is_some());
        context.console.print_json(&json!({ "dropped": dropped, "kept": kept, "dry_run": dry_run }));
    } else {
        context.console.print(&text(&all, if dry_run { "would be dropped" } else { "dropped" }));
    }
    Ok(Exit::Done)
}

fn text(all: &[Beside], word: &str) -> String {
    if all.is_empty() {
        return "There are no replaced databases and no standbys.\n".into();
    }
    let fate = |it: &Beside| match (&it.reason, &it.note) {
        (Some(reason), _) => format!("kept: {reason}"),
        (None, Some(note)) => format!("{word}: {note}"),
        (None, None) => word.to_owned(),
    };
    let cells = |it: &Beside| {
        vec![it.run.to_string(), it.database.to_string(), it.dbname.clone(), it.what.into(), bytes(it.bytes), fate(it)]
    };
    let rows: Vec<Vec<String>> = all.iter().map(cells).collect();
    let gone = all.iter().filter(|it| it.reason.is_none()).map(|it| it.bytes).sum();
    format!("{}{} {word}.\n", table(&["RUN", "DATABASE", "NAME", "IS", "TAKES", "WHAT"], &rows), bytes(gone))
}
