"""The tables of docs/benchmarks.md, made from the files of results.

python -m benchmarks table
"""

import csv
from pathlib import Path

from benchmarks.measure import RESULTS

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"
START, TARGETS, END = (
    "<!-- made by python -m benchmarks table -->\n",
    "<!-- targets, made by python -m benchmarks table -->\n",
    "<!-- end -->",
)


def rendered(results: Path = RESULTS) -> str:
    """A line for each row of each file."""
    lines = [
        "| what | ours, against | times faster (range) | target | the same by | threads, clock, repeats, hardware | how |",
        "|---|---|---|---|---|---|---|",
    ]
    for path in sorted(results.glob("*.csv")):
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                where = f"{row['threads']}, {row['clock']}, {row['repeats']}, {row['hardware']}"
                if row["clock"] == "wall":
                    where += f"; {row['ours_gb']} against {row['theirs_gb']} GB"
                lines.append(
                    f"| {row['what']} | {row['ours']}, against {row['theirs']} | **{row['ratio']}** ({row['low']} to "
                    f"{row['high']}) | {row['target'] or ''} | {row['same']} | {where} | `python -m benchmarks {path.stem}` |"
                )
    return "\n".join(lines) + "\n"


def targets(results: Path = RESULTS) -> str:
    """A line for each number that has only a target."""
    lines = ["| what | median (range) | target | repeats, hardware | how |", "|---|---|---|---|---|"]
    for path in sorted((results / "targets").glob("*.csv")):
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                spread = f" ({row['low']} to {row['high']})" if row["low"] != row["high"] else ""
                lines.append(
                    f"| {row['what']} | **{row['value']}**{spread} {row['unit']} | {row['target']} | "
                    f"{row['repeats']}, {row['hardware']} | `python -m benchmarks {path.stem}` |"
                )
    return "\n".join(lines) + "\n"


def page(text: str, table: str, start: str = START) -> str:
    """A page with the table in its place."""
    before, _, rest = text.partition(start)
    _, _, after = rest.partition(END)
    return f"{before}{start}{table}{END}{after}"


def whole(text: str) -> str:
    """The page with both tables."""
    return page(page(text, rendered()), targets(), TARGETS)


def main() -> None:
    PAGE.write_text(whole(PAGE.read_text()))


if __name__ == "__main__":
    main()
