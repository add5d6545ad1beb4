//! What a rollback would cost, for people.

use crate::run::loss::{Loss, SequenceLoss, TableLoss};
use crate::run::price::{Offer, Time};
use crate::run::rollback::Price;

use super::super::text::{count, seconds, table};

/// Tables that are shown; the JSON has all of them.
const SHOWN: usize = 20;

pub(super) fn text(it: &Price) -> String {
    let mut text = format!("    takes {}; unreachable for {}\n", time(&it.takes), time(&it.unreachable));
    text += &match (&it.lost, &it.lost_unknown) {
        (Some(lost), _) => losses(lost),
        (None, Some(why)) => format!("    what would be lost is not known: {why}\n"),
        (None, None) => String::new(),
    };
    text + "    the ways side by side:\n" + &it.options.iter().map(offer).collect::<String>()
}

fn time(it: &Time) -> String {
    let how = if it.measured { "measured" } else { "estimated" };
    format!("{} ({how}: {})", seconds(it.seconds), it.from)
}

fn offer(it: &Offer) -> String {
    let takes = it.takes.as_ref().map(|it| format!(", {}", time(it))).unwrap_or_default();
    let mark = if it.open { "open" } else { "no" };
    format!("      {:9} {mark:5} {}{takes}\n", it.via, it.detail)
}

fn losses(it: &Loss) -> String {
    if it.tables.is_empty() && it.sequences.is_empty() && it.large_objects.is_none() {
        return notes(it) + "    nothing that was written since would be lost\n";
    }
    let mut text = "    written since, and lost to the database:\n".to_owned();
    let heading = ["      TABLE", "INSERTED", "UPDATED", "DELETED", "HOW"];
    let rows: Vec<Vec<String>> = it.tables.iter().take(SHOWN).map(row).collect();
    if !rows.is_empty() {
        text += &table(&heading, &rows);
    }
    if it.tables.len() > SHOWN {
        text += &format!("      and {} more tables, which --json lists\n", it.tables.len() - SHOWN);
    }
    text += &it.sequences.iter().take(SHOWN).map(sequence).collect::<String>();
    if let Some((made, removed)) = it.large_objects {
        text += &format!(
            "      large objects: {} made, {} removed (exact; contents are not looked at)\n",
            count(made),
            count(removed)
        );
    }
    text + &notes(it)
}

fn row(it: &TableLoss) -> Vec<String> {
    let how = if it.exact { "exact" } else { "estimated" };
    let own = if it.by_run > 0 { format!("; {} more by the run itself", count(it.by_run)) } else { String::new() };
    let numbers = [it.inserted, it.updated, it.deleted].map(count);
    let name = format!("      {}", it.table);
    std::iter::once(name).chain(numbers).chain([format!("{how}, by {}{own}", it.by)]).collect()
}

fn sequence(it: &SequenceLoss) -> String {
    let number = |it: Option<i64>| it.map_or_else(|| "unused".to_owned(), |it| it.to_string());
    format!("      sequence {}: {} back to {}\n", it.sequence, number(it.to), number(it.from))
}

fn notes(it: &Loss) -> String {
    it.notes.iter().map(|note| format!("      note: {note}\n")).collect()
}
