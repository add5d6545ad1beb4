//! `kind = "sync"`: does a table in one database hold what its source in another does?
//!
//! The check fails, and says why, wherever it cannot be sure: a table or column that is not there, a key that does not
//! tell rows apart, too few rows, one database at both ends. Only a server that does not answer is an error.

use std::collections::{BTreeMap, HashSet};
use std::fmt;

use bytes::Bytes;
use sha2::{Digest, Sha256};
use sqlx::PgConnection;

use crate::kind::TableRef;
use crate::tables::end::{End, Ends};
use crate::tables::merge::{Fields, Meeting};
use crate::tables::pair::{self, Columns, Pair, Totals};
use crate::tables::{SqlError, TablesError};

/// `[[checks]]` of kind `sync`.
#[derive(Debug, Clone)]
pub struct SyncCheck {
    /// Where the rows come from.
    pub source: TableRef,
    /// Where they should be.
    pub target: TableRef,
    /// Columns that tell rows apart.
    pub key: Vec<String>,
    /// Columns that must be equal.
    pub compare: Vec<String>,
    /// Fewer rows than this on either side fail the check.
    pub min_rows: u64,
}

/// What the check found.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct SyncReport {
    /// The target holds what the source does.
    pub holds: bool,
    /// Rows of the source.
    pub source_rows: u64,
    /// Rows of the target.
    pub target_rows: u64,
    /// Rows that only the source has.
    pub missing: u64,
    /// Rows that only the target has.
    pub extra: u64,
    /// Rows that differ in a compared column.
    pub different: u64,
    /// The first of them, in the order of their keys; at most ten.
    pub sample: Vec<SampleKey>,
    /// Columns outside the comparison that differ in rows that are otherwise equal: a warning. Empty unless the check
    /// holds.
    pub stale: Vec<StaleColumn>,
    /// The finding as a sentence. Whoever writes the report as JSON writes it as its own.
    #[serde(skip)]
    pub detail: String,
}

/// A row that differs.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct SampleKey {
    /// Its key; the parts of a composite one separated by commas.
    pub key: String,
    /// What is wrong with it.
    pub reason: String,
}

/// A column that went stale unseen.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct StaleColumn {
    /// Its name.
    pub column: String,
    /// Rows in which it differs.
    pub rows: u64,
}

/// Why a check has no answer.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum SyncError {
    /// A database did not do what it was asked.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Sql(#[from] SqlError),
}

/// Compares the two tables of a check. Both connections must be in no transaction, and are in none afterwards. If the
/// future is dropped before its end, close the connections.
///
/// # Errors
/// A server did not answer, or refused. That something does not exist is no error: the check fails.
pub async fn compare(
    source: &mut PgConnection,
    target: &mut PgConnection,
    check: &SyncCheck,
) -> Result<SyncReport, SyncError> {
    let source = End { database: &check.source.database, conn: source };
    let target = End { database: &check.target.database, conn: target };
    let mut ends = Ends { source, target };
    let examined = examine(&mut ends, check).await;
    ends.rollback().await;
    match examined {
        Ok(report) => Ok(report),
        Err(TablesError::Unfit(unfit)) => Ok(SyncReport { detail: unfit.to_string(), ..SyncReport::default() }),
        Err(TablesError::Sql(error)) => Err(error.into()),
    }
}

async fn examine(ends: &mut Ends<'_>, check: &SyncCheck) -> Result<SyncReport, TablesError> {
    ends.begin_reading().await?;
    let (source, target) = pair::find(ends, &check.source, &check.target).await?;
    let pair = Pair::new(source, target, &check.key, &check.compare)?;
    ends.pin_search_path().await?;
    pair.prove_key(ends).await?;
    let (here, there) = pair.totals(ends, Columns::Compared).await?;
    let findings = if here == there { Findings::even(&here) } else { lasting(ends, &pair).await? };
    let stale = if findings.count() == 0 { stale(ends, &pair).await? } else { Vec::new() };
    let sample = sample(ends, &pair, &findings).await?;
    Ok(report(check, &findings, sample, stale))
}

