//! What a database and its server say about what a run needs of them, in one answer.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};

use crate::kind::fresh::Leftovers;
use crate::outside::clock;
use crate::outside::postgres::{OF_CLIENTS, PgError, ask_all, only, query_error};
use crate::plan::Database;

use super::budget::Connections;
use super::roles;

/// What a database says about what a run needs of it.
pub(super) struct Needs {
    /// What the role may do.
    pub(super) may: Privileges,
    /// Connections that there are.
    pub(super) connections: Connections,
    /// Those that the plan or a pending migration names may be among them.
    pub(super) extensions: Vec<Extension>,
    /// Of the server.
    pub(super) roles: Vec<String>,
    /// How the database and its server stand.
    pub(super) state: State,
    /// What holds the database.
    pub(super) holds: Vec<Hold>,
    /// The server's process of the session.
    pub(super) pid: i32,
    /// What migrations may leave in a session.
    pub(super) leftovers: Leftovers,
    /// `TLSv1.3`, if the session is encrypted.
    pub(super) tls: Option<String>,
}

/// What the role may do.
pub(super) struct Privileges {
    /// The session's.
    pub(super) role: String,
    /// Whether it may do anything.
    pub(super) superuser: bool,
    /// Whether it may create databases.
    pub(super) creates: bool,
    /// Whether it is the owner, or a member of it.
    pub(super) owns: bool,
    /// Of the database.
    pub(super) owner: String,
    /// Owners of objects that it is no member of.
    pub(super) strangers: Vec<String>,
    /// Whether it may create roles.
    pub(super) creates_roles: bool,
    /// Whether it may create schemas in the database.
    pub(super) creates_here: bool,
    /// The schema in which it makes what names none.
    pub(super) schema: Option<String>,
    /// Schemas in which it may make nothing.
    pub(super) closed_schemas: Vec<String>,
}

/// An extension that the server has.
pub(super) struct Extension {
    pub(super) name: String,
    pub(super) installed: bool,
    /// Whether none but a superuser may install it, where the server's makers have not allowed others.
    pub(super) superuser: bool,
}

/// How a database and its server stand.
pub(super) struct State {
    /// Whether it takes no changes.
    pub(super) read_only: bool,
    /// Transactions since the oldest one that is still told apart from later ones.
    pub(super) age: i64,
    /// The same, of row locks that several transactions share.
    pub(super) shared_age: i64,
    /// `synchronous_commit` of a session as it is opened.
    pub(super) commits: String,
    /// `max_prepared_transactions`.
    pub(super) most_prepared: i64,
    /// Servers and readers that replicate from this one.
    pub(super) replicas: i64,
    /// What the database takes on disk, in bytes.
    pub(super) bytes: u64,
    /// `pg_default`, if nobody has said otherwise.
    pub(super) tablespace: String,
    /// Its folder on the server; none for those within the data directory.
    pub(super) tablespace_folder: Option<String>,
    /// On the server, if the role is told.
    pub(super) data_directory: Option<String>,
    /// How far the server's clock is ahead of ours, in seconds; behind, if it is below zero.
    pub(super) ahead: f64,
}

/// Something that holds a database, or may.
pub(super) struct Hold {
    pub(super) what: Holds,
    /// Of the session, the slot, the subscription; of sessions that cannot be seen, their number.
    pub(super) name: String,
    /// Whose it is, or in which state.
    pub(super) of: String,
    /// For how long, in seconds; of a slot, the bytes of log that are kept for it.
    pub(super) amount: f64,
}

/// What sort of thing it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Holds {
    /// A transaction that is open for long.
    Transaction,
    /// Sessions of which the role is told nothing.
    Hidden,
    /// A replication slot that is being read from.
    ReadSlot,
    /// A replication slot that nobody reads from.
    Slot,
    /// A subscription at work.
    Subscription,
}

