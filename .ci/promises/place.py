"""What a check works with: a folder of its own, the command under test, machines that behave badly."""

import contextlib
import os
import subprocess
import threading
from pathlib import Path

import served

CHECKS = []


def check(function=None, *, long=False):
    """Registers a check, which is called with a `Place`. One that takes more than a few seconds is `long`."""
    if function is None:
        return lambda function: check(function, long=long)
    function.long = long
    CHECKS.append(function)
    return function


class Place:
    """A check's own folder, and the servers that it starts there."""

    def __init__(self, grizzly, folder, faulty):
        self.grizzly = grizzly
        self.folder = folder
        self.db = folder / "db"
        self.log = folder / "server.log"
        self._faulty = faulty
        self._servers = []

    @contextlib.contextmanager
    def serve(self, *options, db=None, environment=None):
        """A running server, by default of the check's one database."""
        with served.serve(self.grizzly, db or self.db, *options, environment=environment, log=self.log) as server:
            self._servers.append(server)
            yield server

    def end(self):
        """Ends all servers, so that whoever waits for one is told."""
        for server in self._servers:
            server.process.kill()

    def bad_machine(self, **environment):
        """The environment in which a server meets what `fault` sets up; see faulty.c."""
        faults = self.folder / "faults"
        faults.mkdir(exist_ok=True)
        return {"LD_PRELOAD": str(self._faulty), "FAULTY": str(faults), **environment}

    def fault(self, name, text):
        """Sets a fault of the bad machine, at once as it sees it; an empty text takes it back."""
        new = self.folder / "new-fault"
        new.write_text(text)
        os.replace(new, self.folder / "faults" / name)

    def has_fault(self, name):
        return (self.folder / "faults" / name).exists()

    def command(self, *arguments, timeout=300):
        """A command of the database to its end; its output is in what is returned."""
        return subprocess.run([self.grizzly, *map(str, arguments)], capture_output=True, text=True, timeout=timeout)

    def verify(self):
        return served.verify(self.grizzly, self.db)

    def files(self):
        """How many files the database has."""
        return sum(path.is_file() for path in self.db.rglob("*"))

    def logged(self):
        return self.log.read_text(errors="replace") if self.log.exists() else ""


class Beside:
    """Runs a function again and again beside the body of a `with`; its first error is raised when that ends."""

    def __init__(self, function):
        self._function = function
        self._stop = threading.Event()
        self._error = None
        self._thread = threading.Thread(target=self._run)

    def _run(self):
        try:
            while not self._stop.is_set():
                self._function()
        except BaseException as error:
            self._error = error

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, kind, *_):
        self._stop.set()
        self._thread.join()
        if self._error and kind is None:
            raise self._error


def compile_faulty(folder):
    """The library by which a machine behaves badly."""
    source, library = Path(__file__).parent.parent / "faulty.c", folder / "faulty.so"
    subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    return library
