"""A `grizzly serve` process and connections to it by Python's ADBC driver, for the checks beside this file."""

import contextlib
import os
import signal
import subprocess
import threading
from pathlib import Path

import adbc_driver_flightsql
import adbc_driver_flightsql.dbapi as flight_sql

# The driver's option for the largest message that it sends or takes, 16 MiB unless set.
MAX_MESSAGE = adbc_driver_flightsql.DatabaseOptions.WITH_MAX_MSG_SIZE.value
START_SECONDS = 120
STOP_SECONDS = 120


class Server:
    """A running server. What it logs goes to `log`, or where this process' errors go."""

    def __init__(self, grizzly, db, *options, environment=None, log=None):
        command = [grizzly, "serve", "--db", str(db), "--listen", "127.0.0.1:0", *options]
        self._log = open(log, "ab") if log else None
        self.was_killed = False
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env={**os.environ, **(environment or {})},
        )
        self.address = self._address()

    def _address(self):
        watchdog = threading.Timer(START_SECONDS, self.process.kill)
        watchdog.start()
        line = self.process.stdout.readline().strip()
        watchdog.cancel()
        if not line.startswith("listening on grpc://127.0.0.1:"):
            self.kill()
            raise AssertionError(f"first line of serve: {line!r}, exit code {self.process.returncode}")
        return line.removeprefix("listening on ")

    def connect(self, autocommit=True, **options):
        """A connection; `options` are those of the driver's database object, by their names there."""
        return flight_sql.connect(self.address, db_kwargs=options, autocommit=autocommit)

    def is_running(self):
        return self.process.poll() is None

    def stop(self):
        """Ends it as an operator would."""
        assert self.is_running(), f"the server has ended by itself with {self.process.returncode}"
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(timeout=STOP_SECONDS)
        assert code == 0, f"serve ended with {code} after SIGTERM"

    def kill(self):
        """Ends it without a warning. Once it has ended, this does nothing."""
        self.was_killed = True
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        if self._log:
            self._log.close()

    def memory(self, field="VmRSS"):
        """Bytes of memory as the operating system counts them: now, or with `VmHWM` at the most so far."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith(field + ":"):
                return int(line.split()[1]) * 1024
        raise AssertionError(f"/proc says nothing of {field}: has the server ended?")


@contextlib.contextmanager
def serve(grizzly, db, *options, **settings):
    """A running server. Unless the body killed it, it must be there to be stopped when the body ends."""
    server = Server(grizzly, db, *options, **settings)
    try:
        yield server
        if not server.was_killed:
            server.stop()
    finally:
        server.kill()


def rows(connection, sql, parameters=None):
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return cursor.fetchall()


def value(connection, sql, parameters=None):
    """The one value that a query answers with."""
    ((found,),) = rows(connection, sql, parameters)
    return found


def write(connection, sql, parameters=None):
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)


def sqlstate(error):
    """Where the driver shows a server's SQLSTATE: as such, in the error's details, or in its message."""
    details = " ".join(f"{key} {value!r}" for key, value in error.details)
    return f"{error.sqlstate} {details} {error}"


@contextlib.contextmanager
def refused(code, *words):
    """The body must fail with this SQLSTATE and a message that names `words`."""
    try:
        yield
    except flight_sql.Error as error:
        assert code in sqlstate(error), f"no SQLSTATE {code} in: {sqlstate(error)}"
        for word in words:
            assert word in str(error), f"no {word!r} in: {error}"
    else:
        raise AssertionError(f"nothing was refused, expected {code}")


def verify(grizzly, db):
    """`grizzly verify` on a database that nothing has open; it must find no problem."""
    run = subprocess.run([grizzly, "verify", "--db", str(db)], capture_output=True, text=True, timeout=600)
    assert run.returncode == 0, f"verify ended with {run.returncode}:\n{run.stdout}{run.stderr}"
    return run.stdout.splitlines()[0]