/// What an extension or another object brings along is made again with it: the constructors of a range type, for one, belong
/// to the bootstrap superuser on every server.
const PRIVILEGES: &str = "select current_user::text, r.rolsuper, r.rolsuper or r.rolcreatedb, r.rolsuper or pg_has_role(r.oid, d.datdba, \
     'member'), pg_get_userbyid(d.datdba)::text, array(select distinct pg_get_userbyid(o.owner)::text from (select relowner, \
     oid, 'pg_class'::regclass, relnamespace from pg_class union all select proowner, oid, 'pg_proc'::regclass, \
     pronamespace from pg_proc union all select nspowner, oid, 'pg_namespace'::regclass, oid from pg_namespace where \
     nspname <> 'public') o (owner, oid, class, schema) join pg_namespace n on n.oid = o.schema where n.nspname !~ \
     '^pg_' and n.nspname <> 'information_schema' and not r.rolsuper and not pg_has_role(r.oid, o.owner, 'member') and \
     not exists (select from pg_depend x where x.classid = o.class and x.objid = o.oid and x.deptype in ('e', 'i'))), \
     r.rolsuper or r.rolcreaterole, has_database_privilege(d.oid, 'create'), current_schema()::text, array(select nspname::text from \
     pg_namespace where nspname !~ '^pg_' and nspname <> 'information_schema' and not has_schema_privilege(oid, 'create')), \
     pg_backend_pid() from pg_roles r, pg_database d where r.rolname = current_user and d.datname = current_database()";
const EXTENSIONS: &str = "select a.name::text, a.installed_version is not null, v.superuser and not v.trusted from pg_available_extensions \
     a left join pg_available_extension_versions v on v.name = a.name and v.version = a.default_version";
const TLS: &str = "select version from pg_stat_ssl where pid = pg_backend_pid() and ssl";
/// In the place of a question that need not be asked.
const NOTHING: &str = "select where false";
/// A setting that a role may not see is not among those that it is shown.
const STATE: &str = "select current_setting('transaction_read_only') = 'on', age(d.datfrozenxid)::int8, mxid_age(d.datminmxid)::int8, \
     current_setting('synchronous_commit'), current_setting('max_prepared_transactions')::int8, (select count(*) from \
     pg_stat_replication), pg_database_size(d.oid), t.spcname::text, nullif(pg_tablespace_location(t.oid), ''), (select setting from \
     pg_settings where name = 'data_directory'), extract(epoch from clock_timestamp())::float8 from pg_database d join pg_tablespace t \
     on t.oid = d.dattablespace where d.datname = current_database()";

/// A transaction that waits for its client is said to hold others up after so many seconds.
const IDLE: u32 = 5;
/// And one that is at work after so many.
const AT_WORK: u32 = 60;

fn connections_query() -> String {
    format!(
        "select current_setting('max_connections')::int8, current_setting('superuser_reserved_connections')::int8 + \
         coalesce(current_setting('reserved_connections', true)::int8, 0), count(a.pid), case when r.rolsuper then -1 else \
         r.rolconnlimit::int8 end, count(a.pid) filter (where a.usesysid = r.oid), case when r.rolsuper then -1 else d.datconnlimit::int8 \
         end, count(a.pid) filter (where a.datid = d.oid), count(a.pid) filter (where starts_with(a.application_name, \
         current_setting('application_name'))) from pg_roles r cross join pg_database d left join (select pid, usesysid, datid, \
         application_name from pg_stat_activity where {OF_CLIENTS}) a on true where r.rolname = session_user and d.datname = \
         current_database() group by r.oid, r.rolsuper, r.rolconnlimit, d.oid, d.datconnlimit"
    )
}

fn holds_query() -> String {
    format!(
        "select 'transaction', pid::text, concat_ws(', ', usename, \
         nullif(application_name, ''), state), extract(epoch from clock_timestamp() - xact_start)::float8 from pg_stat_activity where \
         datname = current_database() and pid <> pg_backend_pid() and not starts_with(application_name, \
         current_setting('application_name')) and xact_start < clock_timestamp() - case when state like 'idle in transaction%' then \
         interval '{IDLE} s' else interval '{AT_WORK} s' end union all select 'hidden', count(*)::text, '', 0 from pg_stat_activity where \
         datname = current_database() and usesysid is not null and state is null and backend_type is null having count(*) > 0 union all \
         select case when active then 'read slot' else 'slot' end, slot_name, slot_type, case when pg_is_in_recovery() then 0 else \
         coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn), 0) end::float8 from pg_replication_slots where database = \
         current_database() or not active union all select 'subscription', s.subname, '', 0 from pg_subscription s join pg_database d on \
         d.oid = s.subdbid where d.datname = current_database() and s.subenabled order by 1, 2"
    )
}

impl Needs {
    /// For one round trip; about extensions, where `extensions` are of interest.
    pub(super) async fn of(session: &mut PgConnection, database: &Database, extensions: bool) -> Result<Self, PgError> {
        let extensions = if database.extensions.is_empty() && !extensions { NOTHING } else { EXTENSIONS };
        let (connections, holds) = (connections_query(), holds_query());
        let questions = [PRIVILEGES, &connections, extensions, roles::QUERY, STATE, &holds, TLS, Leftovers::QUERY];
        let sent = clock::now();
        let answers = ask_all(session, questions).await.map_err(query_error("asking for what a run needs"))?;
        let answered = clock::now();
        Self::read(&answers, sent, answered).map_err(query_error("reading what a run needs"))
    }

