"""`scripts/bench snapshot`: `migrate snapshot` beside pg_dump, pg_restore and pgBackRest."""

import os
import shutil
import subprocess
import tempfile

import tools
from bucket import Bucket
from harness import Failed, measure, median, say, spread

#: Text, JSON and arrays of numbers, about a third each, in several tables of different sizes: `{scale}` thousandths of a GB.
DATA = """
create table seed as
    select n, (select string_agg(md5(random()::text || n || m) || ' lorem ipsum ', '') from generate_series(1, 12) m) body,
           jsonb_build_object('id', n, 'tags', jsonb_build_array(md5(n::text), 'b', n), 'at', random(), 'kind', n % 7) doc,
           (select array_agg(random() * n * m) from generate_series(1, 40) m) numbers
    from generate_series(1, 1000) n;
create table chunks (id bigint, document int, body text, doc jsonb, numbers float8[]);
insert into chunks select k * 1000 + n, n % 97, body || k, doc || jsonb_build_object('k', k), numbers
    from generate_series(1, {large}) k, seed;
create table facts (id bigint, document int, body text, doc jsonb, numbers float8[]);
insert into facts select k * 1000 + n, n % 97, body || k, doc || jsonb_build_object('k', k), numbers
    from generate_series(1, {middle}) k, seed;
create table events (id bigint, at timestamptz, kind int, doc jsonb);
insert into events select k * 1000 + n, now() - (k * n) * interval '1 second', n % 7, doc from generate_series(1, {small}) k, seed;
drop table seed;
alter table chunks add primary key (id);
alter table facts add primary key (id);
alter table events add primary key (id);
create index on chunks (document);
create index on facts using gin (doc);
create index on events (at, kind);
"""


def made(cluster, megabytes):
    """A database of about so many megabytes."""
    database = cluster.fresh()
    unit = megabytes / 1000
    text = DATA.format(large=max(1, int(520 * unit)), middle=max(1, int(260 * unit)), small=max(1, int(500 * unit)))
    cluster.sql(text, database)
    # Else a worker of autovacuum does it beside the first turns.
    cluster.sql("vacuum (analyze)", database)
    cluster.settle()
    size = int(cluster.sql(f"select sum(pg_table_size(oid)) from pg_class where relkind = 'r' and relnamespace = "
                           f"'public'::regnamespace", database))
    say(f"a database with {size >> 20} MiB in its tables")
    return database, size


class Tool:
    """One way to dump or to restore."""

    def __init__(self, name, run, clean=None):
        self.name, self.run, self.clean, self.took, self.bytes = name, run, clean, [], None


def turns(cluster, ways, times):
    """Every way in turn, then over again."""
    for turn in range(times):
        for it in list(ways):
            cluster.settle()
            try:
                it.took.append(it.run())
                if it.clean:
                    it.bytes = it.clean()
            except Failed as error:
                say(f"{it.name} is left out: {error}")
                ways.remove(it)
        say(f"turn {turn + 1} of {times}")


def size_of(path):
    if os.path.isfile(path):
        return os.path.getsize(path)
    return sum(os.path.getsize(os.path.join(folder, name)) for folder, _, names in os.walk(path) for name in names)


def gone(path):
    """Removes it, and says how large it was."""
    size = size_of(path)
    shutil.rmtree(path) if os.path.isdir(path) else os.remove(path)
    return size


class Ours:
    """`migrate` on one database."""

    def __init__(self, folder, cluster, database, run="", store=""):
        self.folder, self.runs = folder, 0
        self.env = {"BENCH_URL": cluster.url(database)}
        os.makedirs(os.path.join(folder, "migrations"), exist_ok=True)
        with open(os.path.join(folder, "migrations", "001_t.sql"), "w") as file:
            file.write("create table made_by_release (id int);\n")
        self.plan = os.path.join(folder, "plan.toml")
        with open(self.plan, "w") as file:
            file.write(f"""version = 1
name = "bench"
default_target = "bench"
[store]
url = "${{BENCH_STORE}}"
{store}
[targets.bench.databases]
one = "${{BENCH_URL}}"
[run]
{run}
[[steps]]
name = "one"
database = "one"
kind = "sql"
dir = "migrations"
""")
        self.new_store()

    def new_store(self):
        self.runs += 1
        self.store = os.path.join(self.folder, "store", str(self.runs))

    def measure(self, *words):
        return measure([tools.MIGRATE, "-p", self.plan, *words],
                       {"BENCH_STORE": f"file://{self.store}", **self.env}, self.folder)

    def dropped(self):
        size = gone(self.store)
        self.new_store()
        return size


