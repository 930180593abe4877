"""What each client of the load does until it ends."""

import os
import subprocess
import sys
import time

import adbc_driver_flightsql.dbapi as flight_sql

from load import tables
from load.shared import PROCESSES, Ledger
from served import sqlstate

# A writer's rows are between these times its number.
IDS = 1_000_000_000
ROWS_OF_A_WRITER = 4_000
STATEMENTS_OF_A_CONNECTION = 60


class Writer:
    """Writes rows of its own, and remembers what it was told. Nobody else writes them, so no statement on them may fail."""

    def __init__(self, client, number, autocommit):
        self.client = client
        self.number = number
        self.autocommit = autocommit
        self.next = number * IDS
        # As the open transaction sees them.
        self.rows = {}
        client.ledger = Ledger(number, {}, {})

    def run(self):
        stop = self.client.shared.stop
        while not stop.is_set():
            self.has_failed = False
            with self.client.connect(self.autocommit) as connection:
                for _ in range(STATEMENTS_OF_A_CONNECTION):
                    if stop.is_set() or self.has_failed:
                        break
                    self._change(connection)
                    self.client.pause(0.03)

    def _change(self, connection):
        choice = self.client.random.random()
        if choice < 0.2:
            self._coupon(connection)
        elif choice < 0.4 and not self.autocommit:
            self._transfer(connection)
        else:
            self._transaction(connection, 1 if self.autocommit else self.client.random.randint(1, 4))

    def _statement(self):
        """A statement, whether it is small, and the amounts that it changes; none is a deletion."""
        random = self.client.random
        choice = random.random()
        if len(self.rows) > ROWS_OF_A_WRITER:
            return self._delete(500)
        if choice < 0.5 or len(self.rows) < 100:
            return self._insert(1)
        if choice < 0.55:
            return self._insert(200)
        if choice < 0.85:
            return self._update(1)
        if choice < 0.9:
            return self._update(100)
        return self._delete(random.choice((1, 1, 1, 20)))

    def _insert(self, count):
        first, self.next = self.next, self.next + count
        amount = self.client.random.randrange(10_000)
        sql = (
            f"INSERT INTO item SELECT value, {self.number} AS writer, {amount} AS amount, value AS code, concat('text of item ', value)"
            f" FROM range({first}, {first + count})"
        )
        if count == 1:
            sql = f"INSERT INTO item VALUES ({first}, {self.number}, {amount}, {first}, 'text of item {first}')"
        return sql, count == 1, {id: amount for id in range(first, first + count)}

    def _some(self, count):
        """The bounds of `count` ids, and those of them that are there."""
        first = self.client.random.choice(list(self.rows))
        return first, first + count, [id for id in range(first, first + count) if id in self.rows]

    def _update(self, count):
        first, end, ids = self._some(count)
        amount = self.client.random.randrange(10_000)
        where = f"id = {first}" if count == 1 else f"id >= {first} AND id < {end}"
        return f"UPDATE item SET amount = {amount} WHERE {where}", count == 1, dict.fromkeys(ids, amount)

    def _delete(self, count):
        first, end, ids = self._some(count)
        where = f"id = {first}" if count == 1 else f"id >= {first} AND id < {end}"
        return f"DELETE FROM item WHERE {where}", count == 1, dict.fromkeys(ids)

    def _transaction(self, connection, statements):
        """What it changes is known once it is acknowledged."""
        before = dict(self.rows)
        self.client.ledger = Ledger(self.number, before, self.rows)
        rolled_back = not self.autocommit and self.client.random.random() < 0.2
        for _ in range(statements):
            sql, is_small, changed = self._statement()
            self.rows.update(changed)
            for id in [id for id, amount in changed.items() if amount is None]:
                del self.rows[id]
            self._run(connection, sql, is_small)
        self._end(connection, rolled_back)
        if rolled_back:
            self.rows = before
        self.client.ledger = Ledger(self.number, self.rows, self.rows)

    def _run(self, connection, sql, is_small):
        if is_small and self.autocommit:
            with self.client.small(sql.split(" ", 1)[0] + " of a row"):
                self.client.execute(connection, sql)
        else:
            self.client.execute(connection, sql)

    def _end(self, connection, rolled_back):
        if self.autocommit:
            return
        if rolled_back:
            connection.rollback()
        else:
            with self.client.small("COMMIT"):
                connection.commit()

    def _transfer(self, connection):
        """Moves money from one account to another; who meets somebody else there gives up."""
        random = self.client.random
        payer, receiver = random.sample(range(tables.ACCOUNTS), 2)
        amount = random.randrange(100)
        try:
            self.client.execute(connection, f"UPDATE account SET balance = balance - {amount} WHERE id = {payer}")
            self.client.execute(connection, f"UPDATE account SET balance = balance + {amount} WHERE id = {receiver}")
            self._end(connection, random.random() < 0.2)
        except flight_sql.Error as error:
            self._gave_up(error, "40001")

    def _coupon(self, connection):
        """Takes a code that others want, too, or gives one back."""
        random = self.client.random
        code = random.randrange(tables.CODES)
        sql = f"INSERT INTO coupon VALUES ({self.next}, {code})"
        if random.random() < 0.5:
            sql = f"DELETE FROM coupon WHERE code = {code}"
        self.next += 1
        try:
            self.client.execute(connection, sql)
            self._end(connection, False)
        except flight_sql.Error as error:
            self._gave_up(error, "40001", "23505")

    def _gave_up(self, error, *codes):
        if not any(code in sqlstate(error) for code in codes):
            raise error
        self.client.conflicts += 1
        # The driver begins no new transaction after a commit that failed: the next one takes a connection of its own.
        self.has_failed = True


