"""`--memory` holds, as the operating system counts: no statement takes more than 1.3 times of it."""

import adbc_driver_flightsql.dbapi as flight_sql

from promises.place import check
from served import rows, sqlstate, value, write

MEMORY = 256_000_000
AT_MOST = 1.3 * MEMORY
OPTIONS = ("--memory", "256MB")


def hold(server, what):
    """The most that the server has taken so far must be within its bound."""
    peak = server.memory("VmHWM")
    assert peak <= AT_MOST, f"{what}: {peak / 1e6:.0f} MB, allowed are {AT_MOST / 1e6:.0f}"


def answered_or_refused_by_name(db, sql):
    """53200 is PostgreSQL's out of memory."""
    try:
        return rows(db, sql)
    except flight_sql.Error as error:
        assert "53200" in sqlstate(error), f"{sql}: {sqlstate(error)[:500]}"
        return None


@check(long=True)
def wide_rows_hold_memory(place):
    with place.serve(*OPTIONS) as server, server.connect() as db:
        write(db, "CREATE TABLE t (id BIGINT PRIMARY KEY, text VARCHAR)")
        for part in range(100):
            write(db, f"INSERT INTO t SELECT value, repeat('x', 100000) FROM range({part * 200}, {part * 200 + 200})")
        hold(server, "20,000 rows of 100 kB")
        server.kill()
    with place.serve(*OPTIONS) as server, server.connect() as db:
        assert value(db, "SELECT count(*) FROM t") == 20_000
        hold(server, "replay of 20,000 rows of 100 kB")


@check(long=True)
def one_transaction_of_two_gigabytes_holds_memory(place):
    with place.serve(*OPTIONS) as server, server.connect(autocommit=False) as db:
        write(db, "CREATE TABLE t (id BIGINT PRIMARY KEY, text VARCHAR)")
        for part in range(100):
            write(db, f"INSERT INTO t SELECT value, repeat('x', 100000) FROM range({part * 200}, {part * 200 + 200})")
        db.commit()
        hold(server, "one transaction of 20,000 rows of 100 kB")
        assert value(db, "SELECT count(*) FROM t") == 20_000
        hold(server, "reading what it wrote")


def fill(place, count):
    """Table t with so many rows. The server has ended then, so that what is measured afterwards is a statement's own."""
    with place.serve() as server, server.connect() as db:
        write(db, "CREATE TABLE t (id BIGINT PRIMARY KEY, a BIGINT, text VARCHAR)")
        write(db, f"INSERT INTO t SELECT value, value * 7 % 1000003, concat('text ', value) FROM range(0, {count})")


def statement_holds_memory(place, sql):
    with place.serve(*OPTIONS) as server, server.connect() as db:
        answered = answered_or_refused_by_name(db, sql)
        print(f"{'refused' if answered is None else 'answered'}, {server.memory('VmHWM') / 1e6:.0f} MB: {sql}", flush=True)
        hold(server, sql)
        assert value(db, "SELECT 1") == 1


@check(long=True)
def an_update_of_three_million_rows_holds_memory(place):
    fill(place, 3_000_000)
    statement_holds_memory(place, "UPDATE t SET a = a + 1")


@check(long=True)
def an_index_on_eight_million_rows_holds_memory(place):
    fill(place, 8_000_000)
    statement_holds_memory(place, "CREATE INDEX by_a ON t (a)")


@check(long=True)
def a_sort_of_eight_million_rows_spills(place):
    fill(place, 8_000_000)
    sql = "SELECT count(*) FROM (SELECT row_number() OVER (ORDER BY text) AS n FROM t) WHERE n > 7999990"
    statement_holds_memory(place, sql)
    with place.serve(*OPTIONS) as server, server.connect() as db:
        assert rows(db, sql) == [(10,)], "refused though it can spill"


@check(long=True)
def large_aggregates_and_joins_hold_memory(place):
    fill(place, 8_000_000)
    for sql in (
        "SELECT count(*) FROM (SELECT text, count(*) FROM t GROUP BY text)",
        "SELECT count(DISTINCT text) FROM t",
        "SELECT a, max(text), min(text) FROM t GROUP BY a ORDER BY 2 DESC LIMIT 3",
        "SELECT count(*), max(x.text) FROM t x JOIN t y ON x.id = y.a",
        "SELECT count(*) FROM t x JOIN t y ON x.text = y.text",
        "SELECT count(*) FROM t x LEFT JOIN t y ON x.id = y.a WHERE y.text IS NULL",
        "SELECT text, sum(a) OVER (PARTITION BY a ORDER BY text) FROM t ORDER BY 2 DESC LIMIT 3",
        "SELECT text FROM t ORDER BY text DESC LIMIT 1000000",
    ):
        statement_holds_memory(place, sql)


@check(long=True)
def a_transaction_of_eleven_million_rows_holds_memory(place):
    sql = "INSERT INTO u SELECT value, value % 1000 FROM range(0, 11000000)"
    with place.serve(*OPTIONS) as server, server.connect() as db:
        write(db, "CREATE TABLE u (id BIGINT PRIMARY KEY, a BIGINT)")
        answered_or_refused_by_name(db, sql)
        hold(server, sql)


@check(long=True)
def an_unnested_range_holds_memory(place):
    statement_holds_memory(place, "SELECT count(*) FROM (SELECT unnest(range(0, 60000000)) AS n)")


@check(long=True)
def a_repeated_text_holds_memory(place):
    statement_holds_memory(place, "SELECT length(repeat('x', 500000000))")


@check(long=True)
def an_aggregate_of_lists_holds_memory(place):
    statement_holds_memory(place, "SELECT sum(cardinality(range(0, value + 60000000))) FROM range(0, 4)")
