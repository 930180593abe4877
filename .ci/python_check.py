"""Grizzly as a Python program meets it: Flight SQL through the ADBC driver of Apache Arrow.

Usage: python_check.py PATH_TO_GRIZZLY. Starts `grizzly serve` on an empty database and a free port, and ends with
a failed assertion, and exit code 1, at the first thing that is not as it should be.
"""

import sys
import tempfile
from pathlib import Path

import adbc_driver_flightsql.dbapi as flight_sql
import pyarrow as pa

from served import refused, rows, serve, write


def say(text):
    print(f"python: {text}", flush=True)


def create_and_ingest(db):
    write(db, "CREATE TABLE item (id BIGINT PRIMARY KEY, name VARCHAR NOT NULL, price DOUBLE, sold BOOLEAN)")
    with db.cursor() as cursor:
        tables = db.adbc_get_objects(depth="tables", table_name_filter="item").read_all().to_pylist()
        assert "'item'" in str(tables), tables
    count = 10_000
    data = pa.table(
        {
            "id": pa.array(range(count), pa.int64()),
            "name": pa.array([f"item {n}" for n in range(count)], pa.string()),
            "price": pa.array([None if n % 10 == 0 else n / 4 for n in range(count)], pa.float64()),
            "sold": pa.array([n % 2 == 0 for n in range(count)], pa.bool_()),
        }
    )
    with db.cursor() as cursor:
        ingested = cursor.adbc_ingest("item", data, mode="append")
        assert ingested in (count, -1), ingested
        cursor.execute("SELECT id, name, price, sold FROM item ORDER BY id")
        back = cursor.fetch_arrow_table()
    for name in data.column_names:
        assert back[name].to_pylist() == data[name].to_pylist(), f"column {name} differs"
    with db.cursor() as cursor:
        cursor.adbc_ingest("made", data.slice(0, 10), mode="create")
    assert rows(db, "SELECT count(*), min(name) FROM made") == [(10, "item 0")]


def transactions(db, address):
    with flight_sql.connect(address) as writer:
        write(writer, "UPDATE item SET price = price * 2 WHERE id < 100")
        write(writer, "DELETE FROM item WHERE id >= 9000")
        assert rows(writer, "SELECT count(*) FROM item") == [(9000,)], "a transaction sees its own writes"
        assert rows(db, "SELECT count(*) FROM item") == [(10_000,)], "nobody else sees them before commit"
        writer.rollback()
        assert rows(writer, "SELECT count(*), sum(price) FROM item WHERE id < 100") == [(100, 1125.0)], "rolled back"
        write(writer, "UPDATE item SET price = 0 WHERE id = 1")
        writer.commit()
        assert rows(db, "SELECT price FROM item WHERE id = 1") == [(0.0,)], "committed"


def ingest_is_a_transaction_of_its_own(db, address):
    data = pa.table({"id": pa.array([50_000, 50_001], pa.int64()), "name": pa.array(["a", "b"], pa.string())})
    with flight_sql.connect(address) as writer:
        write(writer, "UPDATE item SET name = 'not yet' WHERE id = 2")
        with writer.cursor() as cursor:
            cursor.adbc_ingest("item", data, mode="append")
        there = "SELECT count(*) FROM item WHERE id >= 50000"
        assert rows(db, there) == [(2,)], "others see what was ingested before the commit"
        assert rows(db, "SELECT name FROM item WHERE id = 2") == [("item 2",)], "and nothing else"
        assert rows(writer, there) == [(0,)], "the transaction reads what was there when it began"
        writer.rollback()
        assert rows(writer, there) == [(2,)], "a rollback leaves what was ingested"
        assert rows(writer, "SELECT name FROM item WHERE id = 2") == [("item 2",)]
        with writer.cursor() as cursor, refused("23505", "item", "50001"):
            cursor.adbc_ingest("item", data.slice(1), mode="append")
        writer.rollback()
    write(db, "DELETE FROM item WHERE id >= 50000")


def conflict(address):
    with flight_sql.connect(address) as first, flight_sql.connect(address) as second:
        write(first, "UPDATE item SET name = 'first' WHERE id = 7")
        write(second, "UPDATE item SET name = 'second' WHERE id = 7")
        first.commit()
        with refused("40001", "item", "7"):
            second.commit()
    # The driver begins no new transaction after a failed commit: the retry takes a connection of its own.
    with flight_sql.connect(address) as retry:
        write(retry, "UPDATE item SET name = name || ' then second' WHERE id = 7")
        retry.commit()
        assert rows(retry, "SELECT name FROM item WHERE id = 7") == [("first then second",)]
        retry.rollback()


def prepared(db):
    by_id = "SELECT name, price FROM item WHERE id = $1"
    assert rows(db, by_id, (2,)) == [("item 2", 0.5)]
    assert rows(db, by_id, (3,)) == [("item 3", 0.75)]
    assert rows(db, "SELECT count(*) FROM item WHERE id BETWEEN $1 AND $2 AND name LIKE $3", (10, 19, "item 1%")) == [(10,)]
    with db.cursor() as cursor:
        insert = "INSERT INTO item (id, name, price) VALUES ($1, $2, $3)"
        cursor.executemany(insert, [(20_000 + n, f"many {n}", n * 1.5) for n in range(5)])
    assert rows(db, "SELECT count(*), sum(price) FROM item WHERE id >= 20000") == [(5, 15.0)]
    for expected in (4, 3):
        write(db, "DELETE FROM item WHERE id = $1", (20_000 + expected,))
        assert rows(db, "SELECT count(*) FROM item WHERE id >= 20000") == [(expected,)], "deleted once, and only that"


def errors(db):
    with refused("23505", "item", "1"):
        write(db, "INSERT INTO item (id, name) VALUES (1, 'again')")
    with refused("23502", "name"):
        write(db, "INSERT INTO item (id, name) VALUES (30000, NULL)")
    with refused("42P01", "nosuch"):
        rows(db, "SELECT * FROM nosuch")
    with refused("0A000", "LIMIT"):
        write(db, "DELETE FROM item LIMIT 1")
    assert rows(db, "SELECT count(*) FROM item") == [(10_003,)], "nothing was changed by what was refused"


def after_restart(address):
    with flight_sql.connect(address, autocommit=True) as db:
        assert rows(db, "SELECT count(*) FROM item") == [(10_003,)]
        assert rows(db, "SELECT name FROM item WHERE id = 7") == [("first then second",)]


def main(grizzly):
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "db"
        with serve(grizzly, folder) as server:
            address = server.address
            say(f"connects to {address}")
            with flight_sql.connect(address, autocommit=True) as db:
                say("creates a table, ingests 10,000 rows, reads them back")
                create_and_ingest(db)
                say("updates in a transaction, rolls back, commits")
                transactions(db, address)
                say("ingests beside an open transaction")
                ingest_is_a_transaction_of_its_own(db, address)
                say("meets a conflict and retries")
                conflict(address)
                say("prepares statements with parameters")
                prepared(db)
                say("is refused what is wrong")
                errors(db)
        with serve(grizzly, folder) as server:
            say("finds everything again after a restart")
            after_restart(server.address)
    say("all as it should be")


if __name__ == "__main__":
    main(*sys.argv[1:])