def writer(client, number):
    Writer(client, number, autocommit=number % 2 == 0).run()


def reader(client, number):
    """Asks for what always holds, looks rows up, and leaves streams half read; every second one reads in transactions."""
    stop = client.shared.stop
    client.in_transactions = number % 2 == 1
    while not stop.is_set():
        with client.connect(autocommit=not client.in_transactions) as connection:
            for _ in range(STATEMENTS_OF_A_CONNECTION):
                if stop.is_set():
                    break
                client.random.choice((always_holds, look_up, look_up, prepared, aggregate, half_read))(client, connection)
                client.pause(0.05)
            if client.in_transactions:
                same_snapshot(client, connection)


def always_holds(client, connection):
    sql, expected = client.random.choice(list(tables.ALWAYS.items()))
    try:
        answer = client.execute(connection, sql)
    except flight_sql.Error as error:
        # TRANSACTIONS.md: a transaction cannot read a table that was replaced since it began.
        if "small" in sql and "42P01" in sqlstate(error) and client.in_transactions:
            connection.rollback()
            return
        raise
    client.expect(answer == [expected], f"{sql}: {answer}, expected {expected}")


def look_up(client, connection):
    id = client.random.randrange(tables.ACCOUNTS)
    with client.small("lookup"):
        found = client.execute(connection, f"SELECT id FROM account WHERE id = {id}")
    client.expect(found == [(id,)], f"lookup of account {id}: {found}")


def prepared(client, connection):
    with connection.cursor() as cursor:
        sql = "SELECT id FROM churn WHERE id = $1"
        for id in client.random.sample(range(tables.CHURNED), 3):
            client.statements += 1
            with client.small("prepared lookup"):
                cursor.execute(sql, (id,))
                found = cursor.fetchall()
            client.expect(found == [(id,)], f"prepared lookup of {id}: {found}")


def aggregate(client, connection):
    client.execute(connection, "SELECT writer, count(*), sum(amount), max(text) FROM item GROUP BY writer ORDER BY 2 DESC")


def half_read(client, connection):
    """Reads the beginning of a long result; now and then the cursor is not even closed."""
    cursor = connection.cursor()
    client.statements += 1
    cursor.execute("SELECT * FROM churn ORDER BY text")
    cursor.fetchone()
    if client.random.random() < 0.8:
        cursor.close()


