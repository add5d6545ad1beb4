//! Every kind of secret at once, through every command, with as much log as there is: none of them is found anywhere.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use futures::TryStreamExt as _;
use migrate::outside::cluster::{Cluster, ClusterOptions};
use object_store::{ObjectStore, ObjectStoreExt as _};

use super::watch::{Seen, Watch};
use super::{ENCODED, PART, PASSWORD};
use crate::gcs_server::{BUCKET, GcsServer};
use crate::harness;
use crate::s3_server::Bucket;
use crate::world::{Ran, TestWorld};

const TOKEN: &str = "ya29.Store0Token0Of0The0Test";
const KEY: &str = "aws/Secret0Key0Of0The0Test";
const SESSION: &str = "aws/Session0Token0Of0The0Test";
const HOOK: &str = "hook0secret0of0the0test";
const DECLARED: &str = "declared0secret0of0the0test";

/// Who has to give a password, and a server that writes down everything that it hears.
struct Server {
    cluster: Cluster,
}

impl Server {
    async fn start() -> Self {
        let settings = [
            ("log_statement", "all"),
            ("log_connections", "on"),
            ("log_min_messages", "debug1"),
            ("log_error_verbosity", "verbose"),
        ];
        let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let cluster = Cluster::start(ClusterOptions { settings, ..ClusterOptions::default() }).expect("a cluster");
        let it = Self { cluster };
        // The statement that makes the role is not one of ours, and the log is looked at for ours.
        let mut admin = harness::connect(&it.cluster.url("postgres", "postgres")).await;
        harness::execute(&mut admin, "set log_statement = 'none'; set password_encryption = 'scram-sha-256'").await;
        let role = format!("create role release login createdb password '{}'", PASSWORD.replace('\'', "''"));
        harness::execute(&mut admin, role).await;
        it.psql("postgres", "CREATE DATABASE app OWNER release");
        it.psql("app", "SET ROLE release; CREATE TABLE held (id int primary key); INSERT INTO held SELECT generate_series(1, 20000)");
        fs::write(it.cluster.data_dir().join("pg_hba.conf"), "local all postgres trust\nlocal all all scram-sha-256\n")
            .expect("a file");
        it.psql("postgres", "SELECT pg_reload_conf()");
        it
    }

