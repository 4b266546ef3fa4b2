"""Collects the packages that genaug needs and a CUDA image with torch, torchvision, transformers and timm lacks.

    python -m benchmarks wheels FOLDER                             # for this Python and machine
    python -m benchmarks wheels FOLDER --python 3.12               # for a Linux image with another one
    pip install --no-index --no-deps FOLDER/*.whl                  # there, without a network

The versions are those installed here. genaug itself comes as the checkout: PYTHONPATH=src python -m benchmarks gpu.
"""

import argparse
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement

PRESENT = ("torch", "torchvision", "transformers", "timm")
"""What the image has, with all that these need."""
ROOT = Path(__file__).parents[1]


def needs(name: str) -> set[str]:
    """A package and all that it needs, by normalised name; what is not installed is not needed here."""
    found: set[str] = set()
    waiting = [name]
    while waiting:
        package = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if package in found:
            continue
        try:
            required = distribution(package).requires or []
        except PackageNotFoundError:
            continue
        found.add(package)
        parsed = [Requirement(text) for text in required]
        waiting += [one.name for one in parsed if one.marker is None or one.marker.evaluate({"extra": ""})]
    return found


def lacking() -> list[str]:
    """``name==version`` of everything to bring along."""
    there = set().union(*(needs(name) for name in PRESENT))
    names = sorted(needs("genaug") - there - {"genaug"})
    return [f"{name}=={distribution(name).version.partition('+')[0]}" for name in names]


def collect(packages: list[str], folder: Path, python: str | None) -> None:
    """The wheel of each package; one that the index has only as source is built."""
    pip = [sys.executable, "-m", "pip"]
    options = ["--only-binary=:all:", "--no-deps", "--quiet", "--dest", str(folder)]
    if python is not None:
        platforms = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
        options += ["--python-version", python, *(f"--platform={platform}" for platform in platforms)]
    for package in packages:
        if subprocess.run([*pip, "download", *options, package], check=False, capture_output=True).returncode:
            subprocess.run([*pip, "wheel", "--no-deps", "--quiet", "--wheel-dir", str(folder), package], check=True)
        print(package, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="absent: print what would be collected")
    parser.add_argument("--python", help="version of the image's Python, e.g. 3.12")
    options = parser.parse_args()
    if options.folder is None:
        print("\n".join(lacking()))
    else:
        collect(lacking(), options.folder, options.python)


if __name__ == "__main__":
    main()
