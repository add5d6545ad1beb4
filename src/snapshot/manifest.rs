//! The manifest of a snapshot: what was dumped, when, from where, and everything that belongs to the database itself and
//! that `pg_dump` without `--create` leaves out.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};

use crate::names::{DatabaseName, RunId};
use crate::outside::postgres::{PgError, Server, query_error};
use crate::plan::Compression;
use crate::verify::catalog::{Digested, Holdings, LargeObjects};

use super::archive::Digests;
use super::custom::Passed;
use super::parts::Section;

/// The latest version of this format. The first had one archive and no content hashes. Whatever comes, `format` and `tool_version`
/// stay.
pub const FORMAT: u32 = 3;
/// The version of a manifest whose archives are not encrypted: whoever knows it needs to know no more.
const NOT_ENCRYPTED: u32 = 2;

/// The version of a manifest whose archives are encrypted to so many.
#[must_use]
pub fn format(recipients: usize) -> u32 {
    if recipients == 0 { NOT_ENCRYPTED } else { FORMAT }
}

/// What is in the store about one snapshot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// The version of the format.
    pub format: u32,
    /// The version of `migrate` that wrote it; the first ones did not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_version: Option<String>,
    /// The run that took it.
    pub run: RunId,
    /// The database, by its name in the plan.
    pub database: DatabaseName,
    /// The time of the snapshot, by the server's clock.
    pub taken_at: DateTime<Utc>,
    /// The write-ahead log position at that time.
    pub lsn: String,
    /// The server.
    pub server: ServerFacts,
    /// What belongs to the database itself.
    pub properties: Properties,
    /// Its extensions.
    pub extensions: Vec<Extension>,
    /// The roles that own something in it or are granted something: another server needs them first.
    pub roles: Vec<String>,
    /// The rows of each table, seen by the very snapshot that was dumped.
    pub tables: Vec<TableRows>,
    /// A digest for each of its objects, by which a restored database is compared.
    #[serde(default)]
    pub catalog: Option<Digested>,
    /// What of them is whose, by which one is compared that was restored under other roles.
    #[serde(default)]
    pub holdings: Option<Holdings>,
    /// Its sequences, as they were just before the dump.
    #[serde(default)]
    pub sequences: Vec<Sequence>,
    /// Its indexes, the slowest to build first.
    #[serde(default)]
    pub indexes: Vec<Index>,
    /// `txid_current_snapshot()` of the very snapshot that was dumped: a row whose transaction is not visible in it was written later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub horizon: Option<String>,
    /// The server's counters of each table at that time.
    #[serde(default)]
    pub counters: Vec<TableCounters>,
    /// How many large objects there were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub large_objects: Option<u64>,
    /// Whose they were, and who might do what with them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub large_objects_held: Option<LargeObjects>,
    /// To whom the archives are encrypted; nobody is: not at all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub encrypted_to: Vec<String>,
    /// The archives, in the order in which they are restored; those of the data may go side by side.
    #[serde(default)]
    pub parts: Vec<Part>,
}

impl Manifest {
    /// Reads a manifest of this format or an earlier one.
    ///
    /// # Errors
    /// It is none.
    pub fn read(text: &[u8]) -> Result<Self, serde_json::Error> {
        let mut it: Self = serde_json::from_slice(text)?;
        if it.format == 1 {
            let FirstFormat { archive: OneArchive { key, digests } } = serde_json::from_slice(text)?;
            it.parts.push(Part { key, section: Section::Whole, compression: Compression::Gzip, rows: 0, digests });
            // As it is now, it is one of the next format, and would be written as such.
            it.format = NOT_ENCRYPTED;
        }
        Ok(it)
    }

    /// Uncompressed bytes of all parts.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.parts.iter().fold(0, |sum, it| sum.saturating_add(it.digests.bytes))
    }

    /// Bytes of all parts as stored.
    #[must_use]
    pub fn stored_bytes(&self) -> u64 {
        self.parts.iter().fold(0, |sum, it| sum.saturating_add(it.digests.stored_bytes))
    }

    /// The SHA-256 of the one part; of several, that of what `sha256sum` prints for all of them in the order of their names.
    #[must_use]
    pub fn sha256(&self) -> String {
        if let [only] = &self.parts[..] {
            return only.digests.stored_sha256.clone();
        }
        let lines = self.parts.iter().map(|it| format!("{}  {}\n", it.digests.stored_sha256, it.key));
        Sha256::digest(lines.collect::<String>()).iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Rows in all tables.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.tables.iter().fold(0, |sum, table| sum.saturating_add(table.rows))
    }
}