def same_snapshot(client, connection):
    """A transaction sees one state, however long it takes."""
    connection.rollback()
    sql = "SELECT count(*), sum(amount), count(DISTINCT text) FROM item"
    first = client.execute(connection, sql)
    client.wait(client.random.random())
    client.expect(client.execute(connection, sql) == first, f"a transaction saw two states of {sql}")
    connection.rollback()


def leave_in_the_middle(shared, number):
    """A client that writes in a transaction, reads half a stream and is gone without a word."""
    try:
        cursor = flight_sql.connect(shared.address).cursor()
        cursor.execute(f"INSERT INTO item VALUES ({-number}, {tables.GHOSTS}, 0, {-number}, 'never')")
        cursor.execute(f"UPDATE account SET balance = balance + 1 WHERE id = {number % tables.ACCOUNTS}")
        cursor.execute("SELECT * FROM churn")
        cursor.fetchone()
    except flight_sql.Error as error:
        if not shared.dying.is_set():
            print(f"a client that was about to leave: {error}", file=sys.stderr, flush=True)
        os._exit(1)
    os._exit(0)


def leaver(client, _):
    """Starts clients that leave in the middle."""
    number = 0
    while not client.shared.stop.is_set():
        number += 1
        leaving = PROCESSES.Process(target=leave_in_the_middle, args=(client.shared, number))
        leaving.start()
        leaving.join()
        client.expect(leaving.exitcode == 0 or client.shared.dying.is_set(), "a client failed before it left")
        client.statements += 3
        client.wait(0.7)


def indexer(client, _):
    """Creates indexes and drops them."""
    kinds = [("INDEX", "by_amount", "amount"), ("UNIQUE INDEX", "by_code", "code"), ("INDEX", "by_text", "text")]
    with client.connect() as connection:
        while not client.shared.stop.is_set():
            for kind, name, column in kinds:
                with client.maintenance(f"CREATE {kind}"):
                    client.execute(connection, f"CREATE {kind} {name} ON item ({column})")
                with client.maintenance("CREATE INDEX on the largest table"):
                    client.execute(connection, "CREATE INDEX churned ON churn (text, a)")
                client.wait(3)
                client.execute(connection, f"DROP INDEX {name}")
                client.execute(connection, "DROP INDEX churned")
                client.wait(1)


def replacer(client, _):
    """Replaces a small table as a whole."""
    edition = 0
    with client.connect() as connection:
        while not client.shared.stop.is_set():
            edition += 1
            sql = f"SELECT value AS id, {edition} AS edition FROM range(0, {tables.SMALL})"
            with client.maintenance("CREATE OR REPLACE TABLE"):
                client.execute(connection, f"CREATE OR REPLACE TABLE small AS {sql}")
            client.wait(0.5)


def churner(client, _):
    """Updates many rows at a time, which is what makes segments be merged."""
    part = 0
    with client.connect() as connection:
        while not client.shared.stop.is_set():
            part = (part + 1) % 10
            with client.maintenance("UPDATE of 10,000 rows"):
                client.execute(connection, f"UPDATE churn SET a = a + 1 WHERE id % 10 = {part}")
            client.wait(4)


def backer(client, grizzly):
    """Takes backups, each fifth a full one, and lets old ones go."""
    number, place = 0, client.shared.backups
    with client.connect() as connection:
        while not client.shared.stop.is_set():
            kind = "full" if number % 5 == 0 else "incremental"
            with client.maintenance(f"{kind} backup"):
                client.execute(connection, f"CALL grizzly.backup('{place}', '{kind}')")
            if kind == "full":
                prune(client, grizzly, place)
            number += 1
            client.wait(5)


def prune(client, grizzly, place):
    pruned = subprocess.run([grizzly, "backup", "prune", "--from", place, "--keep", "2"], capture_output=True, text=True)
    client.expect(pruned.returncode == 0, f"backup prune: {pruned.stdout}{pruned.stderr}")


def stall_meter(client, _):
    """How much longer than asked a process of this machine sleeps: what no server can help."""
    while not client.shared.stop.is_set():
        begin = time.monotonic()
        time.sleep(0.02)
        client.shared.stall.value = max(client.shared.stall.value, time.monotonic() - begin - 0.02)
