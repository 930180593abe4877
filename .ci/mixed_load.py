"""A server under mixed load, which must stay as it is: memory, files, connections, waits, and every row.

Usage: mixed_load.py PATH_TO_GRIZZLY MINUTES. Eight writers and eight readers, of which some leave in the middle, beside index
builds, replaced tables, large updates, the merges that follow from them, and backups. Every ten seconds it prints what the
operating system sees of the server. While it runs, what always holds is asked for again and again. In the end the server
must be what it was in minute ten (of a shorter run: at the end of its first third), and every acknowledged row must be there,
also after a kill under load. Exit code 1 if anything does not hold; each violation is printed.
"""

import argparse
import contextlib
import queue
import re
import sys
import tempfile
import time
from pathlib import Path

from load import roles, tables
from load.samples import Sample, growth, look
from load.shared import PROCESSES, Shared, run
from served import rows, serve, verify

SAMPLE_SECONDS = 10
REFERENCE_SECONDS = 600
WRITERS = 8
READERS = 8
KILL_SECONDS = 5
# A client ends after its statement; a statement may take its time on a machine that is busy.
CLIENT_END_SECONDS = 120
# The server looks for what was left behind every 5 seconds, and keeps what a ticket may ask for again for 15.
QUIET_SECONDS = 35
WAIT_AT_MOST = 1.0


def cast(grizzly, generation):
    """All clients: role, argument, name. Writers of another generation have rows of their own."""
    writers = [(roles.writer, generation * WRITERS + number) for number in range(WRITERS)]
    readers = [(roles.reader, number) for number in range(READERS)]
    others = [(role, None) for role in (roles.leaver, roles.indexer, roles.replacer, roles.churner, roles.stall_meter)]
    everybody = [*writers, *readers, *others, (roles.backer, str(grizzly))]
    return [(role, argument, f"{role.__name__} {argument}") for role, argument in everybody]


class Load:
    """All clients at work on one server."""

    def __init__(self, server, backups, clients):
        self.shared = Shared(server.address, str(backups), len(clients))
        self.processes = [
            PROCESSES.Process(target=run, args=(role, argument, self.shared, slot, name), name=name)
            for slot, (role, argument, name) in enumerate(clients)
        ]
        self.slow, self.maintenance, self.reports = [], [], []
        for process in self.processes:
            process.start()

    def longest_wait(self):
        """The longest wait of a small statement, and how long the machine stood still, both since the last call."""
        longest, stall = max(self.shared.longest), self.shared.stall.value
        for slot in range(len(self.shared.longest)):
            self.shared.longest[slot] = 0.0
        self.shared.stall.value = 0.0
        self._gather()
        return longest, stall

    def _gather(self):
        """Takes what clients have said, so that none waits for a full pipe when it ends."""
        shared = self.shared
        for source, target in ((shared.slow, self.slow), (shared.maintenance, self.maintenance), (shared.reports, self.reports)):
            with contextlib.suppress(queue.Empty):
                while True:
                    target.append(source.get_nowait())

    def end(self):
        """Tells all clients to end, and returns their violations."""
        self.shared.stop.set()
        deadline = time.monotonic() + CLIENT_END_SECONDS
        while len(self.reports) < len(self.processes) and time.monotonic() < deadline:
            time.sleep(0.1)
            self._gather()
        reported = {report.client for report in self.reports}
        silent = [process.name for process in self.processes if process.name not in reported]
        for process in self.processes:
            if process.name in silent:
                process.kill()
            process.join()
        violations = [violation for report in self.reports for violation in report.violations]
        return violations + [f"{name}: did not end within {CLIENT_END_SECONDS} s" for name in silent]

    def has_failed(self):
        """Whether a client has already ended."""
        return bool(self.reports)

    def ledgers(self):
        return [report.ledger for report in self.reports if report.ledger]

    def totals(self):
        statements = sum(report.statements for report in self.reports)
        conflicts = sum(report.conflicts for report in self.reports)
        return f"{statements:,} statements, {conflicts:,} conflicts, {len(self.maintenance)} times maintenance"

    def waits(self):
        """The small statements that waited longest, each with the maintenance that was going on."""
        for span in sorted(self.slow, key=lambda span: -span.seconds)[:10]:
            beside = [str(other) for other in self.maintenance if other.meets(span)]
            yield f"{span} beside {', '.join(beside) or 'nothing'}"


def under_load(server, db, load, seconds):
    """Samples until the time is over or a client has failed."""
    begin = time.monotonic()
    samples = []
    print(Sample.HEADER, flush=True)
    with server.connect() as connection:
        while (passed := time.monotonic() - begin) < seconds and not load.has_failed():
            time.sleep(min(SAMPLE_SECONDS, seconds - passed))
            samples.append(look(server, db, connection, time.monotonic() - begin, *load.longest_wait()))
            print(samples[-1], flush=True)
    return samples


