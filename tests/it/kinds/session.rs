//! What a migration does to its session does not reach the next one, nor the ledger.

use crate::world::TestWorld;

/// Applies `first`, then a second file that looks at the session, with and without a transaction.
async fn two(hint: &str, first: &str, second: &str) -> TestWorld {
    let world = TestWorld::new(hint, &["a"]).await;
    world.sql_plan("");
    world.sql("a", "create table seen (what text)").await;
    world.file("migrations/a/001_first.sql", first);
    world.file("migrations/a/002_inside.sql", second);
    world.file("migrations/a/003_bare.sql", &format!("-- migrate:no-transaction\n{second}"));
    world.file("migrations/a/004_bare.sql", &format!("-- migrate:no-transaction\n{first}"));
    world.file("migrations/a/005_inside.sql", second);
    let _ = world.run(&["apply", "--yes"]).expect(0);
    let rows = "select count(*) from migrate.ledger where state = 'applied'";
    assert_eq!(world.value("a", rows).await, "5");
    world
}

async fn seen(world: &TestWorld) -> String {
    world.value("a", "select string_agg(distinct what, ' and ') from seen").await
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_do_not_leak() {
    let first = "select pg_catalog.set_config('search_path', '', false);\nselect set_config('standard_conforming_strings', 'off', false);\n\
                 set default_transaction_isolation = 'serializable';\nset timezone = 'Asia/Tokyo';\n\
                 select 'back\\\\slash';\nset escape_string_warning = off;\nset check_function_bodies = off;\n";
    let second = "insert into seen select current_setting('search_path') || ' ' || \
                  current_setting('standard_conforming_strings') || ' ' || current_setting('transaction_isolation') || \
                  ' ' || current_setting('check_function_bodies');\n";
    let world = two("leak_settings", first, second).await;
    assert_eq!(seen(&world).await, "\"$user\", public on read committed on");
    let text = world.value("a", "select up_sql from migrate.ledger where name = '001_first'").await;
    assert_eq!(text, first, "the row is written whatever the file says about backslashes");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_does_not_leak() {
    let superuser = crate::harness::cluster().url("postgres", "postgres");
    let mut session = crate::harness::connect(&superuser).await;
    crate::harness::execute(&mut session, "create role leaky; grant leaky to release").await;
    let first = "create table if not exists t (id int);\nset role leaky;\nselect current_user;\n";
    let world = two("leak_role", first, "insert into seen select current_user;\n").await;
    assert_eq!(seen(&world).await, "release");
    let owner = "select tableowner from pg_tables where tablename = 'ledger'";
    assert_eq!(world.value("a", owner).await, "release");
}

#[tokio::test(flavor = "multi_thread")]
async fn temporary_tables_locks_and_statements_do_not_leak() {
    let first = "create temp table passing (id int);\nselect pg_advisory_lock(7);\nprepare p as select 1;\nlisten c;\n\
                 declare held cursor with hold for select 1;\n";
    let second = "insert into seen select format('%s %s %s %s %s', to_regclass('passing'), (select count(*) from pg_locks \
                  where locktype = 'advisory' and objid = 7 and pid = pg_backend_pid()), (select count(*) from \
                  pg_prepared_statements), (select count(*) from pg_listening_channels()), \
                  (select count(*) from pg_cursors));\n";
    let world = two("leak_temp", first, second).await;
    assert_eq!(seen(&world).await, " 0 0 0 0");
}

/// A lock that no migration names is let go as well, whoever made the function that takes it, and however.
#[tokio::test(flavor = "multi_thread")]
async fn locks_that_functions_take_do_not_leak() {
    let take = "create function take() returns void language";
    for (hint, function) in [
        ("leak_lock_text", format!("{take} plpgsql as $$ begin perform PG_ADVISORY_LOCK(7); end $$")),
        ("leak_lock_parsed", format!("{take} sql begin atomic select pg_advisory_lock(7); end")),
    ] {
        for by_program in [false, true] {
            let world = TestWorld::new(hint, &["a"]).await;
            world.sql("a", "create table seen (what text)").await;
            let make = "[[steps]]\nname = \"make\"\ndatabase = \"a\"\nkind = \"command\"\n\
                        argv = [\"sh\", \"-c\", 'psql -Xqf take.sql \"$URL\"']\nenv = { URL = \"${url}\" }\n";
            world.plan(&format!(
                "{}[[steps]]\nname = \"a-schema\"\ndatabase = \"a\"\nkind = \"sql\"\ndir = \"migrations/a\"\n",
                if by_program { make } else { "" }
            ));
            match by_program {
                true => world.file("take.sql", &function),
                false => world.sql("a", &function).await,
            }
            world.file("migrations/a/001_take.sql", "select take();\n");
            let held = "select count(*) from pg_locks where locktype = 'adv' || 'isory' and objid = 7 and pid = pg_backend_pid()";
            world.file("migrations/a/002_look.sql", &format!("insert into seen {held};\n"));
            let _ = world.run(&["apply", "--yes"]).expect(0);
            assert_eq!(seen(&world).await, "0", "{function}");
        }
    }
}

/// What prepares statements, or takes them away, has nothing to do with the one that we prepare ourselves.
#[tokio::test(flavor = "multi_thread")]
async fn prepared_statements_do_not_leak_and_are_not_missed() {
    let look = "insert into seen select count(*) from pg_prepared_statements where name <> 'migrate_row';\n";
    let ways =
        ["prepare migrate_row as select 1; prepare other as select 2;\n", "deallocate all;\n", "select hidden();\n"];
    for (at, way) in ways.iter().enumerate() {
        let world = TestWorld::new("leak_prepared", &["a"]).await;
        world.sql_plan("");
        let hidden = "create function hidden() returns void language plpgsql as \
                      $$ begin execute 'PREPARE other as select 2'; end $$";
        world.sql("a", "create table seen (what text)").await;
        // A function that is called may do so from the first one on.
        if at == 2 {
            world.sql("a", hidden).await;
        }
        for (number, text) in [look, look, way, look, way, look].iter().enumerate() {
            world.file(&format!("migrations/a/{number:03}_x.sql"), text);
        }
        world.file("migrations/a/010_bare.sql", &format!("-- migrate:no-transaction\n{way}"));
        world.file("migrations/a/011_look.sql", look);
        let _ = world.run(&["apply", "--yes"]).expect(0);
        assert_eq!(seen(&world).await, "0", "{way}");
        assert_eq!(world.value("a", "select count(*) from migrate.ledger where execution_ms >= 0").await, "8");
    }
}

/// A message that failed after our statement was prepared is sent again as a whole.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_fails_at_first_is_tried_again() {
    let world = TestWorld::new("prepared_again", &["a"]).await;
    world.sql_plan("");
    // As a serialisation failure at COMMIT, and once: sequences do not go back.
    let trigger = "create sequence tries; create table t (id int); create function fail() returns trigger language plpgsql as \
                   $$ begin if nextval('tries') = 1 then raise serialization_failure; end if; return null; end $$; \
                   create constraint trigger fails after insert on t deferrable initially deferred for each row execute \
                   function fail()";
    world.sql("a", trigger).await;
    world.file("migrations/a/001_x.sql", "insert into t values (1);\n");
    world.file("migrations/a/002_x.sql", "insert into t values (2);\n");
    let _ = world.run(&["apply", "--yes"]).expect(0);
    assert_eq!(world.value("a", "select string_agg(id::text, ' ') || ' ' || nextval('tries') from t").await, "1 2 4");
}

/// The server reads the whole of a message before it does any of it: these must be as they were by then.
#[tokio::test(flavor = "multi_thread")]
async fn how_a_text_is_read_does_not_leak() {
    let first = "select set_config('standard_conforming_strings', 'off', false);\n\
                 set client_encoding = 'latin1';\nset backslash_quote = off;\n";
    let world = two("leak_reading", first, "insert into seen select 'a\\b \u{fc} ' || e'it\\'s';\n").await;
    assert_eq!(seen(&world).await, "a\\b \u{fc} it's");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_commit_of_a_step_waits_for_the_disk_and_with_it_for_all() {
    let world = TestWorld::new("durable", &["a", "b"]).await;
    world.plan(
        "[[steps]]\nname = \"a-schema\"\ndatabase = \"a\"\nkind = \"sql\"\ndir = \"migrations/a\"\n\
         [[steps]]\nname = \"b-schema\"\ndatabase = \"b\"\nkind = \"refinery\"\ndir = \"migrations/b\"\n",
    );
    for (database, names) in [("a", ["001_x", "002_x", "003_x"]), ("b", ["V1__x", "V2__x", "V3__x"])] {
        // The tests' server waits for no disk by itself.
        let set = format!("alter database {} set synchronous_commit = on", world.dbname(database));
        world.sql(database, &set).await;
        world.sql(database, "create table seen (n serial, what text)").await;
        for name in names {
            let look = "insert into seen (what) values (current_setting('synchronous_commit'));\n";
            world.file(&format!("migrations/{database}/{name}.sql"), look);
        }
    }
    let _ = world.run(&["apply", "--yes"]).expect(0);
    for database in ["a", "b"] {
        let seen = world.value(database, "select string_agg(what, ' ' order by n) from seen").await;
        assert_eq!(seen, "off off on", "{database}");
    }
}
