"""The table of docs/benchmarks.md, made from the files of results.

python -m benchmarks table
"""

import csv
from pathlib import Path

from benchmarks.measure import RESULTS

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"
START, END = "<!-- made by python -m benchmarks table -->\n", "<!-- end -->"


def rendered(results: Path = RESULTS) -> str:
    """A line for each row of each file."""
    lines = [
        "| what | ours, against | times faster (range) | target | the same by | threads, clock, repeats | how |",
        "|---|---|---|---|---|---|---|",
    ]
    for path in sorted(results.glob("*.csv")):
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                where = f"{row['threads']}, {row['clock']}, {row['repeats']}"
                if row["clock"] == "wall":
                    where += f"; {row['hardware']}; {row['ours_gb']} against {row['theirs_gb']} GB"
                lines.append(
                    f"| {row['what']} | {row['ours']}, against {row['theirs']} | **{row['ratio']}** ({row['low']} to "
                    f"{row['high']}) | {row['target'] or ''} | {row['same']} | {where} | `python -m benchmarks {path.stem}` |"
                )
    return "\n".join(lines) + "\n"


def page(text: str, table: str) -> str:
    """A page with the table in its place."""
    before, _, rest = text.partition(START)
    _, _, after = rest.partition(END)
    return f"{before}{START}{table}{END}{after}"


def main() -> None:
    PAGE.write_text(page(PAGE.read_text(), rendered()))


if __name__ == "__main__":
    main()
