"""`scripts/bench rollback`: how long nobody can connect while databases are exchanged, and how long it takes beside pg_restore."""

import os
import shutil
import socket
import struct
import tempfile
import threading
import time

from harness import measure, median, say, spread
from snapshot import Ours, made

#: A plan that has a warm copy made.
STANDBY = "\n[databases.one]\nstandby = true"
#: How often the client asks, in seconds.
EVERY = 0.005


class Client(threading.Thread):
    """An application: it asks every five milliseconds, and connects again to the same name when it was sent away."""

    def __init__(self, cluster, database):
        super().__init__(daemon=True)
        self.port, self.database = cluster.port, database
        self.session, self.last, self.gap, self.answers, self.over = None, None, 0.0, 0, False

    def run(self):
        while not self.over:
            begun = time.perf_counter()
            try:
                self._ask()
                now = time.perf_counter()
                if self.last is not None:
                    self.gap = max(self.gap, now - self.last)
                self.last, self.answers = now, self.answers + 1
            except OSError:
                self.session = None
            time.sleep(max(0.0, EVERY - (time.perf_counter() - begun)))

    def _ask(self):
        if self.session is None:
            session = socket.create_connection(("127.0.0.1", self.port), timeout=60)
            words = b"".join(it.encode() + b"\0" for it in ("user", "bench", "database", self.database)) + b"\0"
            session.sendall(struct.pack("!II", 8 + len(words), 196608) + words)
            self._ready(session)
            self.session = session
        self.session.sendall(b"Q" + struct.pack("!I", 13) + b"select 1\0")
        self._ready(self.session)

    def _ready(self, session):
        """Reads until the server waits for a query."""
        while True:
            kind, length = struct.unpack("!cI", self._bytes(session, 5))
            self._bytes(session, length - 4)
            if kind == b"E":
                raise OSError("the server says no")
            if kind == b"Z":
                return

    @staticmethod
    def _bytes(session, count):
        read = b""
        while len(read) < count:
            some = session.recv(count - len(read))
            if not some:
                raise OSError("the server has ended the session")
            read += some
        return read

    def begin(self):
        self.start()
        while self.answers < 20:
            time.sleep(EVERY)
        return self

    def end(self):
        """The longest time without an answer."""
        seen = self.answers
        while self.answers < seen + 20:
            time.sleep(EVERY)
        self.over = True
        self.join()
        return self.gap


def seen_by_a_client(cluster, database, work):
    """What `work` took, and the longest time in which a client got no answer meanwhile."""
    client = Client(cluster, database).begin()
    took = work()
    return took.wall, client.end()


def there_and_back(cluster, database, ours, times):
    """Releases, and rollbacks by standby: seconds of each, and seconds without an answer in each."""
    found = {"apply": [], "rollback": []}
    for turn in range(times):
        cluster.settle()
        found["apply"].append(seen_by_a_client(cluster, database, lambda: ours.measure("apply", "--yes")))
        cluster.settle()
        back = seen_by_a_client(cluster, database, lambda: ours.measure("rollback", "--via", "standby", "--yes"))
        found["rollback"].append(back)
        ours.measure("snapshot", "prune", "--replaced", "--yes")
        say(f"turn {turn + 1} of {times}")
    return found


def swap(cluster, report, options):
    """How long a client gets no answer, at several sizes."""
    report.text("### The exchange, as a client sees it\n\nThe longest time without an answer, of a client that asks every 5 ms and "
                "connects again when it was sent away: while the warm copy is made, and while a rollback exchanges it.")
    rows, gaps = [], []
    for megabytes in (20, 100) if options.quick else (100, 1000, 5000) if options.large else (100, 1000):
        database, size = made(cluster, megabytes)
        with tempfile.TemporaryDirectory(prefix="migrate-bench-swap-") as folder:
            ours = Ours(folder, cluster, database, STANDBY, 'compression = "zstd"')
            found = there_and_back(cluster, database, ours, options.times)
        copies, swaps = ([gap for _, gap in found[it]] for it in ("apply", "rollback"))
        gaps.append(median(swaps))
        total = median([took for took, _ in found["rollback"]])
        rows.append([f"{size >> 20} MiB", f"{median(copies):.2f}", f"{median(swaps):.3f}", spread(swaps), f"{total:.2f}"])
        cluster.drop(database)
        report.figure(f"without an answer in a rollback of {size >> 20} MiB", max(swaps), 1.0, " s")
    report.end()
    report.table(["database", "copied in, s without an answer", "exchanged in, s without an answer", "spread", "rollback, s"], rows)
    report.figure("without an answer, the largest beside the smallest", gaps[-1] / gaps[0], 2.0)
    report.end()


def restore(cluster, report, options):
    """A rollback of a gigabyte beside pg_restore."""
    database, size = made(cluster, 100 if options.quick else 1000)
    folder = tempfile.mkdtemp(prefix="migrate-bench-rollback-")
    archive, pg_restore = os.path.join(folder, "archive"), os.path.join(cluster.bin, "pg_restore")
    measure([os.path.join(cluster.bin, "pg_dump"), "-Fc", "-d", cluster.url(database), "-f", archive])
    ours = Ours(folder, cluster, database, STANDBY, 'compression = "zstd"')
    theirs, standby, snapshot = [], [], []
    for turn in range(options.times):
        cluster.settle()
        name = cluster.fresh()
        theirs.append(measure([pg_restore, "-j2", "--exit-on-error", "-d", cluster.url(name), archive]).wall)
        cluster.drop(name)
        for way, took in (("standby", standby), ("snapshot", snapshot)):
            ours.measure("apply", "--yes")
            cluster.settle()
            took.append(ours.measure("rollback", "--via", way, "--yes").wall)
            ours.measure("snapshot", "prune", "--replaced", "--yes")
        say(f"turn {turn + 1} of {options.times}")
    report.text(f"### A database of {size >> 20} MiB taken back")
    rows = [[name, f"{median(took):.2f}", spread(took), f"{median(took) / median(theirs):.2f}"]
            for name, took in (("pg_restore -j2, alone", theirs), ("migrate rollback --via standby", standby),
                               ("migrate rollback --via snapshot", snapshot))]
    report.table(["way", "wall, s", "spread", "ratio to pg_restore -j2"], rows)
    report.figure("a rollback by standby", median(standby), 2.0, " s")
    report.end()
    shutil.rmtree(folder)
    cluster.drop(database)


PARTS = {"swap": swap, "restore": restore}


def run(cluster, report, options):
    for name in options.parts or PARTS:
        PARTS[name](cluster, report, options)
