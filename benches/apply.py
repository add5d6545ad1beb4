"""`scripts/bench apply`: `migrate apply` beside the other tools. Snapshots are left out of every figure here: no other tool
takes any."""

import os
import tempfile

import tools
from harness import Failed, SlowLine, measure, median, say, spread

#: Seconds for which a slow line holds every byte, each way: a round trip takes some 10.8 ms.
DELAY = 0.005


class Prepared:
    """A tool with its migrations on disk."""

    def __init__(self, name, make, count):
        self.name, self.count = name, count
        self.folder = tempfile.TemporaryDirectory(prefix="migrate-bench-")
        os.chmod(self.folder.name, 0o755)
        self.command = make(self.folder.name, tools.texts(count))
        self.took, self.again, self.trips = [], [], []


def prepare(wanted, count):
    found = []
    for name, make, part in wanted:
        it = Prepared(name, make, max(1, int(count * part)))
        if it.command:
            found.append(it)
        else:
            say(f"{name} is not installed, and left out")
    return found


def interleaved(cluster, prepared, times, port=None, line=None):
    """Every tool in turn, on a fresh database each; then over again. Each is run a second time, with nothing to do."""
    for turn in range(times):
        for it in list(prepared):
            database = cluster.fresh()
            cluster.settle()
            url = cluster.url(database, port)
            try:
                before = line.trips if line else 0
                it.took.append(measure(*it.command(url)))
                between = line.trips if line else 0
                check(cluster, database, it.count)
                if not it.name.startswith("psql"):
                    it.again.append(measure(*it.command(url)))
                    after = line.trips if line else 0
                    it.trips.append(((between - before) - (after - between)) / it.count)
                elif line:
                    # A session of psql's is opened and closed by itself.
                    it.trips.append((between - before) / it.count)
            except Failed as error:
                say(f"{it.name} is left out: {error}")
                prepared.remove(it)
            cluster.drop(database)
        say(f"turn {turn + 1} of {times}")


def check(cluster, database, count):
    """A tool that did not do the work is not measured."""
    made = int(cluster.sql("select count(*) from pg_class where relkind = 'r' and relname ~ '^t_[0-9]+$'", database))
    if made != count:
        raise Failed(f"it made {made} tables of {count}")


def per_migration(it):
    return median([took.wall for took in it.took]) / it.count


def by_name(prepared, name):
    return next(it for it in prepared if it.name == name)


def ratio(ours, theirs):
    """The median of the ratios of each turn: what disturbed one turn disturbed both."""
    return median([a.wall / b.wall for a, b in zip(ours.took, theirs.took)])


def local(cluster, report, options):
    """A thousand migrations on a local server."""
    count, times = (200, 3) if options.quick else (1000, options.times)
    prepared = prepare([tools.PSQL_MESSAGES, tools.PSQL_FILES, tools.OURS, *options.others], count)
    interleaved(cluster, prepared, times)
    files, messages = by_name(prepared, tools.PSQL_FILES[0]), by_name(prepared, tools.PSQL_MESSAGES[0])
    report.text(f"### {count} migrations on a local server, fsync on; medians of {times}")
    report.table(
        ["tool", "wall s (least - greatest)", "ratio to psql, a transaction per file", "client CPU s", "nothing to do, ms"],
        [[it.name + (f" (at {it.count})" if it.count != count else ""),
          f"{per_migration(it) * it.count:.2f} ({spread([took.wall for took in it.took])})",
          f"{per_migration(it) / per_migration(files):.2f}",
          f"{median([took.cpu for took in it.took]):.2f}",
          f"{median([took.wall for took in it.again]) * 1000:.0f}" if it.again else "-"]
         for it in sorted(prepared, key=per_migration)])
    ours = by_name(prepared, "migrate")
    report.figure(f"{count} migrations, to psql with one message each", ratio(ours, messages), 1.05)
    report.figure(f"{count} migrations, to psql with one transaction per file", ratio(ours, files), 1.05)
    report.end()


def far(cluster, report, options):
    """A hundred through a slow line."""
    count, times = 100, 1 if options.quick else min(3, options.times)
    line = SlowLine(cluster.port, DELAY)
    prepared = prepare([(name, make, 1.0) for name, make, _ in
                        [tools.PSQL_MESSAGES, tools.PSQL_FILES, tools.OURS, *options.others]], count)
    interleaved(cluster, prepared, times, line.port, line)
    report.text(f"### {count} migrations through a line of 5 ms each way; medians of {times}")
    report.table(
        ["tool", "round trips per migration", "wall s (least - greatest)", "ratio to psql, one message per migration"],
        [[it.name, f"{median(it.trips):.1f}",
          f"{per_migration(it) * it.count:.2f} ({spread([took.wall for took in it.took])})",
          f"{per_migration(it) / per_migration(by_name(prepared, tools.PSQL_MESSAGES[0])):.2f}"]
         for it in sorted(prepared, key=per_migration)])
    ours, psql = by_name(prepared, "migrate"), by_name(prepared, tools.PSQL_MESSAGES[0])
    report.figure("round trips per migration", median(ours.trips), 1.05)
    report.figure(f"{count} migrations far away, to psql with one message each", ratio(ours, psql), 1.1)
    report.end()


