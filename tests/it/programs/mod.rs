//! Steps that run programs, typed as a user types them: `python`, `alembic`, `command`.

mod alembic;
mod alembic_down;
mod alembic_mobius;
mod alembic_version;
mod astray;
mod catalog;
mod command;
mod python;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use crate::world::{TestWorld, until};

/// The interpreter that has alembic and psycopg.
pub(crate) fn interpreter() -> String {
    let made = concat!(env!("CARGO_MANIFEST_DIR"), "/target/test-python/bin/python");
    let path = std::env::var("MIGRATE_TEST_PYTHON").unwrap_or_else(|_| made.to_owned());
    assert!(
        Path::new(&path).exists(),
        "the tests need a Python with alembic and psycopg: run scripts/install, which makes {made}, or set MIGRATE_TEST_PYTHON"
    );
    path
}

/// A `python` step called DATABASE-schema, in the folder `app`.
pub(crate) fn python_step(database: &str, modules: &[&str], rest: &str) -> String {
    format!(
        "[[steps]]\nname = \"{database}-schema\"\ndatabase = \"{database}\"\nkind = \"python\"\ndir = \"app\"\n\
         interpreter = \"{}\"\nmodules = {modules:?}\nenv = {{ DATABASE_URL = \"${{url}}\" }}\n{rest}",
        interpreter()
    )
}

/// What modules import to say something to a database, each statement on its own.
pub(crate) fn python_library(world: &TestWorld) {
    let text = "import os, psycopg\n\n\ndef run(sql, variable='DATABASE_URL'):\n    with \
                psycopg.connect(os.environ[variable], autocommit=True) as session:\n        return session.execute(sql)\n";
    world.file("app/db.py", text);
}

/// A module `NAME` whose `migrate()` runs `sql`.
pub(crate) fn module(world: &TestWorld, name: &str, sql: &str) {
    world.file(
        &format!("app/{name}.py"),
        &format!("from db import run\n\n\ndef migrate():\n    run(\"\"\"{sql}\"\"\")\n"),
    );
}

/// An Alembic folder `os` whose `env.py` prints lines of its own and takes its URL from `OS_URL`.
pub(crate) fn alembic_folder(world: &TestWorld) {
    world.file("os/alembic.ini", "[alembic]\nscript_location = migrations\n");
    world.file(
        "os/migrations/env.py",
        "import os\nfrom alembic import context\nfrom sqlalchemy import create_engine, pool\n\n\
         print('env.py speaks')\n\
         url = os.environ['OS_URL'].replace('postgresql://', 'postgresql+psycopg://')\n\
         if context.is_offline_mode():\n    context.configure(url=url, literal_binds=True)\n    \
         with context.begin_transaction():\n        context.run_migrations()\n\
         else:\n    with create_engine(url, poolclass=pool.NullPool).connect() as session:\n        \
         context.configure(connection=session)\n        with context.begin_transaction():\n            \
         context.run_migrations()\n",
    );
}

/// A revision after `parent`, which runs `sql`.
pub(crate) fn revision(world: &TestWorld, name: &str, parent: Option<&str>, sql: &str) {
    let parent = parent.map_or("None".to_owned(), |it| format!("'{it}'"));
    let mut text = format!("from alembic import op\n\nrevision = '{name}'\ndown_revision = {parent}\n");
    write!(text, "print('revision {name} is imported')\n\n\ndef upgrade():\n    op.execute(\"\"\"{sql}\"\"\")\n")
        .expect("a text takes text");
    world.file(&format!("os/migrations/versions/{name}.py"), &text);
}

/// As [`revision`], with a way back.
pub(crate) fn two_way(world: &TestWorld, name: &str, parent: Option<&str>, up: &str, down: &str) {
    revision(world, name, parent, up);
    let path = world.path().join(format!("os/migrations/versions/{name}.py"));
    let text = fs::read_to_string(&path).expect("it was written");
    fs::write(&path, text + &format!("\n\ndef downgrade():\n    op.execute(\"\"\"{down}\"\"\")\n")).expect("a file");
}

/// An `alembic` step called `os-schema`, in the folder `os`.
pub(crate) fn alembic_step(database: &str, rest: &str) -> String {
    format!(
        "[[steps]]\nname = \"os-schema\"\ndatabase = \"{database}\"\nkind = \"alembic\"\ndir = \"os\"\n\
         interpreter = \"{}\"\nenv = {{ OS_URL = \"${{url}}\" }}\n{rest}",
        interpreter()
    )
}

/// Leads a database's URL to the same database, with a password that the server does not ask for.
fn with_password(world: &mut TestWorld, database: &str) {
    let url = format!("{}&password={PASSWORD}", world.url(database));
    world.lead(database, url);
}

/// A password.
const PASSWORD: &str = "correct-horse-7";

/// What a program printed: the only object whose key ends so.
fn output(world: &TestWorld, ending: &str) -> String {
    fs::read_to_string(world.object(ending)).expect("a log is text")
}

/// Waits for a file and what is in it.
async fn content(path: PathBuf) -> String {
    until("the file is there", async || fs::read_to_string(&path).is_ok_and(|it| !it.is_empty())).await;
    fs::read_to_string(&path).expect("it is there")
}

/// Waits until no process of this number runs.
async fn gone(pid: &str) {
    let stat = format!("/proc/{pid}/stat");
    until("the process is gone", async || fs::read_to_string(&stat).map_or(true, |state| state.contains(") Z "))).await;
}
