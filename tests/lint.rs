//! `migrate lint` and `migrate new` as typed: arguments, formats, exit codes. No server and no variable is needed.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

const PLAN: &str = r#"version = 1
name = "demo"
default_target = "local"
[targets.local.databases]
a = "${NOT_SET}"
[[steps]]
name = "ours"
database = "a"
kind = "sql"
dir = "sql"
[[steps]]
name = "theirs"
database = "a"
kind = "refinery"
dir = "refinery"
[[steps]]
name = "rows"
database = "a"
kind = "copy"
from = { database = "a", table = "t" }
to = { table = "u" }
key = ["id"]
"#;

/// A project with these files and the plan above, `extra` added.
fn project(extra: &str, files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    for folder in ["plans", "sql", "refinery"] {
        fs::create_dir(dir.path().join(folder)).expect("a folder");
    }
    let plan = PLAN.replacen("[targets", &format!("{extra}\n[targets"), 1);
    fs::write(dir.path().join("plans/production.toml"), plan).expect("written");
    for (name, text) in [("sql/1_a.sql", "select 1;\n-- migrate:down\nselect 2;"), ("refinery/V1__a.sql", "select 1;")]
    {
        fs::write(dir.path().join(name), text).expect("written");
    }
    for (name, text) in files {
        fs::write(dir.path().join(name), text).expect("written");
    }
    dir
}

/// Exit code, stdout, stderr.
fn migrate(dir: &Path, arguments: &[&str]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_migrate")).args(arguments).current_dir(dir).env_clear().output();
    let output = output.expect("the binary was built");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    (output.status.code().expect("an exit code"), text(output.stdout), text(output.stderr))
}

const DROPS: (&str, &str) = ("sql/2_b.sql", "-- ü\ndrop table t;\n-- migrate:irreversible");
const WARNS: (&str, &str) = ("sql/3_c.sql", "select 1;");

#[test]
fn everything_in_the_plan_is_looked_at() {
    let dir = project("", &[DROPS, WARNS, ("refinery/V2__b.sql", "select 1;\ncommit;")]);
    let (code, out, err) = migrate(dir.path(), &["lint"]);
    assert_eq!(code, 7, "{out}{err}");
    assert!(out.contains("sql/2_b.sql:2:1: error[ban-drop-table]: Dropping a table"), "{out}");
    assert!(out.contains("sql/3_c.sql:1:1: warning[no-way-back]: there is no way back\n  help: Write"), "{out}");
    assert!(out.contains("refinery/V2__b.sql:2:1: error[transaction-command]: COMMIT in a"), "{out}");
    assert!(out.ends_with("5 files: 2 errors, 1 warning\n"), "{out}");
    let (note, error) = err.split_once('\n').expect("two lines");
    assert!(note.starts_with("note: not compared with what was applied: the variable `NOT_SET` is not set"), "{note}");
    assert!(error.starts_with("error: lint found 2 errors and 1 warning\n"), "{err}");
    let (code, _, err) = migrate(project("", &[DROPS]).path(), &["lint", "--target", "local"]);
    assert!(code == 64 && err.contains("the variable `NOT_SET` is not set"), "{err}");
}

#[test]
fn warnings_count_where_strict() {
    let dir = project("", &[WARNS]);
    assert_eq!(migrate(dir.path(), &["lint"]).0, 0);
    assert_eq!(migrate(dir.path(), &["lint", "--strict"]).0, 7);
    assert_eq!(migrate(project("", &[]).path(), &["lint", "--strict"]).0, 0);
}

#[test]
fn the_plan_allows_by_name() {
    let dir = project("[lint]\nallow = [\"ban-drop-table\"]", &[DROPS]);
    assert_eq!(migrate(dir.path(), &["lint"]).0, 0);
    assert_eq!(migrate(dir.path(), &["lint", "sql/2_b.sql"]).0, 0);
    let (code, _, err) = migrate(project("[lint]\nallow = [\"drop\"]", &[]).path(), &["lint"]);
    assert!(code == 64 && err.contains("names `drop`, which is no rule"), "{err}");
}