def by_name(ways, name):
    return next((it for it in ways if it.name == name), None)


def ratio(ours, theirs):
    """The median of the ratios of each turn."""
    return median([a.wall / b.wall for a, b in zip(ours.took, theirs.took)])


def table(report, ways, base, what):
    rows = []
    for it in ways:
        stored = f"{it.bytes / 1e6:.0f}" if it.bytes else "-"
        rows.append([it.name, f"{median([t.wall for t in it.took]):.2f}", spread([t.wall for t in it.took]),
                     f"{ratio(it, base):.2f}", f"{median([t.cpu for t in it.took]):.1f}", stored,
                     f"{max(t.memory for t in it.took):.0f}"])
    report.table([what, "wall, s", "spread", f"ratio to {base.name}", "CPU of clients, s", "MB", "memory, MiB"], rows)


def dump(cluster, report, options):
    """A gigabyte dumped, beside pg_dump."""
    megabytes = 100 if options.quick else 1000
    database, size = made(cluster, megabytes)
    folder = tempfile.mkdtemp(prefix="migrate-bench-dump-")
    pg_dump, url, file = os.path.join(cluster.bin, "pg_dump"), cluster.url(database), os.path.join(folder, "archive")

    def theirs(*words):
        return lambda: measure([pg_dump, *words, "-d", url, "-f", file])
    ours = {it: Ours(os.path.join(folder, str(n)), cluster, database, *it)
            for n, it in enumerate([("jobs = 1", 'compression = "zstd"'), ("jobs = 2", 'compression = "zstd"'),
                                    ("jobs = 2", 'compression = "gzip"')])}
    ways = [
        Tool("pg_dump -Fc", theirs("-Fc"), lambda: gone(file)),
        Tool("pg_dump -Fc -Z0 to nowhere", lambda: measure(["sh", "-c", 'exec "$0" -Fc -Z0 -d "$1" > /dev/null', pg_dump, url])),
        Tool("pg_dump -Fd -j2 -Z1", theirs("-Fd", "-j2", "-Z1"), lambda: gone(file)),
    ]
    for (run, store), it in ours.items():
        name = f"migrate, {run.replace(' = ', ' ')}, {store.split(chr(34))[1]}"
        ways.append(Tool(name, lambda it=it: it.measure("snapshot", "take"), it.dropped))
    ways += pgbackrest(cluster, folder)
    turns(cluster, ways, options.times)
    base = by_name(ways, "pg_dump -Fc -Z0 to nowhere")
    report.text(f"### A database of {size >> 20} MiB dumped\n\n`migrate` with everything that belongs to it: catalog, counts and "
                "hashes, archives read back and compared, journal, manifest.")
    table(report, ways, base, "tool")
    default, parallel = by_name(ways, "pg_dump -Fc"), by_name(ways, "pg_dump -Fd -j2 -Z1")
    one, two = by_name(ways, "migrate, jobs 1, zstd"), by_name(ways, "migrate, jobs 2, zstd")
    report.figure("wall time beside pg_dump -Fc, two jobs", ratio(two, default), 0.25)
    report.figure("archive beside that of pg_dump -Fc", two.bytes / default.bytes, 1.15)
    report.figure("wall time beside pg_dump -Fc -Z0 to nowhere, one job", ratio(one, base), 1.25)
    report.figure("wall time beside pg_dump -Fd -j2 -Z1, two jobs", ratio(two, parallel), 1.0)
    report.end()
    shutil.rmtree(folder)
    cluster.drop(database)


