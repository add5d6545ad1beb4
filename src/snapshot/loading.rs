//! The rows of an archive on their way into a database by COPY of our own. The server says how many it took. A large table is
//! emptied in the transaction that fills it, so that its rows are written frozen, and nothing has to visit them again; one that
//! would keep everything else waiting, or the rest of it, goes through several sessions at once instead, which nothing frozen can.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use futures::future::{try_join, try_join_all};
use sqlx::PgConnection;
use tokio::sync::mpsc::{Receiver, Sender, channel};

use crate::crash;
use crate::outside::pool::{Buffer, Pool};
use crate::outside::postgres::{PgError, change, query_error};
use crate::sql::quote::identifier;

use super::custom::{CustomError, Entry, Reader, TABLE_DATA, Watches};
use super::help::Help;

/// After so many bytes one COPY ends and the next begins, within the same transaction: what the server has against a row is
/// heard only at the end of a COPY.
const ONE_COPY: usize = 64 << 20;
/// Of several sessions that load the same table, each gets about so many bytes before it is another one's turn.
const ONE_TURN: usize = 1 << 20;
/// Pieces that wait for a session that shares a table with others.
const PIECES_WAITING: usize = 4;
/// What is sent to the server at once: little enough to stay near the core that fills it.
static ROWS: Pool<Vec<u8>> = Pool::of(|| Vec::with_capacity(64 << 10));
const BEGINNING: &str = "beginning the transaction of a table";
const ENDING: &str = "ending the transaction of a table";
/// How `pg_dump` ends the COPY of a table.
const FROM_STDIN: &str = " FROM stdin;";
/// As `pg_restore` sets them for its session, but for `synchronous_commit`: whoever relies on the database waits for the disk at
/// the end, and with it for everything before it.
pub(super) const SETTINGS: &str = "SET statement_timeout = 0; SET lock_timeout = 0; SET idle_in_transaction_session_timeout = 0; \
     SET standard_conforming_strings = on; SET xmloption = content; SET row_security = off; SET synchronous_commit = off; \
     SELECT pg_catalog.set_config('search_path', '', false); SELECT pg_catalog.set_config(name, '0', false) FROM \
     pg_catalog.pg_settings WHERE name = 'transaction_timeout'";

/// A table that was loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Loaded {
    pub(super) schema: String,
    pub(super) name: String,
    /// As the server counted them.
    pub(super) rows: u64,
    /// Bytes of COPY's text.
    pub(super) bytes: u64,
}

/// A table whose rows are in the archive.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Table {
    schema: String,
    name: String,
    /// `COPY … FROM stdin`, without its end.
    copy: String,
}

impl Table {
    /// What is done with it, for an error.
    fn what(&self) -> String {
        format!("loading {}.{}", self.schema, self.name)
    }
}

/// What has passed of an archive, to be carried out in this order.
enum Step {
    Begin(Table),
    Rows(Buffer),
    End,
}

/// Turns what passes into steps.
#[derive(Default)]
pub(super) struct Steps {
    tables: BTreeMap<i64, Table>,
    sequences: Vec<String>,
    /// It holds something else than rows and values of sequences, or rows in another encoding.
    is_more: bool,
    steps: VecDeque<Step>,
}

impl Steps {
    /// Whether everything in it can be loaded here.
    pub(super) fn is_all(&self) -> bool {
        !self.is_more
    }
}

impl Watches for Steps {
    fn entry(&mut self, entry: &Entry<'_>) {
        let text = |it: &[u8]| String::from_utf8(it.to_vec()).ok();
        let known = match entry.kind {
            b"STDSTRINGS" | b"SEARCHPATH" => Some(()),
            // What pg_restore leaves out, too, where it does not make the database.
            b"DATABASE" | b"DATABASE PROPERTIES" => Some(()),
            b"ACL" | b"COMMENT" | b"SECURITY LABEL" if entry.tag.starts_with(b"DATABASE ") => Some(()),
            b"ENCODING" => (entry.definition.trim_ascii() == b"SET client_encoding = 'UTF8';").then_some(()),
            b"SEQUENCE SET" => text(entry.definition).map(|it| self.sequences.push(it)),
            TABLE_DATA => text(entry.copy).and_then(|copy| {
                let copy = copy.trim_end().strip_suffix(FROM_STDIN)?.to_owned();
                let table = Table { schema: text(entry.schema)?, name: text(entry.tag)?, copy };
                self.tables.insert(entry.id, table);
                Some(())
            }),
            _ => None,
        };
        self.is_more |= known.is_none();
    }

    fn begin(&mut self, id: i64) {
        match self.tables.get(&id) {
            Some(table) => self.steps.push_back(Step::Begin(table.clone())),
            None => self.is_more = true,
        }
    }

    fn body(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            match self.steps.back_mut() {
                Some(Step::Rows(rows)) if rows.room() > 0 => rows.fill(&mut bytes),
                _ => self.steps.push_back(Step::Rows(ROWS.buffer())),
            }
        }
    }

    fn end(&mut self) -> Result<(), CustomError> {
        self.steps.push_back(Step::End);
        Ok(())
    }
}

