//! What one database says of itself: privileges, extensions, what holds it, how it stands.

use crate::failure::list;
use crate::outside::postgres::{MAINTENANCE, Server};
use crate::outside::url::SslMode;
use crate::plan::Database;
use crate::sql::quote::identifier;
use crate::world::World;

use super::super::needs::{Hold, Holds, Needs, Privileges, State};
use super::super::survey::Found;
use super::{Finding, finding, warned};

/// Whoever prepares transactions ends them within a moment; one that is older, in seconds, was left behind.
const LEFT_BEHIND: f64 = 5.0;
/// Log that is kept for a slot which nobody reads from, in bytes, from which on it is said to fill the disk.
const MUCH_LOG: f64 = 1_073_741_824.0;
/// Transactions after which the server gives no further numbers.
const NUMBERS: i64 = 1 << 31;
/// So many are left when it is too late to begin; the server itself stops at three millions.
const TOO_FEW: i64 = 10_000_000;
/// Age from which on the server vacuums as if nothing else mattered (`vacuum_failsafe_age`).
const OLD: i64 = 1_600_000_000;
/// Seconds by which clocks may differ.
const SKEW: f64 = 30.0;

pub(super) fn findings(database: &Database, found: Option<&Found>, needs: &Needs) -> Vec<Finding> {
    let mut all = vec![not_maintenance(database), protection(needs, database), writable(database, &needs.state)];
    all.extend(privileges(&needs.may, database));
    all.extend(extensions(needs, database));
    all.push(numbers(database, &needs.state));
    all.push(prepared(database, found, &needs.state));
    all.extend(needs.holds.iter().map(|it| hold(database, it)));
    all.extend(remarks(database, &needs.state));
    all.extend(limit(database, needs));
    all
}

/// Locks are held in the maintenance database, and databases are renamed from it: it cannot be swapped itself.
fn not_maintenance(database: &Database) -> Finding {
    let fault = (database.url.dbname() == MAINTENANCE).then(|| {
        let help = "Keep the tables in a database of their own.";
        (format!("the database `{MAINTENANCE}` cannot be carried back: locks are held in it"), help.to_owned())
    });
    finding("not the maintenance database", Some(database), fault, format!("it is not `{MAINTENANCE}`"))
}

/// How the session is protected, which nobody should have to guess.
fn protection(needs: &Needs, database: &Database) -> Finding {
    let (url, ssl) = (&database.url, database.url.ssl());
    let mode = ssl.mode.as_str();
    let verified = match ssl.mode {
        _ if ssl.trusted_file().is_none() => "it is not verified who the server is".to_owned(),
        SslMode::VerifyFull => format!("the server's certificate is verified, and is for {}", url.host()),
        _ => "the server's certificate is verified".to_owned(),
    };
    let fine = match &needs.tls {
        Some(version) => format!("sessions are encrypted with {version}; {verified} (sslmode={mode})"),
        None if url.is_socket() => "sessions go through a socket of this machine".to_owned(),
        None => format!("sessions are not encrypted (sslmode={mode})"),
    };
    finding("session", Some(database), None, fine)
}

fn writable(database: &Database, state: &State) -> Finding {
    let fault = state.read_only.then(|| {
        let help =
            "Give the URL of the primary server; or, if it is the primary, take `default_transaction_read_only` off.";
        (
            "it takes no changes: the server is a standby server, or the role's sessions are read only".to_owned(),
            help.into(),
        )
    });
    finding("takes changes", Some(database), fault, "its sessions may write")
}

pub(super) async fn tools(world: &World, database: &Database, server: &Server) -> Finding {
    let found = world.tools.for_server(server.major()).await;
    let fine = found.as_ref().map(|it| format!("server {}, pg_dump and pg_restore {}", server.version, it.major));
    let fault = found.as_ref().err().map(|error| {
        let help = miette::Diagnostic::help(error).map(|help| help.to_string()).unwrap_or_default();
        (error.to_string(), help)
    });
    finding("client programs", Some(database), fault, fine.unwrap_or_default())
}

