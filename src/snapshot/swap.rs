//! The exchange: side databases take the places of the live ones of one server, in one transaction, and what belongs to a
//! database itself comes along.
//!
//! `ALTER DATABASE … RENAME` takes an exclusive lock on the database and then waits up to five seconds for its sessions to
//! leave. New sessions wait for that lock; one that waited is told that its database was renamed, and finds the other one
//! under the name when it comes back. So the database is never marked as closed, and there is nothing to open again:
//! whatever happens to us, the lock ends with the transaction.

use std::cell::Cell;
use std::time::Instant;

use sqlx::PgConnection;

use crate::journal::entry::Swap;
use crate::names::RunId;
use crate::outside::postgres::{MAINTENANCE, PgError, Said, change, connect, database_error, database_oid};
use crate::outside::url::DatabaseUrl;
use crate::sql::quote::{identifier, literal};

use super::manifest::{Properties, Setting};
use super::obstacles::{IN_USE, end_sessions, who_stays};

/// The server waits five seconds for sessions to leave; this often it is asked to.
const ATTEMPTS: u32 = 4;

/// Why databases were not exchanged. None of them was.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum SwapError {
    /// Somebody stays.
    #[error("sessions stay on {databases}: {sessions}")]
    #[diagnostic(
        code("swap.in_use"),
        help(
            "End them as a superuser with `select pg_terminate_backend(PID)`, or stop the program, then run `migrate rollback {run}` again."
        )
    )]
    InUse {
        /// The databases.
        databases: String,
        /// Who.
        sessions: String,
        /// The run.
        run: RunId,
    },
    /// The server refused.
    #[error("the databases could not be exchanged")]
    #[diagnostic(code("swap.refused"))]
    Refused(#[source] Said),
    /// A query of ours failed.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Postgres(#[from] PgError),
}

/// What an exchange did.
#[derive(Debug, Clone, PartialEq)]
pub struct Swapped {
    /// How long the databases were unreachable.
    pub seconds: f64,
    /// What did not come along, and why.
    pub notes: Vec<String>,
}

/// Exchanges the databases of one server. `properties` are what each side database has yet to be given, in the order of `swaps`;
/// a warm copy has it already.
///
/// # Errors
/// [`SwapError`]; every database is then where it was.
pub async fn swap(
    url: &DatabaseUrl,
    run: &RunId,
    swaps: &[Swap],
    properties: &[Option<&Properties>],
) -> Result<Swapped, SwapError> {
    let maintenance = url.with_dbname(MAINTENANCE);
    let mut session = connect(&maintenance, &format!("migrate {run}")).await?;
    let mut usher = connect(&maintenance, &format!("migrate {run} ending sessions")).await?;
    for attempt in 1.. {
        match exchange(&mut session, &mut usher, swaps, properties).await {
            Ok(swapped) => return Ok(swapped),
            Err(error) => {
                // A lost session may have committed: the oids tell.
                if database_error(&error).is_none() && took_place(&mut usher, swaps).await? {
                    return Ok(Swapped { seconds: 0.0, notes: Vec::new() });
                }
                let _ = change(&mut session, "ROLLBACK").await;
                let in_use = database_error(&error).is_some_and(|said| said.code() == IN_USE);
                if !in_use {
                    return Err(SwapError::Refused(Said::from(&error)));
                }
                if attempt == ATTEMPTS {
                    return Err(still_there(&mut usher, run, swaps).await?);
                }
            }
        }
    }
    unreachable!("the loop ends at the last attempt")
}

/// Whether every one of `swaps` is committed, by the oid that its name has now.
///
/// # Errors
/// A query failed.
pub async fn took_place(session: &mut PgConnection, swaps: &[Swap]) -> Result<bool, PgError> {
    for swap in swaps {
        if database_oid(session, &swap.dbname).await? != Some(swap.side_oid) {
            return Ok(false);
        }
    }
    Ok(!swaps.is_empty())
}