/// Why rows were not loaded.
pub(super) enum LoadError {
    /// It is no whole archive.
    Archive(CustomError),
    /// The database refused.
    Database(PgError),
}

impl From<CustomError> for LoadError {
    fn from(error: CustomError) -> Self {
        Self::Archive(error)
    }
}

impl From<PgError> for LoadError {
    fn from(error: PgError) -> Self {
        Self::Database(error)
    }
}

/// An archive that is being loaded: its table of contents has passed.
pub(super) struct Loading {
    pub(super) reader: Reader<Steps>,
    pub(super) plain: Receiver<Bytes>,
}

impl Loading {
    /// Loads it, through sessions that `open` gives: they have [`SETTINGS`].
    pub(super) async fn load(
        mut self,
        help: &Help,
        open: impl AsyncFn() -> Result<PgConnection, PgError>,
    ) -> Result<Vec<Loaded>, LoadError> {
        let (mut loaded, mut sessions) = (Vec::new(), vec![open().await?]);
        while let Some(step) = self.next().await? {
            let Step::Begin(table) = step else { continue };
            let large = !self.reader.watcher.steps.iter().any(|it| matches!(it, Step::End));
            let mut so_far = Loaded { schema: table.schema.clone(), name: table.name.clone(), rows: 0, bytes: 0 };
            if large {
                help.begins((table.schema.clone(), table.name.clone()));
            }
            let mut rest = match large && sessions.len() > 1 {
                true => Some(Bytes::new()),
                false => self.alone(&mut sessions[0], &table, large.then_some(help), &mut so_far).await?,
            };
            while let Some(some) = rest {
                for _ in 0..help.take() {
                    sessions.push(open().await?);
                }
                rest = self.shared(&mut sessions, &table, some, help, &mut so_far).await?;
            }
            loaded.push(so_far);
        }
        self.reader.ended()?;
        for sequence in std::mem::take(&mut self.reader.watcher.sequences) {
            run(&mut sessions[0], sequence, "setting a sequence").await?;
        }
        Ok(loaded)
    }

    async fn next(&mut self) -> Result<Option<Step>, CustomError> {
        loop {
            if let Some(step) = self.reader.watcher.steps.pop_front() {
                return Ok(Some(step));
            }
            let Some(chunk) = self.plain.recv().await else { return Ok(None) };
            self.reader.push(&chunk)?;
        }
    }

    /// More rows of the table at hand; none, if that was all.
    async fn rows(&mut self) -> Result<Option<Bytes>, CustomError> {
        match self.next().await? {
            Some(Step::Rows(some)) => Ok(Some(some.into())),
            Some(_) => Ok(None),
            None => Err(CustomError::Broken("it ends in the middle")),
        }
    }

    /// One table through one session. `large` has the help for one that is: a commit that drops the file of before waits for the
    /// disk, which is not worth it for a table that has come whole already. Where help is offered, gives the rows at hand, which
    /// are not loaded, and leaves the rest to several.
    async fn alone(
        &mut self,
        session: &mut PgConnection,
        table: &Table,
        large: Option<&Help>,
        so_far: &mut Loaded,
    ) -> Result<Option<Bytes>, LoadError> {
        let frozen = large.is_some() && emptied(session, &table.schema, &table.name).await?;
        let copy = format!("{} FROM stdin{}", table.copy, if frozen { " WITH (FREEZE)" } else { "" });
        let what = table.what();
        let (mut over, mut rest, mut helped) = (false, Bytes::new(), false);
        while !(over || helped) {
            crash::point("rows before", &copy);
            let mut into = session.copy_in_raw(&copy).await.map_err(query_error(&what))?;
            let (mut sent, mut full) = (0, false);
            while !(full || over) {
                let mut some = match rest.is_empty() {
                    false => std::mem::take(&mut rest),
                    true => match self.rows().await? {
                        Some(some) => some,
                        None => {
                            over = true;
                            continue;
                        }
                    },
                };
                let offered = sent > 0 && large.is_some_and(Help::is_offered);
                if (offered || sent >= ONE_COPY)
                    && let Some(end) = between_rows(&some)
                {
                    (rest, full, helped) = (some.split_off(end), true, offered);
                }
                sent += some.len();
                so_far.bytes += some.len() as u64;
                large.inspect(|it| it.passed(some.len() as u64));
                into.send(some).await.map_err(query_error(&what))?;
            }
            let finished = into.finish().await;
            crash::point("rows after", &copy);
            so_far.rows += finished.map_err(query_error(&what))?;
        }
        if large.is_some() {
            run(session, "COMMIT".into(), ENDING).await?;
        }
        Ok(helped.then_some(rest))
    }
}

/// Rows on their way to one of several sessions.
enum Piece {
    Rows(Bytes),
    /// A row has ended, and others go to another session first.
    Turn,
}