#[test]
fn files_need_no_plan() {
    let dir = project("", &[DROPS, WARNS, ("sql/4_d.down.sql", "select 1;")]);
    fs::remove_dir_all(dir.path().join("plans")).expect("removed");
    let lint = |files: &[&str]| migrate(dir.path(), &[&["lint"], files].concat());
    assert_eq!(lint(&["sql/1_a.sql", "refinery/V1__a.sql"]).0, 0);
    let (code, out, _) = lint(&["sql/2_b.sql"]);
    assert!(code == 7 && out.ends_with("\n1 file: 1 error, 0 warnings\n"), "{out}");
    let (code, out, _) = lint(&["sql/4_d.down.sql"]);
    assert!(code == 7 && out.contains("sql/4_d.down.sql:1:1: error[unreadable]: there is no 4_d.sql"), "{out}");
    for missing in ["sql/9_no.sql", "sql"] {
        let (code, _, err) = lint(&[missing]);
        assert!(code == 64 && err.contains("is not a migration file"), "{err}");
    }
    // Without FILE, it is the plan that says what to look at.
    assert_eq!(lint(&[]).0, 64);
}

#[test]
fn formats_for_programs() {
    let dir = project("", &[DROPS]);
    let lint = |arguments: &[&str]| migrate(dir.path(), &[&["lint"], arguments].concat());
    let (code, json, _) = lint(&["--json"]);
    let document: Value = serde_json::from_str(&json).expect("JSON");
    let finding = &document["findings"][0];
    assert_eq!((code, &finding["rule"], &finding["severity"]), (7, &"ban-drop-table".into(), &"error".into()));
    assert_eq!((&finding["file"], &finding["line"], &finding["column"]), (&"sql/2_b.sql".into(), &2.into(), &1.into()));
    assert!(finding["message"].is_string() && finding["help"].is_string());
    assert_eq!(document["error"]["code"], 7);
    assert_eq!(lint(&["--format", "json"]).1, json);
    let (code, sarif, _) = lint(&["--format", "sarif"]);
    let sarif: Value = serde_json::from_str(&sarif).expect("JSON");
    assert_eq!((code, &sarif["version"]), (7, &"2.1.0".into()));
    assert_eq!(sarif["runs"][0]["results"][0]["ruleId"], "ban-drop-table");
    assert_eq!(lint(&["--json", "--format", "sarif"]).0, 64);
    assert_eq!(lint(&["--target", "local"]).0, 64);
}

#[test]
fn a_new_migration_in_the_style_of_its_folder() {
    let dir = project("", &[]);
    let (code, out, err) = migrate(dir.path(), &["new", "ours", "Add due-dates!"]);
    assert_eq!((code, out.as_str()), (0, "sql/2_add_due_dates.sql\n"), "{err}");
    // It has no statement yet, which reading says by name; with statements it is a migration like any other.
    let (code, out, _) = migrate(dir.path(), &["lint", "sql/2_add_due_dates.sql"]);
    assert!(code == 7 && out.contains("error[no-statement]"), "{out}");
    let path = dir.path().join("sql/2_add_due_dates.sql");
    let text = fs::read_to_string(&path).expect("written");
    let text = text.replace("\n\n-- migrate:down\n", "\nselect 1;\n\n-- migrate:down\nselect 2;\n");
    fs::write(path, text).expect("written");
    assert_eq!(migrate(dir.path(), &["lint", "--strict"]).0, 0);
    let (_, out, _) = migrate(dir.path(), &["new", "theirs", "b", "--json"]);
    assert_eq!(serde_json::from_str::<Value>(&out).expect("JSON")["files"][0], "refinery/V2__b.sql");
}

#[test]
fn a_new_migration_that_cannot_be() {
    let dir = project("", &[]);
    for (arguments, says) in [
        (["new", "rows", "x"], "step `rows` is of kind `copy`, which has no files to add to"),
        (["new", "our", "x"], "the plan has no step `our`"),
        (["new", "ours", "!?"], "`!?` holds no letter and no digit"),
    ] {
        let (code, _, err) = migrate(dir.path(), &arguments);
        assert!(code == 64 && err.contains(says), "{err}");
    }
}
