"""What the operating system and the server's own tables say of the server, and whether it is what it was."""

import dataclasses
import os
import statistics
from pathlib import Path

from served import rows, value

# How much more than at the reference there may be at the end: a part of it, and so much beside. Files swing by some hundreds
# between two backups, which hold those that are replaced.
TOLERANCE = {
    "memory": (1.25, 48e6),
    "open_files": (1.25, 20),
    "sockets": (1.0, 12),
    "threads": (1.0, 8),
    "files": (1.5, 300),
    "sessions": (1.0, 12),
    "transactions": (1.0, 12),
    "snapshots": (1.0, 40),
}


@dataclasses.dataclass
class Sample:
    """One look at the server. Sizes are in bytes, waits in seconds since the look before."""

    second: float
    memory: int
    open_files: int
    sockets: int
    threads: int
    files: int
    bytes: int
    log_bytes: int
    cached: int
    hot: int
    chunks: int
    runs: int
    sessions: int
    transactions: int
    snapshots: int
    longest_wait: float
    stall: float

    HEADER = "second  memory MB  files open  sockets  threads  files in folder  MB there  MB of log  cached MB  hot MB  chunks MB  runs MB  sessions  transactions  snapshots  longest wait  machine stood"

    def __str__(self):
        return (
            f"{self.second:6.0f}  {self.memory / 1e6:9.0f}  {self.open_files:10}  {self.sockets:7}  {self.threads:7}  "
            f"{self.files:15}  {self.bytes / 1e6:8.1f}  {self.log_bytes / 1e6:9.1f}  {self.cached / 1e6:9.1f}  {self.hot / 1e6:6.1f}  {self.chunks / 1e6:9.1f}  {self.runs / 1e6:7.1f}  {self.sessions:8}  {self.transactions:12}  {self.snapshots:9}  "
            f"{self.longest_wait:12.2f}  {self.stall:13.2f}"
        )


def look(server, db, connection, second, longest_wait, stall):
    process = Path("/proc") / str(server.process.pid)
    links = [read_link(link) for link in (process / "fd").iterdir()]
    sockets = sum(link.startswith("socket:") for link in links)
    sizes = list(file_sizes(db))
    activity = rows(connection, "SELECT sessions, transactions, snapshots, hot_bytes, chunk_bytes, index_bytes FROM grizzly.activity")
    ((sessions, transactions, snapshots, hot, chunks, runs),) = activity
    return Sample(
        second=second,
        memory=server.memory(),
        open_files=len(links) - sockets,
        sockets=sockets,
        threads=len(list((process / "task").iterdir())),
        files=len(sizes),
        bytes=sum(size for _, size in sizes),
        log_bytes=sum(size for folder, size in sizes if folder.startswith("wal")),
        cached=value(connection, "SELECT bytes FROM grizzly.cache_totals"),
        hot=hot,
        chunks=chunks,
        runs=runs,
        sessions=sessions,
        transactions=transactions,
        snapshots=snapshots,
        longest_wait=longest_wait,
        stall=stall,
    )


def read_link(link):
    try:
        return os.readlink(link)
    except FileNotFoundError:
        return ""


def file_sizes(db):
    """Folder and size of each file of the database, as far as they stay for long enough to be asked."""
    for folder, _, names in os.walk(db):
        for name in names:
            try:
                yield os.path.relpath(folder, db), os.stat(os.path.join(folder, name)).st_size
            except FileNotFoundError:
                continue


def around(samples, second, window):
    """The samples within `window` seconds before and behind a moment, at least one."""
    near = [sample for sample in samples if abs(sample.second - second) <= window]
    return near or [min(samples, key=lambda sample: abs(sample.second - second))]


def growth(samples, reference, window, memory):
    """What has grown beyond its tolerance from the moment `reference` to the end, as texts. What the server may take by its
    settings, `memory` bytes, it may fill at any time."""
    before, after = around(samples, reference, window), around(samples, samples[-1].second, window)
    found = []
    for field, (factor, more) in TOLERANCE.items():
        was = statistics.median(getattr(sample, field) for sample in before)
        now = statistics.median(getattr(sample, field) for sample in after)
        allowed = max(was * factor + more, memory if field == "memory" else 0)
        if now > allowed:
            found.append(f"{field}: {was:,.0f} at second {reference:.0f}, {now:,.0f} at the end")
    return found
