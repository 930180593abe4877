"""Holds the dependencies to deny.toml: `deny.py`, from the root of the workspace.

It checks what `cargo deny check bans licenses sources` checks, and needs neither that command, which takes minutes to
compile, nor the network. Where cargo-deny is installed it runs too, with its advisories.
"""

import json
import re
import shutil
import subprocess
import sys

import tomllib

REGISTRY = "registry+https://github.com/rust-lang/crates.io-index"


def packages(targets):
    """What is built for any of the targets, with every feature on."""
    found = {}
    for target in targets:
        command = ["cargo", "metadata", "--format-version", "1", "--locked", "--all-features", "--filter-platform", target]
        metadata = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
        built = {node["id"] for node in metadata["resolve"]["nodes"]}
        found.update((package["id"], package) for package in metadata["packages"] if package["id"] in built)
    return sorted(found.values(), key=lambda package: (package["name"], package["version"]))


def licence_is_allowed(expression, allowed):
    """Evaluates an SPDX expression: AND binds more than OR, an older form writes `/` for OR."""
    tokens = re.findall(r"[()]|[^\s()]+", expression.replace("/", " OR "))
    tokens = [token.upper() if token.upper() in ("AND", "OR", "WITH") else token for token in tokens] + [None]
    position = 0

    def term():
        nonlocal position
        token = tokens[position]
        position += 1
        if token in (None, ")", "AND", "OR", "WITH"):
            raise ValueError("it ends where a licence is expected")
        if token == "(":
            value = any_of()
            if tokens[position] != ")":
                raise ValueError("a parenthesis is not closed")
            position += 1
            return value
        if tokens[position : position + 1] == ["WITH"]:
            token = f"{token} WITH {tokens[position + 1]}"
            position += 2
        return token.removesuffix("+") in allowed  # `+`: or a later version

    def all_of():
        nonlocal position
        value = term()
        while tokens[position : position + 1] == ["AND"]:
            position += 1
            value = term() and value
        return value

    def any_of():
        nonlocal position
        value = all_of()
        while tokens[position : position + 1] == ["OR"]:
            position += 1
            value = all_of() or value
        return value

    value = any_of()
    if tokens[position] is not None:
        raise ValueError(f"{tokens[position]} stands where AND or OR is expected")
    return value


def licences(rules, tree):
    allowed = set(rules["allow"])
    for package in tree:
        name = f"{package['name']} {package['version']}"
        if not package["license"]:
            yield f"licenses: {name} states no licence"
        else:
            try:
                if not licence_is_allowed(package["license"], allowed):
                    yield f"licenses: {name} is under {package['license']}"
            except ValueError as error:
                yield f"licenses: {name} is under {package['license']!r}, which cannot be read: {error}"


def bans(rules, tree):
    reasons = {entry["crate"]: entry["reason"] for entry in rules["deny"]}
    skipped = set(rules["skip"])
    versions = {}
    for package in tree:
        name, version = package["name"], package["version"]
        if name in reasons:
            yield f"bans: {name} {version}: {reasons[name]}"
        if f"{name}@{version}" in skipped:
            skipped.remove(f"{name}@{version}")
        else:
            versions.setdefault(name, []).append(version)
        for dependency in package["dependencies"]:
            if package["source"] is None and dependency["req"] == "*" and not dependency.get("path"):
                yield f"bans: {name} takes any version of {dependency['name']}"
    for name, several in versions.items():
        if len(several) > 1:
            yield f"bans: {len(several)} versions of {name}: {', '.join(several)}"
    for entry in sorted(skipped):
        yield f"bans: nothing needs the exception for {entry} any more"


def sources(tree):
    for package in tree:
        if package["source"] not in (None, REGISTRY):
            yield f"sources: {package['name']} {package['version']} comes from {package['source']}"


def main():
    with open("deny.toml", "rb") as file:
        rules = tomllib.load(file)
    tree = packages(rules["graph"]["targets"])
    findings = [*licences(rules["licenses"], tree), *bans(rules["bans"], tree), *sources(tree)]
    for finding in findings:
        print(finding)
    print(f"{len(tree)} packages, {len(findings)} findings")
    if shutil.which("cargo-deny"):
        return bool(findings) or subprocess.run(["cargo", "deny", "check"]).returncode != 0
    return bool(findings)


if __name__ == "__main__":
    sys.exit(main())
