//! Taking a snapshot: `pg_dump` → compression → store, several at once under one exported snapshot. The rows are counted and
//! hashed as they pass. An upload is completed only after its `pg_dump` has exited with 0; the manifest is written last, after
//! every archive was read back. No manifest, no snapshot.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use futures::stream::{self, StreamExt};
use sqlx::PgConnection;

use crate::event::Event;
use crate::names::{DatabaseName, RunId};
use crate::outside::keepalive;
use crate::outside::postgres::{PgError, Server, change, connect, free_connections, query_error};
use crate::outside::process::{Child, PgTools, ToolError};
use crate::outside::store::{Store, Upload};
use crate::plan::{Database, StoreSettings};
use crate::verify::catalog::{Catalog, Holdings, LargeObjects};
use crate::version;
use crate::world::World;

use super::archive::{self, Packed, Packing, read_block};
use super::custom::{CustomError, Passed};
use super::effort::Effort;
use super::inventory::{contents, counters, indexes, row_counts, sequences, table_sizes};
use super::manifest::{self, Manifest, Part, Properties, ServerFacts, TableRows, properties};
use super::parts::{Portion, portions};
use super::{SnapshotError, folder, manifest_key, prove};

/// `pg_dump` waits this long for the lock of a table, in milliseconds, before it gives up.
const LOCK_WAIT_MS: u32 = 60_000;
/// Progress is told after each so many uncompressed bytes.
const PROGRESS: u64 = 16 << 20;

/// A snapshot that is in the store and proven.
#[derive(Debug, Clone)]
pub struct Taken {
    /// Its manifest.
    pub manifest: Manifest,
    /// How long it took.
    pub seconds: f64,
}

/// Where snapshots are taken to, how, and what that may cost.
pub struct Dumping<'a> {
    /// The outside.
    pub world: &'a World,
    /// Where they go.
    pub store: &'a Store,
    /// The run that they belong to.
    pub run: &'a RunId,
    /// Jobs and memory, for all databases of the run together.
    pub effort: &'a Effort,
    /// How archives are compressed, and to whom they are encrypted.
    pub settings: &'a StoreSettings,
    /// Whether an earlier process of the run may have begun: what it left in the store stays as it is.
    pub again: bool,
}

/// Takes the snapshot of one database.
///
/// # Errors
/// What failed. The store then holds no manifest, and so no snapshot.
pub async fn take(dumping: &Dumping<'_>, database: &Database) -> Result<Taken, SnapshotError> {
    let Dumping { world, store, run, effort, settings, again } = *dumping;
    let name = &database.name;
    let failed = SnapshotError::database(name);
    let begun = Instant::now();
    let mut session = connect(&database.url, &format!("migrate {run}")).await.map_err(&failed)?;
    let server = Server::of(&mut session).await.map_err(&failed)?;
    let tools = world.tools.for_server(server.major()).await.map_err(|source| SnapshotError::Program {
        database: name.clone(),
        what: "the snapshot cannot be taken".into(),
        help: "Nothing was applied.".into(),
        source,
    })?;
    let exported = export(&mut session).await.map_err(&failed)?;
    let properties = properties(&mut session).await.map_err(&failed)?;
    let contents = contents(&mut session).await.map_err(&failed)?;
    let indexes = indexes(&mut session).await.map_err(&failed)?;
    let sizes = table_sizes(&mut session, &contents.tables).await.map_err(&failed)?;
    let sequences = sequences(&mut session).await.map_err(query_error("reading sequences")).map_err(&failed)?;
    let counters = counters(&mut session).await.map_err(&failed)?;
    let large_objects = LargeObjects::read(&mut session).await.map_err(&failed)?;
    // Last: it changes settings of the transaction.
    let catalog = Catalog::within(&mut session).await.map_err(&failed)?;
    let (holdings, catalog) = (catalog.holdings(), catalog.digested());
    let jobs = effort.jobs(free_connections(&mut session).await.map_err(&failed)?);
    let below = if again { free_folder(store, run, name).await? } else { String::new() };
    let exported_as = &exported.id;
    let dump =
        Dump { world, store, run, database, tools: &tools, exported: exported_as, effort, settings, below: &below };
    let sent = dump.send_all(portions(&sizes), jobs).await?;
    let tables = match counted(name, &contents.tables, &sent)? {
        Some(tables) => tables,
        None => world.interrupt.or(row_counts(&mut session, &contents.tables)).await?.map_err(&failed)?,
    };
    let parts = sent.into_iter().map(|(part, _)| part).collect();
    let encrypted_to: Vec<String> = settings.encrypt_to.iter().map(ToString::to_string).collect();
    let manifest = Manifest {
        format: manifest::format(encrypted_to.len()),
        tool_version: Some(version::THIS.to_owned()),
        run: run.clone(),
        database: name.clone(),
        taken_at: exported.at,
        lsn: exported.lsn,
        server: ServerFacts::new(&server, tools.major),
        roles: all_roles(contents.roles, &holdings, &properties),
        properties,
        extensions: contents.extensions,
        tables,
        catalog: Some(catalog),
        holdings: Some(holdings),
        sequences,
        indexes,
        horizon: Some(exported.horizon),
        counters,
        large_objects: Some(large_objects.count()),
        large_objects_held: Some(large_objects),
        encrypted_to,
        parts,
    };
    let text = serde_json::to_vec_pretty(&manifest).expect("a manifest has no map with keys that are not text");
    store.put_new(&manifest_key(run, name), text).await.map_err(SnapshotError::store(name))?;
    let taken = Taken { manifest, seconds: begun.elapsed().as_secs_f64() };
    world.tell(Event::SnapshotTaken {
        database: name.clone(),
        bytes: taken.manifest.bytes(),
        stored_bytes: taken.manifest.stored_bytes(),
        rows: taken.manifest.rows(),
        seconds: taken.seconds,
    });
    Ok(taken)
}

