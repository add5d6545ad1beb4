"""What every group of measurements needs: a cluster of our own, a slow line to it, and a stop-watch."""

import asyncio
import glob
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TOOLS = os.path.join(ROOT, "target", "bench-tools")


class Failed(Exception):
    """A program ended otherwise than it should."""


class Cluster:
    """A throw-away PostgreSQL server, durable as a real one: fsync is on, and nothing is tuned."""

    def __init__(self):
        self.bin = os.path.dirname(sorted(glob.glob("/usr/lib/postgresql/*/bin/initdb"))[-1])
        self.folder = tempfile.mkdtemp(prefix="migrate-bench-pg-")
        self.as_postgres = ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []
        if self.as_postgres:
            shutil.chown(self.folder, "postgres")
        self.data = os.path.join(self.folder, "data")
        self.port = free_port()
        self.run("initdb", "-D", self.data, "-U", "bench", "--auth=trust", "--encoding=UTF8", "--locale=C")
        with open(os.path.join(self.data, "postgresql.conf"), "a") as conf:
            conf.write(f"listen_addresses = '127.0.0.1'\nport = {self.port}\nunix_socket_directories = '{self.folder}'\n")
            conf.write("fsync = on\nmax_connections = 200\n")
        self.run("pg_ctl", "-D", self.data, "-w", "-l", os.path.join(self.folder, "log"), "start")
        self.databases = 0

    def run(self, program, *arguments):
        done = subprocess.run(
            [*self.as_postgres, os.path.join(self.bin, program), *arguments],
            cwd="/", stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode != 0:
            raise Failed(f"{program}: {done.stdout}")

    def sql(self, text, database="postgres"):
        done = subprocess.run(
            ["psql", "-X", "-q", "-t", "-A", "-v", "ON_ERROR_STOP=1", "-d", self.url(database), "-c", text],
            capture_output=True, text=True)
        if done.returncode != 0:
            raise Failed(done.stderr)
        return done.stdout.strip()

    def fresh(self):
        """The name of a new, empty database."""
        self.databases += 1
        name = f"bench_{self.databases}"
        self.sql(f"create database {name}")
        return name

    def drop(self, name):
        self.sql(f"drop database if exists {name} with (force)")

    def url(self, database, port=None):
        return f"postgresql://bench@127.0.0.1:{port or self.port}/{database}?sslmode=disable"

    def settle(self):
        """What the last measurement left to write is written before the next."""
        self.sql("checkpoint")

    def stop(self):
        self.run("pg_ctl", "-D", self.data, "-w", "-m", "immediate", "stop")
        shutil.rmtree(self.folder, ignore_errors=True)


def free_port():
    with socket.socket() as it:
        it.bind(("127.0.0.1", 0))
        return it.getsockname()[1]


class SlowLine:
    """A TCP proxy before the server that holds every byte for `delay` seconds, each way, and counts round trips: how often
    a client sends after it was answered."""

    def __init__(self, to_port, delay):
        self.to_port, self.delay, self.trips = to_port, delay, 0
        self.port = free_port()
        ready = threading.Event()
        threading.Thread(target=self._serve, args=(ready,), daemon=True).start()
        ready.wait()

    def _serve(self, ready):
        async def main():
            await asyncio.start_server(self._session, "127.0.0.1", self.port)
            ready.set()
            await asyncio.Event().wait()
        asyncio.run(main())

    async def _session(self, reader, writer):
        to_server = await asyncio.open_connection("127.0.0.1", self.to_port)
        for it in (writer, to_server[1]):
            it.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        answered = [True]

        def asked():
            self.trips += answered[0]
            answered[0] = False

        def said():
            answered[0] = True
        await asyncio.gather(
            self._carry(reader, to_server[1], asked), self._carry(to_server[0], writer, said), return_exceptions=True)

    async def _carry(self, reader, writer, seen):
        loop, queue = asyncio.get_running_loop(), asyncio.Queue()

        async def deliver():
            while (it := await queue.get()) is not None:
                due, data = it
                await asyncio.sleep(max(0.0, due - loop.time()))
                writer.write(data)
            writer.close()
        delivering = asyncio.ensure_future(deliver())
        try:
            while data := await reader.read(1 << 16):
                seen()
                queue.put_nowait((loop.time() + self.delay, data))
        except OSError:
            pass
        queue.put_nowait(None)
        await delivering


class Took:
    """One run of a program: seconds on the clock, seconds of CPU, and the most memory that it held, in MiB."""

    def __init__(self, wall, cpu, memory):
        self.wall, self.cpu, self.memory = wall, cpu, memory


def measure(command, env=None, cwd=None):
    """Runs a program to its end."""
    full = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), "LANG": "C.UTF-8", **(env or {})}
    with tempfile.TemporaryFile() as output:
        begun = time.perf_counter()
        child = subprocess.Popen(command, env=full, cwd=cwd, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        _, status, used = os.wait4(child.pid, 0)
        wall = time.perf_counter() - begun
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode != 0:
            output.seek(0)
            said = output.read()[-2000:].decode(errors="replace")
            raise Failed(f"{os.path.basename(command[0])} ended with {child.returncode}: {said}")
    return Took(wall, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)


def median(values):
    return statistics.median(values)


def spread(values):
    """The least and the greatest, for the reader who wants to know how quiet the machine was."""
    return f"{min(values):.2f} - {max(values):.2f}"


def say(text):
    print(f"bench: {text}", file=sys.stderr, flush=True)


class Report:
    """Tables and figures as Markdown."""

    def __init__(self):
        self.lines, self.missed = [], []

    def text(self, text):
        self.lines += [text, ""]

    def table(self, head, rows):
        self.lines.append("| " + " | ".join(head) + " |")
        self.lines.append("|" + "---|" * len(head))
        self.lines += ["| " + " | ".join(row) + " |" for row in rows]
        self.lines.append("")

    def figure(self, what, found, limit, unit=""):
        """A figure that `migrate` is to meet."""
        met = found <= limit
        if not met:
            self.missed.append(what)
        self.lines.append(f"- {'met' if met else '**not met**'}: {what}: {found:.2f}{unit}, at most {limit:g}{unit}")

    def end(self):
        self.lines.append("")

    def __str__(self):
        return "\n".join(self.lines)
