//! One cluster for all tests of this binary, and a database of its own for each.

use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Sender, channel};

use migrate::outside::cluster::{Cluster, ClusterOptions};
use sqlx::postgres::{PgDatabaseError, PgErrorPosition};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};

/// Owns every database of the tests, and is no superuser: managed PostgreSQL gives none to anybody.
pub(crate) const OWNER: &str = "release";

/// The cluster of this test binary. Statics are never dropped; the cluster's watcher ends it with the process.
pub(crate) fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| {
        let settings = vec![("max_connections".to_owned(), "200".to_owned())];
        let cluster = Cluster::start(ClusterOptions { settings, ..ClusterOptions::default() })
            .unwrap_or_else(|error| panic!("the tests need a PostgreSQL server: {error}"));
        let made = Command::new(cluster.bin_dir().join("psql"))
            .args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", &cluster.url("postgres", "postgres"), "-c"])
            .arg(format!("CREATE ROLE {OWNER} LOGIN CREATEDB"))
            .status()
            .expect("psql lies beside the server's programs");
        assert!(made.success(), "psql ended with {made}");
        cluster
    })
}

/// A new database, owned by [`OWNER`] and named after the test. Returns the URL for its owner.
pub(crate) async fn fresh_database(name_hint: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let plain: String = name_hint.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).take(48).collect();
    let name = format!("{plain}_{}", COUNT.fetch_add(1, Ordering::Relaxed));
    let mut server = connect(&cluster().url(OWNER, "postgres")).await;
    execute(&mut server, format!("CREATE DATABASE \"{name}\" TEMPLATE template0")).await;
    cluster().url(OWNER, &name)
}

/// A new database with everything that is in `template`, to which nobody is connected.
pub(crate) async fn copy_of(template: &str, name_hint: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let name = format!("{name_hint}_copy{}", COUNT.fetch_add(1, Ordering::Relaxed));
    let mut server = connect(&cluster().url(OWNER, "postgres")).await;
    execute(&mut server, format!("CREATE DATABASE \"{name}\" TEMPLATE \"{template}\"")).await;
    cluster().url(OWNER, &name)
}

/// Drops databases, with those that `migrate` made beside them, while the next tests run: autovacuum goes round all that there are,
/// and their files may be in memory. One that does not go stays until the cluster ends.
pub(crate) fn discard(names: Vec<String>) {
    static DISCARDED: OnceLock<Sender<Vec<String>>> = OnceLock::new();
    let queue = DISCARDED.get_or_init(|| {
        let (queue, discarded) = channel::<Vec<String>>();
        let work = async move || {
            let mut server = connect(&cluster().url("postgres", "postgres")).await;
            for name in discarded.into_iter().flatten() {
                drop_all_of(&mut server, &name).await;
            }
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        std::thread::spawn(move || runtime.block_on(work()));
        queue
    });
    queue.send(names).expect("the thread goes on to the end");
}

/// Drops a database and those that `migrate` made beside it, as far as the server lets them go.
pub(crate) async fn drop_all_of(server: &mut PgConnection, name: &str) {
    let all = "select datname from pg_database where datname ~ ('^' || $1 || '(__.*)?$')";
    let all: Vec<String> = sqlx::query_scalar(all).bind(name).fetch_all(&mut *server).await.expect("names");
    for it in all {
        let sql = format!("ALTER DATABASE \"{it}\" IS_TEMPLATE false");
        let _ = server.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await;
        let sql = format!("DROP DATABASE \"{it}\" WITH (FORCE)");
        let _ = server.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await;
    }
}

/// The same database as in `url`, for the superuser.
pub(crate) fn as_superuser(url: &str) -> String {
    let owner = format!("user={OWNER}");
    assert!(url.ends_with(&owner), "{url} is not of this harness");
    url.replace(&owner, "user=postgres")
}

/// A connection to `url`.
pub(crate) async fn connect(url: &str) -> PgConnection {
    PgConnection::connect(url).await.unwrap_or_else(|error| panic!("cannot connect to {url}: {error}"))
}

/// Runs the statements of `sql`.
#[track_caller]
pub(crate) fn execute(connection: &mut PgConnection, sql: impl Into<String>) -> impl Future<Output = ()> {
    let sql = sql.into();
    let caller = std::panic::Location::caller();
    async move {
        let done = connection.execute(sqlx::raw_sql(AssertSqlSafe(sql.clone()))).await;
        if let Err(error) = done {
            panic!("{caller}: {}", explained(&error, &sql));
        }
    }
}

/// The error with the part of `sql` that it is about.
pub(crate) fn explained(error: &sqlx::Error, sql: &str) -> String {
    let position = match error.as_database_error().and_then(|it| it.try_downcast_ref::<PgDatabaseError>()) {
        Some(error) => match error.position() {
            Some(PgErrorPosition::Original(position)) => position,
            _ => 1,
        },
        None => 1,
    };
    let part: String = sql.chars().skip(position.saturating_sub(1)).take(300).collect();
    format!("{error}, at: {part}")
}
