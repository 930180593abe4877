"""Nothing acknowledged is lost, nothing refused happened, and constraints hold."""

import contextlib
import datetime
import subprocess
import threading
import time

import adbc_driver_flightsql.dbapi as flight_sql
import pyarrow as pa

from promises.place import Beside, check
from served import refused, rows, sqlstate, value, write


@check
def a_commit_of_more_than_a_gigabyte_is_whole_or_nothing(place):
    with place.serve() as server, server.connect() as db:
        write(db, "CREATE TABLE t (id BIGINT PRIMARY KEY, text VARCHAR)")
        write(db, "INSERT INTO t VALUES (1000001, 'untouched')")
        try:
            write(db, "INSERT INTO t SELECT value, repeat('x', 20000) FROM range(0, 60000)")
            expected = 60_001
        except flight_sql.Error:
            expected = 1
        assert value(db, "SELECT count(*) FROM t") == expected, "a part of the commit is there"
        write(db, "INSERT OR REPLACE INTO t VALUES (1, 'new')")
        assert rows(db, "SELECT id, text FROM t WHERE id IN (1, 1000001) ORDER BY id") == [
            (1, "new"),
            (1000001, "untouched"),
        ], "another row than the one with the key was replaced"
    with place.serve() as server, server.connect() as db:
        whole = max(expected, 2)
        assert value(db, "SELECT count(*) FROM t") == whole, "a restart shows something else"
    place.verify()


def failing_batches(batch):
    yield batch
    raise ValueError("the source of the rows is gone")


@check
def a_replacement_that_fails_leaves_the_table(place):
    with place.serve() as server, server.connect() as db:
        write(db, "CREATE TABLE t (a BIGINT PRIMARY KEY)")
        write(db, "INSERT INTO t VALUES (7), (8)")
        for sql in (
            "CREATE OR REPLACE TABLE t (a BIGINT) WITH (shards = 5000)",
            "CREATE OR REPLACE TABLE t (a BIGINT) PARTITION BY HASH (a) SHARDS 5000",
            "CREATE OR REPLACE TABLE t (a BIGINT PRIMARY KEY) AS SELECT * FROM (VALUES (1), (1))",
            "CREATE OR REPLACE TABLE t AS SELECT 1 / (a - 7) AS a FROM t",
        ):
            try:
                write(db, sql)
            except flight_sql.Error:
                pass
            else:
                raise AssertionError(f"it was accepted: {sql}")
            assert rows(db, "SELECT a FROM t ORDER BY a") == [(7,), (8,)], f"after {sql}"
        batch = pa.record_batch({"b": pa.array(range(50_000), pa.int64())})
        reader = pa.RecordBatchReader.from_batches(batch.schema, failing_batches(batch))
        with db.cursor() as cursor:
            try:
                cursor.adbc_ingest("t", reader, mode="replace")
            except (flight_sql.Error, OSError, ValueError):
                pass
            else:
                raise AssertionError("an ingest whose source failed was accepted")
        assert rows(db, "SELECT a FROM t ORDER BY a") == [(7,), (8,)], "after an ingest that failed"
        with db.cursor() as cursor, refused(""):
            cursor.adbc_ingest("t", pa.table({"other": [1]}), mode="append")
        assert rows(db, "SELECT a FROM t ORDER BY a") == [(7,), (8,)], "after an ingest of other columns"


@check
def a_table_is_never_seen_without_its_rows(place):
    with place.serve() as server, server.connect() as db, server.connect() as other:
        seen = set()

        def look():
            try:
                seen.add(value(other, "SELECT count(*) FROM made"))
            except flight_sql.Error as error:
                assert "42P01" in sqlstate(error), error

        with Beside(look):
            for size in (100_000, 200_000):
                write(db, f"CREATE TABLE made AS SELECT value FROM range(0, {size})")
                write(db, f"CREATE OR REPLACE TABLE made AS SELECT value FROM range(0, {size + 1})")
                write(db, "DROP TABLE made")
        wrong = seen - {100_000, 100_001, 200_000, 200_001}
        assert not wrong, f"others saw the table with {wrong} rows"


@check
def a_kill_leaves_a_created_table_whole_or_not_at_all(place):
    for after in (0.02, 0.05, 0.1, 0.2):
        with place.serve() as server, server.connect() as db:
            write(db, "CREATE OR REPLACE TABLE made AS SELECT 7 AS value")
            killer = threading.Timer(after, server.kill)
            killer.start()
            with contextlib.suppress(flight_sql.Error):
                write(db, "CREATE OR REPLACE TABLE made AS SELECT value FROM range(0, 500000)")
            killer.join()
        with place.serve() as server, server.connect() as db:
            count = value(db, "SELECT count(*) FROM made")
            assert count in (1, 500_000), f"{count} rows, killed after {after} s"
    place.verify()


