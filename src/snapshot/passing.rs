//! The rows of a database as `pg_dump` gives them, counted and hashed and stored nowhere.

use std::process::Stdio;

use futures::stream::{self, StreamExt, TryStreamExt};

use crate::names::DatabaseName;
use crate::outside::postgres::Server;
use crate::outside::process::{PgTools, ToolError};
use crate::outside::url::DatabaseUrl;
use crate::world::World;

use super::SnapshotError;
use super::archive::read_block;
use super::custom::{Counting, CustomError, Passed, Reader};
use super::effort::MOST_JOBS;
use super::parts::{Portion, Section, TableSize, portions};

/// A database whose rows are looked at.
pub(super) struct Passing<'a> {
    pub(super) world: &'a World,
    pub(super) database: &'a DatabaseName,
    pub(super) url: &'a DatabaseUrl,
    pub(super) server: &'a Server,
}

impl Passing<'_> {
    /// What passes of each table, several at once.
    pub(super) async fn hashes(&self, sizes: &[TableSize]) -> Result<Vec<Passed>, SnapshotError> {
        let tools = self.world.tools.for_server(self.server.major()).await.map_err(|error| self.failed(error))?;
        let data = portions(sizes).into_iter().filter(|it| matches!(it.section, Section::Whole | Section::Data));
        let work = data.map(|portion| self.pass(&tools, portion));
        let jobs = std::thread::available_parallelism().map_or(1, usize::from).min(MOST_JOBS);
        let passed: Vec<Vec<Passed>> = stream::iter(work).buffer_unordered(jobs).try_collect().await?;
        Ok(passed.concat())
    }

    fn failed(&self, source: ToolError) -> SnapshotError {
        let (what, help) = ("its rows cannot be looked at".into(), "The live database was not touched.".into());
        SnapshotError::Program { database: self.database.clone(), what, help, source }
    }

    async fn pass(&self, tools: &PgTools, portion: Portion) -> Result<Vec<Passed>, SnapshotError> {
        let mut args = ["--format=custom", "--compress=0", "--no-password"].map(str::to_owned).to_vec();
        args.extend(if portion.section == Section::Whole { vec!["--section=data".into()] } else { portion.args });
        let dump = tools.start("pg_dump", &args, &self.url.libpq_env(), Stdio::null(), Stdio::piped());
        let mut dump = dump.map_err(|error| self.failed(error))?;
        let mut stdout = dump.stdout().expect("pg_dump was started with a pipe");
        let broke = |source| SnapshotError::Stream { database: self.database.clone(), program: "pg_dump", source };
        let reading = async {
            let mut reader = Reader::<Counting>::default();
            loop {
                let chunk = read_block(&mut stdout).await.map_err(broke)?;
                if chunk.is_empty() {
                    return Ok(reader.finish());
                }
                if let Err(error) = reader.push(&chunk) {
                    return Ok(Err(error));
                }
            }
        };
        let passed = self.world.interrupt.or(reading).await.map_err(SnapshotError::from).and_then(|it| it)?;
        drop(stdout);
        match passed {
            Ok(passed) => dump.finish().await.map(|()| passed).map_err(|error| self.failed(error)),
            Err(CustomError::Version { .. }) => Ok(Vec::new()),
            Err(error) => {
                let what = format!("what pg_dump gave is no whole archive: {error}");
                Err(SnapshotError::Incomplete { database: self.database.clone(), what })
            }
        }
    }
}
