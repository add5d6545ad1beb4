//! What a database and its server say about what a run needs of them, in one answer.

use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};

use crate::outside::postgres::{FREE_CONNECTIONS, PgError, ask_all, free, only, query_error};
use crate::plan::Database;

use super::roles;

/// What a database says about what a run needs of it.
pub(super) struct Needs {
    /// The session's.
    pub(super) role: String,
    /// Whether the role may create databases.
    pub(super) creates: bool,
    /// Whether it is the owner, or a member of it.
    pub(super) owns: bool,
    /// Of the database.
    pub(super) owner: String,
    /// Owners of objects that it is no member of.
    pub(super) strangers: Vec<String>,
    /// Connections that the server has left.
    pub(super) free: usize,
    /// Those that the plan names may be among them, and whether they are installed.
    pub(super) extensions: Vec<(String, bool)>,
    /// Of the server.
    pub(super) roles: Vec<String>,
    /// The server's process of the session.
    pub(super) pid: i32,
    /// `TLSv1.3`, if the session is encrypted.
    pub(super) tls: Option<String>,
}

/// What an extension or another object brings along is made again with it: the constructors of a range type, for one, belong
/// to the bootstrap superuser on every server.
const PRIVILEGES: &str = "select current_user::text, r.rolsuper or r.rolcreatedb, r.rolsuper or pg_has_role(r.oid, d.datdba, 'member'), \
     pg_get_userbyid(d.datdba)::text, array(select distinct pg_get_userbyid(o.owner)::text from (select relowner, \
     oid, 'pg_class'::regclass, relnamespace from pg_class union all select proowner, oid, 'pg_proc'::regclass, \
     pronamespace from pg_proc union all select nspowner, oid, 'pg_namespace'::regclass, oid from pg_namespace where \
     nspname <> 'public') o (owner, oid, class, schema) join pg_namespace n on n.oid = o.schema where n.nspname !~ \
     '^pg_' and n.nspname <> 'information_schema' and not r.rolsuper and not pg_has_role(r.oid, o.owner, 'member') and \
     not exists (select from pg_depend x where x.classid = o.class and x.objid = o.oid and x.deptype in ('e', 'i'))), \
     pg_backend_pid() from pg_roles r, pg_database d where r.rolname = current_user and d.datname = current_database()";
const EXTENSIONS: &str = "select name::text, installed_version is not null from pg_available_extensions";
const TLS: &str = "select version from pg_stat_ssl where pid = pg_backend_pid() and ssl";
/// In the place of a question that need not be asked.
const NOTHING: &str = "select where false";

impl Needs {
    /// For one round trip.
    pub(super) async fn of(session: &mut PgConnection, database: &Database) -> Result<Self, PgError> {
        let extensions = if database.extensions.is_empty() { NOTHING } else { EXTENSIONS };
        let answers = ask_all(session, [PRIVILEGES, FREE_CONNECTIONS, extensions, roles::QUERY, TLS]).await;
        let [it, connections, extensions, names, tls] = answers.map_err(query_error("asking for what a run needs"))?;
        let extension = |row: &PgRow| Ok((row.try_get(0)?, row.try_get(1)?));
        let read = || {
            let (it, connections) = (only(&it)?, only(&connections)?);
            Ok(Self {
                role: it.try_get(0)?,
                creates: it.try_get(1)?,
                owns: it.try_get(2)?,
                owner: it.try_get(3)?,
                strangers: it.try_get(4)?,
                pid: it.try_get(5)?,
                free: free(connections)?,
                extensions: extensions.iter().map(extension).collect::<Result<_, sqlx::Error>>()?,
                roles: roles::read(&names)?,
                tls: tls.first().map(|row| row.try_get(0)).transpose()?,
            })
        };
        read().map_err(query_error("reading what a run needs"))
    }
}