@check
def a_restore_that_was_killed_does_not_open_as_if_whole(place):
    backup = place.folder / "backup"
    with place.serve() as server, server.connect() as db:
        write(db, "CREATE TABLE t (id BIGINT PRIMARY KEY, a BIGINT) PARTITION BY HASH (id) SHARDS 4")
        write(db, "CREATE INDEX by_a ON t (a)")
        for part in range(3):
            write(db, f"INSERT INTO t SELECT value, value / 2 FROM range({part * 100_000}, {(part + 1) * 100_000})")
        rows(db, f"CALL grizzly.backup('{backup}')")
    environment = place.bad_machine()
    place.fault("sync_ms", "40")
    whole = 0
    for round, after in enumerate((0.05, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 1.2)):
        into = place.folder / f"restored-{round}"
        command = [place.grizzly, "restore", "--from", str(backup), "--into", str(into)]
        restoring = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(after)
        restoring.kill()
        restoring.wait()
        whole += is_whole(place, into, after)
    assert whole < 8, "no restore was killed before its end; make it slower"


def is_whole(place, into, after):
    """Whether the database opens; then everything must be in it."""
    if not into.exists() or place.command("verify", "--db", into).returncode != 0:
        return False
    with place.serve(db=into) as server, server.connect() as db:
        assert value(db, "SELECT count(*) FROM t") == 300_000, f"a part, killed after {after} s"
        write(db, "CREATE INDEX again ON t (a, id)")
        for a in (0, 77, 99_999, 149_999):
            assert value(db, "SELECT count(*) FROM t WHERE a = $1", (a,)) == 2, f"a = {a}, killed after {after} s"
    return True


def unique_index_beside(place, count):
    """Rows of an open transaction, of which two and two are equal, against a unique index that is created."""
    with place.serve() as server, server.connect() as db, server.connect(autocommit=False) as loader:
        write(db, "CREATE TABLE t (id BIGINT PRIMARY KEY, a BIGINT)")
        # Its transaction began when it connected; the next one knows the table.
        loader.rollback()
        write(loader, f"INSERT INTO t SELECT value, value / 2 FROM range(0, {count})")
        try:
            write(db, "CREATE UNIQUE INDEX once ON t (a)")
            indexed = True
        except flight_sql.Error:
            indexed = False
        try:
            loader.commit()
            committed = True
        except flight_sql.Error as error:
            assert "23505" in sqlstate(error) or "40001" in sqlstate(error), sqlstate(error)
            committed = False
        assert not (indexed and committed), "a unique index holds rows that are equal"
        assert value(db, "SELECT count(*) FROM t") == (count if committed else 0)
        if indexed:
            write(db, "INSERT INTO t VALUES (-1, -1)")
            with refused("23505"):
                write(db, "INSERT INTO t VALUES (-2, -1)")
    place.verify()


@check
def a_unique_index_counts_for_rows_of_open_transactions(place):
    unique_index_beside(place, 2)


@check
def a_unique_index_counts_for_rows_loaded_in_bulk(place):
    unique_index_beside(place, 150_000)


@check
def a_unique_constraint_is_there_with_its_table(place):
    with place.serve() as server, server.connect() as db, server.connect() as other:
        accepted = []

        def intrude():
            try:
                write(other, "INSERT INTO t VALUES (1, 7), (2, 7)")
                accepted.append("a pair that is equal")
            except flight_sql.Error as error:
                assert "42P01" in sqlstate(error) or "23505" in sqlstate(error), sqlstate(error)

        with Beside(intrude):
            for _ in range(40):
                write(db, "CREATE TABLE t (id BIGINT PRIMARY KEY, a BIGINT UNIQUE)")
                write(db, "DROP TABLE t")
        assert not accepted, f"{len(accepted)} times the table was there without its constraint"


def now():
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%f")


@check
def a_time_that_was_asked_about_stays_as_it_was(place):
    with place.serve(environment=place.bad_machine()) as server:
        with server.connect() as db, server.connect() as writer:
            write(db, "CREATE TABLE t (id BIGINT PRIMARY KEY)")
            place.fault("sync_ms", "30")
            ids = iter(range(1_000_000))
            answers = []
            with Beside(lambda: write(writer, f"INSERT INTO t VALUES ({next(ids)})")):
                time.sleep(0.2)
                for _ in range(40):
                    asked = f"SELECT count(*) FROM t FOR SYSTEM_TIME AS OF '{now()}'"
                    answers.append((asked, value(db, asked)))
            changed = [(asked, before, after) for asked, before in answers if (after := value(db, asked)) != before]
            assert not changed, f"{len(changed)} of {len(answers)} answers changed: {changed[:3]}"


