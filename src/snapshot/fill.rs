//! store → digest → decompression → the database: the schema before its data, then the data of several archives side by side, and
//! on each table that is in what waits for its rows alone, the slowest first; then everything else, several at once.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures::stream::{FuturesUnordered, StreamExt};
use sqlx::PgConnection;
use tempfile::NamedTempFile;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;
use tokio::sync::mpsc::Receiver;

use crate::event::Event;
use crate::outside::encryption::Identities;
use crate::outside::keepalive;
use crate::outside::postgres::{PgError, change, connect, free_connections, query_error};
use crate::outside::process::{Child, PgTools, ToolError};
use crate::outside::store::Store;
use crate::outside::url::DatabaseUrl;
use crate::world::World;

use super::archive::{self, Unpacked, Unpacking};
use super::custom::Reader;
use super::effort::Effort;
use super::elsewhere::{Missing, Roles};
use super::help::{Help, Load};
use super::loading::{LoadError, Loaded, Loading, SETTINGS, Steps};
use super::manifest::{Manifest, Part};
use super::parts::Section;
use super::schedule::{Name, Schedule, What, Work, cost_of_statistics, entry, slowest_first};
use super::{SnapshotError, part_key, prove, role_map, statistics};

/// Progress is told after each so many compressed bytes.
const PROGRESS: u64 = 8 << 20;
/// Archives that are restored in passes lie on this machine's disk meanwhile. They hold a schema, or a small database.
const ON_DISK: u64 = 512 << 20;
/// What building one index may take of the server's memory, in KiB, if it is not configured to take more.
const INDEX_MEMORY_KIB: u64 = 256 << 10;

/// A side database that is being filled.
pub(super) struct Filling<'a> {
    pub(super) world: &'a World,
    pub(super) store: &'a Store,
    pub(super) manifest: &'a Manifest,
    pub(super) tools: &'a PgTools,
    pub(super) side: &'a DatabaseUrl,
    pub(super) roles: &'a Roles,
    pub(super) effort: &'a Effort,
    /// What the archives are decrypted with, if they are encrypted.
    pub(super) identities: Option<Arc<Identities>>,
}

/// What is known of a database once it is filled.
#[derive(Debug, Default)]
pub(super) struct Filled {
    /// Tables whose rows the server counted as it took them.
    pub(super) loaded: Vec<Loaded>,
    /// Tables that have statistics.
    pub(super) analyzed: BTreeSet<Name>,
}

/// What the sessions of a restore are told.
struct Means {
    jobs: usize,
    env: Vec<(String, String)>,
}

/// An archive on this machine's disk, and what it holds, a line for each thing.
struct Fetched {
    file: NamedTempFile,
    list: String,
}

/// What a row costs beside its bytes, as so many more of them.
const COST_OF_A_ROW: u64 = 128;

/// Something that is done under one slot.
enum Job<'a> {
    /// Through one session, and more if they are offered.
    Data(&'a Part, Arc<Help>),
    /// With the archive that its lines are of.
    Table(&'a Fetched, Work),
}

impl Job<'_> {
    /// How long it takes, with what waits for it, beside others; `waiting` is the longest that waits for rows.
    fn cost(&self, waiting: u64) -> u64 {
        match self {
            Self::Data(part, ..) => rows_cost(part) + waiting,
            Self::Table(_, work) => work.cost,
        }
    }
}

/// How long the rows of an archive take, beside others.
fn rows_cost(part: &Part) -> u64 {
    part.digests.bytes + part.rows * COST_OF_A_ROW
}

/// A load that begins.
fn load<'a>(part: &Part, help: &Arc<Help>) -> Load<'a> {
    Load { cost: rows_cost(part), bytes: part.digests.bytes, help: Arc::clone(help), helpers: Vec::new() }
}

/// What a job did.
enum Done {
    Data(Vec<Loaded>),
    Table(Work),
}

