//! Plans, bad and good, as a user would write them.

use std::fmt::Write as _;

use miette::Diagnostic;

use super::*;

/// Five lines; what a test adds begins on line 6.
const HEAD: &str = r#"version = 1
name = "demo"
[targets.local.databases]
a = "${A}"
b = "${B}"
"#;

fn env() -> BTreeMap<String, String> {
    let a = "postgresql://app:hunter2@db.example.org/a";
    let b = "postgresql+asyncpg://app:hunter2@/b?host=/cloudsql/p:r:i";
    [("A", a), ("B", b), ("EMPTY", ""), ("PASSWORD", "hun/ter2@"), ("STORE", "gs://bucket/prefix"), ("USER", "me")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
}

fn load(text: &str, target: Option<&str>) -> Result<Plan, PlanError> {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir_all(folder.path().join("plans")).expect("a folder");
    let modules = ["app/migrations/one.py", "app/migrations/two.py"];
    for file in [&["migrations/a/001_first.sql", "migrations/b/V1__first.sql"], &modules[..]].concat() {
        let file = folder.path().join(file);
        std::fs::create_dir_all(file.parent().expect("a file in a folder")).expect("a folder");
        std::fs::write(file, "select 1;\n").expect("written");
    }
    for (file, text) in [("order", "migrations.two\nmigrations.one # last\n"), ("empty", "# nothing\n")] {
        std::fs::write(folder.path().join(format!("app/{file}.txt")), text).expect("written");
    }
    let path = folder.path().join("plans/demo.toml");
    std::fs::write(&path, text).expect("written");
    Plan::load(&path, target, &env())
}

/// `LINE: message`, without the temporary folder's name.
fn shown(error: &PlanError) -> String {
    let place = error.place();
    let line = place.as_deref().and_then(|it| it.rsplit(':').nth(1)).unwrap_or("-").to_owned();
    format!("{line}: {error}")
}

fn render(error: &PlanError) -> String {
    let mut text = String::new();
    let theme = miette::GraphicalTheme::unicode_nocolor();
    let handler = miette::GraphicalReportHandler::new_themed(theme).with_width(100);
    handler.render_report(&mut text, error).expect("rendered");
    text
}

#[track_caller]
fn check(plan: &str, expected: &str) {
    // A plan that brings its own version stands alone; any other is added to the head.
    let text = plan.strip_prefix('!').map_or_else(|| format!("{HEAD}{plan}"), str::to_owned);
    let target = if text.contains("default_target") { None } else { Some("local") };
    let error = load(&text, target).expect_err(plan);
    assert_eq!(shown(&error), expected, "{text}\n{}", render(&error));
    assert!(error.code().is_some_and(|it| it.to_string().starts_with("plan.")), "{error:?}");
    let help = error.help().expect("help").to_string();
    assert!(help.ends_with('.') && help.starts_with(|c: char| c.is_uppercase()), "{help}");
    let mut all = format!("{error} {help} {error:?} {error:#?} {}", render(&error));
    write!(all, "{:?}", PlanFile::parse(Path::new("p.toml"), &text)).expect("written");
    assert!(!all.contains("hunter2") && !all.contains("hun/ter2") && !all.contains("hun%2Fter2"), "{all}");
}

#[test]
fn the_form_of_the_file() {
    check("!version = ", "1: string values must be quoted, expected literal string");
    check("!version = 1\nname = \"x\"\nname = \"y\"", "3: duplicate key");
    check("x = 1\n[run", "7: unclosed table, expected `]`");
    check("!name = \"x\"", "1: the plan has no `version`");
    check("!version = 2\nnew_key = 1", "1: the plan is of version 2, and this migrate reads version 1");
    check("!version = \"1\"", "1: the plan is of version \"1\", and this migrate reads version 1");
    check("!version = 1\n[targets.local.databases]\na = \"${A}\"", "1: the plan has no `name`");
    check("!version = 1\nname = 3\n", "2: `name` of the plan: a whole number stands where a text in quotes belongs");
    check("!version = 1\nname = \"x\"\nstorage = 1", "3: `storage` is not a key of the plan");
    check("[strore]", "6: `strore` is not a key of the plan");
    check("[lint]\nalow = []", "7: `alow` is not a key of `[lint]`");
    let unknown = "names `ban-drop-tabel`, which is no rule that can be allowed";
    check("[lint]\nallow = [\n\"ban-drop-tabel\"]", &format!("8: `allow` of `[lint]` {unknown}"));
    check("[store]\ncompresion = \"gzip\"", "7: `compresion` is not a key of `[store]`");
    check("[store]\nurl = 1", "7: `url` of `[store]`: a whole number stands where a text in quotes belongs");
    check("[store]\ncompression = \"lz4\"", "7: `compression` of `[store]`: `lz4` is not one of `gzip`, `zstd`");
    check(
        "[store]\nretention = { keep_last = 10, keep_weeks = 3 }",
        "7: `keep_weeks` is not a key of `retention` of `[store]`",
    );
    check(
        "[store]\nretention = { keep_last = -1 }",
        "7: `retention.keep_last` of `[store]`: the number is out of range",
    );
    check("[store]\nretention = 3", "7: `retention` of `[store]`: a whole number stands where a table belongs");
    check("!version = 1\nname = \"x\"\nstore = \"gs://bucket\"", "3: `[store]`: a text stands where a table belongs");
    check("[run]\nparallel = \"4\"", "7: `parallel` of `[run]`: a text stands where a whole number belongs");
    check("[run]\nparallel = 0", "7: `parallel` of `[run]`: the number is zero");
    check("[run]\njobs = 0", "7: `jobs` of `[run]`: the number is zero");
    check("[run]\nmemory = \"64MiB\"", "7: `memory` of `[run]`: it is too little for one dump or restore");
    check("[run]\nmemory = \"256MB\"", "7: `memory` of `[run]`: `256MB` is not a size");
    check("[run]\nparallel = -2", "7: `parallel` of `[run]`: the number is out of range");
    check(
        "[run]\nparallel = 4.5",
        "7: `parallel` of `[run]`: a number with a point stands where a whole number belongs",
    );
    check("[run]\nlock_timeout = \"4 seconds\"", "7: `lock_timeout` of `[run]`: `4 seconds` is not a duration");
    check("[run]\nlock_timeout = \"0\"", "7: `lock_timeout` of `[run]`: `0` would wait for ever");
    check("[run]\nlock_timeout = \"0s\"", "7: `lock_timeout` of `[run]`: `0s` would wait for ever");
    check("[run]\nlock_timeout = \"4\"", "7: `lock_timeout` of `[run]`: `4` is not a duration");
    check(
        "[run]\nlock_timeout = 4",
        "7: `lock_timeout` of `[run]`: a whole number stands where a text in quotes belongs",
    );
    check("[run]\nstatement_timeout = \"1000h\"", "7: `statement_timeout` of `[run]`: `1000h` is not a duration");
    check(
        "[run]\nstatement_timeout = \"99999999999999999999ms\"",
        "7: `statement_timeout` of `[run]`: `99999999999999999999ms` is not a duration",
    );
    check(
        "[run]\non_failure = \"roll_back\"",
        "7: `on_failure` of `[run]`: `roll_back` is not one of `rollback`, `halt`",
    );
    check("[run]\nfreeze = true", "7: `freeze` of `[run]`: something else stands where a text in quotes belongs");
    check("[run]\nretries = 1", "7: `retries` is not a key of `[run]`");
    check("[databases.a]\nextension = [\"vector\"]", "7: `extension` is not a key of `[databases.a]`");
    check(
        "[databases.a]\nextensions = \"vector\"",
        "7: `extensions` of `[databases.a]`: a text stands where a list in `[…]` belongs",
    );
    check(
        "!version = 1\nname = \"x\"\nsteps = 1",
        "3: `steps`: a whole number stands where a list of tables, `[[steps]]`, belongs",
    );
    check("[steps]\nname = \"x\"", "6: `steps`: a table stands where a list of tables, `[[steps]]`, belongs");
    check("!version = 1\nname = \"x\"\nsteps = [1]", "3: a step: a whole number stands where a table belongs");
}

#[test]
fn hooks_do_one_thing_and_put_no_secret_among_arguments() {
    check("[[hooks]]\non = \"success\"", "7: a hook: it has both `argv` and `http`, or neither");
    check("[[hooks]]\non = \"success\"\nargv = []", "8: a hook: `argv` is empty");
    check(
        "[[hooks]]\non = \"success\"\nargv = [\"curl\", \"${ALARM_URL}\"]",
        "8: a hook: `${ALARM_URL}` would put a secret among the arguments",
    );
    check("[[hooks]]\non = \"success\"\nhttp = \"x\"\nenv = { A = \"b\" }", "8: a hook: `env` is for a program");
}

#[test]
fn words_of_the_contract_that_are_not_built_yet() {
    check("[run]\nfreeze = \"read_only\"", "7: `freeze = \"read_only\"` is not supported by this version of migrate");
    for kind in ["sql", "http", "command", "git"] {
        let expected = format!("8: a check of kind `{kind}` is not supported by this version of migrate");
        check(&format!("[[checks]]\nname = \"x\"\nkind = \"{kind}\"\nurl = \"https://example.org\""), &expected);
    }
}

#[test]
fn targets_and_databases() {
    check("!version = 1\nname = \"x\"", "-: the plan has no target");
    check("!version = 1\nname = \"x\"\n[targets]", "-: the plan has no target");
    check("!version = 1\nname = \"x\"\ntargets = 1", "3: `targets`: a whole number stands where a table belongs");
    check("!version = 1\nname = \"x\"\n[targets.local]", "3: `[targets.local]` has no `databases`");
    check(
        "!version = 1\nname = \"x\"\n[targets.local]\nprotectd = true\n[targets.local.databases]",
        "4: `protectd` is not a key of `[targets.local]`",
    );
    check(
        "!version = 1\nname = \"x\"\n[targets.local]\nprotected = 1\n[targets.local.databases]",
        "4: `protected` of `[targets.local]`: a whole number stands where `true` or `false` belongs",
    );
    check("!version = 1\nname = \"x\"\n[targets.local.databases]", "3: target `local` has no database");
    check(
        "!version = 1\nname = \"x\"\n[targets.\"a b\".databases]\na = \"${A}\"",
        "3: `a b` is not a target name: it may hold letters, digits, `_`, `-` and `.`, and starts with a letter or a digit",
    );
    check(
        "!version = 1\nname = \"x\"\n[targets.local.databases]\n\"a/b\" = \"${A}\"",
        "4: `databases` of `[targets.local]`: `a/b` is not a database name: it may hold letters, digits, `_`, `-` and `.`, and starts with a letter or a digit",
    );
    check(
        "!version = 1\nname = \"x\"\n[targets.local.databases]\na.b = \"${A}\"",
        "4: `databases.a` of `[targets.local]`: a table stands where a text in quotes belongs",
    );
    check(
        "!version = 1\nname = \"x\"\ndefault_target = \"locale\"\n[targets.local.databases]\na = \"${A}\"",
        "3: the plan has no target `locale`",
    );
    check(
        "!version = 1\nname = \"x\"\n[targets.production.databases]\na = \"${A}\"",
        "-: the plan has no target `local`",
    );
    check("!version = 1\nname = \"x\"\n#default_target\n[targets.t.databases]\na = \"${A}\"", "-: no target is chosen");
    check(
        "!version = 1\nname = \"x\"\n[targets.local.databases]\na = \"${A}\"\n[targets.t.databases]\nbb = \"${B}\"\n[[steps]]\nname = \"x\"\ndatabase = \"bb\"\nkind = \"sql\"\ndir = \"m\"",
        "9: step `x` names the database `bb`, which target `local` does not have",
    );
    check("[databases.c]\nowner = \"me\"", "6: `[databases.c]` names the database `c`, which no target has");
    check(
        "[databases.\"c d\"]",
        "6: `c d` is not a database name: it may hold letters, digits, `_`, `-` and `.`, and starts with a letter or a digit",
    );
}

#[test]
fn variables_urls_and_the_store() {
    let local = |url: &str| format!("!version = 1\nname = \"x\"\n[targets.local.databases]\na = \"{url}\"");
    check(&local("${NOPE}"), "4: the variable `NOPE` is not set, and database `a` of target `local` needs it");
    check(&local("${EMPTY}"), "4: the variable `EMPTY` is empty, and database `a` of target `local` needs it");
    check(&local("postgresql://${A"), "4: a `${` has no `}`");
    check(&local("postgresql://${A-x}@h/db"), "4: a `${…}` does not hold the name of a variable");
    check(&local("postgresql://app:hunter2@db/a"), "4: the plan holds a literal password");
    check(&local("postgresql://db/a?user=me&password=hunter2"), "4: the plan holds a literal password");
    check(&local("postgresql://app:x${PASSWORD}@db/a"), "4: the plan holds a literal password");
    check(&local("postgresql://app:${PASSWORD}@/a"), "4: database `a` of target `local`: the URL names no host");
    check(&local("postgresql://app:${PASSWORD}@db/"), "4: database `a` of target `local`: the URL names no database");
    check(
        &local("postgresql://app:${PASSWORD}@db/a?pool_size=3"),
        "4: database `a` of target `local`: the URL has the parameter `pool_size`, which migrate does not know",
    );
    check(&local("${PASSWORD}"), "4: database `a` of target `local`: the URL does not begin with `postgresql://`");
    check(
        &local("${A}?x=1"),
        "4: database `a` of target `local`: the URL has the parameter `x`, which migrate does not know",
    );
    check("[targets.other.databases]\na = \"postgresql://app:hunter2@db/a\"", "7: the plan holds a literal password");
    check("# a comment\nx = \"postgresql://a:hunter2@h/d\"", "7: the plan holds a literal password");
    check(
        "[[steps]]\nname = \"x\"\nenv = { URL = \"postgresql://a:hunter2@h/d\" }",
        "8: the plan holds a literal password",
    );
    check("\"postgresql://a:hunter2@h/d\" = 1", "6: the plan holds a literal password");
    check("x = [{ y = [\"postgresql://a:hunter2@h/d\"] }]", "6: the plan holds a literal password");
    check("x = \"postgresql://a:hunter2@h/d\" y", "6: unexpected key or value, expected newline, `#`");
    check("# postgresql://a:hunter2@h/d\n[store]\nulr = \"\"", "8: `ulr` is not a key of `[store]`");
    check("[store]\nurl = \"${MIGRATE_STORE}\"", "7: the variable `MIGRATE_STORE` is not set, and the store needs it");
    check(
        "[store]\nurl = \"/var/snapshots\"",
        "7: the store's URL begins neither with `gs://` nor with `s3://` nor with `file:///`",
    );
    check("[store]\nurl = \"file://snapshots\"", "7: the store's URL does not begin with `file:///`");
    check("[store]\nurl = \"gs:///prefix\"", "7: the store's URL names no bucket");
    check("[store]\nurl = \"s3://\"", "7: the store's URL names no bucket");
    let kinds = "`age1…`, the public key that `age-keygen` prints, is the only kind of recipient";
    check("[store]\nencrypt_to = [\n\"age1xyz\"]", &format!("8: `encrypt_to` of `[store]`: {kinds}"));
    check("[store]\nencrypt_to = [\"${PASSWORD}\"]", &format!("7: `encrypt_to` of `[store]`: {kinds}"));
    check(
        "[store]\nencrypt_to = [\"${NOPE}\"]",
        "7: the variable `NOPE` is not set, and `encrypt_to` of `[store]` needs it",
    );
    check(
        "[store]\nencrypt_to = \"age1xyz\"",
        "7: `encrypt_to` of `[store]`: a text stands where a list in `[…]` belongs",
    );
    check(
        "[store]\nurl = \"${PASSWORD}\"",
        "7: the store's URL begins neither with `gs://` nor with `s3://` nor with `file:///`",
    );
    check(
        "!version = 1\nname = \"x\"\n[targets.local.databases]\na = \"${A}\"\nb = \"${A}?sslmode=require\"",
        "5: databases `a` and `b` of target `local` are one database",
    );
}

#[test]
fn steps() {
    let sql = |more: &str| format!("[[steps]]\nname = \"x\"\ndatabase = \"a\"\nkind = \"sql\"\n{more}");
    let copy = |more: &str| format!("[[steps]]\nname = \"x\"\ndatabase = \"a\"\nkind = \"copy\"\n{more}");
    let from = "from = { database = \"b\", table = \"t\" }\n";
    check("[[steps]]\nname = \"x\"\ndatabase = \"a\"", "6: the step `x` has no `kind`");
    check(
        "[[steps]]\ndatabase = \"a\"\nkind = \"sqll\"",
        "8: `kind` of a step: `sqll` is not one of `sql`, `refinery`, `alembic`, `python`, `command`, `copy`",
    );
    check("[[steps]]\ndatabase = \"a\"\nkind = \"sql\"\ndir = \"migrations/a\"", "6: a `sql` step has no `name`");
    check(
        "[[steps]]\nname = \"x y\"\ndatabase = \"a\"\nkind = \"sql\"\ndir = \"migrations/a\"",
        "7: `name` of the `sql` step `x y`: `x y` is not a step name: it may hold letters, digits, `_`, `-` and `.`, and starts with a letter or a digit",
    );
    check("[[steps]]\nname = \"x\"\nkind = \"sql\"\ndir = \"migrations/a\"", "6: the `sql` step `x` has no `database`");
    check(&sql(""), "6: the `sql` step `x` has no `dir`");
    check(&sql("dir = \"migrations/a\"\nmodules = [\"m\"]"), "11: `modules` is not a key of the `sql` step `x`");
    check(&sql("dir = \"migrations/a\"\nfrom = { table = \"t\" }"), "11: `from` is not a key of the `sql` step `x`");
    check(&sql("dir = \"migrations/a\"\nafterr = []"), "11: `afterr` is not a key of the `sql` step `x`");
    check(
        &sql("dir = \"migrations/a\"\nafter = \"y\""),
        "11: `after` of the `sql` step `x`: a text stands where a list in `[…]` belongs",
    );
    check(&sql("dir = \"migrations/a\"\nafter = [\"y\"]"), "11: step `x` waits for `y`, which is not in the plan");
    check(&sql("dir = \"migrations/a\"\nafter = [\"x\"]"), "11: step `x` waits for itself");
    check(
        &sql("dir = \"migrations/a\"\nlock_timeout = \"soon\""),
        "11: `lock_timeout` of the `sql` step `x`: `soon` is not a duration",
    );
    check(
        &sql("dir = \"migrations/a\"\nlock_timeout = \"0\""),
        "11: `lock_timeout` of the `sql` step `x`: `0` would wait for ever",
    );
    check(&sql("dir = \"\""), "10: `dir` of step `x` is empty");
    check(
        &sql("dir = \"migrations/a\"\n[[steps]]\nname = \"x\"\ndatabase = \"b\"\nkind = \"refinery\"\ndir = \"m\""),
        "12: two steps are called `x`",
    );
    check(
        "[[steps]]\nname = \"x\"\ndatabase = \"c\"\nkind = \"sql\"\ndir = \"migrations/a\"",
        "8: step `x` names the database `c`, which no target has",
    );
    check(&sql("dir = \"migrations/c\""), "10: the folder `migrations/c` of step `x` does not exist");
    check(
        &sql(
            "dir = \"migrations/a\"\nafter = [\"xx\"]\n[[steps]]\nname = \"xy\"\ndatabase = \"a\"\nkind = \"sql\"\ndir = \"m\"",
        ),
        "11: step `x` waits for `xx`, which is not in the plan",
    );
    check(&copy(""), "6: the `copy` step `x` has no `from`");
    check(
        &copy("from = { table = \"t\" }\nto = { table = \"t\" }\nkey = [\"id\"]"),
        "10: `from` of the `copy` step `x` has no `database`",
    );
    check(
        &copy("from = \"t\"\nto = { table = \"t\" }\nkey = [\"id\"]"),
        "10: `from` of the `copy` step `x`: a text stands where a table belongs",
    );
    check(
        &copy(&format!("{from}to = {{ database = \"a\", table = \"t\" }}\nkey = [\"id\"]")),
        "11: `database` is not a key of `to` of the `copy` step `x`",
    );
    check(&copy(&format!("{from}to = {{ table = \"\" }}\nkey = [\"id\"]")), "11: `table` of step `x` is empty");
    check(&copy(&format!("{from}to = {{ table = \"t\" }}\nkey = []")), "12: `key` of step `x` is empty");
    check(
        &copy(&format!("{from}to = {{ table = \"t\" }}\nkey = \"id\"")),
        "12: `key` of the `copy` step `x`: a text stands where a list in `[…]` belongs",
    );
    check(
        &copy(&format!("{from}to = {{ table = \"t\" }}\nkey = [\"id\"]\nomit = [\"v\", \"id\"]")),
        "13: step `x` omits `id`, which is in its `key`",
    );
    check(
        &copy("from = { database = \"c\", table = \"t\" }\nto = { table = \"t\" }\nkey = [\"id\"]"),
        "10: step `x` names the database `c`, which no target has",
    );
    check(
        &copy("from = { database = \"a\", table = \"public.t\" }\nto = { table = \"t\" }\nkey = [\"id\"]"),
        "11: step `x` names the same table as its source and its target",
    );
}

/// A step of `kind` on database `a`; `more` begins on line 10.
fn program(kind: &str, more: &str) -> String {
    format!("[[steps]]\nname = \"x\"\ndatabase = \"a\"\nkind = \"{kind}\"\n{more}")
}

#[test]
fn steps_that_run_programs() {
    let python = |more: &str| program("python", &format!("dir = \"app\"\n{more}"));
    let one = "modules = [\"migrations.one\"]";
    check(&program("python", one), "6: the `python` step `x` has no `dir`");
    check(&python(""), "7: step `x` has neither of `modules` and `order_file`");
    check(
        &python(&format!("{one}\norder_file = \"app/order.txt\"")),
        "12: step `x` has both of `modules` and `order_file`",
    );
    check(&python("modules = []"), "11: `modules` of step `x` is empty");
    check(&python("order_file = \"app/empty.txt\""), "11: `order_file` of step `x` is empty");
    check(&python("modules = [\"migrations.one\", \"migrations.one\"]"), "11: two modules are called `migrations.one`");
    check(
        &python("modules = \"migrations.one\""),
        "11: `modules` of the `python` step `x`: a text stands where a list in `[…]` belongs",
    );
    check(&python(&format!("{one}\nmodul = 1")), "12: `modul` is not a key of the `python` step `x`");
    check(&python(&format!("{one}\nargv = [\"x\"]")), "12: `argv` is not a key of the `python` step `x`");
    check(
        &python(&format!("{one}\ntimeout = \"1 hour\"")),
        "12: `timeout` of the `python` step `x`: `1 hour` is not a duration",
    );
    check(
        &python(&format!("{one}\nenv = {{ X = \"${{NOWHERE}}\" }}")),
        "12: the variable `NOWHERE` is not set, and step `x` needs it",
    );
    check(
        &python(&format!("{one}\nenv = {{ X = 1 }}")),
        "12: `env.X` of the `python` step `x`: a whole number stands where a text in quotes belongs",
    );
    check(&python(&format!("{one}\nenv = {{ X = \"${{url\" }}")), "12: a `${` has no `}`");
    check(
        &python(&format!("{one}\nenv = {{ X = \"postgresql://app:hunter2@h/d\" }}")),
        "12: the plan holds a literal password",
    );
    check(
        &program("python", &format!("dir = \"nowhere\"\n{one}")),
        "10: the folder `nowhere` of step `x` does not exist",
    );
    check(
        &python("modules = [\n\"migrations.three\"]"),
        "12: `modules` of step `x` names the module `migrations.three`, and there is no app/migrations/three.py",
    );
    check(
        &python("order_file = \"app/other.txt\""),
        "11: `order_file` of step `x` names `app/other.txt`, which does not exist",
    );

    let alembic = |more: &str| program("alembic", &format!("dir = \"app\"\n{more}"));
    check(&program("alembic", ""), "6: the `alembic` step `x` has no `dir`");
    check(
        &alembic("mode = \"offline\""),
        "11: `mode` of the `alembic` step `x`: `offline` is not one of `online`, `sql`",
    );
    check(&alembic("modules = []"), "11: `modules` is not a key of the `alembic` step `x`");
}

#[test]
fn steps_that_run_commands() {
    let command = |more: &str| program("command", more);
    let argv = "argv = [\"dbt\", \"build\"]";
    check(&command(""), "6: the `command` step `x` has no `argv`");
    check(&command("argv = []"), "10: `argv` of step `x` is empty");
    check(
        &command("argv = \"dbt build\""),
        "10: `argv` of the `command` step `x`: a text stands where a list in `[…]` belongs",
    );
    check(&command(&format!("{argv}\nmodules = []")), "11: `modules` is not a key of the `command` step `x`");
    check(
        &command(&format!("{argv}\nrun = \"sometimes\"")),
        "11: `run` of the `command` step `x`: `sometimes` is not one of `always`, `once`, `on_change`",
    );
    check(
        &command("argv = [\"psql\",\n\"--password=${password}\"]"),
        "11: `argv` of step `x` holds a password: `--password=${password}`",
    );
    check(&command("argv = [\"psql\", \"${A}\"]"), "10: `argv` of step `x` holds a password: `${A}`");
    check(
        &command("argv = [\"psql\", \"${NOWHERE}\"]"),
        "10: the variable `NOWHERE` is not set, and step `x` needs it",
    );
    check(&command(&format!("{argv}\ndir = \"nowhere\"")), "11: the folder `nowhere` of step `x` does not exist");
    check(
        &command(&format!("{argv}\ninputs = [\"migrations\",\n\"*.sql\"]")),
        "12: `inputs` of step `x` names `*.sql`, which does not exist",
    );
}

#[test]
fn steps_that_run_programs_are_expanded_for_their_database() {
    let steps = [
        "[[steps]]\nname = \"p\"\ndatabase = \"a\"\nkind = \"python\"\ndir = \"app\"\norder_file = \"app/order.txt\"\n\
         env = { URL = \"${url}\", DATABASE = \"${dbname}\", STORE = \"${STORE}\" }\ntimeout = \"2m\"\n",
        "[[steps]]\nname = \"c\"\ndatabase = \"b\"\nkind = \"command\"\nargv = [\"land\", \"${url}\", \"${host}\", \"${user}\"]\n\
         run = \"once\"\nprobe = \"select true\"\n",
        "[[steps]]\nname = \"s\"\ndatabase = \"b\"\nkind = \"alembic\"\ndir = \"app\"\nmode = \"sql\"\n",
    ];
    let plan = load(&format!("{HEAD}{}", steps.concat()), Some("local")).expect("a good plan");
    let kind = |name: &str| &plan.steps.iter().find(|it| it.name.as_str() == name).expect("a step").kind;
    let Kind::Python(python) = kind("p") else { panic!("{plan:?}") };
    let names: Vec<&str> = python.migrations.iter().map(|it| it.name.as_str()).collect();
    assert_eq!(names, ["migrations.two", "migrations.one"]);
    assert_eq!((python.interpreter.as_str(), python.surroundings.timeout), ("python3", Some(Duration::from_secs(120))));
    let env: Vec<(&str, &str)> =
        python.surroundings.env.iter().map(|(name, it)| (name.as_str(), it.expose())).collect();
    let url = "postgresql://app:hunter2@db.example.org/a";
    assert_eq!(env, [("DATABASE", "a"), ("LANG", "C.UTF-8"), ("STORE", "gs://bucket/prefix"), ("URL", url)]);
    let Kind::Command(command) = kind("c") else { panic!("{plan:?}") };
    let url = "postgresql://app@/b?host=/cloudsql/p:r:i&sslmode=prefer";
    assert_eq!(command.argv, ["land", url, "/cloudsql/p:r:i", "app"]);
    assert_eq!(command.surroundings.env["PGPASSWORD"].expose(), "hunter2");
    let Kind::Alembic(alembic) = kind("s") else { panic!("{plan:?}") };
    assert_eq!((alembic.config.as_str(), alembic.mode), ("alembic.ini", kind::alembic::AlembicMode::Sql));
    assert!(!format!("{plan:?} {plan:#?} {}", plan.text).contains("hunter2"));
}

#[test]
fn a_cycle_is_named_whole() {
    let step = |name: &str, after: &str| {
        format!(
            "[[steps]]\nname = \"{name}\"\ndatabase = \"a\"\nkind = \"sql\"\ndir = \"migrations/a\"\nafter = [{after}]\n"
        )
    };
    let text =
        [step("s", ""), step("one", "\"s\", \"three\""), step("two", "\"one\""), step("three", "\"two\"")].concat();
    check(&text, "17: the steps wait for one another: one → three → two → one");
}

#[test]
fn checks() {
    let sync = |more: &str| format!("[[checks]]\nname = \"x\"\nkind = \"sync\"\n{more}");
    let both = "source = { database = \"a\", table = \"t\" }\ntarget = { database = \"b\", table = \"t\" }\n";
    check(&sync(""), "6: the `sync` check `x` has no `source`");
    check("[[checks]]\nname = \"x\"", "6: the check `x` has no `kind`");
    check("[[checks]]\nkind = \"sync\"", "6: a `sync` check has no `name`");
    check(
        "[[checks]]\nkind = \"sink\"",
        "7: `kind` of a check: `sink` is not one of `sync`, `sql`, `http`, `command`, `git`",
    );
    check(&sync(&format!("{both}key = []")), "11: `key` of check `x` is empty");
    check(
        &sync(&format!("{both}key = [\"id\"]\nwhen = \"later\"")),
        "12: `when` of the `sync` check `x`: `later` is not one of `before`, `after`",
    );
    check(&sync(&format!("{both}key = [\"id\"]\nmin_row = 1")), "12: `min_row` is not a key of the `sync` check `x`");
    check(
        &sync(&format!("{both}key = [\"id\"]\nmin_rows = -1")),
        "12: `min_rows` of the `sync` check `x`: the number is out of range",
    );
    check(
        &sync(&format!("{both}key = [\"id\"]\nmin_rows = \"1\"")),
        "12: `min_rows` of the `sync` check `x`: a text stands where a whole number belongs",
    );
    check(
        &sync(&format!("{}key = [\"id\"]", both.replace("\"b\"", "\"c\""))),
        "10: check `x` names the database `c`, which no target has",
    );
    check(
        &sync(&format!("{}key = [\"id\"]", both.replace("\"b\"", "\"a\""))),
        "10: check `x` names the same table as its source and its target",
    );
    let valid = sync(&format!("{both}key = [\"id\"]\n"));
    check(&format!("{valid}{valid}"), "13: two checks are called `x`");
    check(&valid.replace("name = \"x\"", "name = \"\""), "7: `name` of a check is empty");
}

/// The example of the contract, its Python step as a step of kind `refinery`.
const CONTRACT: &str = r#"version = 1
name = "mobius"
default_target = "local"
# once: postgresql://app:hunter2@db.example.org/mobius

[store]
url = "${STORE}"                 # gs://bucket/prefix, s3://…, file:///…
compression = "gzip"                     # gzip | zstd
retention = { keep_last = 10, keep_days = 35 }

[targets.production]
protected = true
[targets.production.databases]
mobius      = "${MOBIUS_DATABASE_URL}"
mobius_rag  = "${DATABASE_URL}"
mobius_chat = "${CHAT_RAG_DATABASE_URL}"
mobius_user = "${USER_DATABASE_URL}"

[targets.local]
disposable = true
[targets.local.databases]
mobius      = "postgresql:///mobius?host=/run/postgresql"
mobius_rag  = "postgresql://app:${PASSWORD}@db.example.org:6432/rag"
mobius_chat = "${A}"
mobius_user = "${B}"

[run]
freeze = "none"
on_failure = "halt"
parallel = 2
jobs = 3
memory = "1GiB"
drill = true
lock_timeout = "500ms"
lock_retries = 3
statement_timeout = "2m"

[databases.mobius_rag]
owner = "RAG DB owner"
extensions = ["vector"]
standby = false

[[steps]]
name = "publish"
database = "mobius_chat"
kind = "copy"
after = ["rag-schema", "chat-schema"]
from = { database = "mobius_rag", table = "rag_published_embeddings" }
to = { table = "published_rag_metadata" }
key = ["id"]
omit = ["embedding"]

[[steps]]
name = "rag-schema"
database = "mobius_rag"
kind = "refinery"
dir = "migrations/b"
lock_timeout = "1h"
statement_timeout = "0"

[[steps]]
name = "chat-schema"
database = "mobius_chat"
kind = "sql"
dir = "migrations/a"

[[checks]]
name = "published-rag-in-sync"
when = "after"
kind = "sync"
source = { database = "mobius_rag", table = "rag_published_embeddings" }
target = { database = "mobius_chat", table = "published_rag_metadata" }
key = ["id"]
compare = ["content_sha", "updated_at"]
owner = "Chat DB owner"
"#;

#[test]
fn the_plan_of_the_contract() {
    // The variables of `production` are not set: `local` does not need them.
    let plan = load(CONTRACT, None).expect("a good plan");
    assert_eq!((plan.name.as_str(), plan.target.name.as_str()), ("mobius", "local"));
    assert!(plan.target.disposable && !plan.target.protected);
    assert_eq!(plan.store.url.as_deref(), Some("gs://bucket/prefix"));
    assert_eq!(plan.store.retention, Retention { keep_last: Some(10), keep_days: Some(35) });
    let run = RunSettings {
        on_failure: OnFailure::Halt,
        parallel: 2,
        jobs: Some(3),
        memory: 1 << 30,
        drill: true,
        lock_timeout: Duration::from_millis(500),
        lock_retries: 3,
        statement_timeout: Duration::from_secs(120),
    };
    assert_eq!(plan.run, run);
    let urls: Vec<String> = plan.databases.values().map(|it| it.url.to_string()).collect();
    let expected = [
        "postgresql://me@/mobius?host=/run/postgresql",
        "postgresql://app:***@db.example.org:5432/a",
        "postgresql://app:***@db.example.org:6432/rag",
        "postgresql://app:***@/b?host=/cloudsql/p:r:i",
    ];
    assert_eq!(urls, expected);
    let rag = &plan.databases[&DatabaseName::new("mobius_rag").expect("a name")];
    assert_eq!(rag.url.password().map(|it| it.expose()), Some("hun/ter2@"));
    assert_eq!((rag.owner.as_deref(), rag.extensions.as_slice()), (Some("RAG DB owner"), &["vector".to_owned()][..]));
    let steps: Vec<&str> = plan.steps.iter().map(|it| it.name.as_str()).collect();
    assert_eq!(steps, ["rag-schema", "chat-schema", "publish"]);
    assert_eq!(plan.steps[0].lock_timeout, Some(Duration::from_secs(3600)));
    assert_eq!(plan.steps[0].statement_timeout, Some(Duration::ZERO));
    let Kind::Copy(copy) = &plan.steps[2].kind else { panic!("{:?}", plan.steps[2]) };
    assert_eq!((copy.from.database.as_str(), copy.to.database.as_str()), ("mobius_rag", "mobius_chat"));
    assert_eq!((copy.key.as_slice(), copy.omit.as_slice()), (&["id".to_owned()][..], &["embedding".to_owned()][..]));
    let check = &plan.checks[0];
    assert_eq!((check.when, check.sync.min_rows, check.sync.compare.len()), (When::After, 1, 2));
    assert!(plan.text.contains("postgresql://app:*******@db.example.org/mobius"), "{}", plan.text);
    let debug = format!("{plan:?} {plan:#?}");
    assert!(!debug.contains("hunter2") && !debug.contains("hun/ter2"), "{debug}");
}

#[test]
fn everything_that_may_be_left_out_has_a_default() {
    let plan = load(HEAD, Some("local")).expect("a good plan");
    let run = RunSettings {
        on_failure: OnFailure::Rollback,
        parallel: 4,
        jobs: None,
        memory: 256 << 20,
        drill: false,
        lock_timeout: Duration::from_secs(4),
        lock_retries: 8,
        statement_timeout: Duration::ZERO,
    };
    assert_eq!(plan.run, run);
    assert_eq!((plan.store.url, plan.store.retention), (None, Retention::default()));
    assert!(plan.steps.is_empty() && plan.checks.is_empty() && !plan.target.protected && !plan.target.disposable);
}

#[test]
fn a_plan_does_not_depend_on_the_order_in_which_the_environment_was_filled() {
    let there = PlanFile::parse(Path::new("p.toml"), CONTRACT).expect("a good plan");
    let target = there.target(None).expect("local");
    let backwards: BTreeMap<String, String> = env().into_iter().rev().collect();
    let urls = |env| format!("{:?}", there.databases(&target.name, env, None).expect("set"));
    assert_eq!(urls(&env()), urls(&backwards));
}

#[test]
fn a_stored_plan_needs_no_folders_and_only_the_variables_of_the_databases_that_matter() {
    let some = |names: &[&str]| names.iter().map(|it| DatabaseName::new(*it).expect("a name")).collect::<BTreeSet<_>>();
    let env: BTreeMap<String, String> =
        [("USER_DATABASE_URL".to_owned(), "postgresql://app:hunter2@h/user".to_owned())].into();
    let load = |only: Option<&BTreeSet<_>>| Plan::load_stored(CONTRACT, "runs/x/plan.toml", "production", &env, only);
    let plan = load(Some(&some(&["mobius_user"]))).expect("one database");
    assert_eq!(plan.databases.keys().map(DatabaseName::as_str).collect::<Vec<_>>(), ["mobius_user"]);
    assert!(plan.target.protected && plan.store.url.is_none());
    assert_eq!(plan.steps.len(), 3);
    assert!(plan.steps.iter().all(|it| it.kind.migrations().is_empty()));
    let error = load(None).expect_err("not all are set");
    assert_eq!(
        format!("{} {error}", error.place().expect("a place")),
        "runs/x/plan.toml:14:16 the variable `MOBIUS_DATABASE_URL` is not set, and database `mobius` of target \
         `production` needs it"
    );
}

#[test]
fn a_plan_file_that_is_not_there() {
    let error = Plan::load(Path::new("/nowhere/p.toml"), None, &env()).expect_err("no file");
    assert_eq!(error.to_string(), "the plan file `/nowhere/p.toml` cannot be read");
    assert_eq!(error.place(), None);
}

#[test]
fn the_project_root_is_above_a_folder_called_plans() {
    assert_eq!(project_root(Path::new("/srv/plans/production.toml")), Path::new("/srv"));
    assert_eq!(project_root(Path::new("/srv/release/production.toml")), Path::new("/srv/release"));
    assert_eq!(project_root(Path::new("plans/production.toml")), std::env::current_dir().expect("a folder"));
    assert_eq!(project_root(Path::new("/production.toml")), Path::new("/"));
}

#[test]
fn an_error_shows_the_place_and_stars_out_the_password() {
    let text = format!("{HEAD}c = \"postgresql://app:hunter2@db/c\" # not like this");
    let error = PlanFile::parse(Path::new("plans/production.toml"), &text).expect_err("a literal password");
    let expected = r#"plan.literal_password

  × the plan holds a literal password
   ╭─[plans/production.toml:6:5]
 5 │ b = "${B}"
 6 │ c = "postgresql://app:*******@db/c" # not like this
   ·     ───────────────┬───────────────
   ·                    ╰── here
   ╰────
  help: Put `${NAME}` in its place and the password in the environment; change the password if the
        file was shared.
"#;
    assert_eq!(render(&error), expected);
}

proptest::proptest! {
    /// Pieces of real plans in any order: whatever comes of it, it is a plan or an error with a place in the file.
    #[test]
    fn reading_a_plan_never_panics(pieces in proptest::collection::vec(0..40_usize, 0..30), noise in ".{0,20}") {
        let lines: Vec<&str> = CONTRACT.lines().collect();
        let mut text: String = pieces.iter().map(|at| format!("{}\n", lines[at * 2 % lines.len()])).collect();
        text.push_str(&noise);
        if let Err(error) = PlanFile::parse(Path::new("p.toml"), &format!("{HEAD}{text}")) {
            proptest::prop_assert!(!render(&error).is_empty());
        }
    }
}
