//! store → digest → decompression → `pg_restore`: the schema before its data, then the data of several archives side by side,
//! then indexes and constraints, several at once and the slowest first.

use std::io::Write;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::stream::{self, StreamExt, TryStreamExt};
use sqlx::PgConnection;
use tempfile::NamedTempFile;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::event::Event;
use crate::outside::encryption::Identities;
use crate::outside::postgres::{PgError, free_connections, query_error};
use crate::outside::process::{Child, PgTools, ToolError};
use crate::outside::store::Store;
use crate::outside::url::DatabaseUrl;
use crate::world::World;

use super::archive::{self, Digests, Unpacking};
use super::elsewhere::Roles;
use super::manifest::{Index, Manifest, Part};
use super::parts::Section;
use super::{SnapshotError, part_key, prove};

/// Progress is told after each so many compressed bytes.
const PROGRESS: u64 = 8 << 20;
/// Restores of one database at once: on most servers each is limited by one core.
const JOBS: std::ops::RangeInclusive<usize> = 2..=8;
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
    pub(super) roles: Roles,
    /// What the archives are decrypted with, if they are encrypted.
    pub(super) identities: Option<Arc<Identities>>,
}

/// What the sessions of a restore are told.
struct Means {
    jobs: usize,
    env: Vec<(String, String)>,
}