/// What a restore into a side database and a swap need. Without them there is no way back, and so no way forward.
fn privileges(may: &Privileges, database: &Database) -> Vec<Finding> {
    let Privileges { role, owner, strangers, .. } = may;
    let may_create = (!may.creates).then(|| {
        let help = format!("As an administrator: `ALTER ROLE \"{role}\" CREATEDB`.");
        (format!("the role {role} may not create databases, which a rollback needs"), help)
    });
    let may_rename = (!may.owns).then(|| {
        let help = format!("As an administrator: `GRANT \"{owner}\" TO \"{role}\"`.");
        (format!("the role {role} is not a member of {owner}, which owns the database: it could not rename it"), help)
    });
    let may_own = (!strangers.is_empty()).then(|| {
        let grants: Vec<String> = strangers.iter().map(|it| format!("GRANT \"{it}\" TO \"{role}\"")).collect();
        let what = format!(
            "the role {role} is not a member of {}, which own objects: it could not restore them",
            list(strangers)
        );
        (what, format!("As an administrator: `{}`.", grants.join("; ")))
    });
    let it = Some(database);
    vec![
        finding("creates databases", it, may_create, format!("the role {role} may create databases")),
        finding("owns the database", it, may_rename, format!("the role {role} is {owner}, or a member of it")),
        finding("owns the objects", it, may_own, format!("the role {role} could own every object of a restore")),
    ]
}

/// Those that the plan names.
fn extensions(needs: &Needs, database: &Database) -> Vec<Finding> {
    let mut found = Vec::new();
    for name in &database.extensions {
        let there = needs.extensions.iter().find(|it| it.name == *name);
        let available = there.is_none().then(|| {
            let help = "Install its package on the server, or remove it from `extensions` in the plan.";
            (format!("the server has no extension {name}"), help.into())
        });
        found.push(finding("extension available", Some(database), available, format!("the server has {name}")));
        if let Some(it) = there {
            let fault = (!it.installed).then(|| {
                let help = format!("`CREATE EXTENSION \"{name}\"`, by hand or by a migration.");
                (format!("the extension {name} is not installed"), help)
            });
            found.push(finding("extension installed", Some(database), fault, format!("{name} is installed")));
        }
    }
    found
}

/// How far the server is from the transaction after which it gives no further numbers.
fn numbers(database: &Database, state: &State) -> Finding {
    let age = state.age.max(state.shared_age);
    let left = NUMBERS - age;
    let what = format!("the oldest transaction that is not frozen is {age} transactions old, and {left} are left");
    let help = "End what holds it (old and prepared transactions, replication slots), then as an administrator: `vacuumdb --all --freeze`.";
    match age {
        _ if left < TOO_FEW => finding("transaction numbers", Some(database), Some((what, help.into())), ""),
        _ if age > OLD => warned("transaction numbers", Some(database), what, help.into()),
        _ => finding("transaction numbers", Some(database), None, format!("{left} are left before a wraparound")),
    }
}

fn prepared(database: &Database, found: Option<&Found>, state: &State) -> Finding {
    let all = found.map(|it| it.prepared.as_slice()).unwrap_or_default();
    let left: Vec<_> = all.iter().filter(|it| it.seconds >= LEFT_BEHIND).collect();
    let fault = (!left.is_empty()).then(|| {
        let who: Vec<String> = left.iter().map(ToString::to_string).collect();
        let what = format!("{}: it keeps its locks, and the database from being exchanged or copied", who.join(", "));
        let help: Vec<String> = left.iter().map(|it| it.remedy()).collect();
        (what, format!("End it, {}.", help.join("; ")))
    });
    let fine = format!("none was left behind (max_prepared_transactions is {})", state.most_prepared);
    finding("prepared transactions", Some(database), fault, fine)
}