    fn psql(&self, database: &str, sql: &str) -> String {
        let mut command = Command::new(self.cluster.bin_dir().join("psql"));
        command.args(["-X", "-At", "-q", "-v", "ON_ERROR_STOP=1", "-d", &self.cluster.url("postgres", database)]);
        command.args(sql.split("; ").flat_map(|it| ["-c", it]));
        let output = command.output().expect("psql");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    /// As the release has it, the password in it.
    fn url(&self) -> String {
        let url = self.cluster.url("release", "app").replace("&user=release", "");
        url.replacen("postgresql:///", &format!("postgresql://release:{ENCODED}@/"), 1)
    }
}

/// What must be nowhere: each by what it is.
fn secrets(identity: &str) -> Vec<String> {
    let all = [PASSWORD, ENCODED, PART, TOKEN, KEY, SESSION, HOOK, DECLARED, identity];
    all.map(str::to_owned).into()
}

/// A plan with every place at which a secret can come in.
fn world(server: &Server) -> (TestWorld, String) {
    let mut world = TestWorld::over(BTreeMap::from([("a".to_owned(), server.url())]));
    let keygen = Command::new("age-keygen").arg("-o").arg(world.path().join("identity")).output();
    assert!(keygen.expect("the tests need age: run scripts/install").status.success());
    let text = fs::read_to_string(world.path().join("identity")).expect("written");
    let recipient = text.lines().find_map(|line| line.strip_prefix("# public key: ")).expect("a recipient").to_owned();
    let identity = text.lines().find(|line| line.starts_with("AGE-SECRET-KEY-")).expect("an identity").to_owned();
    world.set("MIGRATE_AGE_IDENTITY_FILE", world.path().join("identity").display().to_string());
    for (name, value) in [
        ("ALARM", format!("http://127.0.0.1:1/{HOOK}")),
        ("API_TOKEN", DECLARED.to_owned()),
        ("RUST_LOG", "trace".to_owned()),
    ] {
        world.set(name, value);
    }
    fs::create_dir(world.path().join("temporary")).expect("a folder");
    world.set("TMPDIR", world.path().join("temporary").display().to_string());
    // The program says all that it knows, and takes long enough to be seen.
    let talk = "env; echo \\\"$DATABASE_URL $API_TOKEN\\\"; psql -X -d \\\"$1\\\" -c 'select pg_sleep(0.2)'";
    world.sql_plan(&format!(
        "[[steps]]\nname = \"talk\"\ndatabase = \"a\"\nkind = \"command\"\nafter = [\"a-schema\"]\nrun = \"always\"\n\
         argv = [\"sh\", \"-c\", \"{talk}\", \"talk\", \"${{url}}\"]\n\
         env = {{ DATABASE_URL = \"${{url}}\", API_TOKEN = \"${{API_TOKEN}}\" }}\n\
         [[hooks]]\non = \"rollback\"\nhttp = \"${{ALARM}}\"\n\
         [[hooks]]\non = \"success\"\nargv = [\"sh\", \"-c\", \"echo $WORD; env; sleep 0.1; exit 3\"]\nenv = {{ WORD = \"${{API_TOKEN}}\" }}\n"
    ));
    let plan = fs::read_to_string(world.path().join("plans/production.toml")).expect("written");
    world.file(
        "plans/production.toml",
        &plan.replace("[store]\n", &format!("[store]\nencrypt_to = [\"{recipient}\"]\n")),
    );
    world.file("migrations/a/001_t.sql", "create table t (id int);\n-- migrate:down\ndrop table t;\n");
    (world, identity)
}

/// The whole story, and everything that was printed.
async fn story(world: &TestWorld) -> Vec<Ran> {
    let mut said = Vec::new();
    let mut run = |args: &[&str], code: i32| {
        let ran = world.run(&[args, &["-vv"]].concat());
        ran.expect(code);
        said.push(ran);
    };
    run(&["doctor"], 0);
    run(&["plan", "--out", "saved.json"], 0);
    run(&["apply", "saved.json", "--yes"], 0);
    run(&["status", "--json"], 0);
    run(&["snapshot", "take"], 0);
    run(&["snapshot", "verify"], 0);
    run(&["snapshot", "drill"], 0);
    run(&["snapshot", "restore", "--only", "a", "--as", "elsewhere"], 0);
    run(&["runs", "list"], 0);
    let runs = world.json(0, &["runs", "list"]);
    let run_id =
        runs["runs"].as_array().expect("runs").last().expect("a run")["run"].as_str().expect("an id").to_owned();
    run(&["runs", "show", &run_id, "--json"], 0);
    run(&["rollback", &run_id, "--yes"], 0);
    world.file("migrations/a/002_bad.sql", "select no_such_thing;\n");
    run(&["apply", "--yes", "--json"], 3);
    fs::remove_file(world.path().join("migrations/a/002_bad.sql")).expect("it was there");
    said
}

/// What is in the store, by key.
async fn objects(store: &dyn ObjectStore) -> BTreeMap<String, Vec<u8>> {
    let mut all = BTreeMap::new();
    let mut list = store.list(None);
    while let Some(meta) = list.try_next().await.expect("a listing") {
        let bytes = store.get(&meta.location).await.expect("an object").bytes().await.expect("its bytes");
        all.insert(meta.location.to_string(), bytes.to_vec());
    }
    all
}

/// Every file below a folder, but for the identity, which is the secret's own place.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut all = BTreeMap::new();
    for path in fs::read_dir(folder).expect("a folder").map(|it| it.expect("an entry").path()) {
        if path.is_dir() {
            all.extend(files(&path));
        } else if !path.ends_with("identity") {
            all.insert(path.display().to_string(), fs::read(&path).expect("a file"));
        }
    }
    all
}

/// Three letters may come up by chance where bytes are random.
#[track_caller]
fn none_in(what: &str, bytes: &[u8], secrets: &[String]) {
    let found = |secret: &&String| bytes.windows(secret.len()).any(|it| it == secret.as_bytes());
    let found = secrets.iter().filter(|it| it.len() > PART.len()).find(found);
    assert_eq!(found, None, "{what}: {}", String::from_utf8_lossy(bytes));
}

/// What a program may find in its environment.
fn allowed(program: &str, name: &str) -> bool {
    let of_libpq = [
        "PGHOST",
        "PGPORT",
        "PGUSER",
        "PGDATABASE",
        "PGPASSWORD",
        "PGSSLMODE",
        "PGGSSENCMODE",
        "PGOPTIONS",
        "PGAPPNAME",
    ];
    match program {
        "pg_dump" | "pg_restore" => ["PATH", "HOME", "LC_ALL"].contains(&name) || of_libpq.contains(&name),
        // Steps and hooks, and what they start: `sh` adds where it is.
        _ => {
            let ours = [
                "PATH",
                "HOME",
                "LANG",
                "PGOPTIONS",
                "PGAPPNAME",
                "PGPASSWORD",
                "DATABASE_URL",
                "API_TOKEN",
                "WORD",
                "PWD",
                "OLDPWD",
                "SHLVL",
                "_",
            ];
            ours.contains(&name) || name.starts_with("MIGRATE_") || name.starts_with("PYTHON")
        }
    }
}

