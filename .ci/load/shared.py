"""What the clients' processes share with the one that started them, and how a client is timed."""

import contextlib
import dataclasses
import multiprocessing
import random
import sys
import time
import warnings

import adbc_driver_flightsql.dbapi as flight_sql

# Clients are forked from a process that has loaded the driver but not begun to use it: what Go runs does not survive a fork.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["load.roles"])
SLOW_SECONDS = 0.5


@dataclasses.dataclass
class Span:
    """Something that took from `begin` to `end`, by the machine's monotonic clock."""

    client: str
    what: str
    begin: float
    end: float

    @property
    def seconds(self):
        return self.end - self.begin

    def meets(self, other):
        return self.begin < other.end and other.begin < self.end

    def __str__(self):
        return f"{self.what} ({self.client}, {self.seconds:.2f} s)"


@dataclasses.dataclass
class Report:
    """What a client says when it ends."""

    client: str
    statements: int
    conflicts: int
    violations: list
    # Of a writer only.
    ledger: "Ledger | None"


@dataclasses.dataclass
class Ledger:
    """What a writer knows of its rows: id and amount of each."""

    writer: int
    rows: dict
    # What they are if the transaction under way was committed after all.
    after: dict


class Shared:
    """Of all clients of one load."""

    def __init__(self, address, backups, clients):
        self.address = address
        self.backups = backups
        self.stop = PROCESSES.Event()
        # Set before the server is killed: from then on every error is expected.
        self.dying = PROCESSES.Event()
        self.longest = PROCESSES.Array("d", clients, lock=False)
        self.stall = PROCESSES.Value("d", 0.0, lock=False)
        self.maintenance = PROCESSES.Queue()
        self.slow = PROCESSES.Queue()
        self.reports = PROCESSES.Queue()


class Client:
    """One client: its connections, its random numbers, what it has seen."""

    def __init__(self, shared, slot, name):
        self.shared = shared
        self.name = name
        self.random = random.Random(name)
        self.violations = []
        self.statements = 0
        self.conflicts = 0
        self.ledger = None
        self.in_transactions = False
        self._slot = slot

    def connect(self, autocommit=True):
        with self.small("connect"):
            return flight_sql.connect(self.shared.address, autocommit=autocommit)

    def execute(self, connection, sql, parameters=None):
        """Runs a statement and returns its rows, if it has any."""
        self.statements += 1
        with connection.cursor() as cursor:
            cursor.execute(sql, parameters)
            return cursor.fetchall() if cursor.description else []

    @contextlib.contextmanager
    def small(self, what):
        """Times what must not wait for anybody's maintenance."""
        begin = time.monotonic()
        yield
        span = Span(self.name, what, begin, time.monotonic())
        self.shared.longest[self._slot] = max(self.shared.longest[self._slot], span.seconds)
        if span.seconds > SLOW_SECONDS:
            self.shared.slow.put(span)

    @contextlib.contextmanager
    def maintenance(self, what):
        """Tells when something large was going on."""
        begin = time.monotonic()
        yield
        self.shared.maintenance.put(Span(self.name, what, begin, time.monotonic()))

    def expect(self, holds, message):
        if not holds:
            self.violations.append(f"{self.name}: {message}")

    def pause(self, seconds):
        """Waits up to this long, half of it on average."""
        time.sleep(self.random.random() * seconds)

    def wait(self, seconds):
        """Waits this long, or until the load ends."""
        self.shared.stop.wait(seconds)


def run(role, argument, shared, slot, name):
    """A client's process: plays its role until the load ends, and reports. After an error it comes again as a new client,
    unless it has rows to answer for."""
    client = Client(shared, slot, name)
    quieten_driver()
    while not shared.stop.is_set() and not shared.dying.is_set():
        try:
            role(client, argument)
        except Exception as error:
            if not shared.dying.is_set():
                client.violations.append(f"{name}: {described(error)}")
        if client.ledger:
            break
    shared.reports.put(Report(name, client.statements, client.conflicts, client.violations, client.ledger))


def quieten_driver():
    """Once the server is gone the driver complains of each cursor that it closes, where nobody can catch it."""
    sys.unraisablehook = lambda _: None
    warnings.simplefilter("ignore", flight_sql.Warning)


def described(error):
    return f"{error.sqlstate}: {error}" if isinstance(error, flight_sql.Error) else repr(error)
