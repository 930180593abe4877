"""Sequences of statements that once lost data or stopped the server, over Flight SQL with Python's ADBC driver.

Usage: sequences.py PATH_TO_GRIZZLY [--long] [NAME…]. Each check in `promises/` starts servers on databases of its own in a
scratch folder. Without names all that are quick run, with `--long` all. Exit code 1 if one fails; the others run all the same.
"""

import argparse
import sys
import tempfile
import threading
import time
import traceback
from pathlib import Path

import promises.clients
import promises.data
import promises.memory
import promises.statements
import promises.storage  # noqa: F401, each module registers its checks
from promises.place import CHECKS, Place, compile_faulty

QUICK_SECONDS = 240
LONG_SECONDS = 1800
LINES_OF_LOG = 15


def run(check, grizzly, scratch, faulty):
    """Runs one check; returns whether its promise holds."""
    folder = scratch / check.__name__
    folder.mkdir()
    place = Place(grizzly, folder, faulty)
    limit = LONG_SECONDS if check.long else QUICK_SECONDS
    watchdog = threading.Timer(limit, place.end)
    watchdog.start()
    begin = time.monotonic()
    try:
        check(place)
    except Exception:
        failure = traceback.format_exc()
    else:
        failure = None
    finally:
        watchdog.cancel()
    taken = time.monotonic() - begin
    print(f"sequences: {taken:6.1f} s  {'FAILED' if failure else 'holds '}  {check.__name__}", flush=True)
    if failure:
        report(failure, place, taken >= limit)
    return failure is None


def report(failure, place, late):
    if late:
        print("sequences: it took too long, and its servers were killed")
    print(failure)
    lines = place.logged().splitlines()[-LINES_OF_LOG:]
    print("\n".join(["the end of the server's log:", *(f"  {line[:500]}" for line in lines)]), flush=True)


def chosen(names, long):
    """The checks to run."""
    known = {check.__name__: check for check in CHECKS}
    unknown = [name for name in names if name not in known]
    if unknown:
        sys.exit(f"no such check: {', '.join(unknown)}; there are:\n  " + "\n  ".join(known))
    if names:
        return [known[name] for name in names]
    return [check for check in CHECKS if long or not check.long]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("grizzly", type=Path, help="the command under test")
    parser.add_argument("names", nargs="*", help="run only these")
    parser.add_argument("--long", action="store_true", help="run those, too, that take minutes and gigabytes")
    arguments = parser.parse_args()
    checks = chosen(arguments.names, arguments.long)
    # Where a server was killed the driver complains of each cursor that it closes, where nobody can catch it.
    sys.unraisablehook = lambda _: None
    grizzly = arguments.grizzly.resolve(strict=True)
    with tempfile.TemporaryDirectory(prefix="grizzly-sequences-") as scratch:
        faulty = compile_faulty(Path(scratch))
        failed = [check.__name__ for check in checks if not run(check, grizzly, Path(scratch), faulty)]
    if failed:
        sys.exit(f"sequences: {len(failed)} of {len(checks)} do not hold: {', '.join(failed)}")
    print(f"sequences: all {len(checks)} hold")


if __name__ == "__main__":
    main()
