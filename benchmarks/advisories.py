"""Compares the lowest versions that pyproject.toml allows with known advisories, read from a checkout without a network.

    git clone https://github.com/pypa/advisory-database
    python -m benchmarks advisories advisory-database/vulns

The folder holds advisories in the OSV format, as YAML or JSON, in folders of any depth: those of the Python Packaging
Authority, or GitHub's (``advisory-database/advisories/github-reviewed``). Ends with 1 if a lowest version has a known weakness.
"""

import argparse
import json
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

ROOT = Path(__file__).parents[1]


def lowest(pyproject: Path) -> dict[str, Version]:
    """The lowest version of each package that a ``pyproject.toml`` names with one, extras and the build's needs too."""
    stated = tomllib.loads(pyproject.read_text())
    extras = stated["project"]["optional-dependencies"].values()
    texts = [*stated["build-system"]["requires"], *stated["project"]["dependencies"], *(t for e in extras for t in e)]
    bounds = [
        (canonicalize_name(needed.name), Version(part.version))
        for needed in map(Requirement, texts)
        for part in needed.specifier
        if part.operator == ">="
    ]
    return {name: min(version for other, version in bounds if other == name) for name, _ in bounds}


def read(folder: Path, packages: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Advisories below a folder that name one of these packages."""
    for path in sorted(folder.rglob("*")):
        if path.suffix in (".yaml", ".yml", ".json") and any(name in (text := path.read_text()) for name in packages):
            yield json.loads(text) if path.suffix == ".json" else yaml.load(text, yaml.CSafeLoader)


def weaknesses(advisory: Mapping[str, Any], bounds: Mapping[str, Version]) -> list[str]:
    """``package version: advisory, fixed in …`` for each lowest version that an advisory affects."""
    found = []
    for part in advisory.get("affected", ()):
        name = canonicalize_name(part.get("package", {}).get("name", ""))
        if part.get("package", {}).get("ecosystem") != "PyPI" or name not in bounds or "withdrawn" in advisory:
            continue
        spans = [span["events"] for span in part.get("ranges", ()) if span["type"] == "ECOSYSTEM"]
        if any(_lies_in(bounds[name], events) for events in spans) or str(bounds[name]) in part.get("versions", ()):
            fixes = [_of(event["fixed"]) for events in spans for event in events if "fixed" in event]
            later = min((fix for fix in fixes if fix > bounds[name]), default="no version")
            names = ", ".join([advisory["id"], *advisory.get("aliases", ())])
            found.append(f"{name} {bounds[name]}: {names}, fixed in {later}")
    return found


def _lies_in(version: Version, events: Sequence[Mapping[str, str]]) -> bool:
    """Whether the events of an OSV range, in order of their versions, leave a version affected."""
    affected = False
    for event in sorted(events, key=lambda event: _of(next(iter(event.values())))):
        ((kind, at),) = event.items()
        if kind == "introduced" and version >= _of(at):
            affected = True
        if (kind == "fixed" and version >= _of(at)) or (kind == "last_affected" and version > _of(at)):
            affected = False
    return affected


def _of(text: str) -> Version:
    try:
        return Version(text)
    except InvalidVersion:  # of another scheme: before all of ours
        return Version("0")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="advisories in the OSV format")
    parser.add_argument("--pyproject", type=Path, default=ROOT / "pyproject.toml")
    options = parser.parse_args()
    bounds = lowest(options.pyproject)
    advisories = list(read(options.folder, list(bounds)))
    found = sorted({line for advisory in advisories for line in weaknesses(advisory, bounds)})
    print("\n".join(found))
    newest = max((str(advisory.get("modified", "")) for advisory in advisories), default="never")
    print(f"{len(found)} known weaknesses of {len(bounds)} lowest versions; the newest advisory is of {newest[:10]}")
    sys.exit(1 if found or not advisories else 0)


if __name__ == "__main__":
    main()