@check
def as_of_now_means_the_time_at_which_a_statement_runs(place):
    with place.serve() as server, server.connect() as db:
        write(db, "CREATE TABLE t (id BIGINT PRIMARY KEY)")
        asked = "SELECT count(*) FROM t FOR SYSTEM_TIME AS OF now()"
        with db.cursor() as cursor:
            cursor.adbc_prepare(asked)
            for expected in range(3):
                cursor.execute(asked)
                assert cursor.fetchall() == [(expected,)], "a prepared AS OF now() is not the present"
                write(db, f"INSERT INTO t VALUES ({expected})")
        write(db, f"CREATE VIEW v AS {asked}")
        assert rows(db, "SELECT * FROM v") == [(3,)], "a view with AS OF now()"
        write(db, "INSERT INTO t VALUES (9)")
        assert rows(db, "SELECT * FROM v") == [(4,)], "a view with AS OF now(), later"


@check
def a_commit_under_way_is_never_called_cancelled(place):
    options = ("--statement-timeout", "1")
    with place.serve(*options, environment=place.bad_machine()) as server, server.connect() as db:
        write(db, "CREATE TABLE t (id BIGINT PRIMARY KEY)")
        place.fault("sync_ms", "2500")
        try:
            write(db, "INSERT INTO t VALUES (1)")
            outcome = "done"
        except flight_sql.Error as error:
            outcome = "unknown" if "08007" in sqlstate(error) else sqlstate(error)
        place.fault("sync_ms", "0")
        time.sleep(3)
        there = value(db, "SELECT count(*) FROM t") == 1
        assert outcome == "unknown" or there == (outcome == "done"), f"the row is there: {there}, the answer: {outcome}"
        with refused("57014"):
            write(db, "INSERT INTO t SELECT value + 10 FROM range(0, 3000000000) WHERE value % 7 = 8")
        assert value(db, "SELECT count(*) FROM t") == 1, "a cancelled statement left something"


@check
def a_read_that_failed_aborts_its_transaction(place):
    with place.serve() as server, server.connect() as db:
        write(db, "CREATE TABLE t (a BIGINT)")
        with server.connect(autocommit=False) as writer:
            write(writer, "INSERT INTO t VALUES (0)")
            with refused("22012"):
                rows(writer, "SELECT 1 / a FROM t")
            with refused("25P02"):
                write(writer, "INSERT INTO t VALUES (1)")
            with refused("25P02"):
                writer.commit()
        assert value(db, "SELECT count(*) FROM t") == 0, "the transaction went on"


@check
def rows_loaded_in_bulk_change_in_their_own_transaction(place):
    with place.serve() as server, server.connect() as db, server.connect(autocommit=False) as loader:
        write(db, "CREATE TABLE t (id BIGINT PRIMARY KEY, a BIGINT)")
        loader.rollback()
        write(loader, "INSERT INTO t SELECT value, value AS a FROM range(0, 100000)")
        write(loader, "UPDATE t SET a = -1 WHERE id = 5")
        write(loader, "DELETE FROM t WHERE id = 6")
        write(loader, "INSERT INTO t VALUES (6, -2)")
        write(loader, "DELETE FROM t WHERE id = 7")
        loader.commit()
        assert value(db, "SELECT count(*) FROM t") == 99_999
        assert rows(db, "SELECT id, a FROM t WHERE id BETWEEN 5 AND 8 ORDER BY id") == [(5, -1), (6, -2), (8, 8)]
    place.verify()


@check
def of_rows_with_one_key_the_last_replaces_the_others(place):
    with place.serve() as server, server.connect() as db:
        write(db, "CREATE TABLE t (id BIGINT PRIMARY KEY, a BIGINT)")
        write(db, "INSERT OR REPLACE INTO t SELECT value % 120000, value FROM range(0, 240000) ORDER BY value")
        found = rows(db, "SELECT count(*), min(a), max(a), sum(a) FROM t")
        last = range(120_000, 240_000)
        assert found == [(len(last), last[0], last[-1], sum(last))], found
    place.verify()


@check
def a_clock_that_was_set_back_hides_no_commit(place):
    two_days = str(2 * 24 * 3600)
    with place.serve(environment=place.bad_machine(FAULTY_CLOCK=two_days)) as server, server.connect() as db:
        write(db, "CREATE TABLE t (id BIGINT PRIMARY KEY)")
        write(db, "INSERT INTO t VALUES (1)")
    logged = len(place.logged())
    with place.serve() as server, server.connect() as db:
        write(db, "INSERT INTO t VALUES (2)")
        assert value(db, "SELECT count(*) FROM t FOR SYSTEM_TIME AS OF now()") == 2, "now() is before the newest commit"
    assert "WARN" in place.logged()[logged:], "nothing warns of a clock that is behind the newest commit"