impl Loading {
    /// One table, or what `rest` begins of it, through several sessions, until more come: then the rows at hand are given back.
    async fn shared(
        &mut self,
        sessions: &mut [PgConnection],
        table: &Table,
        rest: Bytes,
        help: &Help,
        so_far: &mut Loaded,
    ) -> Result<Option<Bytes>, LoadError> {
        let (copy, what) = (format!("{} FROM stdin", table.copy), table.what());
        let (to, from): (Vec<_>, Vec<_>) = sessions.iter().map(|_| channel(PIECES_WAITING)).unzip();
        let taking = sessions.iter_mut().zip(from).map(|(session, pieces)| take(session, pieces, &copy, &what));
        let taking = async { try_join_all(taking).await.map_err(LoadError::Database) };
        let ((bytes, rest), rows) = try_join(self.give(rest, help, to), taking).await?;
        so_far.bytes += bytes;
        so_far.rows += rows.into_iter().sum::<u64>();
        Ok(rest)
    }

    /// Hands the rows of a table on, always to the session that has the least to do, and gives how many bytes they were, and what it
    /// did not hand on since more sessions come.
    async fn give(
        &mut self,
        rest: Bytes,
        help: &Help,
        to: Vec<Sender<Piece>>,
    ) -> Result<(u64, Option<Bytes>), LoadError> {
        let (mut at, mut sent, mut bytes, mut rest) = (0, 0, 0, Some(rest).filter(|it| !it.is_empty()));
        while let Some(mut some) = match rest.take() {
            Some(rest) => Some(rest),
            None => self.rows().await?,
        } {
            if sent >= ONE_TURN
                && let Some(end) = between_rows(&some)
            {
                rest = Some(some.split_off(end));
            }
            sent += some.len();
            bytes += some.len() as u64;
            help.passed(some.len() as u64);
            // Whoever takes no more says why.
            if to[at].send(Piece::Rows(some)).await.is_err() {
                break;
            }
            if rest.is_some() {
                if help.is_offered() {
                    break;
                }
                let _ = to[at].send(Piece::Turn).await;
                at = (0..to.len()).max_by_key(|it| to[*it].capacity()).unwrap_or(at);
                sent = 0;
            }
        }
        Ok((bytes, rest))
    }
}

/// Loads what comes, and gives how many rows the server counted. All of it in one transaction: a worker of autovacuum, which
/// would read the table beside its sessions, hears of rows that are committed.
async fn take(session: &mut PgConnection, mut pieces: Receiver<Piece>, copy: &str, what: &str) -> Result<u64, PgError> {
    let mut rows = 0;
    run(session, "BEGIN".into(), BEGINNING).await?;
    while let Some(first) = pieces.recv().await {
        crash::point("rows before", copy);
        let mut into = session.copy_in_raw(copy).await.map_err(query_error(what))?;
        let (mut sent, mut next) = (0, Some(first));
        while let Some(piece) = next {
            match piece {
                Piece::Rows(some) => {
                    sent += some.len();
                    into.send(some).await.map_err(query_error(what))?;
                }
                Piece::Turn if sent >= ONE_COPY => break,
                Piece::Turn => {}
            }
            next = pieces.recv().await;
        }
        let finished = into.finish().await;
        crash::point("rows after", copy);
        rows += finished.map_err(query_error(what))?;
    }
    run(session, "COMMIT".into(), ENDING).await?;
    Ok(rows)
}

/// A place between two rows. What follows the last row is empty lines, which would be rows to a COPY that begins with them.
fn between_rows(text: &[u8]) -> Option<usize> {
    let is_row = |at: &usize| text.get(*at).is_some_and(|next| *next != b'\n');
    memchr::memrchr_iter(b'\n', text).map(|end| end + 1).find(is_row)
}

/// Begins the transaction of a table. Whether it was emptied in it: a role that may add rows may be one that may not.
async fn emptied(session: &mut PgConnection, schema: &str, name: &str) -> Result<bool, PgError> {
    let table = format!("{}.{}", identifier(schema), identifier(name));
    if change(session, format!("BEGIN; TRUNCATE TABLE ONLY {table}")).await.is_ok() {
        return Ok(true);
    }
    run(session, "ROLLBACK".into(), BEGINNING).await?;
    run(session, "BEGIN".into(), BEGINNING).await?;
    Ok(false)
}

async fn run(session: &mut PgConnection, sql: String, what: &str) -> Result<(), PgError> {
    change(session, sql).await.map_err(query_error(what))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_ends_between_two_rows() {
        let cut = |text: &str| between_rows(text.as_bytes());
        assert_eq!(cut("1\ta\n2\tb\n3"), Some(8));
        assert_eq!(cut("1\ta\n2\tb\n"), Some(4));
        assert_eq!(cut("no end"), None);
        // Never within the end of the rows, nor after it.
        assert_eq!(cut("9\tz\n\\.\n\n\n"), Some(4));
        assert_eq!(cut("\\.\n\n\n"), None);
        assert_eq!(cut(".\n\n"), None);
        assert_eq!(cut("\n\n"), None);
    }
}