def steady(samples, seconds, memory):
    """What has grown under the load of a server that may take `memory` bytes."""
    reference = min(REFERENCE_SECONDS, seconds / 3)
    return growth(samples, reference, max(SAMPLE_SECONDS, reference / 10), memory)


def waited(samples):
    """Small statements that waited for longer than the machine and the promise excuse."""
    return [
        f"a small statement waited {sample.longest_wait:.2f} s before second {sample.second:.0f}"
        for sample in samples
        if sample.longest_wait > WAIT_AT_MOST + sample.stall
    ]


def at_rest(server, db):
    """A look at the server while nobody is connected but this."""
    with server.connect() as connection:
        return look(server, db, connection, 0, 0, 0)


def left_behind(server, db, before):
    """What clients that are gone have left, if the server had `before` when none had come."""
    deadline = time.monotonic() + QUIET_SECONDS
    kinds = ("sockets", "sessions", "transactions", "snapshots")
    while (more := more_than(before, sample := at_rest(server, db), kinds)) and time.monotonic() < deadline:
        time.sleep(1)
    print(f"without clients:\n{sample}")
    return [f"{what}, {QUIET_SECONDS} s after all clients have gone" for what in more]


def more_than(before, sample, kinds):
    """The kinds of things of which the sample has more than there were before."""
    pairs = ((kind, getattr(before, kind), getattr(sample, kind)) for kind in kinds)
    return [f"there are {now} {kind}, not {then}" for kind, then, now in pairs if now > then]


def data(server, ledgers):
    """Rows and constraints that are not as they must be."""
    with server.connect() as connection:
        differences = (tables.difference(connection, ledger) for ledger in ledgers)
        return tables.violations(connection) + [text for text in differences if text]


def loaded(arguments, db, backups, seconds):
    """The load and the quiet after it; returns ledgers and violations."""
    with serve(arguments.grizzly, db, "--memory", f"{arguments.memory}MB", log=arguments.log) as server:
        with server.connect() as connection:
            tables.create(connection)
        before = at_rest(server, db)
        load = Load(server, backups, cast(arguments.grizzly, 0))
        samples = under_load(server, db, load, seconds)
        violations = load.end()
        print(load.totals())
        violations += steady(samples, seconds, arguments.memory * 1_000_000) + waited(samples)
        for wait in load.waits():
            print(f"a wait: {wait}")
        violations += left_behind(server, db, before) + data(server, load.ledgers())
    return load.ledgers(), violations


def killed(arguments, db, backups):
    """A kill in the middle of the load; returns ledgers and violations."""
    with serve(arguments.grizzly, db, "--memory", f"{arguments.memory}MB", log=arguments.log) as server:
        load = Load(server, backups, cast(arguments.grizzly, 1))
        time.sleep(KILL_SECONDS)
        load.shared.dying.set()
        server.kill()
        violations = load.end()
    return load.ledgers(), violations


def whole(arguments, db, backups, ledgers):
    """What is wrong with the database and its backups after all that."""
    violations = []
    print(f"after the kill: {verify(arguments.grizzly, db)}")
    with serve(arguments.grizzly, db, log=arguments.log) as server:
        violations += data(server, ledgers)
        with server.connect() as connection:
            rows(connection, f"CALL grizzly.backup('{backups}', 'full')")
    print(f"at the end: {verify(arguments.grizzly, db)}")
    return violations


def print_violations(violations):
    """Those that differ in nothing but numbers once, with how often they occurred."""
    alike = {}
    for violation in violations:
        alike.setdefault(re.sub(r"\d+", "N", violation), []).append(violation)
    for found in alike.values():
        print(f"VIOLATION, {len(found)} times like this: {found[0]}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("grizzly", type=Path, help="the command under test")
    parser.add_argument("minutes", type=float, help="how long the load lasts; 1 or 2 for CI, 60 for the promise")
    parser.add_argument("--memory", type=int, default=512, metavar="MB", help="what the server may take")
    parser.add_argument("--log", type=Path, help="where the server's log goes, if not here")
    arguments = parser.parse_args()
    arguments.grizzly = arguments.grizzly.resolve(strict=True)
    with tempfile.TemporaryDirectory(prefix="grizzly-load-") as scratch:
        db, backups = Path(scratch) / "db", Path(scratch) / "backups"
        ledgers, violations = loaded(arguments, db, backups, arguments.minutes * 60)
        more, late = killed(arguments, db, backups)
        violations += late + whole(arguments, db, backups, ledgers + more)
    if violations:
        print_violations(violations)
        sys.exit(f"mixed load: {len(violations)} violations")
    print("mixed load: all holds")


if __name__ == "__main__":
    main()
