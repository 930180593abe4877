"""Storage that errs is survived: what was stored counts, also where the answer did not say so."""

import contextlib
import logging
import re
import threading
import time
import uuid

import adbc_driver_flightsql.dbapi as flight_sql

from promises.place import check
from served import sqlstate, value, write


def acknowledged(db, ids, size=1_000):
    """Writes one row for each id; returns those that are there for sure, and those of which nobody knows."""
    done, unknown = [], []
    for number in ids:
        try:
            write(db, f"INSERT INTO t VALUES ({number}, repeat('x', {size}))")
            done.append(number)
        except flight_sql.Error as error:
            assert "08007" in sqlstate(error), sqlstate(error)
            unknown.append(number)
    return done, unknown


def check_rows(db, done, unknown):
    found = value(db, "SELECT count(*) FROM t")
    assert len(done) <= found <= len(done) + len(unknown), f"{found} rows, {len(done)} acknowledged, {len(unknown)} unknown"


@check
def a_checkpoint_that_was_stored_after_all_ends_no_checkpoint(place):
    """The folder's sync fails once; later checkpoints and commits go on, and memory does not grow."""
    options = ("--memory", "64MB")
    with place.serve(*options, environment=place.bad_machine()) as server, server.connect() as db:
        write(db, "CREATE TABLE t (id BIGINT PRIMARY KEY, text VARCHAR)")
        place.fault("fail_folder", "manifest")
        done, unknown = acknowledged(db, range(150), size=400_000)
        assert not place.has_fault("fail_folder"), "no checkpoint was attempted; write more"
        assert not unknown, f"{len(unknown)} commits have an unknown outcome, though the log was well"
        check_rows(db, done, unknown)
        memory = server.memory() / 1e6
        assert memory < 250, f"{memory:.0f} MB though checkpoints should go on"
    with place.serve() as server, server.connect() as db:
        check_rows(db, done, unknown)
    place.verify()


class Ambiguous:
    """A WSGI application in front of an S3: on request it stores an object and answers 500, or refuses it so."""

    def __init__(self, store):
        self._store = store
        self._next = []

    def store_and_say_500(self, pattern):
        self._next.append(re.compile(pattern))

    @property
    def pending(self):
        return len(self._next)

    def __call__(self, environ, start_response):
        match = None
        if environ["REQUEST_METHOD"] == "PUT":
            match = next((p for p in self._next if p.search(environ["PATH_INFO"])), None)
        if match is None:
            return self._store(environ, start_response)
        self._next.remove(match)
        list(self._store(environ, lambda *_: None))
        start_response("500 Internal Server Error", [("Content-Type", "application/xml")])
        return [b"<Error><Code>InternalError</Code></Error>"]


@contextlib.contextmanager
def ambiguous_store():
    """An S3 on this machine, as `Ambiguous`, and the environment in which a server finds it."""
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    store = Ambiguous(DomainDispatcherApplication(create_backend_app))
    http = make_server("127.0.0.1", 0, store, threaded=True)
    thread = threading.Thread(target=http.serve_forever)
    thread.start()
    try:
        yield store, {
            "AWS_ENDPOINT": f"http://127.0.0.1:{http.server_port}",
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_REGION": "us-east-1",
        }
    finally:
        http.shutdown()
        thread.join()


def make_bucket(environment, bucket):
    import boto3

    client = boto3.client(
        "s3",
        endpoint_url=environment["AWS_ENDPOINT"],
        aws_access_key_id="key",
        aws_secret_access_key="secret",
        region_name="us-east-1",
    )
    client.create_bucket(Bucket=bucket)


@check
def an_object_that_was_stored_after_all_is_no_failure(place):
    """Parts of the log and checkpoints: the writer reads back what is there, and goes on."""
    bucket = f"grizzly-{uuid.uuid4().hex}"
    with ambiguous_store() as (store, environment):
        make_bucket(environment, bucket)
        settings = {"db": f"s3://{bucket}/db", "environment": environment}
        with place.serve("--memory", "64MB", **settings) as server, server.connect() as db:
            write(db, "CREATE TABLE t (id BIGINT PRIMARY KEY, text VARCHAR)")
            done, unknown = [], []
            for part, pattern in enumerate(("/wal/|/log/", "/wal/|/log/", "/manifest/", "/data/")):
                store.store_and_say_500(pattern)
                more, doubt = acknowledged(db, range(part * 100, part * 100 + 30), size=400_000)
                done, unknown = done + more, unknown + doubt
            time.sleep(1)
            assert not store.pending, "not every kind of object was stored; write more"
            assert not unknown, f"{len(unknown)} commits have an unknown outcome, though the same bytes are there"
            check_rows(db, done, unknown)
        with place.serve(**settings) as server, server.connect() as db:
            check_rows(db, done, unknown)


@check
def single_inserts_behind_many_cost_no_file_each(place):
    with place.serve() as server, server.connect() as db, server.connect(autocommit=False) as loader:
        write(db, "CREATE TABLE t (id BIGINT PRIMARY KEY, a BIGINT)")
        loader.rollback()
        write(loader, "INSERT INTO t SELECT value, value AS a FROM range(0, 66000)")
        before = place.files()
        for number in range(1_000):
            write(loader, f"INSERT INTO t VALUES ({100_000 + number}, 0)")
        loader.commit()
        grown = place.files() - before
        assert grown < 50, f"{grown} files for 1,000 rows"
        assert value(db, "SELECT count(*) FROM t") == 67_000
