//! What databases of one server share: its connections, and its disks.

use std::collections::BTreeMap;
use std::path::Path;

use crate::failure::list;
use crate::kind::Kind;
use crate::names::DatabaseName;
use crate::outside::disk::{self, Room};
use crate::outside::postgres::Server;
use crate::plan::{Plan, RunSettings};
use crate::snapshot::effort::Effort;

use super::super::budget::{Connections, Load, Pace, in_one_database, places};
use super::super::needs::Needs;
use super::super::survey::{StepState, Survey};
use super::{Finding, Looked, finding, warned};

/// What was found.
pub(super) struct Shared {
    pub(super) findings: Vec<Finding>,
    /// The plan's settings with less at once, if that is needed.
    pub(super) slower: Option<RunSettings>,
}

/// One database of a server.
struct Member<'a> {
    name: &'a DatabaseName,
    needs: &'a Needs,
    server: &'a Server,
}

/// Looks at what is shared.
pub(super) fn findings(plan: &Plan, survey: &Survey, looked: &[Looked], snapshots: bool) -> Shared {
    let mut servers: BTreeMap<&str, Vec<Member<'_>>> = BTreeMap::new();
    for it in looked {
        let (Some(needs), Some(found)) = (&it.needs, survey.found(&it.name)) else { continue };
        let member = Member { name: &it.name, needs, server: &found.server };
        servers.entry(&found.server.system_identifier).or_default().push(member);
    }
    let wanted = Pace::of(&plan.run, Effort::of(&plan.run).most_jobs());
    let (mut findings, mut pace) = (Vec::new(), wanted);
    for members in servers.values() {
        let load = load(plan, survey, members, snapshots);
        match connections(members, &load, wanted) {
            Ok((fine, fitting)) => {
                pace = Pace { parallel: pace.parallel.min(fitting.parallel), jobs: pace.jobs.min(fitting.jobs) };
                findings.push(fine);
            }
            Err(bad) => findings.push(bad),
        }
        findings.extend(disks(plan, members, snapshots));
    }
    let slower =
        (pace != wanted).then(|| RunSettings { parallel: pace.parallel, jobs: Some(pace.jobs), ..plan.run.clone() });
    Shared { findings, slower }
}

fn load(plan: &Plan, survey: &Survey, members: &[Member<'_>], snapshots: bool) -> Load {
    let here = |name: &DatabaseName| members.iter().any(|it| it.name == name);
    let has_work = |it: &crate::names::StepName| survey.steps.get(it).is_some_and(StepState::has_work);
    let reads = plan.steps.iter().filter(|step| match &step.kind {
        Kind::Copy(copy) => here(&copy.from.database) && has_work(&step.name),
        _ => false,
    });
    let urls = members.iter().filter_map(|it| plan.databases.get(it.name)).map(|it| &it.url);
    Load { databases: members.len(), sources: reads.count(), locks: places(urls), snapshots }
}

/// Whether there are connections enough, and at which pace.
fn connections(members: &[Member<'_>], load: &Load, wanted: Pace) -> Result<(Finding, Pace), Finding> {
    let names = list(&members.iter().map(|it| it.name).collect::<Vec<_>>());
    // Roles may differ, and with them the limits.
    let looks = members.iter().map(|it| it.needs.connections.for_a_run(&it.needs.may.role));
    let (there, why) = looks.min_by_key(|(there, _)| *there).unwrap_or_default();
    let in_databases = members.iter().filter_map(|it| Connections::in_the_database(&it.needs.connections));
    let in_one = in_databases.map(|(left, _)| left).min();
    let Some(pace) = load.fit(wanted, there) else {
        let help = "End sessions that idle (`select pid, usename, application_name, state from pg_stat_activity`), or raise the limit.";
        let what = format!(
            "a run opens at least {} connections to the server of {names}, and {there} are there for it: {why}",
            load.least()
        );
        return Err(finding("connections", None, Some((what, help.into())), ""));
    };
    let pace = match in_one {
        // An exporter and its dumps are in the database itself.
        Some(left) if in_one_database(load.snapshots, pace.jobs) > left => {
            Pace { jobs: pace.jobs.min(left.saturating_sub(1)).max(1), ..pace }
        }
        _ => pace,
    };
    let most = load.most(pace);
    let fine = format!("{there} are there on the server of {names}, and a run opens at most {most}");
    if pace == wanted {
        return Ok((finding("connections", None, None, fine), pace));
    }
    let what = format!(
        "{fine}: {} dumps or restores at once in place of {}, and {} databases in place of {}; {why}",
        pace.jobs, wanted.jobs, pace.parallel, wanted.parallel
    );
    let help = "It takes longer. Raise the limit, or end sessions that idle, for a run as fast as the plan says.";
    Ok((warned("connections", None, what, help.into()), pace))
}

/// What a run puts on the server's disks, held against what is free, where that can be seen.
fn disks(plan: &Plan, members: &[Member<'_>], snapshots: bool) -> Vec<Finding> {
    let mut all = Vec::new();
    let mut rooms: BTreeMap<u64, (Room, u64, Vec<&DatabaseName>, bool)> = BTreeMap::new();
    for it in members {
        let Some(database) = plan.databases.get(it.name) else { continue };
        if !(snapshots || database.standby) {
            continue;
        }
        let state = &it.needs.state;
        let folder = state.tablespace_folder.as_ref().map(Path::new);
        let directory = state.data_directory.as_ref().map(Path::new);
        match directory.and_then(|directory| disk::room(directory, &it.server.system_identifier, folder)) {
            Some(room) => {
                let entry = rooms.entry(room.file_system).or_insert((room, 0, Vec::new(), false));
                (entry.1, entry.3) = (entry.1 + state.bytes, entry.3 || database.standby);
                entry.2.push(it.name);
            }
            None => {
                let (size, tablespace) = (mebibytes(state.bytes), &state.tablespace);
                let what = format!(
                    "{} takes about {size} MiB more in the tablespace {tablespace}, for as long as it is there; how much is free there the server \
                     does not say",
                    if database.standby { "a standby" } else { "a rollback by snapshot" }
                );
                all.push(finding("disk", Some(database), None, what));
            }
        }
    }
    all.extend(rooms.into_values().map(|(room, bytes, names, standby)| on_disk(room, bytes, &names, standby)));
    all
}

/// A standby is a copy, and as large; a restore may be smaller than what was dumped.
fn on_disk(room: Room, bytes: u64, names: &[&DatabaseName], standby: bool) -> Finding {
    let (names, needed, free) = (list(names), mebibytes(bytes), mebibytes(room.free));
    let what = format!("copies of {names} take about {needed} MiB on the server's disk, and {free} MiB are free there");
    let help = format!("Make room on the disk of {}.", room.place.display());
    match (bytes > room.free, standby) {
        (false, _) => finding("disk", None, None, what),
        (true, true) => finding("disk", None, Some((what, help)), ""),
        (true, false) => warned("disk", None, what, format!("{help} A rollback by snapshot may not have enough.")),
    }
}

fn mebibytes(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 20)
}
