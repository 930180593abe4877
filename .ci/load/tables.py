"""The tables of the load, and what holds of them at every moment."""

from served import rows, write

ACCOUNTS = 1_000
BALANCE = 1_000
CHURNED = 100_000
SMALL = 1_000
CODES = 500
# Rows of a client that leaves in the middle carry numbers from here on, and are never there.
GHOSTS = 1_000

CREATE = [
    "CREATE TABLE account (id BIGINT PRIMARY KEY, balance BIGINT NOT NULL) PARTITION BY HASH (id) SHARDS 2",
    f"INSERT INTO account SELECT value, {BALANCE} FROM range(0, {ACCOUNTS})",
    "CREATE TABLE item (id BIGINT PRIMARY KEY, writer BIGINT NOT NULL, amount BIGINT, code BIGINT, text VARCHAR)"
    " PARTITION BY HASH (id) SHARDS 4",
    "CREATE TABLE coupon (id BIGINT PRIMARY KEY, code BIGINT UNIQUE)",
    "CREATE TABLE churn (id BIGINT PRIMARY KEY, a BIGINT NOT NULL, text VARCHAR)",
    f"INSERT INTO churn SELECT value, 0, concat('text of row ', value) FROM range(0, {CHURNED})",
    f"CREATE TABLE small AS SELECT value AS id, 0 AS edition FROM range(0, {SMALL})",
]

# Queries that answer with one row, and that row.
ALWAYS = {
    "SELECT count(*), sum(balance) FROM account": (ACCOUNTS, ACCOUNTS * BALANCE),
    f"SELECT count(*) FROM item WHERE writer >= {GHOSTS}": (0,),
    "SELECT count(*) - count(DISTINCT code) FROM coupon": (0,),
    "SELECT count(*), max(edition) - min(edition) FROM small": (SMALL, 0),
    "SELECT count(*), count(DISTINCT id) FROM churn": (CHURNED, CHURNED),
}


def create(connection):
    for sql in CREATE:
        write(connection, sql)


def violations(connection):
    """What does not hold now."""
    found = []
    for sql, expected in ALWAYS.items():
        answer = rows(connection, sql)
        if answer != [expected]:
            found.append(f"{sql}: {answer}, expected {expected}")
    return found


def difference(connection, ledger):
    """How a writer's rows differ from what it was told, as a text; nothing if they do not."""
    found = dict(rows(connection, f"SELECT id, amount FROM item WHERE writer = {ledger.writer}"))
    known = ledger.rows
    if found in (known, ledger.after):
        return None
    lost, extra = sorted(known.keys() - found.keys()), sorted(found.keys() - known.keys())
    other = [(id, known[id], found[id]) for id in known.keys() & found.keys() if known[id] != found[id]]
    doubt = len(known.items() ^ ledger.after.items())
    return (
        f"writer {ledger.writer}: {len(lost)} acknowledged rows are missing {lost[:5]}, {len(extra)} are too many"
        f" {extra[:5]}, {len(other)} differ (id, expected, found) {other[:5]}; {doubt} values are in doubt"
    )
