//! A server of a test's own, for what belongs to a whole server: its settings, its connections, its crashes.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use migrate::outside::cluster::{Cluster, ClusterOptions};
use sqlx::{Connection as _, PgConnection};

use crate::harness::{OWNER, connect, execute};
use crate::world::{TestWorld, until};

pub(crate) struct OwnServer {
    pub(crate) cluster: Cluster,
}

impl OwnServer {
    /// With the role of the tests, and these settings.
    pub(crate) async fn start(settings: &[(&str, &str)]) -> Self {
        let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let cluster = Cluster::start(ClusterOptions { settings, ..ClusterOptions::default() });
        let own = Self { cluster: cluster.expect("the tests need a PostgreSQL server") };
        own.sql(&format!("create role {OWNER} login createdb")).await;
        own
    }

    /// A database of this name, and a world with it. `with` ends the statement that makes it.
    pub(crate) async fn world(&self, name: &str, with: &str) -> TestWorld {
        self.sql(&format!("create database {name} owner {OWNER} template template0 {with}")).await;
        TestWorld::over(BTreeMap::from([("a".to_owned(), self.cluster.url(OWNER, name))]))
    }

    /// A superuser's session in the maintenance database.
    pub(crate) async fn session(&self) -> PgConnection {
        connect(&self.cluster.url("postgres", "postgres")).await
    }

    /// Runs SQL as a superuser in the maintenance database.
    pub(crate) async fn sql(&self, sql: &str) {
        execute(&mut self.session().await, sql).await;
    }

    /// One of the server's programs, as the operating system's user who owns its files.
    pub(crate) fn program(&self, name: &str) -> Command {
        let owner = std::fs::metadata(self.cluster.data_dir()).expect("the server's files");
        let mut command = Command::new(self.cluster.bin_dir().join(name));
        command.current_dir("/").uid(owner.uid()).gid(owner.gid());
        command
    }

    /// The operating system's user who owns its files.
    pub(crate) fn user(&self) -> (u32, u32) {
        let owner = std::fs::metadata(self.cluster.data_dir()).expect("the server's files");
        (owner.uid(), owner.gid())
    }

    /// How many sessions the tests' role has.
    pub(crate) async fn sessions(&self) -> i64 {
        let there = format!("select count(*) from pg_stat_activity where usename = '{OWNER}'");
        let count = sqlx::query_scalar(sqlx::AssertSqlSafe(there)).fetch_one(&mut self.session().await).await;
        count.expect("a number")
    }

    /// Returns once the tests' role has so many: the server ends a session some time after its client has left.
    pub(crate) async fn down_to(&self, sessions: i64) {
        until("the others have left", async || self.sessions().await == sessions).await;
    }

    /// As many sessions of the tests' role in the maintenance database, once there are no others.
    pub(crate) async fn held(&self, count: usize) -> Vec<PgConnection> {
        let mut all = Vec::new();
        until("there is room for them", async || {
            while all.len() < count {
                let Ok(session) = PgConnection::connect(&self.cluster.url(OWNER, "postgres")).await else {
                    return false;
                };
                all.push(session);
            }
            true
        })
        .await;
        let others = "select count(*) from pg_stat_activity where usesysid is not null and datname is not null";
        until("everybody else has left", async || {
            let there: i64 = sqlx::query_scalar(others).fetch_one(&mut all[0]).await.expect("a number");
            there == i64::try_from(count).expect("a few")
        })
        .await;
        all
    }
}
