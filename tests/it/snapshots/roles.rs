//! Snapshots whose roles another server does not have: others take their places, in everything that names a role.

use std::fs;

use migrate::outside::cluster::{Cluster, ClusterOptions};
use serde_json::{Map, Value, json};
use sqlx::PgConnection;

use super::faults::{but_for, in_place_of};
use super::{divided, falsify};
use crate::fingerprint::{Fingerprint, fingerprint};
use crate::fingerprint_proof::{SUPERUSER_ZOO, ZOO, make_roles};
use crate::harness;
use crate::world::{TestWorld, until};

/// A server of its own, with a role without superuser, which may give things to `keeper`.
async fn another() -> (Cluster, PgConnection) {
    let other = Cluster::start(ClusterOptions::default()).unwrap_or_else(|error| panic!("{error}"));
    let mut session = harness::connect(&other.url("postgres", "postgres")).await;
    let roles = "create role mover login createdb createrole; create role keeper; create role app_reader; grant keeper to mover";
    harness::execute(&mut session, roles).await;
    (other, session)
}

/// A text with other names in it.
fn renamed(text: &str, names: &[(&str, &str)]) -> String {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    let words = text.split_inclusive(|c| !is_name(c)).map(|it| {
        let word = it.trim_end_matches(|c| !is_name(c));
        let new = names.iter().find(|(old, _)| *old == word).map_or(word, |(_, new)| *new);
        format!("{new}{}", &it[word.len()..])
    });
    words.collect()
}

/// A fingerprint as it would be if the roles had been called so all along.
fn under(fingerprint: &Fingerprint, names: &[(&str, &str)]) -> Fingerprint {
    fingerprint.map(|key, properties: &mut Map<String, Value>| {
        for (name, value) in properties.iter_mut() {
            let Value::String(text) = value else { continue };
            *text = renamed(text, names);
            let separator = match name.as_str() {
                "acl" => " ",
                "value" if key == "database acl" => " ",
                "roles" => ", ",
                _ => continue,
            };
            let mut parts: Vec<&str> = text.split(separator).collect();
            parts.sort_unstable();
            *text = parts.join(separator);
        }
        renamed(key, names)
    })
}

#[track_caller]
fn assert_same_under(before: &Fingerprint, after: &Fingerprint, names: &[(&str, &str)]) {
    // Both, so that what is sorted is sorted alike.
    let diff = under(before, names).diff(&under(after, &[]));
    assert!(diff.is_empty(), "{} differences:\n{}", diff.len(), diff.join("\n"));
}

fn map_roles(names: &[(&str, &str)]) -> Vec<String> {
    names.iter().map(|(old, new)| format!("--map-role={old}={new}")).collect()
}

fn with<'a>(args: &[&'a str], more: &'a [String]) -> Vec<&'a str> {
    args.iter().copied().chain(more.iter().map(String::as_str)).collect()
}

