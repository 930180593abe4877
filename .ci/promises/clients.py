"""One client's excess is its own: queries, handles, connections that are gone; and results cost what they hold."""

import concurrent.futures
import contextlib
import multiprocessing
import os
import time

import adbc_driver_flightsql.dbapi as flight_sql
import pyarrow.flight

from promises.place import check
from served import MAX_MESSAGE, rows, sqlstate, value, write

# Of their own from the start: what the driver's library runs does not survive a fork.
CLIENTS = multiprocessing.get_context("spawn")
Q10 = """
SELECT c.id, c.name, sum(o.price * (1 - o.discount)) AS revenue, c.balance, n.name, c.address, c.phone, c.comment
FROM customer c JOIN orders o ON o.customer = c.id JOIN nation n ON c.nation = n.id
WHERE o.returned GROUP BY c.id, c.name, c.balance, c.phone, n.name, c.address, c.comment
ORDER BY revenue DESC"""


def fill_customers(db):
    """Tables like those of TPC-H's tenth query, so large that their chunks are written and read back."""
    write(db, "CREATE TABLE nation (id BIGINT PRIMARY KEY, name VARCHAR)")
    write(db, "INSERT INTO nation SELECT value, concat('nation ', value) FROM range(0, 25)")
    write(
        db,
        "CREATE TABLE customer (id BIGINT PRIMARY KEY, name VARCHAR, balance DOUBLE, nation BIGINT, address VARCHAR,"
        " phone VARCHAR, comment VARCHAR)",
    )
    write(
        db,
        "INSERT INTO customer SELECT value, concat('Customer#', lpad(CAST(value AS VARCHAR), 9, '0')), value / 7.0,"
        " value % 25, concat('address of the customer ', value), concat('25-989-741-', value),"
        " concat('a comment, longer than what stands in the view itself, ', value) FROM range(0, 150000)",
    )
    write(db, "CREATE TABLE orders (id BIGINT PRIMARY KEY, customer BIGINT, price DOUBLE, discount DOUBLE, returned BOOLEAN)")
    write(
        db,
        "INSERT INTO orders SELECT value, value * 7 % 150000, value % 1000, 0.05, value % 4 = 0 FROM range(0, 600000)",
    )


@check
def results_cost_what_they_hold(place):
    """With the driver's default limit of 16 MiB, and with one of 4 MiB, which no message exceeds."""
    with place.serve() as server, server.connect() as db:
        fill_customers(db)
    with place.serve() as server:
        for options in ({}, {MAX_MESSAGE: str(4 << 20)}):
            with server.connect(**options) as db:
                first = rows(db, f"{Q10} LIMIT 20")
                assert len(first) == 20 and first[0][2] >= first[19][2] > 0, first[:2]
                assert len(rows(db, Q10)) == len({n * 7 % 150_000 for n in range(0, 600_000, 4)})
                few = "SELECT name, address, phone, comment FROM customer WHERE id % 4 = 1"
                assert len(rows(db, few)) == 37_500
                (one,) = rows(db, "SELECT * FROM customer WHERE id = 77777")
                assert one[1] == "Customer#000077777" and one[6].endswith(", 77777"), one


@check
def a_small_row_beside_large_ones_arrives(place):
    with place.serve() as server, server.connect() as db:
        write(db, "CREATE TABLE t (id BIGINT PRIMARY KEY, text VARCHAR)")
        large = 10_000_000
        write(db, f"INSERT INTO t VALUES (1, repeat('x', {large})), (2, 'small'), (3, repeat('y', {large}))")
        assert rows(db, "SELECT id, text FROM t WHERE id = 2") == [(2, "small")]
        assert rows(db, "SELECT id FROM t WHERE length(text) < 10") == [(2,)]
        assert [(key, len(text)) for key, text in rows(db, "SELECT id, text FROM t ORDER BY id")] == [
            (1, large),
            (2, 5),
            (3, large),
        ]