def lines(cluster):
    """Where a server may be: what that is called, and the port at which it is found."""
    return [("on a local server", cluster.port), ("through a line of 5 ms each way", SlowLine(cluster.port, DELAY).port)]


def four(cluster, report, options):
    """Four databases side by side, and one of them; the same by four psql at once, which is what the server makes of it."""
    count, times = (100, 3) if options.quick else (250, options.times)
    ways = [("migrate", tools.migrate), ("psql, one message per migration", tools.psql_on_each)]
    for where, port in lines(cluster):
        walls = {(name, databases): [] for name, _ in ways for databases in (1, 4)}
        with tempfile.TemporaryDirectory(prefix="migrate-bench-") as folder:
            for turn in range(times):
                for number, (name, make) in enumerate(ways):
                    for databases in (1, 4):
                        names = [cluster.fresh() for _ in range(databases)]
                        cluster.settle()
                        here = os.path.join(folder, f"{number}-{turn}-{databases}")
                        command = make(here, tools.texts(count), databases)
                        walls[name, databases].append(measure(*command([cluster.url(it, port) for it in names])).wall)
                        for it in names:
                            cluster.drop(it)
        report.text(f"### Four databases side by side {where}, {count} migrations each; medians of {times}")
        ratios = {name: median([b / a for a, b in zip(walls[name, 1], walls[name, 4])]) for name, _ in ways}
        report.table(["tool", "one database, wall s (least - greatest)", "four", "four to one"],
                     [[name, *(f"{median(it):.2f} ({spread(it)})" for it in (walls[name, 1], walls[name, 4])),
                       f"{ratios[name]:.2f}"] for name, _ in ways])
        report.figure(f"four databases to one {where}", ratios["migrate"], 1.3)
        report.end()


def nothing(cluster, report, options):
    """Nothing to do: four databases, and the fastest of the others on one; and what as many sessions take that ask nothing."""
    count, times = 100, 5 if options.quick else 4 * options.times
    others = [it for it in options.others if it[0] in ("sqlx-cli", "refinery_cli")]
    for where, port in lines(cluster):
        prepared = prepare([(name, make, 1.0) for name, make, _ in others], count)
        with tempfile.TemporaryDirectory(prefix="migrate-bench-") as folder:
            fresh = [cluster.url(cluster.fresh(), port) for _ in range(4)]
            again = {"migrate, four databases": tools.migrate(os.path.join(folder, "four"), tools.texts(count), 4)(fresh),
                     "migrate, one of them": tools.migrate(os.path.join(folder, "one"), tools.texts(count))(
                         cluster.url(cluster.fresh(), port))}
            ask = tools.psql_on_each(os.path.join(folder, "ask"), ["select 1"], 5)
            again["five psql at once, `select 1`"] = ask([*fresh, cluster.url("postgres", port)])
            again["one psql, `select 1`"] = ask(fresh[:1])
            for it in prepared:
                again[it.name] = it.command(cluster.url(cluster.fresh(), port))
            for command in again.values():
                measure(*command)
            walls = {name: [] for name in again}
            for _ in range(times):
                for name, command in again.items():
                    walls[name].append(measure(*command).wall * 1000)
        report.text(f"### Nothing to do {where}, {count} migrations applied; medians of {times}")
        report.table(["tool", "ms (least - greatest)"],
                     [[name, f"{median(it):.1f} ({spread(it)})"] for name, it in walls.items()])
        if prepared:
            fastest = min(median(walls[it.name]) for it in prepared)
            report.figure(f"four databases, to the fastest other tool on one, {where}",
                          median(walls["migrate, four databases"]) / fastest, 1.0)
        report.end()


def plan(cluster, report, options):
    """`plan` over ten thousand files."""
    times = 3 if options.quick else options.times
    with tempfile.TemporaryDirectory(prefix="migrate-bench-") as folder:
        command = tools.migrate(folder, tools.texts(10_000))
        url = cluster.url(cluster.fresh())
        took = [measure(*command(url, "plan")) for _ in range(times)]
    report.text(f"### `migrate plan` over 10,000 files; medians of {times}")
    report.figure("seconds", median([it.wall for it in took]), 1.0, " s")
    report.figure("memory at most", median([it.memory for it in took]), 100, " MiB")
    report.end()


PARTS = {"local": local, "far": far, "four": four, "nothing": nothing, "plan": plan}


def run(cluster, report, options):
    """All of the group, or the parts that were named."""
    for name in options.parts or PARTS:
        say(f"apply: {name}")
        PARTS[name](cluster, report, options)
