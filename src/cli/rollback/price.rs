//! What a rollback would cost, for people.

use crate::failure::list;
use crate::names::DatabaseName;
use crate::run::loss::{Loss, SequenceLoss, TableLoss};
use crate::run::price::{Offer, Time};
use crate::run::rollback::{Price, Prospect};

use super::super::text::{count, seconds, table};

/// Tables that are shown; the JSON has all of them.
const SHOWN: usize = 20;

/// What a responder asks first, of all databases together: how long, how long unreachable, what is lost. Databases are restored side
/// by side, and those of one server exchanged at once.
pub(super) fn summary(all: &[Prospect]) -> String {
    let prices: Vec<&Price> = all.iter().filter_map(|it| it.price.as_ref()).collect();
    if prices.is_empty() {
        return String::new();
    }
    let longest = |of: fn(&Price) -> &Time| prices.iter().map(|it| of(it).seconds).fold(0.0, f64::max);
    let (takes, unreachable) = (seconds(longest(|it| &it.takes)), seconds(longest(|it| &it.unreachable)));
    format!("  In all: about {takes}, unreachable for about {unreachable}; {}\n", lost(all))
}

/// The rows of all databases together.
fn lost(all: &[Prospect]) -> String {
    let price = |it: &Prospect| it.price.as_ref().filter(|it| it.lost.is_none() && it.lost_unknown.is_some()).is_some();
    let unknown: Vec<&DatabaseName> = all.iter().filter(|it| price(it)).map(|it| &it.name).collect();
    let losses: Vec<&Loss> = all.iter().filter_map(|it| it.price.as_ref()?.lost.as_ref()).collect();
    let tables: Vec<&TableLoss> = losses.iter().flat_map(|it| &it.tables).collect();
    let sum = |of: fn(&TableLoss) -> u64| tables.iter().map(|it| of(it)).sum::<u64>();
    let (inserted, updated, deleted) = (sum(|it| it.inserted), sum(|it| it.updated), sum(|it| it.deleted));
    let rows = match (inserted + updated + deleted, tables.iter().all(|it| it.exact)) {
        (0, _) if losses.is_empty() => String::new(),
        (0, _) => "no row that was written since would be lost".to_owned(),
        (_, exact) => format!(
            "written since, and to be lost: {} rows inserted, {} updated, {} deleted ({})",
            count(inserted),
            count(updated),
            count(deleted),
            if exact { "exact" } else { "in part estimated" }
        ),
    };
    let unknown = (!unknown.is_empty()).then(|| format!("what would be lost of {} is not known", list(&unknown)));
    [Some(rows).filter(|it| !it.is_empty()), unknown].into_iter().flatten().collect::<Vec<_>>().join("; ")
}

pub(super) fn text(it: &Price) -> String {
    let mut text = format!("    takes: {}\n    unreachable: {}\n", time(&it.takes), time(&it.unreachable));
    text += &match (&it.lost, &it.lost_unknown) {
        (Some(lost), _) => losses(lost),
        (None, Some(why)) => format!("    lost: not known, {why}\n"),
        (None, None) => String::new(),
    };
    text + "    the ways side by side:\n" + &it.options.iter().map(offer).collect::<String>()
}

fn time(it: &Time) -> String {
    let how = if it.measured { "measured" } else { "estimated" };
    format!("{}, {how}: {}", seconds(it.seconds), it.from)
}

fn offer(it: &Offer) -> String {
    let takes = it.takes.as_ref().map(|it| format!("; {}", seconds(it.seconds))).unwrap_or_default();
    let mark = if it.open { "open" } else { "no" };
    format!("      {:9} {mark:5} {}{takes}\n", it.via, it.detail)
}

fn losses(it: &Loss) -> String {
    if it.tables.is_empty() && it.sequences.is_empty() && it.large_objects.is_none() {
        return "    lost: nothing was written since\n".to_owned() + &notes(it);
    }
    let mut text = "    lost, but for what is kept; written since:\n".to_owned();
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
