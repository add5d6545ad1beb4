"""The tools: what each wants its migrations to look like, and how it is called.

A tool is a function from a folder and the texts of the migrations to a function from a URL to a command, its environment and
its folder. `psql` is no tool for migrations: it is what all are compared with."""

import hashlib
import os
import shutil

from harness import ROOT, TOOLS

MIGRATE = os.path.join(os.environ.get("CARGO_TARGET_DIR", os.path.join(ROOT, "target")), "release", "migrate")


def texts(count):
    """The migrations of PEERS.md's figures: a small table, and a row."""
    return [f"CREATE TABLE t_{i} (id int PRIMARY KEY, v text);\nINSERT INTO t_{i} VALUES ({i}, 'v{i}');\n"
            for i in range(1, count + 1)]


def write(folder, name, text):
    path = os.path.join(folder, name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as file:
        file.write(text)
    return path


def files(folder, name, texts, before="", after=""):
    """One file a migration, by a name with the place of its number."""
    return [write(folder, name.format(i), before + text + after) for i, text in enumerate(texts, 1)]


def psql_messages(folder, texts):
    commands = [part for text in texts for part in ("-c", text)]
    return lambda url: (["psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", url, *commands], {}, folder)


def psql_on_each(folder, texts, databases):
    """A psql for each database, all at once."""
    del databases
    write(folder, "all.sh", 'messages=$1; shift\nfor url in "$@"; do\n'
          '    xargs -0 -a "$messages" psql -X -q -v ON_ERROR_STOP=1 -d "$url" & waited="$waited $!"\ndone\n'
          'for it in $waited; do wait "$it" || exit 1; done\n')
    messages = write(folder, "messages", "\0".join(part for text in texts for part in ("-c", text)))
    return lambda urls: (["sh", f"{folder}/all.sh", messages, *urls], {}, folder)


def psql_files(folder, texts):
    paths = files(folder, "{:05}.sql", texts, "BEGIN;\n", "COMMIT;\n")
    arguments = [part for path in paths for part in ("-f", path)]
    return lambda url: (["psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", url, *arguments], {}, folder)


def plan(folder, databases):
    """A plan over databases, each with the same migrations; the URLs are in the environment."""
    lines = ["version = 1", 'name = "bench"', 'default_target = "local"', "[store]", 'url = "${BENCH_STORE}"',
             "[targets.local.databases]"]
    lines += [f'd{i} = "${{BENCH_URL_{i}}}"' for i in range(databases)]
    for i in range(databases):
        lines += ["[[steps]]", f'name = "s{i}"', f'database = "d{i}"', 'kind = "sql"', 'dir = "migrations"']
    return write(folder, "plan.toml", "\n".join(lines) + "\n")


def migrate(folder, texts, databases=1):
    """`migrate` itself; the URL may be a list of one for each database."""
    files(folder, "migrations/{:05}_t.sql", texts)
    path = plan(folder, databases)
    runs = [0]

    def command(urls, *words):
        # A store of its own for each repetition, as the databases are.
        runs[0] += 1
        urls = [urls] if isinstance(urls, str) else urls
        env = {f"BENCH_URL_{i}": url for i, url in enumerate(urls)}
        env["BENCH_STORE"] = f"file://{folder}/store/{runs[0]}"
        words = words or ("apply", "--yes", "--no-snapshot", "--reason", "bench")
        return [MIGRATE, "-p", path, *words], env, folder
    return command


def installed(*parts):
    path = os.path.join(TOOLS, *parts)
    return path if os.path.exists(path) else None


def sqlx(folder, texts):
    program = installed("bin", "sqlx")
    files(folder, "{:05}_t.sql", texts)
    return program and (
        lambda url: ([program, "migrate", "run", "--source", folder, "--database-url", url], {}, folder))


def refinery(folder, texts, *flags):
    program = installed("bin", "refinery")
    files(folder, "V{}__t.sql", texts)
    return program and (
        lambda url: ([program, "migrate", "-e", "URL", "-p", folder, *flags], {"URL": url}, folder))


def refinery_grouped(folder, texts):
    return refinery(folder, texts, "-g")


def diesel(folder, texts):
    program = installed("bin", "diesel")
    files(folder, "migrations/{:05}_t/up.sql", texts)
    config = write(folder, "diesel.toml", "")
    return program and (lambda url: (
        [program, "migration", "run", "--config-file", config, "--migration-dir", f"{folder}/migrations",
         "--database-url", url], {}, folder))


def dbmate(folder, texts):
    program = installed("node_modules", "@dbmate", "linux-x64", "bin", "dbmate")
    files(folder, "{:05}_t.sql", texts, "-- migrate:up\n", "-- migrate:down\n")
    return program and (
        lambda url: ([program, "--url", url, "--migrations-dir", folder, "--no-dump-schema", "migrate"], {}, folder))


def waypoint(folder, texts):
    program = installed("bin", "waypoint")
    files(folder, "V{}__t.sql", texts)
    return program and (lambda url: ([program, "--url", url, "--locations", folder, "migrate"], {}, folder))


def node_pg_migrate(folder, texts):
    program = installed("node_modules", ".bin", "node-pg-migrate")
    files(folder, "{:013}_t.sql", texts, "-- Up Migration\n")
    return program and (lambda url: ([program, "up", "-m", folder], {"DATABASE_URL": url}, folder))


def graphile(folder, texts):
    program = installed("node_modules", ".bin", "graphile-migrate")
    before = None
    for i, text in enumerate(texts, 1):
        body = text.strip() + "\n"
        # As `calculateHash` of its hash.ts.
        digest = "sha1:" + hashlib.sha1((f"{before or ''}\n{body}".strip() + "\n").encode()).hexdigest()
        write(folder, f"migrations/committed/{i:06}.sql", f"--! Previous: {before or '-'}\n--! Hash: {digest}\n\n{body}")
        before = digest
    write(folder, ".gmrc", "{}")
    return program and (lambda url: (
        [program, "migrate"],
        {"DATABASE_URL": url, "SHADOW_DATABASE_URL": url.replace("/bench_", "/shadow_"), "ROOT_DATABASE_URL": url.replace("/bench_", "/root_")}, folder))


def alembic(folder, texts):
    program = installed("python", "bin", "alembic")
    write(folder, "alembic.ini", f"[alembic]\nscript_location = {folder}\n")
    write(folder, "env.py", """
import os
from alembic import context
from sqlalchemy import create_engine
with create_engine(os.environ["URL"]).connect() as connection:
    context.configure(connection=connection, transaction_per_migration=True)
    with context.begin_transaction():
        context.run_migrations()
""")
    for i, text in enumerate(texts, 1):
        before = repr(f"r{i - 1:05}") if i > 1 else None
        write(folder, f"versions/r{i:05}.py",
              f"from alembic import op\nrevision = 'r{i:05}'\ndown_revision = {before}\n"
              f"def upgrade():\n    op.execute('''{text}''')\n")
    return program and (lambda url: (
        [program, "-c", f"{folder}/alembic.ini", "upgrade", "head"],
        {"URL": url.replace("postgresql:", "postgresql+psycopg:")}, folder))


def yoyo(folder, texts):
    program = installed("python", "bin", "yoyo")
    files(folder, "{:05}_t.sql", texts)
    return program and (lambda url: (
        [program, "apply", "--batch", "--no-config-file", "--database", url.replace("postgresql:", "postgresql+psycopg:"),
         folder], {}, folder))


def sqitch(folder, texts):
    program = shutil.which("sqitch")
    lines = ["%syntax-version=1.0.0", "%project=bench", ""]
    for i, text in enumerate(texts, 1):
        write(folder, f"deploy/t{i}.sql", f"BEGIN;\n{text}COMMIT;\n")
        lines.append(f"t{i} 2026-01-01T00:00:00Z bench <bench@localhost> # t")
    write(folder, "sqitch.plan", "\n".join(lines) + "\n")
    write(folder, "sqitch.conf", "[core]\n\tengine = pg\n[user]\n\tname = bench\n\temail = bench@localhost\n")
    # The last part of a URL of sqitch's is no place for parameters.
    return program and (lambda url: (
        [program, "deploy", "--target", "db:" + url.replace("postgresql:", "pg:").split("?")[0]],
        {"PGSSLMODE": "disable"}, folder))


#: Name, tool, and the part of the migrations that it is given: some take minutes for a thousand.
PSQL_MESSAGES = ("psql, one message per migration", psql_messages, 1.0)
PSQL_FILES = ("psql, one transaction per file", psql_files, 1.0)
OURS = ("migrate", migrate, 1.0)
OTHERS = [
    ("refinery_cli, all in one transaction", refinery_grouped, 1.0),
    ("refinery_cli", refinery, 1.0),
    ("sqlx-cli", sqlx, 1.0),
    ("diesel_cli", diesel, 1.0),
    ("dbmate", dbmate, 1.0),
    ("alembic", alembic, 0.2),
    ("node-pg-migrate", node_pg_migrate, 0.2),
    ("graphile-migrate", graphile, 0.2),
    ("yoyo", yoyo, 0.2),
    ("waypoint", waypoint, 0.1),
    ("sqitch", sqitch, 0.1),
]