/// Nothing stood on a command line, and nobody had more than they need.
fn clean(seen: &Seen, identity: &str) {
    assert_eq!(seen.leaks.iter().next(), None);
    for program in ["pg_dump", "pg_restore", "psql"] {
        assert!(seen.children.contains_key(program), "{program} was never seen: {:?}", seen.children.keys());
    }
    for (program, variables) in &seen.children {
        for (name, value) in variables {
            assert!(allowed(program, name), "{program} has {name}={value}");
            let of_database = [PASSWORD, ENCODED].iter().any(|it| value.contains(it));
            assert!(!of_database || ["PGPASSWORD", "DATABASE_URL"].contains(&&**name), "{program} has {name}={value}");
            assert!(
                !value.contains(DECLARED) || ["API_TOKEN", "WORD"].contains(&&**name),
                "{program} has {name}={value}"
            );
            for secret in [TOKEN, KEY, SESSION, HOOK, identity] {
                assert!(!value.contains(secret), "{program} has {name}={value}");
            }
        }
    }
}

/// One story with one store.
async fn told(server: &Server, env: &[(String, String)], store: Option<&dyn ObjectStore>) -> (usize, usize) {
    let (mut world, identity) = world(server);
    // Debian's own psql is a program that sets variables for the one that it starts.
    world.set("PATH", format!("{}:/usr/bin:/bin", server.cluster.bin_dir().display()));
    env.iter().for_each(|(name, value)| world.set(name, value));
    let secrets = secrets(&identity);
    let watch = Watch::begin(secrets.clone(), world.path().to_owned());
    let said = story(&world).await;
    let seen = watch.end();
    clean(&seen, &identity);
    println!("processes were looked at {} times", seen.looks);
    for ran in &said {
        for secret in &secrets {
            assert!(!ran.stdout.contains(secret), "{secret} in\n{}", ran.stdout);
            assert!(!ran.stderr.contains(secret), "{secret} in\n{}", ran.stderr);
        }
    }
    let stored = match store {
        Some(store) => objects(store).await,
        None => files(&world.store()),
    };
    assert!(
        stored.keys().any(|it| it.ends_with(".age")) && stored.keys().any(|it| it.ends_with(".log")),
        "{:?}",
        stored.keys()
    );
    stored.iter().for_each(|(key, bytes)| none_in(key, bytes, &secrets));
    files(world.path()).iter().for_each(|(path, bytes)| none_in(path, bytes, &secrets));
    assert_eq!(files(&world.path().join("temporary")).into_keys().next(), None);
    // The ledgers, those of the databases that were replaced as well.
    let databases =
        server.psql("postgres", "SELECT datname FROM pg_database WHERE datallowconn AND datname <> 'postgres'");
    let mut rows = 0;
    for database in databases.lines().filter(|it| !it.starts_with("template")) {
        let asked = "SELECT coalesce(query_to_xml('select * from migrate.ledger', true, false, '')::text, '')";
        if server.psql(database, "SELECT to_regclass('migrate.ledger') IS NOT NULL").trim() == "t" {
            let ledger = server.psql(database, asked);
            rows += ledger.matches("<step>").count();
            none_in(database, ledger.as_bytes(), &secrets);
        }
    }
    server.psql("postgres", "DROP DATABASE elsewhere");
    (stored.len(), rows)
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_of_a_whole_release_is_found_anywhere() {
    let server = Server::start().await;
    let gcs = GcsServer::builder().token(TOKEN).start();
    let mut of_gcs = gcs.env(BUCKET);
    of_gcs.push(("MIGRATE_STORE".into(), format!("gs://{BUCKET}/deep")));
    let bucket = Bucket::new("no-leaks");
    let mut of_s3: Vec<(String, String)> = Bucket::env().into_iter().collect();
    for (name, value) in
        [("AWS_SECRET_ACCESS_KEY", KEY), ("AWS_SESSION_TOKEN", SESSION), ("MIGRATE_STORE", "s3://no-leaks/deep")]
    {
        of_s3.push((name.into(), value.into()));
    }
    let client = gcs.client(BUCKET).build().expect("a client");
    let (of_folder, of_gcs, of_s3) = (
        told(&server, &[], None).await,
        told(&server, &of_gcs, Some(&client)).await,
        told(&server, &of_s3, Some(&bucket.client())).await,
    );
    let log = fs::read(server.cluster.log_file()).expect("a log");
    assert!(String::from_utf8_lossy(&log).contains("COPY public.held"), "the server writes down what it hears");
    none_in("the server's log", &log, &secrets("AGE-SECRET-KEY-"));
    println!(
        "secrets: none in {} objects of three stores, {} ledger rows, {} bytes of the server's log",
        of_folder.0 + of_gcs.0 + of_s3.0,
        of_folder.1 + of_gcs.1 + of_s3.1,
        log.len()
    );
    assert!(of_folder.1 > 0, "ledgers were looked at");
}