    fn read(answers: &[Vec<PgRow>; 8], sent: DateTime<Utc>, answered: DateTime<Utc>) -> Result<Self, sqlx::Error> {
        let [may, connections, extensions, names, state, holds, tls, functions] = answers;
        Ok(Self {
            pid: only(may)?.try_get(10)?,
            leftovers: Leftovers::read(functions)?,
            may: privileges(only(may)?)?,
            connections: counted(only(connections)?)?,
            extensions: extensions.iter().map(extension).collect::<Result<_, sqlx::Error>>()?,
            roles: roles::read(names)?,
            state: stands(only(state)?, sent, answered)?,
            holds: holds.iter().map(hold).collect::<Result<Vec<_>, sqlx::Error>>()?,
            tls: tls.first().map(|row| row.try_get(0)).transpose()?,
        })
    }
}

fn privileges(row: &PgRow) -> Result<Privileges, sqlx::Error> {
    Ok(Privileges {
        role: row.try_get(0)?,
        superuser: row.try_get(1)?,
        creates: row.try_get(2)?,
        owns: row.try_get(3)?,
        owner: row.try_get(4)?,
        strangers: row.try_get(5)?,
        creates_roles: row.try_get(6)?,
        creates_here: row.try_get(7)?,
        schema: row.try_get(8)?,
        closed_schemas: row.try_get(9)?,
    })
}

fn counted(row: &PgRow) -> Result<Connections, sqlx::Error> {
    Ok(Connections {
        most: row.try_get(0)?,
        reserved: row.try_get(1)?,
        used: row.try_get(2)?,
        most_of_role: row.try_get(3)?,
        used_by_role: row.try_get(4)?,
        most_of_database: row.try_get(5)?,
        used_in_database: row.try_get(6)?,
        own: row.try_get(7)?,
    })
}

fn extension(row: &PgRow) -> Result<Extension, sqlx::Error> {
    let superuser: Option<bool> = row.try_get(2)?;
    Ok(Extension { name: row.try_get(0)?, installed: row.try_get(1)?, superuser: superuser.unwrap_or_default() })
}

fn stands(row: &PgRow, sent: DateTime<Utc>, answered: DateTime<Utc>) -> Result<State, sqlx::Error> {
    Ok(State {
        read_only: row.try_get(0)?,
        age: row.try_get(1)?,
        shared_age: row.try_get(2)?,
        commits: row.try_get(3)?,
        most_prepared: row.try_get(4)?,
        replicas: row.try_get(5)?,
        bytes: row.try_get::<i64, _>(6)?.unsigned_abs(),
        tablespace: row.try_get(7)?,
        tablespace_folder: row.try_get(8)?,
        data_directory: row.try_get(9)?,
        ahead: ahead(sent, answered, row.try_get(10)?),
    })
}

/// How far a clock is ahead that said `there`, in seconds since 1970, between two looks at ours.
fn ahead(sent: DateTime<Utc>, answered: DateTime<Utc>, there: f64) -> f64 {
    let seconds = |it: DateTime<Utc>| {
        let since = it.signed_duration_since(DateTime::UNIX_EPOCH).to_std().unwrap_or(Duration::ZERO);
        since.as_secs_f64()
    };
    let (sent, answered) = (seconds(sent), seconds(answered));
    if there < sent { there - sent } else { (there - answered).max(0.0) }
}

fn hold(row: &PgRow) -> Result<Hold, sqlx::Error> {
    let what = match row.try_get::<&str, _>(0)? {
        "transaction" => Holds::Transaction,
        "hidden" => Holds::Hidden,
        "read slot" => Holds::ReadSlot,
        "slot" => Holds::Slot,
        _ => Holds::Subscription,
    };
    Ok(Hold { what, name: row.try_get(1)?, of: row.try_get(2)?, amount: row.try_get(3)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_off_by_what_the_way_there_does_not_explain() {
        let at = |seconds: i64| DateTime::from_timestamp(1_795_283_000 + seconds, 0).expect("in range");
        let found = |there: f64| ahead(at(0), at(2), 1_795_283_000.0 + there);
        assert_eq!([found(0.0), found(1.0), found(2.0)], [0.0, 0.0, 0.0]);
        assert_eq!([found(-40.0), found(62.0)], [-40.0, 60.0]);
    }
}