async fn exchange(
    session: &mut PgConnection,
    usher: &mut PgConnection,
    swaps: &[Swap],
    properties: &[Option<&Properties>],
) -> Result<Swapped, sqlx::Error> {
    change(session, "BEGIN; SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = '30s'").await?;
    let mut notes = Vec::new();
    for (swap, properties) in swaps.iter().zip(properties).filter_map(|(swap, it)| Some((swap, (*it)?))) {
        carry_over(session, &swap.side, properties, &mut notes).await?;
    }
    let oids: Vec<i64> = swaps.iter().flat_map(|swap| [i64::from(swap.oid), i64::from(swap.side_oid)]).collect();
    let begun = Instant::now();
    let renaming = async {
        for swap in swaps {
            let rename =
                |from: &str, to: &str| format!("ALTER DATABASE {} RENAME TO {}", identifier(from), identifier(to));
            if swap.replaces() {
                change(session, rename(&swap.dbname, &swap.kept_as)).await?;
            }
            change(session, rename(&swap.side, &swap.dbname)).await?;
        }
        Ok(())
    };
    // Sessions are ended for as long as the renames wait for them to leave, and not a moment longer: the first ones after the
    // commit are those of clients that came back.
    let over = Cell::new(false);
    let renaming = async {
        let renamed: Result<(), sqlx::Error> = renaming.await;
        over.set(true);
        renamed
    };
    let (renamed, ended) = tokio::join!(renaming, end_sessions(usher, &oids, &over, None));
    renamed.and(ended)?;
    change(session, "COMMIT").await?;
    Ok(Swapped { seconds: begun.elapsed().as_secs_f64(), notes })
}

async fn still_there(usher: &mut PgConnection, run: &RunId, swaps: &[Swap]) -> Result<SwapError, PgError> {
    let oids: Vec<i64> = swaps.iter().flat_map(|swap| [i64::from(swap.oid), i64::from(swap.side_oid)]).collect();
    let sessions = who_stays(usher, &oids).await?;
    let databases: Vec<&str> = swaps.iter().map(|swap| swap.dbname.as_str()).collect();
    Ok(SwapError::InUse { databases: databases.join(", "), sessions: sessions.join(", "), run: run.clone() })
}

/// Gives `side`, which nobody else knows of, what belongs to a database itself, and the name `dbname`. Gives what did not come along.
pub(super) async fn finish(
    session: &mut PgConnection,
    side: &str,
    dbname: &str,
    like: &Properties,
) -> Result<Vec<String>, sqlx::Error> {
    let rename = format!("ALTER DATABASE {} RENAME TO {}; COMMIT", identifier(side), identifier(dbname));
    for attempt in 1.. {
        let mut notes = Vec::new();
        change(session, "BEGIN").await?;
        carry_over(session, side, like, &mut notes).await?;
        let Err(error) = change(session, rename.clone()).await else { return Ok(notes) };
        // Sessions of our own end a moment after they were closed.
        let in_use = database_error(&error).is_some_and(|said| said.code() == IN_USE);
        change(session, "ROLLBACK").await?;
        if !in_use || attempt == ATTEMPTS {
            return Err(error);
        }
    }
    unreachable!("the loop ends at the last attempt")
}

/// Gives `side` what belongs to a database itself. The owner it has from its making. What the role may not set is noted.
pub(super) async fn carry_over(
    session: &mut PgConnection,
    side: &str,
    like: &Properties,
    notes: &mut Vec<String>,
) -> Result<(), sqlx::Error> {
    for statement in statements(side, like) {
        let guarded = format!("SAVEPOINT carry; {statement}; RELEASE SAVEPOINT carry");
        if let Err(error) = change(session, guarded).await {
            let Some(said) = database_error(&error) else { return Err(error) };
            notes.push(format!(
                "{}: not carried over, {} (SQLSTATE {}): {statement}",
                like.dbname,
                said.message(),
                said.code()
            ));
            change(session, "ROLLBACK TO SAVEPOINT carry").await?;
        }
    }
    Ok(())
}

