//! Roles of a snapshot that are others where it is restored: in its manifest, and in its archives as they pass, in everything that
//! names a role. Nothing of it is on the server: no role is made for it, and nothing is left behind if it is cut off.

mod statements;

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;
use std::sync::Arc;

use bytes::Bytes;
use sqlx::PgConnection;
use tokio::sync::mpsc::{self, Receiver};
use tokio::task::JoinHandle;

use crate::names::DatabaseName;
use crate::outside::postgres::{PgError, query_error};

use super::SnapshotError;
use super::custom::{Entry, Rewriting, Rewritten};
use super::manifest::{Grant, Manifest, Setting};

/// Pieces of an archive on their way from one stage to the next.
const PIECES_WAITING: usize = 4;

/// `OLD=NEW`, as typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping {
    /// A role of the snapshot.
    pub old: String,
    /// A role of the server.
    pub new: String,
}

impl FromStr for Mapping {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('=') {
            Some((_, new)) if new.contains('=') => Err("it has more than one `=`"),
            Some((old, new)) if old == new => Err("both are the same role"),
            Some((old, new)) if !old.is_empty() && !new.is_empty() => Ok(Self { old: old.into(), new: new.into() }),
            _ => Err("it is OLD=NEW: a role of the snapshot, and the role of the server that takes its place"),
        }
    }
}

/// Why roles cannot be mapped so.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum RoleMapError {
    /// It could be either.
    #[error("the role {old} is mapped to {first} and to {second}")]
    #[diagnostic(
        code("snapshot.role_map.twice"),
        help("Give `--map-role {old}=…` once. Several roles may become one.")
    )]
    Twice {
        /// The role of the snapshot.
        old: String,
        /// To what.
        first: String,
        /// To what else.
        second: String,
    },
    /// The snapshot has nothing of that role.
    #[error("the snapshot refers to no role {old}")]
    #[diagnostic(
        code("snapshot.role_map.unknown"),
        help(
            "It is `--map-role OLD=NEW`, with the names as the server has them, unquoted. The snapshot refers to: {known}."
        )
    )]
    Unknown {
        /// The role that was to be mapped.
        old: String,
        /// The snapshot's roles.
        known: String,
    },
    /// There is nobody to take its place.
    #[error("{database}: the server has no role {new}, which is to take the place of {old}")]
    #[diagnostic(
        code("snapshot.role_map.missing"),
        help(
            "Make it (`CREATE ROLE … NOLOGIN`), or map {old} to another. Whoever restores has to be a member of a role that things are \
             to belong to (`GRANT … TO …`)."
        )
    )]
    Missing {
        /// The database.
        database: DatabaseName,
        /// The role of the snapshot.
        old: String,
        /// The role that the server lacks.
        new: String,
    },
}

/// Which roles of a snapshot are others where it is restored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RoleMap(BTreeMap<String, String>);

impl RoleMap {
    /// Puts together what was typed.
    ///
    /// # Errors
    /// [`RoleMapError::Twice`].
    pub fn new(typed: Vec<Mapping>) -> Result<Self, RoleMapError> {
        let mut all: BTreeMap<String, String> = BTreeMap::new();
        for Mapping { old, new } in typed {
            match all.get(&old) {
                Some(first) if *first != new => {
                    return Err(RoleMapError::Twice { first: first.clone(), old, second: new });
                }
                _ => drop(all.insert(old, new)),
            }
        }
        Ok(Self(all))
    }

    /// Whether every role stays who it is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Each role that is another, with who that is.
    #[must_use]
    pub fn all(&self) -> &BTreeMap<String, String> {
        &self.0
    }

    /// Who takes the place of a role.
    #[must_use]
    pub fn of<'a>(&'a self, role: &'a str) -> &'a str {
        self.0.get(role).map_or(role, String::as_str)
    }

    fn take_place(&self, role: &mut String) {
        if let Some(new) = self.0.get(role) {
            role.clone_from(new);
        }
    }

    /// Refuses a role that none of the snapshots refers to: a name that was mistyped would else be left as it is without a word.
    ///
    /// # Errors
    /// [`RoleMapError::Unknown`].
    pub fn known_to(&self, manifests: &[Manifest]) -> Result<(), RoleMapError> {
        let known: BTreeSet<&str> = manifests.iter().flat_map(referred_to).collect();
        match self.0.keys().find(|it| !known.contains(it.as_str())) {
            Some(old) => {
                let known = known.into_iter().collect::<Vec<_>>().join(", ");
                Err(RoleMapError::Unknown { old: old.clone(), known })
            }
            None => Ok(()),
        }
    }

    /// Refuses to map to a role that the server of `session` lacks. Gives what should be known.
    pub(super) async fn look(
        &self,
        session: &mut PgConnection,
        database: &DatabaseName,
    ) -> Result<Vec<String>, SnapshotError> {
        let there = roles_among(session, self.0.iter().flat_map(|(old, new)| [old, new]).cloned().collect()).await;
        let there = there.map_err(SnapshotError::database(database))?;
        let mut notes = Vec::new();
        for (old, new) in &self.0 {
            if !there.contains(new) {
                let (database, old, new) = (database.clone(), old.clone(), new.clone());
                return Err(RoleMapError::Missing { database, old, new }.into());
            }
            if there.contains(old) {
                notes.push(format!("the server has a role {old} of its own: what was {old}'s is {new}'s all the same"));
            }
        }
        Ok(notes)
    }

