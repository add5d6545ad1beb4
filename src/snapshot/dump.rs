//! Taking a snapshot: `pg_dump` → gzip → store, under one exported snapshot with which the rows are counted as well. The
//! upload is completed only after `pg_dump` has exited with 0; the manifest is written last, after the archive was read
//! back. No manifest, no snapshot.

use std::process::Stdio;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use sqlx::PgConnection;
use tokio::io::AsyncReadExt;

use crate::event::Event;
use crate::names::RunId;
use crate::outside::postgres::{Server, connect, query_error};
use crate::outside::process::{Child, PgTools};
use crate::outside::store::{Store, Upload};
use crate::plan::Database;
use crate::world::World;

use super::archive::{self, CHUNK, Digests, Stage, Unreadable};
use super::manifest::{Archive, Manifest, ServerFacts, contents, properties, row_counts};
use super::{SnapshotError, archive_key, manifest_key};

/// `pg_dump` waits this long for the lock of a table, in milliseconds, before it gives up.
const LOCK_WAIT_MS: u32 = 60_000;
/// How an archive in the custom format begins.
const MAGIC: &[u8] = b"PGDMP";
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

/// Takes the snapshot of one database.
///
/// # Errors
/// What failed. The store then holds no manifest, and so no snapshot.
pub async fn take(world: &World, store: &Store, run: &RunId, database: &Database) -> Result<Taken, SnapshotError> {
    let name = &database.name;
    let begun = Instant::now();
    let mut session = connect(&database.url, &format!("migrate {run}")).await.map_err(SnapshotError::database(name))?;
    let server = Server::of(&mut session).await.map_err(SnapshotError::database(name))?;
    let tools = world.tools.for_server(server.major()).await.map_err(|source| SnapshotError::Program {
        database: name.clone(),
        what: "the snapshot cannot be taken".into(),
        help: "Nothing was applied.".into(),
        source,
    })?;
    let exported = export(&mut session).await.map_err(SnapshotError::database(name))?;
    let properties = properties(&mut session).await.map_err(SnapshotError::database(name))?;
    let contents = contents(&mut session).await.map_err(SnapshotError::database(name))?;
    // Both to their end, whatever the other does: an upload that is dropped half way leaves parts behind.
    let (sent, counted) = tokio::join!(
        send(world, store, run, database, &tools, &exported.id),
        // Counting waits for locks that others hold, which a wish to stop must not.
        world.interrupt.or(row_counts(&mut session, &contents.tables)),
    );
    let (digests, tables) = (sent?, counted?.map_err(SnapshotError::database(name))?);
    let manifest = Manifest {
        format: super::manifest::FORMAT,
        run: run.clone(),
        database: name.clone(),
        taken_at: exported.at,
        lsn: exported.lsn,
        server: ServerFacts::new(&server, tools.major),
        properties,
        extensions: contents.extensions,
        roles: contents.roles,
        tables,
        archive: Archive {
            key: "archive.dump.gz".into(),
            compression: "gzip".into(),
            format: "custom".into(),
            digests: digests.into(),
        },
    };
    prove(world, store, run, &manifest).await?;
    let text = serde_json::to_vec_pretty(&manifest).expect("a manifest has no map with keys that are not text");
    store.put_new(&manifest_key(run, name), text).await.map_err(SnapshotError::store(name))?;
    let taken = Taken { manifest, seconds: begun.elapsed().as_secs_f64() };
    world.tell(Event::SnapshotTaken {
        database: name.clone(),
        bytes: taken.manifest.archive.digests.bytes,
        stored_bytes: taken.manifest.archive.digests.stored_bytes,
        rows: taken.manifest.rows(),
        seconds: taken.seconds,
    });
    Ok(taken)
}

/// A snapshot that other sessions can see the same rows by, as long as this session's transaction is open.
struct Exported {
    id: String,
    at: chrono::DateTime<chrono::Utc>,
    lsn: String,
}

async fn export(session: &mut PgConnection) -> Result<Exported, crate::outside::postgres::PgError> {
    sqlx::raw_sql(
        "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL row_security = off; SET LOCAL statement_timeout = 0; \
         SET LOCAL lock_timeout = 60000; SET LOCAL idle_in_transaction_session_timeout = 0",
    )
    .execute(&mut *session)
    .await
    .map_err(query_error("beginning the snapshot's transaction"))?;
    let (id, at, lsn) = sqlx::query_as(
        "select pg_export_snapshot(), transaction_timestamp(), case when pg_is_in_recovery() then \
         pg_last_wal_replay_lsn() else pg_current_wal_lsn() end::text",
    )
    .fetch_one(session)
    .await
    .map_err(query_error("exporting the snapshot"))?;
    Ok(Exported { id, at, lsn })
}