/// The roles that a database refers to, its owners among them: the server keeps no record of what belongs to the role that it was made
/// with. Its own roles are on every server.
fn all_roles(recorded: Vec<String>, holdings: &Holdings, properties: &Properties) -> Vec<String> {
    let owners = holdings.owners().chain([properties.owner.as_str()]).filter(|it| !it.starts_with("pg_"));
    let all: BTreeSet<String> = recorded.into_iter().chain(owners.map(str::to_owned)).collect();
    all.into_iter().collect()
}

/// Where archives do not come upon those that an earlier process of the run left unfinished: nothing is overwritten.
async fn free_folder(store: &Store, run: &RunId, database: &DatabaseName) -> Result<String, SnapshotError> {
    let folder = folder(run, database);
    let there = store.list(&folder).await.map_err(SnapshotError::store(database))?;
    if there.is_empty() {
        return Ok(String::new());
    }
    let taken = |number: &u32| there.iter().any(|it| it.key.starts_with(&format!("{folder}/again-{number}/")));
    let number = (2..).find(|number| !taken(number)).unwrap_or_default();
    Ok(format!("again-{number}/"))
}

/// The rows of every table that has to be in the archives, as they passed; none if the archives are of a format that is
/// not known.
fn counted(
    database: &DatabaseName,
    expected: &[(String, String)],
    sent: &[(Part, Option<Vec<Passed>>)],
) -> Result<Option<Vec<TableRows>>, SnapshotError> {
    let mut found: BTreeMap<(&str, &str), &Passed> = BTreeMap::new();
    for (_, tables) in sent {
        let Some(tables) = tables else { return Ok(None) };
        found.extend(tables.iter().map(|it| ((it.schema.as_str(), it.name.as_str()), it)));
    }
    let table = |(schema, name): &(String, String)| match found.get(&(schema.as_str(), name.as_str())) {
        Some(passed) => Ok(TableRows::from((*passed).clone())),
        None => Err(SnapshotError::Incomplete {
            database: database.clone(),
            what: format!("pg_dump left out the rows of {schema}.{name}"),
        }),
    };
    expected.iter().map(table).collect::<Result<_, _>>().map(Some)
}

/// A snapshot that other sessions can see the same rows by, as long as this session's transaction is open.
struct Exported {
    id: String,
    at: chrono::DateTime<chrono::Utc>,
    lsn: String,
    horizon: String,
}

async fn export(session: &mut PgConnection) -> Result<Exported, PgError> {
    change(
        session,
        "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL row_security = off; SET LOCAL statement_timeout = 0; \
         SET LOCAL lock_timeout = 60000; SET LOCAL idle_in_transaction_session_timeout = 0",
    )
    .await
    .map_err(query_error("beginning the snapshot's transaction"))?;
    let (id, at, lsn, horizon) = sqlx::query_as(
        "select pg_export_snapshot(), transaction_timestamp(), case when pg_is_in_recovery() then \
         pg_last_wal_replay_lsn() else pg_current_wal_lsn() end::text, txid_current_snapshot()::text",
    )
    .fetch_one(session)
    .await
    .map_err(query_error("exporting the snapshot"))?;
    Ok(Exported { id, at, lsn, horizon })
}

/// The archives of one database on their way to the store.
struct Dump<'a> {
    world: &'a World,
    store: &'a Store,
    run: &'a RunId,
    database: &'a Database,
    tools: &'a PgTools,
    exported: &'a str,
    effort: &'a Effort,
    settings: &'a StoreSettings,
    /// What the keys of its archives begin with.
    below: &'a str,
}