def answer(connection, sql):
    """The one value that a query answers with, without preparing it as the driver's cursors do."""
    with connection.cursor() as cursor:
        cursor.adbc_statement.set_sql_query(sql)
        stream, _ = cursor.adbc_statement.execute_query()
        return pyarrow.RecordBatchReader._import_from_c(stream.address).read_all().to_pylist()


def ask_often(connection, count):
    for number in range(count):
        assert answer(connection, f"SELECT {number} AS n") == [{"n": number}]


@check(long=True)
def twenty_thousand_queries_are_no_burden(place):
    """On eight connections that stay open."""
    with place.serve() as server, contextlib.ExitStack() as open_until_the_end:
        connections = [open_until_the_end.enter_context(server.connect()) for _ in range(8)]
        with concurrent.futures.ThreadPoolExecutor(len(connections)) as threads:
            list(threads.map(ask_often, connections, [20_000 // len(connections)] * len(connections)))
        with server.connect() as other:
            assert value(other, "SELECT 1") == 1


def prepare_and_close_nothing(address, count, is_done):
    """A client that keeps its statements open until it is killed."""
    connection = flight_sql.connect(address, autocommit=True)
    cursors = [connection.cursor() for _ in range(count)]
    for number, cursor in enumerate(cursors):
        cursor.adbc_prepare(f"SELECT {number}")
    is_done.set()
    time.sleep(3600)


@contextlib.contextmanager
def greedy_client(server, count):
    """One that has `count` prepared statements open, and is still there."""
    is_done = CLIENTS.Event()
    client = CLIENTS.Process(target=prepare_and_close_nothing, args=(server.address, count, is_done))
    client.start()
    try:
        while client.is_alive() and not is_done.wait(1):
            pass
        assert is_done.is_set(), "the client was refused"
        yield
    finally:
        client.kill()
        client.join()


@check
def twenty_thousand_open_statements_are_in_nobody_s_way(place):
    with place.serve() as server, greedy_client(server, 20_000), server.connect() as other:
        with other.cursor() as cursor:
            cursor.adbc_prepare("SELECT 7")
            cursor.execute("SELECT 7")
            assert cursor.fetchall() == [(7,)]
        assert answer(other, "SELECT 1 AS n") == [{"n": 1}]
        assert server.memory() < 1e9, f"{server.memory() / 1e6:.0f} MB for one client's statements"


def read_the_beginnings(connection, sql, count, open_until_the_end):
    """Executes a large query `count` times and reads a row of each; returns how many were not refused."""
    for number in range(count):
        cursor = open_until_the_end.enter_context(connection.cursor())
        try:
            cursor.execute(sql)
            assert cursor.fetchone() is not None
        except flight_sql.Error as error:
            assert "53" in sqlstate(error), sqlstate(error)
            return number
    return count


@check
def results_that_are_not_read_are_bounded(place):
    """Each holds what its scans have decoded. One connection has no more than a few, and all have what queries may have."""
    with place.serve("--memory", "256MB") as server, server.connect() as db, contextlib.ExitStack() as open_until_the_end:
        write(db, "CREATE TABLE t (id BIGINT PRIMARY KEY, text VARCHAR) PARTITION BY HASH (id) SHARDS 4")
        write(db, "INSERT INTO t SELECT value, concat('a text of the row ', value) FROM range(0, 1000000)")
        before = server.memory()
        with server.connect() as one:
            assert read_the_beginnings(one, "SELECT id, repeat('x', 3000 + id % 7) FROM t", 200, open_until_the_end) < 100
            open_until_the_end.close()
            assert read_the_beginnings(one, "SELECT * FROM t", 200, open_until_the_end) < 100
            assert value(db, "SELECT count(*) FROM t WHERE id < 10") == 10, "one connection is in another's way"
            assert value(db, "SELECT sum(length(text)) FROM t") > 0, "one connection takes the memory of all"
            open_until_the_end.close()
        many = [open_until_the_end.enter_context(server.connect()) for _ in range(20)]
        begun = sum(read_the_beginnings(connection, "SELECT * FROM t", 20, open_until_the_end) for connection in many)
        taken = server.memory() - before
        assert begun < 100 and taken < 400e6, f"{begun} results that nobody reads take {taken / 1e6:.0f} MB"
        open_until_the_end.close()
        assert value(db, "SELECT sum(length(text)) FROM t") > 0


def leave_in_transactions(address, count):
    """A client that opens transactions, writes in each, and is gone without a word."""
    left = []
    for number in range(count):
        connection = flight_sql.connect(address)
        write(connection, f"INSERT INTO t VALUES ({number}, 'never')")
        left.append(connection)
    os._exit(1)


def memory_after(server, rounds, leave):
    """The server's memory after each round of clients that came and are gone, in bytes."""
    sizes = []
    for _ in range(rounds):
        leave()
        time.sleep(1)
        sizes.append(server.memory())
    return sizes


@check
def a_transaction_ends_with_its_connection(place):
    with place.serve() as server, server.connect() as db:
        write(db, "CREATE TABLE t (id BIGINT PRIMARY KEY, text VARCHAR)")

        def leave():
            client = CLIENTS.Process(target=leave_in_transactions, args=(server.address, 300))
            client.start()
            client.join()
            assert client.exitcode == 1, "the client failed before it left"

        sizes = memory_after(server, 6, leave)
        # What the allocator keeps for a while comes and goes, ten megabytes and more.
        grown = (min(sizes[3:]) - min(sizes[:3])) / 900
        assert grown < 20_000, f"{grown:.0f} bytes stay of each transaction whose client is gone; memory: {sizes}"
        assert value(db, "SELECT count(*) FROM t") == 0
        write(db, "INSERT INTO t VALUES (1, 'free')")


@check
def a_transaction_leaves_nothing_when_it_has_ended(place):
    with place.serve() as server, server.connect() as db:
        write(db, "CREATE TABLE t (id BIGINT PRIMARY KEY)")
        with server.connect(autocommit=False) as writer:
            ids = iter(range(10_000))

            def commit():
                for _ in range(500):
                    write(writer, f"INSERT INTO t VALUES ({next(ids)})")
                    writer.commit()

            sizes = memory_after(server, 4, commit)
        grown = (sizes[3] - sizes[1]) / 1_000
        assert grown < 10_000, f"{grown:.0f} bytes stay of each transaction that was committed; memory: {sizes}"


def field(number, content):
    """A field of bytes in a protocol buffer."""
    length, size = [], len(content)
    while size > 127:
        length.append(size % 128 + 128)
        size //= 128
    return bytes([number << 3 | 2, *length, size]) + content


def ask_in_session(client, name, sql):
    """A query in the session of this name, which the driver cannot change on one connection."""
    kind = b"type.googleapis.com/arrow.flight.protocol.sql.CommandStatementQuery"
    command = field(1, kind) + field(2, field(1, sql.encode()))
    options = pyarrow.flight.FlightCallOptions(headers=[(b"x-grizzly-session", name.encode())])
    info = client.get_flight_info(pyarrow.flight.FlightDescriptor.for_command(command), options)
    return client.do_get(info.endpoints[0].ticket, options).read_all().to_pylist()


@check
def sessions_by_name_are_bounded(place):
    with place.serve() as server, pyarrow.flight.connect(server.address.replace("grpc:", "grpc+tcp:")) as client:

        def name_sessions():
            for number in range(2_000):
                name = f"{time.monotonic_ns()}-{number}"
                assert ask_in_session(client, name, "SELECT 1 AS n") == [{"n": 1}]

        sizes = memory_after(server, 3, name_sessions)
        grown = (sizes[2] - sizes[0]) / 4_000
        assert grown < 10_000, f"{grown:.0f} bytes stay of each session by name; memory: {sizes}"