/// Beyond this many differing rows nobody believes in late writes, and their keys are not kept.
const MOST_LATE_WRITES: usize = 100_000;

/// Rows that are shown.
const SAMPLE: usize = 10;

/// Walks both tables, and once more under new snapshots if anything differed: what differs only once was being written.
async fn lasting(ends: &mut Ends<'_>, pair: &Pair) -> Result<Findings, SqlError> {
    let mut first = Findings::new(pair.key.len(), None);
    pair.walk(ends, Columns::Compared, &mut |meeting| first.note(&meeting)).await?;
    let Some(seen) = first.seen.take() else { return Ok(first) };
    ends.look_again().await?;
    let mut second = Findings::new(pair.key.len(), Some(seen));
    pair.walk(ends, Columns::Compared, &mut |meeting| second.note(&meeting)).await?;
    second.late = first.count().saturating_sub(second.count());
    Ok(second)
}

/// What a walk found.
#[derive(Debug, Default)]
struct Findings {
    keys: usize,
    source_rows: u64,
    target_rows: u64,
    missing: u64,
    extra: u64,
    different: u64,
    /// Rows that differed in the walk before and do so no longer.
    late: u64,
    first: Vec<(Vec<String>, Fault)>,
    /// Digests of the keys that differ, for the next walk; None when there are too many.
    seen: Option<HashSet<[u8; 16]>>,
    /// Of the walk before, if there was one: only these count.
    before: Option<HashSet<[u8; 16]>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Missing,
    Extra,
    Different,
}

impl Findings {
    fn new(keys: usize, before: Option<HashSet<[u8; 16]>>) -> Self {
        let seen = before.is_none().then(HashSet::new);
        Self { keys, seen, before, ..Self::default() }
    }

    fn even(totals: &Totals) -> Self {
        Self { source_rows: totals.rows, target_rows: totals.rows, ..Self::default() }
    }

    fn count(&self) -> u64 {
        self.missing + self.extra + self.different
    }

    fn note(&mut self, meeting: &Meeting<'_>) {
        let (source, target, fault, row) = match *meeting {
            Meeting::SourceOnly(row) => (1, 0, Some(Fault::Missing), row),
            Meeting::TargetOnly(row) => (0, 1, Some(Fault::Extra), row),
            Meeting::Both(row, other) => (1, 1, (row.last() != other.last()).then_some(Fault::Different), row),
        };
        self.source_rows += source;
        self.target_rows += target;
        if let Some(fault) = fault {
            self.fault(fault, row);
        }
    }

    fn fault(&mut self, fault: Fault, row: &Fields) {
        let key = row.get(..self.keys).unwrap_or_default();
        let digest = key_digest(key);
        if self.before.as_ref().is_some_and(|before| !before.contains(&digest)) {
            return;
        }
        match fault {
            Fault::Missing => self.missing += 1,
            Fault::Extra => self.extra += 1,
            Fault::Different => self.different += 1,
        }
        if self.first.len() < SAMPLE {
            self.first.push((key.iter().map(|part| String::from_utf8_lossy(part).into_owned()).collect(), fault));
        }
        if let Some(seen) = &mut self.seen {
            seen.insert(digest);
        }
        self.seen = self.seen.take().filter(|seen| seen.len() <= MOST_LATE_WRITES);
    }
}

fn key_digest(key: &[Bytes]) -> [u8; 16] {
    let mut hash = Sha256::new();
    for part in key {
        hash.update(part.len().to_be_bytes());
        hash.update(part);
    }
    let digest: [u8; 32] = hash.finalize().into();
    *digest.first_chunk().unwrap_or(&[0; 16])
}

async fn sample(ends: &mut Ends<'_>, pair: &Pair, findings: &Findings) -> Result<Vec<SampleKey>, SqlError> {
    let on_both = findings.first.iter().filter(|(_, fault)| *fault == Fault::Different);
    let keys: Vec<Vec<String>> = on_both.map(|(key, _)| key.clone()).collect();
    let columns = pair.differing(ends, &keys).await?;
    Ok(findings.first.iter().map(|(key, fault)| sample_key(key, *fault, &columns)).collect())
}