fn hold(database: &Database, it: &Hold) -> Finding {
    let Hold { name, of, amount, .. } = it;
    let at = Some(database);
    match it.what {
        Holds::Transaction => warned(
            "old transactions",
            at,
            format!("pid {name} ({of}) has been in a transaction for {amount:.0} s: migrations wait for what it holds"),
            format!("Wait for it, or end it: `select pg_terminate_backend({name})`."),
        ),
        Holds::Hidden => {
            let help = "`GRANT pg_read_all_stats` to the role shows them.";
            finding("old transactions", at, None, format!("{name} sessions of others cannot be looked at: {help}"))
        }
        Holds::ReadSlot => warned(
            "replication slots",
            at,
            format!("the {of} replication slot {name} is being read from: the database cannot be exchanged meanwhile"),
            "Have its reader stopped before a rollback that exchanges the database.".into(),
        ),
        Holds::Slot if *amount > MUCH_LOG => warned(
            "replication slots",
            at,
            format!(
                "nobody reads from the {of} replication slot {name}, and {:.0} MiB of log are kept for it",
                amount / 1_048_576.0
            ),
            format!("If nobody will: `select pg_drop_replication_slot({})`.", crate::sql::quote::literal(name)),
        ),
        Holds::Slot => {
            finding("replication slots", at, None, format!("nobody reads from {name}: it stays where it is"))
        }
        Holds::Subscription => warned(
            "subscriptions",
            at,
            format!("the subscription {name} is at work in it: the database cannot be exchanged meanwhile"),
            format!(
                "Before a rollback that exchanges the database: `ALTER SUBSCRIPTION {} DISABLE`.",
                identifier(name)
            ),
        ),
    }
}

/// What is worth a word only where it is not as usual.
fn remarks(database: &Database, state: &State) -> Vec<Finding> {
    let mut all = Vec::new();
    if state.replicas > 0 {
        let what = format!("{} servers or readers follow this server, and everything that a run does", state.replicas);
        all.push(finding("replication", Some(database), None, what));
    }
    if ["off", "local"].contains(&state.commits.as_str()) {
        let what = format!(
            "synchronous_commit is {}: sessions of migrate wait for the disk all the same, those of the steps' programs do not",
            state.commits
        );
        all.push(finding("commits", Some(database), None, what));
    }
    if state.ahead.abs() > SKEW {
        let (off, way) = (state.ahead.abs(), if state.ahead > 0.0 { "ahead of" } else { "behind" });
        let what = format!("the server's clock is {off:.0} s {way} this machine's");
        let help = "Let both follow one time server: runs are sorted by this machine's clock, and stores refuse a clock that is wrong.";
        all.push(warned("clock", Some(database), what, help.into()));
    }
    all
}

/// The database's own limit of connections, if it has one.
fn limit(database: &Database, needs: &Needs) -> Option<Finding> {
    let (left, why) = needs.connections.in_the_database()?;
    // One looks and then applies, and one watches it; a snapshot and its dump are as many.
    let fault = (left < 2).then(|| {
        let help = format!(
            "End sessions that idle, or as the owner: `ALTER DATABASE {} CONNECTION LIMIT …`.",
            identifier(database.url.dbname())
        );
        (format!("{left} connections are free in the database, and a run needs 2: {why}"), help)
    });
    Some(finding("connections", Some(database), fault, format!("{left} are free in the database")))
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    fn database() -> Database {
        let url = crate::outside::url::DatabaseUrl::parse("postgresql://u@h/d").expect("a URL");
        let name = crate::names::DatabaseName::new("a").expect("a name");
        Database { name, url, owner: None, extensions: Vec::new(), standby: false }
    }

    #[test]
    fn numbers_run_out() {
        let verdict = |age, shared_age| {
            let state = State {
                read_only: false,
                age,
                shared_age,
                commits: "on".into(),
                most_prepared: 0,
                replicas: 0,
                bytes: 0,
                tablespace: "pg_default".into(),
                tablespace_folder: None,
                data_directory: None,
                ahead: 0.0,
            };
            numbers(&database(), &state).outcome
        };
        assert_eq!(verdict(200_000_000, 5), Verdict::Passed);
        assert_eq!(verdict(5, 1_700_000_000), Verdict::Warned);
        assert_eq!(verdict(2_140_000_000, 5), Verdict::Failed);
    }
}