fn statements(side: &str, like: &Properties) -> Vec<String> {
    let it = identifier(side);
    let mut all = Vec::new();
    if like.connection_limit != -1 {
        all.push(format!("ALTER DATABASE {it} CONNECTION LIMIT {}", like.connection_limit));
    }
    if like.is_template {
        all.push(format!("ALTER DATABASE {it} IS_TEMPLATE true"));
    }
    if let Some(comment) = &like.comment {
        all.push(format!("COMMENT ON DATABASE {it} IS {}", literal(comment)));
    }
    all.extend(like.settings.iter().map(|setting| set(&it, setting)));
    all.extend(privileges(side, like));
    all
}

/// Gives `side` the privileges of a database itself.
pub(super) fn privileges(side: &str, like: &Properties) -> Vec<String> {
    let Some(grants) = &like.acl else { return Vec::new() };
    let it = identifier(side);
    let revoke = format!("REVOKE ALL ON DATABASE {it} FROM PUBLIC, {}", identifier(&like.owner));
    let grants = grants.iter().map(|grant| {
        let to = grant.grantee.as_deref().map_or_else(|| "PUBLIC".into(), identifier);
        let option = if grant.grantable { " WITH GRANT OPTION" } else { "" };
        format!("GRANT {} ON DATABASE {it} TO {to}{option}", grant.privilege)
    });
    std::iter::once(revoke).chain(grants).collect()
}

fn set(database: &str, setting: &Setting) -> String {
    /// Settings whose value is a list of names, each quoted on its own, as in PostgreSQL's `variable_is_guc_list_quote`.
    const LISTS: [&str; 6] = [
        "local_preload_libraries",
        "search_path",
        "session_preload_libraries",
        "shared_preload_libraries",
        "temp_tablespaces",
        "unix_socket_directories",
    ];
    let value = if LISTS.contains(&setting.name.as_str()) {
        list_elements(&setting.value).iter().map(|element| literal(element)).collect::<Vec<_>>().join(", ")
    } else {
        literal(&setting.value)
    };
    let name: Vec<String> = setting.name.split('.').map(identifier).collect();
    let whose = match &setting.role {
        Some(role) => format!("ALTER ROLE {} IN DATABASE {database}", identifier(role)),
        None => format!("ALTER DATABASE {database}"),
    };
    format!("{whose} SET {} TO {value}", name.join("."))
}

/// The elements of a list as PostgreSQL keeps it: `"$user", public`.
fn list_elements(list: &str) -> Vec<String> {
    let (mut elements, mut element, mut quoted) = (Vec::new(), String::new(), false);
    let mut letters = list.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '"' if quoted && letters.peek() == Some(&'"') => element.extend(letters.next()),
            '"' => quoted = !quoted,
            ',' if !quoted => elements.push(std::mem::take(&mut element)),
            c if c.is_whitespace() && !quoted => {}
            c => element.push(c),
        }
    }
    elements.push(element);
    elements
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_taken_apart_as_postgresql_keeps_them() {
        assert_eq!(list_elements("\"$user\", public"), ["$user", "public"]);
        assert_eq!(list_elements("\"a,b\", \"c\"\"d\", e"), ["a,b", "c\"d", "e"]);
        assert_eq!(list_elements("\"\""), [""]);
    }

    #[test]
    fn settings_are_quoted() {
        let setting = |role: Option<&str>, name: &str, value: &str| Setting {
            role: role.map(str::to_owned),
            name: name.into(),
            value: value.into(),
        };
        assert_eq!(
            set("\"d\"", &setting(None, "search_path", "\"$user\", app")),
            "ALTER DATABASE \"d\" SET \"search_path\" TO '$user', 'app'"
        );
        assert_eq!(
            set("\"d\"", &setting(Some("r"), "my.own", "it's")),
            "ALTER ROLE \"r\" IN DATABASE \"d\" SET \"my\".\"own\" TO 'it''s'"
        );
    }
}