impl Dump<'_> {
    /// Sends every portion, `jobs` at once; in the order of a restore. The first failure stops the others.
    async fn send_all(
        &self,
        portions: Vec<Portion>,
        jobs: usize,
    ) -> Result<Vec<(Part, Option<Vec<Passed>>)>, SnapshotError> {
        let stop = self.world.interrupt.part();
        let world = &World { interrupt: stop.clone(), ..self.world.clone() };
        let (part_of_all, so_far) = (&Dump { world, ..*self }, &AtomicU64::new(0));
        let work = portions.into_iter().map(|portion| async move { part_of_all.send(portion, so_far).await });
        let mut results = stream::iter(work).buffer_unordered(jobs);
        let (mut sent, mut failed) = (Vec::new(), None);
        while let Some(result) = results.next().await {
            match result {
                Ok(part) => sent.push(part),
                Err(error) => {
                    // Those that are stopped say that they were interrupted: that is not why this failed.
                    failed.get_or_insert(error);
                    stop.request();
                }
            }
        }
        sent.sort_by(|(a, _), (b, _)| a.key.cmp(&b.key));
        failed.map_or(Ok(sent), Err)
    }

    /// One archive: dumped, stored, read back.
    async fn send(&self, portion: Portion, so_far: &AtomicU64) -> Result<(Part, Option<Vec<Passed>>), SnapshotError> {
        let (name, section, compression) = (&self.database.name, portion.section, self.settings.compression);
        let slot = self.effort.slot_for(portion.bytes, &self.world.interrupt).await?;
        let age = if self.settings.encrypt_to.is_empty() { "" } else { ".age" };
        let key = format!("{}{}.{}{age}", self.below, portion.name, compression.ending());
        let to = format!("{}/{key}", folder(self.run, name));
        let packed = self.dump(&portion, &to, slot.part, so_far).await?;
        let rows = packed.tables.iter().flatten().map(|it| it.rows).sum();
        let part = Part { key, section, compression, rows, digests: packed.digests };
        let proven = prove::stored(self.world, self.store, self.run, name, &part).await;
        drop(slot);
        proven?;
        match packed.tables {
            Ok(tables) => Ok((part, Some(tables))),
            Err(CustomError::Version { .. }) => Ok((part, None)),
            Err(error) => {
                let what = format!("what pg_dump gave ({} bytes) is no whole archive: {error}", part.digests.bytes);
                Err(SnapshotError::Incomplete { database: name.clone(), what })
            }
        }
    }

    /// `pg_dump` → compression → store.
    async fn dump(
        &self,
        portion: &Portion,
        key: &str,
        part: usize,
        so_far: &AtomicU64,
    ) -> Result<Packed, SnapshotError> {
        let name = &self.database.name;
        let mut args = vec![
            "--format=custom".to_owned(),
            "--compress=0".into(),
            "--no-password".into(),
            format!("--dbname={}", keepalive::conninfo(self.database.url.dbname())),
            format!("--snapshot={}", self.exported),
            format!("--lock-wait-timeout={LOCK_WAIT_MS}"),
        ];
        args.extend(portion.args.iter().cloned());
        let mut env = self.database.url.libpq_env();
        env.push(("PGAPPNAME".into(), format!("migrate {}", self.run)));
        let dump = self.tools.start("pg_dump", &args, &env, Stdio::null(), Stdio::piped());
        let dump = dump.map_err(|source| self.incomplete("the snapshot is incomplete".into(), source))?;
        let mut upload = self.store.upload(key, part).await.map_err(SnapshotError::store(name))?;
        let pumped = self.world.interrupt.or(self.pump(dump, &mut upload, so_far)).await;
        match pumped.map_err(SnapshotError::from).and_then(|inner| inner) {
            Ok(packed) => upload.finish().await.map(|()| packed).map_err(SnapshotError::store(name)),
            Err(error) => {
                upload.abort().await;
                Err(error)
            }
        }
    }

    fn incomplete(&self, what: String, source: ToolError) -> SnapshotError {
        let help = "Nothing was applied; run the same command again.".into();
        SnapshotError::Program { database: self.database.name.clone(), what, help, source }
    }

    /// Moves everything that `pg_dump` gives, until it has exited with 0.
    async fn pump(&self, mut dump: Child, upload: &mut Upload, so_far: &AtomicU64) -> Result<Packed, SnapshotError> {
        let name = &self.database.name;
        let mut stdout = dump.stdout().expect("pg_dump was started with a pipe");
        let broke = |source| SnapshotError::Stream { database: name.clone(), program: "pg_dump", source };
        let StoreSettings { compression, encrypt_to, .. } = self.settings;
        let Packing { input, mut output, done } =
            archive::compress(*compression, self.effort.workers, encrypt_to).map_err(broke)?;
        let reading = async {
            loop {
                let block = read_block(&mut stdout).await.map_err(broke)?;
                let bytes = block.len() as u64;
                if block.is_empty() || input.send(block).await.is_err() {
                    drop(input);
                    return Ok::<_, SnapshotError>(());
                }
                let before = so_far.fetch_add(bytes, Ordering::Relaxed);
                if before / PROGRESS != (before + bytes) / PROGRESS {
                    self.world.tell(Event::SnapshotProgressed { database: name.clone(), bytes: before + bytes });
                }
            }
        };
        let writing = async {
            while let Some(chunk) = output.recv().await {
                upload.write(&chunk).await.map_err(SnapshotError::store(name))?;
            }
            Ok(())
        };
        tokio::try_join!(reading, writing)?;
        let packed = archive::join(done).await.map_err(broke)?;
        let bytes = packed.digests.bytes;
        let ended = dump.finish().await;
        ended.map_err(|source| self.incomplete(format!("the snapshot is incomplete after {bytes} bytes"), source))?;
        Ok(packed)
    }
}