impl Filling<'_> {
    /// Fills it. `session` is on the same server.
    pub(super) async fn fill(&self, session: &mut PgConnection) -> Result<Filled, SnapshotError> {
        let means = self.means(session).await.map_err(SnapshotError::database(&self.manifest.database))?;
        let so_far = AtomicU64::new(0);
        let of = |wanted: fn(Section) -> bool| self.manifest.parts.iter().filter(move |it| wanted(it.section));
        for part in of(|it| matches!(it, Section::PreData | Section::Whole)) {
            let _slot = self.effort.slot(&self.world.interrupt).await?;
            // An archive of the first format may be of any size, and is not put on a disk.
            match part.digests.bytes < ON_DISK {
                true => self.schemas_first(part, &means, &so_far).await?,
                false => self.stream(part, &Help::of(&Arc::default()), &means, &so_far).await.map(drop)?,
            }
        }
        let mut after = Vec::new();
        for part in of(|it| it == Section::PostData) {
            let file = self.fetch(part, &so_far).await?;
            let list = self.list(&file, &means).await?;
            after.push(Fetched { file, list });
        }
        let data: Vec<&Part> = of(|it| it == Section::Data).collect();
        let (filled, lists) = self.side_by_side(data, &after, &means, &so_far).await?;
        for (archive, list) in after.iter().zip(lists) {
            let slots = self.effort.slots(means.jobs, &self.world.interrupt).await?;
            let list = slowest_first(&list, &self.manifest.indexes);
            self.restore_listed(&archive.file, &list, &[format!("--jobs={}", slots.len())], &means).await?;
        }
        Ok(filled)
    }

    /// The rows, and what is built on each table as soon as its rows are in. Gives what is left of the lists.
    async fn side_by_side(
        &self,
        data: Vec<&Part>,
        after: &[Fetched],
        means: &Means,
        so_far: &AtomicU64,
    ) -> Result<(Filled, Vec<String>), SnapshotError> {
        let (mut schedules, mut lists): (Vec<Schedule>, Vec<String>) =
            after.iter().map(|it| Schedule::of(&it.list, &self.manifest.indexes)).unzip();
        let (mut filled, mut running) = (Filled::default(), FuturesUnordered::new());
        let news = Arc::new(Notify::new());
        let mut ready: Vec<Job<'_>> = data.into_iter().map(|it| Job::Data(it, Help::of(&news))).collect();
        // What is under way, by number: the rows, and what everything else there takes.
        let (mut loads, mut others) = (BTreeMap::<usize, Load<'_>>::new(), BTreeMap::<usize, u64>::new());
        let (mut busy, mut number) = (0, 0);
        loop {
            let waiting = schedules.iter().map(Schedule::waiting).max().unwrap_or_default();
            while busy < means.jobs {
                let beside = ready.iter().map(|it| it.cost(0)).chain(others.values().copied()).sum();
                let is_waited_for = |it: &&mut Load<'_>| {
                    it.help.table().is_some_and(|table| {
                        let indexes = schedules.iter().map(|of| of.behind(&table)).max().unwrap_or_default();
                        it.is_waited_for(indexes + cost_of_statistics(it.bytes), beside, means.jobs)
                    })
                };
                let waited_for = loads.values_mut().filter(is_waited_for);
                if let Some(load) = waited_for.max_by_key(|it| it.left())
                    && let Some(helper) = self.effort.helper()
                {
                    load.send(helper);
                    busy += 1;
                    continue;
                }
                let Some(at) = (0..ready.len()).max_by_key(|at| ready[*at].cost(waiting)) else { break };
                let job = ready.swap_remove(at);
                (busy, number) = (busy + 1, number + 1);
                match &job {
                    Job::Data(part, help) => drop(loads.insert(number, load(part, help))),
                    Job::Table(_, work) => drop(others.insert(number, work.cost)),
                }
                running.push(async move { (number, self.carry_out(job, means, so_far).await) });
            }
            let ended = tokio::select! {
                ended = running.next() => ended,
                () = news.notified() => continue,
            };
            let Some((number, done)) = ended else { break };
            let done = done?;
            busy -= 1 + loads.remove(&number).map_or(0, |it| it.helpers.len());
            others.remove(&number);
            for (schedule, archive) in schedules.iter_mut().zip(after) {
                let next = match &done {
                    Done::Data(loaded) => loaded.iter().flat_map(|it| schedule.loaded(it)).collect(),
                    Done::Table(work) => schedule.done(&work.table),
                };
                ready.extend(next.into_iter().map(|work| Job::Table(archive, work)));
            }
            match done {
                Done::Data(loaded) => filled.loaded.extend(loaded),
                Done::Table(Work { table, what: What::Analyze, .. }) => drop(filled.analyzed.insert(table)),
                Done::Table(_) => {}
            }
        }
        for (list, schedule) in lists.iter_mut().zip(schedules) {
            *list += &schedule.left();
        }
        Ok((filled, lists))
    }

    async fn carry_out(&self, job: Job<'_>, means: &Means, so_far: &AtomicU64) -> Result<Done, SnapshotError> {
        let _slot = self.effort.slot(&self.world.interrupt).await?;
        match job {
            Job::Data(part, help) => self.stream(part, &help, means, so_far).await.map(Done::Data),
            Job::Table(archive, work) => {
                match &work.what {
                    What::Build(lines) => self.restore_listed(&archive.file, lines, &[], means).await?,
                    What::Analyze => {
                        let done = async {
                            statistics::of(&mut connect(self.side, &self.application()).await?, &work.table).await
                        };
                        done.await.map_err(SnapshotError::database(&self.manifest.database))?;
                    }
                }
                Ok(Done::Table(work))
            }
        }
    }

    fn application(&self) -> String {
        format!("migrate {}", self.manifest.run)
    }

    async fn means(&self, session: &mut PgConnection) -> Result<Means, PgError> {
        let jobs = self.effort.jobs(free_connections(session).await?);
        let configured: i64 =
            sqlx::query_scalar("select setting::int8 from pg_settings where name = 'maintenance_work_mem'")
                .fetch_one(session)
                .await
                .map_err(query_error("asking for the server's memory limits"))?;
        let memory = configured.unsigned_abs().max(INDEX_MEMORY_KIB);
        let mut env = self.side.libpq_env();
        // The database is used after a commit that waits for the disk, and with it for everything before it.
        let options = format!("-c maintenance_work_mem={memory}kB -c synchronous_commit=off");
        match env.iter_mut().find(|(name, _)| name == "PGOPTIONS") {
            Some((_, text)) => *text = format!("{text} {options}"),
            None => env.push(("PGOPTIONS".into(), options)),
        }
        Ok(Means { jobs, env })
    }

    fn args(&self) -> Vec<String> {
        let dbname = format!("--dbname={}", keepalive::conninfo(self.side.dbname()));
        let mut args = vec!["--format=custom".into(), "--exit-on-error".into(), "--no-password".into(), dbname];
        if self.roles.missing == Missing::Ours {
            args.extend(["--no-owner".into(), "--no-privileges".into()]);
        }
        args
    }

    fn failed(&self) -> impl Fn(ToolError) -> SnapshotError {
        let (database, dbname) = (self.manifest.database.clone(), self.side.dbname().to_owned());
        move |source| SnapshotError::Program {
            database: database.clone(),
            what: format!("the restore into {dbname} is incomplete"),
            help: "The live database was not touched; correct the cause and run the same command again.".into(),
            source,
        }
    }

    fn broke(&self) -> impl Fn(std::io::Error) -> SnapshotError {
        let database = self.manifest.database.clone();
        move |source| SnapshotError::Stream { database: database.clone(), program: "pg_restore", source }
    }

    /// One archive, as it arrives. Gives the tables whose rows the server counted.
    async fn stream(
        &self,
        part: &Part,
        help: &Help,
        means: &Means,
        so_far: &AtomicU64,
    ) -> Result<Vec<Loaded>, SnapshotError> {
        self.pump(part, so_far, async |plain| self.receive(plain, help, means).await).await
    }

    /// Rows alone are loaded here; whatever else there may be is for `pg_restore`.
    async fn receive(
        &self,
        mut plain: Receiver<Bytes>,
        help: &Help,
        means: &Means,
    ) -> Result<Vec<Loaded>, SnapshotError> {
        let (mut reader, mut begin) = (Reader::<Steps>::default(), Vec::new());
        while let Some(chunk) = plain.recv().await {
            let read = reader.push(&chunk);
            begin.push(chunk);
            if read.is_err() || reader.has_contents() {
                break;
            }
        }
        if !(reader.has_contents() && reader.watcher.is_all()) {
            return self.through_pg_restore(begin, plain, means).await.map(|()| Vec::new());
        }
        drop(begin);
        let failed = SnapshotError::database(&self.manifest.database);
        let loaded = Loading { reader, plain }.load(help, async || self.loading_session().await).await;
        loaded.map_err(|error| match error {
            LoadError::Database(error) => failed(error),
            LoadError::Archive(error) => self.broke()(std::io::Error::other(error)),
        })
    }

    async fn loading_session(&self) -> Result<PgConnection, PgError> {
        let mut session = connect(self.side, &self.application()).await?;
        change(&mut session, SETTINGS).await.map_err(query_error("preparing a session"))?;
        Ok(session)
    }

    async fn through_pg_restore(
        &self,
        begin: Vec<Bytes>,
        mut rest: Receiver<Bytes>,
        means: &Means,
    ) -> Result<(), SnapshotError> {
        let restore = self.tools.start("pg_restore", &self.args(), &means.env, Stdio::piped(), Stdio::null());
        let mut restore = restore.map_err(self.failed())?;
        let mut stdin = restore.stdin().expect("pg_restore was started with a pipe");
        let mut begin = begin.into_iter();
        while let Some(chunk) = match begin.next() {
            Some(chunk) => Some(chunk),
            None => rest.recv().await,
        } {
            // What pg_restore says comes first: a pipe that broke is its doing.
            if stdin.write_all(&chunk).await.is_err() {
                break;
            }
        }
        drop(stdin);
        restore.finish().await.map_err(self.failed())
    }

    fn check(&self, part: &Part, passed: &Unpacked) -> Result<(), SnapshotError> {
        if passed.stored_sha256 == part.digests.stored_sha256 && passed.bytes == part.digests.bytes {
            return Ok(());
        }
        let (name, run) = (&self.manifest.database, &self.manifest.run);
        let what = prove::differs(&passed.stored_sha256, &part.digests.stored_sha256);
        Err(prove::damaged(name, &part_key(run, name, part), what))
    }

    /// Schemas and who may create in them come before all else. pg_restore gives privileges last, and a role that is no
    /// superuser can give a table only to somebody who may create in its schema.
    async fn schemas_first(&self, part: &Part, means: &Means, so_far: &AtomicU64) -> Result<(), SnapshotError> {
        let file = self.fetch(part, so_far).await?;
        let list = self.list(&file, means).await?;
        let (schemas, others): (Vec<&str>, Vec<&str>) = list.lines().partition(|line| is_of_schema(line));
        for lines in [schemas, others] {
            if !lines.is_empty() {
                self.restore_listed(&file, &lines.join("\n"), &[], means).await?;
            }
        }
        Ok(())
    }

    /// The archive, decompressed, on this machine's disk: pg_restore chooses and works side by side only where it can seek.
    async fn fetch(&self, part: &Part, so_far: &AtomicU64) -> Result<NamedTempFile, SnapshotError> {
        let file = NamedTempFile::new().map_err(self.broke())?;
        let mut to = tokio::fs::File::from_std(file.reopen().map_err(self.broke())?);
        let write = async |mut plain: Receiver<Bytes>| {
            while let Some(chunk) = plain.recv().await {
                to.write_all(&chunk).await.map_err(self.broke())?;
            }
            to.flush().await.map_err(self.broke())
        };
        self.pump(part, so_far, write).await?;
        Ok(file)
    }

    /// What the archive holds, a line for each thing.
    async fn list(&self, archive: &NamedTempFile, means: &Means) -> Result<String, SnapshotError> {
        let args = ["--list".to_owned(), archive.path().display().to_string()];
        let listing = self.tools.start("pg_restore", &args, &means.env, Stdio::null(), Stdio::piped());
        let mut listing: Child = listing.map_err(self.failed())?;
        let mut text = Vec::new();
        let mut stdout = listing.stdout().expect("pg_restore was started with a pipe");
        stdout.read_to_end(&mut text).await.map_err(self.broke())?;
        listing.finish().await.map_err(self.failed())?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    /// Restores what `list` names.
    async fn restore_listed(
        &self,
        archive: &NamedTempFile,
        list: &str,
        more: &[String],
        means: &Means,
    ) -> Result<(), SnapshotError> {
        let mut file = NamedTempFile::new().map_err(self.broke())?;
        file.write_all(list.as_bytes()).map_err(self.broke())?;
        let mut args = self.args();
        args.extend(more.iter().cloned());
        args.extend([format!("--use-list={}", file.path().display()), archive.path().display().to_string()]);
        let restore = self.tools.start("pg_restore", &args, &means.env, Stdio::null(), Stdio::null());
        restore.map_err(self.failed())?.finish().await.map_err(self.failed())
    }

    /// What `receive` made of the archive, once that is what was sent. Where it fails, a damaged archive is the reason that is told.
    async fn pump<T>(
        &self,
        part: &Part,
        so_far: &AtomicU64,
        receive: impl AsyncFnOnce(Receiver<Bytes>) -> Result<T, SnapshotError>,
    ) -> Result<T, SnapshotError> {
        let (name, run) = (&self.manifest.database, &self.manifest.run);
        let mut archive = self.store.read(&part_key(run, name, part), part.digests.stored_bytes);
        let Unpacking { input, output, done } = archive::decompress(part.compression, self.identities.clone());
        let (output, passing) = role_map::passing(&self.roles.map, output);
        let of = self.manifest.stored_bytes();
        let reading = async {
            while let Some(chunk) = archive.next().await {
                let chunk = chunk.map_err(SnapshotError::store(name))?;
                let bytes = chunk.len() as u64;
                let before = so_far.fetch_add(bytes, Ordering::Relaxed);
                if before / PROGRESS != (before + bytes) / PROGRESS {
                    let stored_bytes = before + bytes;
                    self.world.tell(Event::RestoreProgressed { database: name.clone(), stored_bytes, of });
                }
                if input.send(chunk).await.is_err() {
                    break;
                }
            }
            drop(input);
            Ok(())
        };
        let received = tokio::try_join!(reading, receive(output));
        // What cannot be passed on breaks the pipe before it and ends the one behind it: neither is the reason.
        let unpacked = archive::join(done).await;
        let error = match (archive::join(passing).await.map_err(self.broke()).and(received), unpacked) {
            (Ok(((), received)), Ok(digests)) => {
                return self.check(part, &digests).map(|()| received);
            }
            (Ok(_), Err(error)) => self.broke()(error),
            (Err(error @ (SnapshotError::Store { .. } | SnapshotError::Interrupted(_))), _) => return Err(error),
            (Err(error), _) => error,
        };
        prove::stored(self.world, self.store, run, name, part).await?;
        Err(error)
    }
}

/// Whether a line of `pg_restore --list` is a schema, or privileges on one.
fn is_of_schema(line: &str) -> bool {
    entry(line).is_some_and(|it| it.starts_with("SCHEMA - ") || it.starts_with("ACL - SCHEMA "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schemas_are_told_from_the_rest() {
        for line in ["6; 2615 16390 SCHEMA - app release", "3500; 0 0 ACL - SCHEMA public pg_database_owner"] {
            assert!(is_of_schema(line), "{line}");
        }
        for line in [
            "; Archive of SCHEMA - app",
            "7; 1259 16391 TABLE app SCHEMA - release",
            "8; 0 0 COMMENT - SCHEMA app x",
            "",
        ] {
            assert!(!is_of_schema(line), "{line}");
        }
    }
}