/// `pg_dump` → gzip → store.
async fn send(
    world: &World,
    store: &Store,
    run: &RunId,
    database: &Database,
    tools: &PgTools,
    exported: &str,
) -> Result<Digests, SnapshotError> {
    let name = &database.name;
    let args = [
        "--format=custom".into(),
        "--compress=0".into(),
        "--no-password".into(),
        format!("--snapshot={exported}"),
        format!("--lock-wait-timeout={LOCK_WAIT_MS}"),
    ];
    let mut env = database.url.libpq_env();
    env.push(("PGAPPNAME".into(), format!("migrate {run}")));
    let incomplete = |source| SnapshotError::Program {
        database: name.clone(),
        what: "the snapshot is incomplete".into(),
        help: "Nothing was applied; run the same command again.".into(),
        source,
    };
    let dump = tools.start("pg_dump", &args, &env, Stdio::null(), Stdio::piped()).map_err(incomplete)?;
    let mut upload = store.upload(&archive_key(run, name)).await.map_err(SnapshotError::store(name))?;
    let pumped = world.interrupt.or(pump(world, database, dump, &mut upload)).await;
    match pumped.map_err(SnapshotError::from).and_then(|inner| inner) {
        Ok(digests) => upload.finish().await.map(|()| digests).map_err(SnapshotError::store(name)),
        Err(error) => {
            upload.abort().await;
            Err(error)
        }
    }
}

/// Moves everything that `pg_dump` gives, until it has exited with 0.
async fn pump(
    world: &World,
    database: &Database,
    mut dump: Child,
    upload: &mut Upload,
) -> Result<Digests, SnapshotError> {
    let name = &database.name;
    let mut stdout = dump.stdout().expect("pg_dump was started with a pipe");
    let broke = |source| SnapshotError::Stream { database: name.clone(), program: "pg_dump", source };
    let Stage { input, mut output, done } = archive::compress();
    let reading = async {
        let (mut so_far, mut is_archive) = (0u64, false);
        loop {
            let chunk = read_chunk(&mut stdout).await.map_err(broke)?;
            is_archive |= so_far == 0 && chunk.starts_with(MAGIC);
            if chunk.is_empty() || input.send(chunk.clone()).await.is_err() {
                drop(input);
                return Ok::<_, SnapshotError>(is_archive);
            }
            let before = so_far;
            so_far += chunk.len() as u64;
            if before / PROGRESS != so_far / PROGRESS {
                world.tell(Event::SnapshotProgressed { database: name.clone(), bytes: so_far });
            }
        }
    };
    let writing = async {
        while let Some(chunk) = output.recv().await {
            upload.write(chunk).await.map_err(SnapshotError::store(name))?;
        }
        Ok(())
    };
    let (is_archive, ()) = tokio::try_join!(reading, writing)?;
    let digests = archive::join(done).await.map_err(broke)?;
    dump.finish().await.map_err(|source| SnapshotError::Program {
        database: name.clone(),
        what: format!("the snapshot is incomplete after {} bytes", digests.bytes),
        help: "Nothing was applied; run the same command again.".into(),
        source,
    })?;
    if !is_archive {
        return Err(SnapshotError::NoArchive { database: name.clone(), bytes: digests.bytes });
    }
    Ok(digests)
}

async fn read_chunk(from: &mut (impl AsyncReadExt + Unpin)) -> std::io::Result<Bytes> {
    let mut chunk = BytesMut::with_capacity(CHUNK);
    while chunk.len() < CHUNK {
        if from.read_buf(&mut chunk).await? == 0 {
            break;
        }
    }
    Ok(chunk.freeze())
}

/// Reads the archive back and compares it, both sides of the compression, with what the manifest says was sent.
///
/// # Errors
/// [`SnapshotError::Damaged`], or the store failed.
pub async fn prove(world: &World, store: &Store, run: &RunId, manifest: &Manifest) -> Result<(), SnapshotError> {
    let name = &manifest.database;
    let key = archive_key(run, name);
    let damaged = |what: String| SnapshotError::Damaged { database: name.clone(), key: key.clone(), what };
    let expected = Digests::from(manifest.archive.digests.clone());
    let size = store.size(&key).await.map_err(SnapshotError::store(name))?;
    let size = size.ok_or_else(|| damaged("it is not there".into()))?;
    if size != expected.stored_bytes {
        return Err(damaged(format!("it has {size} bytes, and {} were sent", expected.stored_bytes)));
    }
    let reading = archive::read_through(store.read(&key, size), |_| ());
    match world.interrupt.or(reading).await? {
        Ok(found) if found == expected => Ok(()),
        Ok(found) => {
            Err(damaged(format!("its SHA-256 is {}, and {} was sent", found.stored_sha256, expected.stored_sha256)))
        }
        Err(Unreadable::Gzip(error)) => Err(damaged(format!("it cannot be decompressed ({error})"))),
        Err(Unreadable::Store(error)) => Err(SnapshotError::store(name)(error)),
    }
}