def pgbackrest(cluster, folder):
    """A full backup of the cluster, which holds the one database; nothing if it is not installed."""
    program = shutil.which("pgbackrest")
    if not program:
        say("pgbackrest is not installed, and left out")
        return []
    repo = os.path.join(folder, "backrest")
    os.makedirs(repo)
    os.chmod(folder, 0o755)
    if cluster.as_postgres:
        shutil.chown(repo, "postgres")
    words = [*cluster.as_postgres, program, "--stanza=bench", f"--pg1-path={cluster.data}", f"--pg1-port={cluster.port}",
             "--pg1-user=bench", f"--pg1-socket-path={cluster.folder}", f"--repo1-path={repo}", "--log-level-console=error",
             "--log-level-file=off", f"--lock-path={repo}/lock"]
    made = subprocess.run([*words, "stanza-create", "--no-online"], capture_output=True, text=True, cwd="/")
    if made.returncode != 0:
        say(f"pgbackrest is left out: {made.stdout}{made.stderr}")
        return []

    def clean():
        return sum(size_of(os.path.join(repo, "backup", "bench", name)) for name in os.listdir(
            os.path.join(repo, "backup", "bench")) if name.endswith("F"))
    backup = [*words, "--no-archive-check", "--start-fast", "--compress-type=zst", "--compress-level=1", "--type=full",
              "--process-max=2", "--repo1-retention-full=1", "backup"]
    return [Tool("pgbackrest, 2 processes, zst", lambda: measure(backup, cwd="/"), clean)]


def memory(cluster, report, options):
    """The most memory at three sizes, with a bucket that takes 20 MB a second."""
    report.text("### Memory with a slow store\n\nA bucket on this machine that takes no more than 20 MB a second.")
    rows, found = [], []
    for megabytes in (50, 200) if options.quick else (100, 1000, 5000):
        database, size = made(cluster, megabytes)
        bucket = Bucket(20e6)
        with tempfile.TemporaryDirectory(prefix="migrate-bench-memory-") as folder:
            ours = Ours(folder, cluster, database, "jobs = 2", 'compression = "zstd"')
            ours.env.update(bucket.env)
            took = ours.measure("snapshot", "take")
        rows.append([f"{size >> 20} MiB", f"{took.wall:.1f}", f"{bucket.stored() / took.wall / 1e6:.1f}", f"{took.memory:.0f}"])
        found.append(took.memory)
        bucket.stop()
        cluster.drop(database)
    report.table(["database", "wall, s", "MB/s stored", "memory, MiB"], rows)
    report.figure("the most beside the least", max(found) / min(found), 1.1)
    report.end()


def restore(cluster, report, options):
    """A gigabyte restored, beside pg_restore."""
    database, size = made(cluster, 100 if options.quick else 1000)
    folder = tempfile.mkdtemp(prefix="migrate-bench-restore-")
    archive, pg_restore = os.path.join(folder, "archive"), os.path.join(cluster.bin, "pg_restore")
    measure([os.path.join(cluster.bin, "pg_dump"), "-Fc", "-d", cluster.url(database), "-f", archive])
    ours = Ours(folder, cluster, database, "jobs = 2", 'compression = "zstd"')
    ours.measure("snapshot", "take")
    made_names = []

    def theirs(*words):
        def run():
            name = cluster.fresh()
            made_names.append(name)
            return measure([pg_restore, *words, "--exit-on-error", "-d", cluster.url(name), archive])
        return run

    def mine():
        name = f"restored_{len(made_names)}"
        made_names.append(name)
        return ours.measure("snapshot", "restore", "--only", "one", "--as", name)

    def clean():
        cluster.drop(made_names[-1])
    ways = [Tool("pg_restore", theirs(), clean), Tool("pg_restore -j2", theirs("-j2"), clean), Tool("migrate", mine, clean)]
    turns(cluster, ways, options.times)
    base = by_name(ways, "pg_restore -j2")
    report.text(f"### A database of {size >> 20} MiB restored\n\npg_restore reads a local file. `migrate` compares digests, gathers "
                "statistics, and counts every table's rows as well.")
    table(report, ways, base, "tool")
    mine = by_name(ways, "migrate")
    report.figure("wall time beside pg_restore -j2", ratio(mine, base), 1.0)
    report.figure("wall time beside pg_restore", ratio(mine, by_name(ways, "pg_restore")), 0.65)
    report.end()
    shutil.rmtree(folder)
    cluster.drop(database)


PARTS = {"dump": dump, "memory": memory, "restore": restore}


def run(cluster, report, options):
    for name in options.parts or PARTS:
        PARTS[name](cluster, report, options)