/// A database with one of everything that its owner can make, and a snapshot of it.
async fn zoo(hint: &str) -> TestWorld {
    make_roles().await;
    let world = TestWorld::new(hint, &["zoo"]).await;
    world.sql("zoo", ZOO).await;
    let dbname = world.dbname("zoo");
    let more = format!(
        "set check_function_bodies to off; create function zoo.as_other() returns int language sql set role to 'zoo_other' as 'select 1';
         grant connect on database {dbname} to zoo_reader with grant option; grant create on database {dbname} to zoo_other;
         alter default privileges for role zoo_other in schema others grant select on tables to zoo_reader;
         select lo_from_bytea(77, 'x'); alter large object 77 owner to zoo_other;
         comment on database {dbname} is 'of zoo_keepers'"
    );
    world.sql("zoo", &more).await;
    let settings = format!(
        "alter role zoo_reader in database {dbname} set work_mem to '9MB'; alter role release in database {dbname} set work_mem to '8MB'"
    );
    world.sql_as_superuser("zoo", &settings).await;
    world.sql_plan("");
    world.file("migrations/zoo/001_more.sql", "create table more (id int);\n");
    let _ = world.run(&["snapshot", "take"]).expect(0);
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_goes_to_others_without_a_superuser() {
    let mut world = zoo("roles_zoo").await;
    let before = fingerprint(world.url("zoo")).await;
    let (other, mut session) = another().await;
    world.lead("zoo", other.url("mover", "postgres"));
    let restore = ["snapshot", "restore", "--only", "zoo", "--as", "moved"];
    world.run(&restore).expect(1).says("release, zoo_other, zoo_reader").says("--map-role");
    let names = [("release", "mover"), ("zoo_reader", "app_reader"), ("zoo_other", "keeper")];
    let some = map_roles(&names[..2]);
    world.run(&with(&restore, &some)).expect(1).says("the server has no role zoo_other");
    let all = map_roles(&names);
    let restored = world.json(0, &with(&restore, &all));
    assert_eq!(restored["notes"], json!([]), "{restored:#}");
    assert_eq!(restored["mapped_roles"]["zoo_other"], "keeper");
    assert_same_under(&before, &fingerprint(&other.url("postgres", "moved")).await, &names);
    // Nobody was made for it.
    let roles = "select string_agg(rolname, ' ' order by rolname) from pg_roles where oid >= 16384";
    let roles: String = sqlx::query_scalar(roles).fetch_one(&mut session).await.expect("roles");
    assert_eq!(roles, "app_reader keeper mover");
    // A drill says the same.
    let drilled = world.json(0, &with(&["snapshot", "drill"], &all));
    assert_eq!(drilled["drills"][0]["differences"], json!([]), "{drilled:#}");
    assert_eq!(drilled["drills"][0]["mapped_roles"]["release"], "mover");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_a_superuser_may_make_goes_to_others() {
    make_roles().await;
    let dbname_of = |url: &str| url.split(['/', '?']).nth(3).expect("a name").to_owned();
    let url = harness::as_superuser(&harness::fresh_database("roles_superuser").await);
    let dbname = dbname_of(&url);
    let mut session = harness::connect(&url).await;
    harness::execute(&mut session, SUPERUSER_ZOO).await;
    let sql = format!(
        "create role zoo_super superuser; alter event trigger zoo_ddl owner to zoo_super; alter foreign data wrapper zoo_wrapper owner to
         zoo_super; alter server zoo_server owner to zoo_other; alter publication all_of_it owner to zoo_super; alter publication
         of_a_schema owner to zoo_super; alter subscription zoo_subscription owner to zoo_super; alter language zoo_language owner to
         zoo_other; alter operator family zoo.family using btree owner to zoo_other; alter operator class zoo.backwards using btree owner
         to zoo_other; alter table zoo.t owner to zoo_other; alter type zoo.base owner to zoo_other; alter schema zoo owner to zoo_other;
         grant usage on schema zoo to zoo_reader; grant select on zoo.t to zoo_reader with grant option; set session authorization
         zoo_reader; grant select on zoo.t to zoo_super; reset session authorization; grant usage on foreign data wrapper zoo_wrapper to
         zoo_reader with grant option; create user mapping for zoo_other server zoo_server options (\"user\" 'zoo'); alter default
         privileges for role zoo_other grant select on tables to zoo_reader; alter default privileges for role zoo_super revoke execute on
         functions from public; create policy mine on zoo.t to zoo_other, zoo_reader using (true); select lo_from_bytea(7, 'x'); alter large
         object 7 owner to zoo_other; grant update on large object 7 to zoo_reader; alter role zoo_super in database {dbname} set
         search_path to zoo, public; alter database {dbname} owner to zoo_other"
    );
    harness::execute(&mut session, sql).await;
    let before = fingerprint(&url).await;
    let mut world = TestWorld::over([("zoo".to_owned(), url)].into());
    world.sql_plan("");
    world.file("migrations/zoo/001_more.sql", "create table more (id int);\n");
    let _ = world.run(&["snapshot", "take"]).expect(0);
    let (other, mut there) = another().await;
    harness::execute(&mut there, "create role boss superuser").await;
    world.lead("zoo", other.url("postgres", "postgres"));
    let names = [("zoo_super", "boss"), ("zoo_reader", "app_reader"), ("zoo_other", "keeper")];
    let restore = ["snapshot", "restore", "--only", "zoo", "--as", "moved"];
    let restored = world.json(0, &with(&restore, &map_roles(&names)));
    assert_eq!(restored["notes"], json!([]), "{restored:#}");
    assert_same_under(&before, &fingerprint(&other.url("postgres", "moved")).await, &names);
    // Roles with names that have to be quoted; one that a snapshot refers to, and that the server has as well.
    harness::execute(&mut there, "create role \"It's \"\"the\"\" rôle, to\"; create role zoo_reader").await;
    let odd = [("zoo_super", "boss"), ("zoo_other", "It's \"the\" rôle, to"), ("zoo_reader", "app_reader")];
    let restored = world.json(0, &with(&["snapshot", "restore", "--only", "zoo", "--as", "odd"], &map_roles(&odd)));
    let note = restored["notes"][0].as_str().expect("a note");
    assert!(note.starts_with("the server has a role zoo_reader of its own"), "{restored:#}");
    let owner = "select datdba::regrole::text from pg_database where datname = 'odd'";
    let owner: String = sqlx::query_scalar(owner).fetch_one(&mut there).await.expect("it is there");
    assert_eq!(owner, "\"It's \"\"the\"\" rôle, to\"");
    let theirs = "select count(*) from pg_shdepend where refobjid = 'zoo_reader'::regrole";
    let theirs: i64 = sqlx::query_scalar(theirs).fetch_one(&mut there).await.expect("a count");
    assert_eq!(theirs, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn several_become_one() {
    let mut world = zoo("roles_one").await;
    let (other, _) = another().await;
    world.lead("zoo", other.url("mover", "postgres"));
    let all = map_roles(&[("release", "mover"), ("zoo_reader", "mover"), ("zoo_other", "mover")]);
    let drilled = world.json(0, &with(&["snapshot", "drill"], &all));
    assert_eq!(drilled["drills"][0]["differences"], json!([]), "{drilled:#}");
    let restored = world.json(0, &with(&["snapshot", "restore", "--only", "zoo", "--as", "one"], &all));
    let notes = restored["notes"].as_array().expect("a list");
    assert!(notes[0].as_str().is_some_and(|it| it.starts_with("work_mem was 8MB for release")), "{restored:#}");
    let mut moved = harness::connect(&other.url("postgres", "one")).await;
    let others = "select string_agg(distinct r.rolname, ' ') from pg_shdepend s join pg_roles r on r.oid = s.refobjid where s.dbid = (select
                  oid from pg_database where datname = 'one')";
    let others: String = sqlx::query_scalar(others).fetch_one(&mut moved).await.expect("dependencies");
    assert_eq!(others, "mover");
    // One role is made, and the others are mapped.
    let some = map_roles(&[("release", "mover"), ("zoo_reader", "mover")]);
    let restore = ["snapshot", "restore", "--only", "zoo", "--create-roles", "--as", "two"];
    assert_eq!(world.json(0, &with(&restore, &some))["created_roles"], json!(["zoo_other"]));
    // Without owners and privileges, it is still said to whom policies apply.
    let ours = ["snapshot", "restore", "--only", "zoo", "--no-owner", "--as", "ours"];
    let _ = world.run(&with(&ours, &all)).expect(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drill_finds_what_went_to_somebody_else() {
    let mut world = zoo("roles_drill").await;
    let (other, _) = another().await;
    world.lead("zoo", other.url("mover", "postgres"));
    let whole = fs::read(world.object("manifest.json")).expect("there");
    falsify(&world, |it| {
        it["holdings"]["table others.given"]["owner"] = json!("release");
        it["holdings"]["table zoo.\"Every Value\""]["acl"] = json!("release=arwdDxt/release");
        it["holdings"]["policy own on zoo.cages"]["roles"] = json!("release");
        it["holdings"]["default acl for role zoo_reader on tables"] =
            json!({ "rest": "0", "acl": "release=r/zoo_reader" });
        it["catalog"]["default acl for role zoo_reader on tables"] = json!("0");
    });
    let all = map_roles(&[("release", "mover"), ("zoo_reader", "app_reader"), ("zoo_other", "keeper")]);
    let ran = world.run(&with(&["snapshot", "drill"], &all));
    ran.expect(7).says("table others.given: differs").says("table zoo.\"Every Value\": differs");
    ran.says("policy own on zoo.cages: differs").says("default acl for role \"app_reader\" on tables: missing");
    // One of an earlier version says nothing of it.
    fs::write(world.object("manifest.json"), &whole).expect("ours");
    falsify(&world, |it| drop(it.as_object_mut().expect("a document").remove("holdings")));
    world.run(&with(&["snapshot", "drill"], &all)).expect(1).says("by an earlier version of migrate");
    let _ = world.run(&with(&["snapshot", "restore", "--only", "zoo", "--as", "moved"], &all)).expect(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_meant_is_refused() {
    let mut world = divided("roles_refused", "").await;
    let _ = world.run(&["snapshot", "take"]).expect(0);
    let (other, mut session) = another().await;
    world.lead("big", other.url("mover", "postgres"));
    let restore = |map: &[&str]| {
        let map: Vec<String> = map.iter().map(|it| format!("--map-role={it}")).collect();
        world.run(&with(&["snapshot", "restore", "--only", "big", "--as", "x"], &map))
    };
    restore(&["release"]).expect(64).says("it is OLD=NEW");
    restore(&["release="]).expect(64).says("it is OLD=NEW");
    restore(&["release=a=b"]).expect(64).says("more than one");
    restore(&["release=release"]).expect(64).says("the same role");
    restore(&["release=mover", "release=keeper"]).expect(64).says("mapped to mover and to keeper");
    restore(&["mover=release"]).expect(64).says("refers to no role mover").says("release");
    restore(&["release=nobody"]).expect(1).says("the server has no role nobody").ends("No database was changed.");
    let drill = world.run(&["snapshot", "drill", "--map-role", "release=nobody"]);
    drill.expect(1).says("the server has no role nobody");
    // A role that whoever restores may give nothing to: the server says so, and nothing is left.
    restore(&["release=app_reader"]).expect(1).says("app_reader").ends("No database was changed.");
    let left = "select count(*) from pg_database where datname not like 'template%' and datname <> 'postgres'";
    assert_eq!(sqlx::query_scalar::<_, i64>(left).fetch_one(&mut session).await.expect("a count"), 0);
    // What is the superuser's is not on record with the server, and can be mapped all the same.
    let live = world.url("big").to_owned();
    world.lead("big", live);
    world.sql_as_superuser("big", "create table supers (id int); grant select on supers to release").await;
    let _ = world.run(&["snapshot", "take"]).expect(0);
    world.lead("big", other.url("mover", "postgres"));
    let both = map_roles(&[("release", "mover"), ("postgres", "mover")]);
    let _ = world.run(&with(&["snapshot", "restore", "--only", "big", "--as", "x"], &both)).expect(0);
    let owner = "select tableowner::text from pg_tables where tablename = 'supers'";
    let mut moved = harness::connect(&other.url("mover", "x")).await;
    assert_eq!(sqlx::query_scalar::<_, String>(owner).fetch_one(&mut moved).await.expect("a table"), "mover");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_was_killed_is_made_anew() {
    let mut world = divided("roles_killed", "compression = \"zstd\"").await;
    let before = fingerprint(world.url("big")).await;
    let _ = world.run(&["snapshot", "take"]).expect(0);
    let (other, mut session) = another().await;
    world.lead("big", other.url("mover", "postgres"));
    in_place_of(
        &mut world,
        &other,
        "pg_restore",
        &but_for("*--jobs=*", ": > waits; while [ ! -e go ]; do sleep 0.05; done"),
    );
    let restore = ["snapshot", "restore", "--only", "big", "--as", "moved", "--map-role", "release=mover"];
    let mut running = world.start(&restore);
    until("the program waits", async || world.path().join("waits").exists()).await;
    let beside = "select coalesce(string_agg(datname, ' '), '') from pg_database where datname like 'moved%'";
    let named: String = sqlx::query_scalar(beside).fetch_one(&mut session).await.expect("a name");
    assert!(named.starts_with("moved__unfinished_2"), "{named}");
    world.run(&restore).expect(1).says("by somebody else just now");
    running.kill().expect("it runs");
    let _ = running.wait().expect("it was killed");
    world.file("go", "");
    let marked = "select exists (select from pg_locks where locktype = 'advisory')";
    until("nobody holds the lock", async || {
        !sqlx::query_scalar::<_, bool>(marked).fetch_one(&mut session).await.expect("an answer")
    })
    .await;
    let again = world.run(&restore);
    again.expect(0).says(&format!("dropped {named}, which a restore that was killed had left behind"));
    let named: String = sqlx::query_scalar(beside).fetch_one(&mut session).await.expect("a name");
    assert_eq!(named, "moved");
    assert_same_under(&before, &fingerprint(&other.url("mover", "moved")).await, &[("release", "mover")]);
}

/// What was made for a restore goes with it.
#[tokio::test(flavor = "multi_thread")]
async fn one_that_failed_leaves_nothing() {
    let mut world = zoo("roles_failed").await;
    let (other, mut session) = another().await;
    world.lead("zoo", other.url("mover", "postgres"));
    falsify(&world, |it| it["tables"][0]["rows"] = json!(4711));
    let restore =
        ["snapshot", "restore", "--only", "zoo", "--as", "moved", "--create-roles", "--map-role", "release=mover"];
    world.run(&restore).expect(1).says("4711 were dumped").ends("No database was changed.");
    let left = "select string_agg(rolname, ' ' order by rolname) || (select count(*) from pg_database) from pg_roles where oid >= 16384";
    let left: String = sqlx::query_scalar(left).fetch_one(&mut session).await.expect("roles");
    assert_eq!(left, "app_reader keeper mover3");
}