    /// The manifest as one of a snapshot whose roles had been the others all along. The digests in it stay.
    #[must_use]
    pub fn applied(&self, manifest: &Manifest) -> Manifest {
        let mut manifest = manifest.clone();
        manifest.roles.iter_mut().for_each(|it| self.take_place(it));
        manifest.roles.sort();
        manifest.roles.dedup();
        let properties = &mut manifest.properties;
        self.take_place(&mut properties.owner);
        let grantees = properties.acl.iter_mut().flatten().filter_map(|it: &mut Grant| it.grantee.as_mut());
        grantees.for_each(|it| self.take_place(it));
        properties
            .settings
            .iter_mut()
            .filter_map(|it: &mut Setting| it.role.as_mut())
            .for_each(|it| self.take_place(it));
        manifest
    }

    /// What cannot hold for a role that takes the place of several.
    pub(super) fn conflicts(&self, manifest: &Manifest) -> Vec<String> {
        let settings = &manifest.properties.settings;
        let role = |it: &Setting| it.role.as_deref().map(|role| self.of(role).to_owned());
        let later = |at: usize, it: &&Setting| {
            settings[at + 1..].iter().any(|other| {
                role(other).is_some() && role(other) == role(it) && other.name == it.name && other.value != it.value
            })
        };
        let lost = settings.iter().enumerate().filter(|(at, it)| later(*at, it));
        let says = |it: &Setting| {
            let whose = it.role.clone().unwrap_or_default();
            format!("{} was {} for {whose}, and is something else for {}", it.name, it.value, self.of(&whose))
        };
        lost.map(|(_, it)| says(it)).collect()
    }

    /// What is to be another in an entry of an archive.
    fn rewrite(&self, entry: &Entry<'_>) -> Rewritten {
        let owner = std::str::from_utf8(entry.owner).ok().and_then(|it| self.0.get(it));
        let definition = statements::renamed(entry.kind, entry.definition, self);
        Rewritten { definition, owner: owner.map(|it| it.clone().into_bytes()) }
    }
}

/// The roles that a snapshot refers to.
fn referred_to(manifest: &Manifest) -> impl Iterator<Item = &str> {
    let properties = &manifest.properties;
    let grantees = properties.acl.iter().flatten().filter_map(|it| it.grantee.as_deref());
    let settings = properties.settings.iter().filter_map(|it| it.role.as_deref());
    let roles = manifest.roles.iter().map(String::as_str);
    roles.chain([properties.owner.as_str()]).chain(grantees).chain(settings)
}

async fn roles_among(session: &mut PgConnection, names: Vec<String>) -> Result<BTreeSet<String>, PgError> {
    let found: Vec<String> = sqlx::query_scalar("select rolname::text from pg_roles where rolname = any($1)")
        .bind(names)
        .fetch_all(session)
        .await
        .map_err(query_error("looking for the roles that take the places of others"))?;
    Ok(found.into_iter().collect())
}

/// Passes an archive on with the roles that it has from now on. It ends when nobody takes it any more.
pub(super) fn passing(
    map: &Arc<RoleMap>,
    mut plain: Receiver<Bytes>,
) -> (Receiver<Bytes>, JoinHandle<std::io::Result<()>>) {
    if map.is_empty() {
        return (plain, tokio::spawn(async { Ok(()) }));
    }
    let (to, output) = mpsc::channel(PIECES_WAITING);
    let map = Arc::clone(map);
    let passing = tokio::spawn(async move {
        let mut rewriting = Rewriting::new(|entry: &Entry<'_>| map.rewrite(entry));
        while let Some(chunk) = plain.recv().await {
            let chunk = match rewriting.is_over() {
                true => chunk,
                false => rewriting.push(&chunk).map_err(std::io::Error::other)?.into(),
            };
            if !chunk.is_empty() && to.send(chunk).await.is_err() {
                break;
            }
        }
        Ok(())
    });
    (output, passing)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(typed: &[&str]) -> RoleMap {
        let typed = typed.iter().map(|it| it.parse().expect("OLD=NEW"));
        RoleMap::new(typed.collect()).expect("each role once")
    }

    #[test]
    fn what_is_typed_is_two_roles() {
        let read = |text: &str| text.parse::<Mapping>().map(|it| (it.old, it.new));
        assert_eq!(read("a=b"), Ok(("a".into(), "b".into())));
        assert_eq!(read("my role=Ünser"), Ok(("my role".into(), "Ünser".into())));
        for (text, why) in [("a", "OLD=NEW"), ("=b", "OLD=NEW"), ("a=", "OLD=NEW"), ("a=b=c", "more"), ("a=a", "same")]
        {
            assert!(read(text).is_err_and(|it| it.contains(why)), "{text}");
        }
    }

    #[test]
    fn several_may_become_one_and_none_becomes_two() {
        let map = map(&["a=x", "b=x", "a=x", "x=a"]);
        assert_eq!([map.of("a"), map.of("b"), map.of("x"), map.of("c")], ["x", "x", "a", "c"]);
        let twice = ["a=x", "a=y"].map(|it| it.parse().expect("OLD=NEW")).to_vec();
        assert_eq!(RoleMap::new(twice).expect_err("two").to_string(), "the role a is mapped to x and to y");
    }
}