/// The server of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerFacts {
    /// Made by `initdb`.
    pub system_identifier: String,
    /// `15.20 (Debian 15.20-0+deb12u1)`.
    pub version: String,
    /// `150020`.
    pub version_num: u32,
    /// The major version of the `pg_dump` that was used.
    pub pg_dump: u32,
}

impl ServerFacts {
    /// What is kept of `server`.
    #[must_use]
    pub fn new(server: &Server, pg_dump: u32) -> Self {
        Self {
            system_identifier: server.system_identifier.clone(),
            version: server.version.clone(),
            version_num: server.version_num,
            pg_dump,
        }
    }
}

/// What belongs to a database itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Properties {
    /// Its name on the server.
    pub dbname: String,
    /// Its oid.
    pub oid: u32,
    /// Its owner.
    pub owner: String,
    /// `UTF8`.
    pub encoding: String,
    /// LC_COLLATE.
    pub collate: String,
    /// LC_CTYPE.
    pub ctype: String,
    /// `c` (libc), `i` (ICU), `b` (builtin); servers before 15 have libc alone.
    pub locale_provider: String,
    /// The locale of a provider other than libc.
    pub locale: Option<String>,
    /// The version of the collation when the database was made.
    pub collation_version: Option<String>,
    /// Its tablespace.
    pub tablespace: String,
    /// Sessions at once; -1 is no limit.
    pub connection_limit: i32,
    /// Whether others may make databases from it.
    pub is_template: bool,
    /// Whether it has the schema `public`, with which every new database begins.
    pub has_public: bool,
    /// Its privileges; none where they are the default ones.
    pub acl: Option<Vec<Grant>>,
    /// `ALTER DATABASE … SET` and `ALTER ROLE … IN DATABASE … SET`.
    pub settings: Vec<Setting>,
    /// Its comment.
    pub comment: Option<String>,
}

/// One privilege on a database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// The role; none is PUBLIC.
    pub grantee: Option<String>,
    /// `CONNECT`, `CREATE`, `TEMPORARY`.
    pub privilege: String,
    /// WITH GRANT OPTION.
    pub grantable: bool,
}

/// One setting of a database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    /// For this role alone.
    pub role: Option<String>,
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// An extension.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extension {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The schema that its objects are in.
    pub schema: String,
}

/// The rows of one table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableRows {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// How many.
    pub rows: u64,
    /// Of their content, as [`Passed::hash`]; none where the rows were counted by the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<String>,
}

impl From<Passed> for TableRows {
    fn from(it: Passed) -> Self {
        Self { schema: it.schema, name: it.name, rows: it.rows, hash: Some(it.hash) }
    }
}

/// The server's counters of one table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableCounters {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// What was counted since the statistics were last reset.
    pub counters: Counters,
}

/// The server's counters of a table, each since the statistics were last reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counters {
    /// Rows inserted, those of transactions that were rolled back with them.
    pub inserted: u64,
    /// Rows updated.
    pub updated: u64,
    /// Rows deleted.
    pub deleted: u64,
}

/// A sequence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sequence {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// What it adds each time; below zero, it counts down.
    pub increment: i64,
    /// The last number that it gave; none if it gave none, or may not be read.
    pub last: Option<i64>,
}

/// An index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Index {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// The table that it is on, in the same schema; none in a manifest of an earlier version.
    #[serde(default)]
    pub table: Option<String>,
    /// `btree`, `gin`, `hnsw`.
    pub method: String,
    /// Bytes on disk.
    pub bytes: u64,
}

impl Index {
    /// How long it takes to build, beside others. Longest by far for graphs of vectors (measured by the users of pgvector), and
    /// longer for GIN and GiST than for trees.
    #[must_use]
    pub fn cost(&self) -> u64 {
        let times = match self.method.as_str() {
            "hnsw" => 50,
            "ivfflat" => 10,
            "gin" | "gist" => 5,
            _ => 1,
        };
        self.bytes * times
    }
}

