"""``python -m benchmarks NAME [options]`` runs one benchmark; without a name it lists them."""

import importlib
import sys
from pathlib import Path

HERE = Path(__file__).parent
SHARED = ("__init__", "__main__", "measure", "setting", "soak_runs")


def names() -> list[str]:
    """Everything that can be run."""
    return sorted(path.stem for path in HERE.glob("*.py") if path.stem not in SHARED)


def main() -> None:
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name not in names():
        print("python -m benchmarks NAME [--help]; NAME is one of:")
        for other in names():
            print(f"  {other:18s} {(HERE / f'{other}.py').read_text().splitlines()[0].strip(chr(34))}")
        sys.exit(0 if name in ("", "-h", "--help") else f"there is no benchmark {name!r}")
    sys.argv = [f"python -m benchmarks {name}", *sys.argv[2:]]
    importlib.import_module(f"benchmarks.{name}").main()


if __name__ == "__main__":
    main()