fn sample_key(key: &[String], fault: Fault, columns: &BTreeMap<Vec<String>, Vec<String>>) -> SampleKey {
    let reason = match (fault, columns.get(key)) {
        (Fault::Missing, _) => "missing at the target".to_owned(),
        (Fault::Extra, _) => "not at the source".to_owned(),
        (Fault::Different, Some(names)) => format!("differs in {}", names.join(", ")),
        (Fault::Different, None) => "differs".to_owned(),
    };
    SampleKey { key: key.join(", "), reason }
}

/// One more scan for the columns that are not compared, and only if that finds something, a walk that counts.
async fn stale(ends: &mut Ends<'_>, pair: &Pair) -> Result<Vec<StaleColumn>, SqlError> {
    if pair.others.is_empty() {
        return Ok(Vec::new());
    }
    let (here, there) = pair.totals(ends, Columns::Others).await?;
    if here == there {
        return Ok(Vec::new());
    }
    let (keys, mut counts) = (pair.key.len(), vec![0_u64; pair.others.len()]);
    let mut count = |meeting: Meeting<'_>| {
        if let Meeting::Both(row, other) = meeting {
            count_stale(row, other, keys, &mut counts);
        }
    };
    pair.walk(ends, Columns::Others, &mut count).await?;
    let columns = pair.others.iter().zip(counts).filter(|(_, rows)| *rows > 0);
    Ok(columns.map(|(column, rows)| StaleColumn { column: column.clone(), rows }).collect())
}

/// Rows that differ in a compared column were written during the check; they are not judged.
fn count_stale(row: &Fields, other: &Fields, keys: usize, counts: &mut [u64]) {
    if row.get(keys) != other.get(keys) {
        return;
    }
    let columns = row.iter().zip(other).skip(keys + 1);
    for (count, (ours, theirs)) in counts.iter_mut().zip(columns) {
        *count += u64::from(ours != theirs);
    }
}

fn report(check: &SyncCheck, findings: &Findings, sample: Vec<SampleKey>, stale: Vec<StaleColumn>) -> SyncReport {
    let mut faults = too_few(check, findings);
    faults.extend(differences(check, findings));
    let holds = faults.is_empty();
    let detail = if holds { agreement(check, findings, &stale) } else { faults.join("; ") };
    SyncReport {
        holds,
        source_rows: findings.source_rows,
        target_rows: findings.target_rows,
        missing: findings.missing,
        extra: findings.extra,
        different: findings.different,
        sample,
        stale,
        detail,
    }
}

fn too_few(check: &SyncCheck, findings: &Findings) -> Vec<String> {
    let sides = [(&check.source, findings.source_rows), (&check.target, findings.target_rows)];
    let few = sides.into_iter().filter(|(_, rows)| *rows < check.min_rows);
    few.map(|(at, rows)| format!("{} has {rows} rows, min_rows is {}", Named(at), check.min_rows)).collect()
}

fn differences(check: &SyncCheck, findings: &Findings) -> Option<String> {
    if findings.count() == 0 {
        return None;
    }
    let Findings { missing, extra, different, .. } = findings;
    let (source, target) = (Named(&check.source), Named(&check.target));
    Some(format!("{target} is not in sync with {source}: {missing} missing, {extra} extra, {different} different"))
}

fn agreement(check: &SyncCheck, findings: &Findings, stale: &[StaleColumn]) -> String {
    let (source, target) = (Named(&check.source), Named(&check.target));
    let mut text = format!("{target} is in sync with {source}, {} rows", findings.source_rows);
    if findings.late > 0 {
        text += &format!(" ({} of them written during the check)", findings.late);
    }
    if !stale.is_empty() {
        let columns: Vec<String> = stale.iter().map(|it| format!("{} in {} rows", it.column, it.rows)).collect();
        text += &format!("; not compared, yet different: {}", columns.join(", "));
    }
    text
}

/// A table as it is named in a sentence.
struct Named<'a>(&'a TableRef);

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0.database, self.0.table)
    }
}