/// One archive of a snapshot: in `pg_dump`'s custom format, once it is decompressed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Relative to the manifest.
    pub key: String,
    /// What it holds.
    pub section: Section,
    /// How it is compressed.
    pub compression: Compression,
    /// How many rows; 0, too, in a manifest of an earlier version, and where they were not counted.
    #[serde(default)]
    pub rows: u64,
    /// Sizes and SHA-256, of what is stored and of what it holds.
    pub digests: Digests,
}

/// What a manifest of the first format had in place of parts.
#[derive(Deserialize)]
struct FirstFormat {
    archive: OneArchive,
}

#[derive(Deserialize)]
struct OneArchive {
    key: String,
    digests: Digests,
}

/// What belongs to the database of `session` itself.
///
/// # Errors
/// A query failed.
pub async fn properties(session: &mut PgConnection) -> Result<Properties, PgError> {
    let failed = || query_error("reading the database's properties");
    // Columns that older servers lack are read through the row as JSON, where a missing one is NULL.
    let row = sqlx::query(
        "select d.datname::text, d.oid::int8, pg_get_userbyid(d.datdba)::text, pg_encoding_to_char(d.encoding)::text, \
         d.datcollate::text, d.datctype::text, coalesce(j->>'datlocprovider', 'c'), \
         coalesce(j->>'datlocale', j->>'daticulocale'), j->>'datcollversion', \
         (select spcname::text from pg_tablespace t where t.oid = d.dattablespace), d.datconnlimit, d.datistemplate, \
         d.datacl is not null, shobj_description(d.oid, 'pg_database'), to_regnamespace('public') is not null \
         from pg_database d, to_jsonb(d) j where d.datname = current_database()",
    )
    .fetch_one(&mut *session)
    .await
    .map_err(failed())?;
    let mut it = read_properties(&row).map_err(failed())?;
    if it.acl.is_some() {
        it.acl = Some(grants(session).await?);
    }
    it.settings = settings(session).await?;
    Ok(it)
}

fn read_properties(row: &PgRow) -> Result<Properties, sqlx::Error> {
    Ok(Properties {
        dbname: row.try_get(0)?,
        oid: u32::try_from(row.try_get::<i64, _>(1)?).map_err(|error| sqlx::Error::Decode(error.into()))?,
        owner: row.try_get(2)?,
        encoding: row.try_get(3)?,
        collate: row.try_get(4)?,
        ctype: row.try_get(5)?,
        locale_provider: row.try_get(6)?,
        locale: row.try_get(7)?,
        collation_version: row.try_get(8)?,
        tablespace: row.try_get(9)?,
        connection_limit: row.try_get(10)?,
        is_template: row.try_get(11)?,
        has_public: row.try_get(14)?,
        acl: row.try_get::<bool, _>(12)?.then(Vec::new),
        settings: Vec::new(),
        comment: row.try_get(13)?,
    })
}

async fn grants(session: &mut PgConnection) -> Result<Vec<Grant>, PgError> {
    let rows: Vec<(Option<String>, String, bool)> = sqlx::query_as(
        "select r.rolname::text, a.privilege_type, a.is_grantable from pg_database d, aclexplode(d.datacl) a left join \
         pg_roles r on r.oid = a.grantee where d.datname = current_database() order by 1 nulls first, 2",
    )
    .fetch_all(session)
    .await
    .map_err(query_error("reading the database's privileges"))?;
    Ok(rows.into_iter().map(|(grantee, privilege, grantable)| Grant { grantee, privilege, grantable }).collect())
}

async fn settings(session: &mut PgConnection) -> Result<Vec<Setting>, PgError> {
    let rows: Vec<(Option<String>, String)> = sqlx::query_as(
        "select r.rolname::text, c.setting from pg_db_role_setting s join pg_database d on d.oid = s.setdatabase cross join \
         unnest(s.setconfig) with ordinality c (setting, place) left join pg_roles r on r.oid = s.setrole \
         where d.datname = current_database() order by 1 nulls first, c.place",
    )
    .fetch_all(session)
    .await
    .map_err(query_error("reading the database's settings"))?;
    Ok(rows
        .into_iter()
        .filter_map(|(role, text)| {
            let (name, value) = text.split_once('=')?;
            Some(Setting { role, name: name.into(), value: value.into() })
        })
        .collect())
}
