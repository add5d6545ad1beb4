"""`scripts/bench GROUP`: measures `migrate` beside other tools, in one run and in turn, and prints tables as Markdown."""

import argparse
import os
import platform
import signal
import sys

import apply
import rollback
import snapshot
import tools
from harness import ROOT, Cluster, Report, say

#: A group of measurements is a module with `PARTS` and `run`.
GROUPS = {"apply": apply, "snapshot": snapshot, "rollback": rollback}


def arguments():
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("group", choices=GROUPS)
    parser.add_argument("parts", nargs="*", help="parts of the group alone: " + "; ".join(f"{name}: {', '.join(it.PARTS)}" for name, it in GROUPS.items()))
    parser.add_argument("--quick", action="store_true", help="fewer migrations, and fewer turns")
    parser.add_argument("--times", type=int, default=5, metavar="N", help="turns, of which the medians are shown (5)")
    parser.add_argument("--large", action="store_true", help="of rollback: a database of 5 GB as well")
    parser.add_argument("--check", action="store_true", help="end with 1 if a figure is not met")
    parser.add_argument("--tools", default="all", metavar="NAME,…", help="these other tools alone; `none` for none")
    options = parser.parse_args()
    wanted = options.tools.split(",")
    options.others = [it for it in tools.OTHERS if options.tools == "all" or it[0] in wanted]
    known = GROUPS[options.group].PARTS
    for part in options.parts:
        if part not in known:
            parser.error(f"`{part}` is not a part of {options.group}: {', '.join(known)}")
    return options


def main():
    options = arguments()
    # Asked to stop, it stops the cluster as well.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    cluster, report = Cluster(), Report()
    try:
        version = cluster.sql("show server_version")
        busy = os.getloadavg()[0]
        report.text(f"## {options.group}\n\n{platform.system()} {platform.machine()}, {os.cpu_count()} cores, load {busy:.1f} "
                    f"at the start; PostgreSQL {version}. Ratios count; seconds are this machine's.")
        GROUPS[options.group].run(cluster, report, options)
    finally:
        cluster.stop()
    folder = os.path.join(ROOT, "target", "bench")
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, f"{options.group}.md"), "w") as file:
        file.write(str(report))
    print(report)
    for it in report.missed:
        say(f"not met: {it}")
    return 1 if options.check and report.missed else 0


if __name__ == "__main__":
    sys.exit(main())