impl Filling<'_> {
    /// Fills it. `session` is on the same server.
    pub(super) async fn fill(&self, session: &mut PgConnection) -> Result<(), SnapshotError> {
        let means = self.means(session).await.map_err(SnapshotError::database(&self.manifest.database))?;
        let so_far = AtomicU64::new(0);
        let (mut data, mut rest): (Vec<&Part>, Vec<&Part>) =
            self.manifest.parts.iter().partition(|it| it.section == Section::Data);
        data.sort_by_key(|it| std::cmp::Reverse(it.digests.bytes));
        rest.sort_by_key(|it| it.section);
        let (after, before): (Vec<&Part>, Vec<&Part>) =
            rest.into_iter().partition(|it| it.section == Section::PostData);
        for part in before {
            // An archive of the first format may be of any size, and is not put on a disk.
            match part.digests.bytes < ON_DISK {
                true => self.schemas_first(part, &means, &so_far).await?,
                false => self.stream(part, &means, &so_far).await?,
            }
        }
        let work = data.into_iter().map(|part| self.stream(part, &means, &so_far));
        stream::iter(work).buffer_unordered(means.jobs).try_collect::<Vec<()>>().await?;
        for part in after {
            self.side_by_side(part, &means, &so_far).await?;
        }
        Ok(())
    }

    async fn means(&self, session: &mut PgConnection) -> Result<Means, PgError> {
        let free = free_connections(session).await?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let jobs = cores.clamp(*JOBS.start(), *JOBS.end()).min(free / 2).max(1);
        let configured: i64 =
            sqlx::query_scalar("select setting::int8 from pg_settings where name = 'maintenance_work_mem'")
                .fetch_one(session)
                .await
                .map_err(query_error("asking for the server's memory limits"))?;
        let memory = configured.unsigned_abs().max(INDEX_MEMORY_KIB);
        let mut env = self.side.libpq_env();
        // The exchange at the end waits for the disk, and with it for everything before it.
        let options = format!("-c maintenance_work_mem={memory}kB -c synchronous_commit=off");
        match env.iter_mut().find(|(name, _)| name == "PGOPTIONS") {
            Some((_, text)) => *text = format!("{text} {options}"),
            None => env.push(("PGOPTIONS".into(), options)),
        }
        Ok(Means { jobs, env })
    }

    fn args(&self) -> Vec<String> {
        let dbname = format!("--dbname={}", self.side.dbname());
        let mut args = vec!["--format=custom".into(), "--exit-on-error".into(), "--no-password".into(), dbname];
        if self.roles == Roles::Ours {
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

    /// One archive, as it arrives.
    async fn stream(&self, part: &Part, means: &Means, so_far: &AtomicU64) -> Result<(), SnapshotError> {
        let mut restore = self
            .tools
            .start("pg_restore", &self.args(), &means.env, Stdio::piped(), Stdio::null())
            .map_err(self.failed())?;
        let mut stdin = restore.stdin().expect("pg_restore was started with a pipe");
        let passed = self.pump(part, so_far, &mut stdin).await;
        drop(stdin);
        let passed = passed?;
        // What pg_restore says comes first: a pipe that broke is its doing.
        restore.finish().await.map_err(self.failed())?;
        self.check(part, passed.map_err(self.broke())?)
    }

    fn check(&self, part: &Part, passed: Digests) -> Result<(), SnapshotError> {
        if passed == part.digests {
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

    /// Several at once, the slowest first: pg_restore takes what does not wait for something else in the order of its list.
    async fn side_by_side(&self, part: &Part, means: &Means, so_far: &AtomicU64) -> Result<(), SnapshotError> {
        let file = self.fetch(part, so_far).await?;
        let list = slowest_first(&self.list(&file, means).await?, &self.manifest.indexes);
        self.restore_listed(&file, &list, &[format!("--jobs={}", means.jobs)], means).await
    }

    /// The archive, decompressed, on this machine's disk: pg_restore chooses and works side by side only where it can seek.
    async fn fetch(&self, part: &Part, so_far: &AtomicU64) -> Result<NamedTempFile, SnapshotError> {
        let file = NamedTempFile::new().map_err(self.broke())?;
        let mut to = tokio::fs::File::from_std(file.reopen().map_err(self.broke())?);
        let passed = self.pump(part, so_far, &mut to).await?.map_err(self.broke())?;
        to.flush().await.map_err(self.broke())?;
        self.check(part, passed)?;
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

    /// What passed, unless the receiver stopped listening.
    async fn pump(
        &self,
        part: &Part,
        so_far: &AtomicU64,
        to: &mut (impl AsyncWriteExt + Unpin),
    ) -> Result<std::io::Result<Digests>, SnapshotError> {
        let (name, size) = (&self.manifest.database, part.digests.stored_bytes);
        let mut archive = self.store.read(&part_key(&self.manifest.run, name, part), size);
        let Unpacking { input, mut output, done } = archive::decompress(part.compression, self.identities.clone());
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
        let writing = async {
            while let Some(chunk) = output.recv().await {
                if to.write_all(&chunk).await.is_err() {
                    break;
                }
            }
            // Dropping it tells the stage that nobody listens any more.
            drop(output);
            Ok::<_, SnapshotError>(())
        };
        tokio::try_join!(reading, writing)?;
        Ok(archive::join(done).await)
    }
}

/// Whether a line of `pg_restore --list` is a schema, or privileges on one.
fn is_of_schema(line: &str) -> bool {
    // What begins with a semicolon is a comment.
    let entry = line.split_once("; ").filter(|(id, _)| !id.is_empty());
    let thing = entry.and_then(|(_, rest)| rest.splitn(3, ' ').nth(2)).unwrap_or_default();
    thing.starts_with("SCHEMA - ") || thing.starts_with("ACL - SCHEMA ")
}

/// The lines of `pg_restore --list`, those of the slowest indexes first.
fn slowest_first(list: &str, indexes: &[Index]) -> String {
    let place = |line: &str| {
        let is_of = |it: &Index| {
            let (index, constraint) =
                (format!(" INDEX {} {} ", it.schema, it.name), format!(" CONSTRAINT {} ", it.schema));
            line.contains(&index) || (line.contains(&constraint) && line.contains(&format!(" {} ", it.name)))
        };
        indexes.iter().position(is_of).unwrap_or(indexes.len())
    };
    let mut lines: Vec<(usize, &str)> = list.lines().map(|line| (place(line), line)).collect();
    lines.sort_by_key(|(place, _)| *place);
    lines.into_iter().map(|(_, line)| format!("{line}\n")).collect()
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

    #[test]
    fn the_slowest_come_first_and_nothing_is_lost() {
        let index = |name: &str| Index { schema: "public".into(), name: name.into(), method: "btree".into(), bytes: 1 };
        let list = ";\n; Archive created at …\n3201; 1259 16402 INDEX public small release\n\
            3202; 2606 16400 CONSTRAINT public big big_pkey release\n3203; 1259 16409 INDEX public vectors release\n\
            3204; 2606 16411 FK CONSTRAINT public big big_fkey release\n";
        let sorted = slowest_first(list, &[index("vectors"), index("big_pkey")]);
        let expected = "3203; 1259 16409 INDEX public vectors release\n3202; 2606 16400 CONSTRAINT public big big_pkey release\n\
            ;\n; Archive created at …\n3201; 1259 16402 INDEX public small release\n\
            3204; 2606 16411 FK CONSTRAINT public big big_fkey release\n";
        assert_eq!(sorted, expected);
    }
}
