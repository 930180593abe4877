"""Holds every documented cargo command to one build of the dependencies: `one_build.py`, from the root.

Cargo compiles a crate once for each set of its features, and the set follows from what a command selects. So two
commands that select differently compile DataFusion twice. This compares the features of all crates from registries,
command by command, for the commands of README.md, CONTRIBUTING.md, BENCHMARKS.md, .ci/run, the examples and the aliases.
Commands that do not build DataFusion are left out: what they compile again takes seconds.
"""

import pathlib
import re
import subprocess
import sys

import tomllib

REFERENCE = "cargo test --workspace"
COMMANDS = ("bench", "build", "check", "clippy", "doc", "install", "run", "test")
# What selects crates or features, with a value and without.
VALUED = ("-p", "--package", "--features", "-F", "--exclude")
PLAIN = ("--workspace", "--no-default-features", "--all-features")
FILES = [*map(str, pathlib.Path(".").glob("*.md")), *map(str, pathlib.Path(".").glob("grizzly-*/*.md")), ".ci/run", ".ci/over_s3.py", *map(str, pathlib.Path("examples").rglob("*.rs"))]


def aliases():
    config = tomllib.loads(pathlib.Path(".cargo/config.toml").read_text())
    return {name: words.split() for name, words in config["alias"].items()}


def documented(names):
    """Each cargo command that builds, with the first file that names it."""
    found = {}
    for file in FILES:
        text = pathlib.Path(file).read_text().replace("\\\n", " ")
        for line in text.splitlines():
            for match in re.finditer(r"\bcargo +([a-z][^`#|&;)\"]*)", line):
                words = match[1].split()
                builds = words[0] in COMMANDS and words[1:2] not in (["--version"], ["is"])
                if builds or words[0] in names:
                    found.setdefault(" ".join(words), file)
    return found


def built(words):
    """What `cargo tree` says of a command: a line for each crate with its features."""
    words = [part for word in words for part in (word.split("=", 1) if word.startswith("--") else [word])]
    targets = ("--example", "--examples", "--test", "--tests", "--bench", "--benches", "--all-targets")
    dev = words[0] in ("test", "bench") or any(word in targets for word in words)
    kept, position = [], 1
    while position < len(words) and words[position] != "--":
        word = words[position]
        if word in VALUED:
            kept += [word, words[position + 1]]
            position += 1
        elif word in PLAIN:
            kept.append(word)
        elif word == "--path":
            kept += ["-p", words[position + 1]]
            position += 1
        elif word.startswith(("-p", "-F")):
            sys.exit(f"write `{word}` with a space")
        position += 1
    edges = "normal,build,dev" if dev else "normal,build"
    command = ["cargo", "tree", "--locked", "--prefix", "none", "--edges", edges, "--format", "{p} [{f}]", *kept]
    run = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if run.returncode:
        sys.exit(f"{' '.join(command)}: {run.stderr}")
    lines = {line.removesuffix(" (*)").replace(" (proc-macro)", "") for line in run.stdout.splitlines()}
    return {line for line in lines if line and "(/" not in line}


def main():
    short = aliases()
    reference = built(REFERENCE.split()[1:])
    commands = {**{f"{name}": ".cargo/config.toml" for name in short}, **documented(short)}
    findings = []
    for command, file in commands.items():
        words = command.split()
        lines = built(short.get(words[0], words[:1]) + words[1:])
        other = sorted(lines - reference)
        datafusion = any(line.startswith("datafusion ") for line in lines)
        profile = " ".join(short.get(words[0], [])) + " " + command
        if datafusion and words[0] != "install" and not re.search(r"--release\b|-r\b", profile):
            findings.append(f"{file}: `cargo {command}` compiles DataFusion in another profile")
        if words[0] == "install" and "--locked" not in words:
            findings.append(f"{file}: `cargo {command}` ignores Cargo.lock")
        if other and datafusion:
            findings.append(f"{file}: `cargo {command}` compiles again: {'; '.join(other[:3])} and {max(len(other) - 3, 0)} more")
    print("\n".join(findings + [f"{len(commands)} commands, {len(findings)} findings"]))
    return bool(findings)


if __name__ == "__main__":
    sys.exit(main())
