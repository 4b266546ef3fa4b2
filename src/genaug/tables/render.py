"""A table as Markdown, CSV, LaTeX and JSON. The same results give the same bytes: no dates, no absolute paths."""

import csv
import dataclasses
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from genaug.core.cost import duration
from genaug.core.files import write_text
from genaug.core.names import safe_name
from genaug.tables.overall import overall_legend
from genaug.tables.table import Entry, Table

MISSING = "–"
REDUCED = (
    "Reduced run: overrides beside the experiment's own took part, so published values belong to another setting and "
    "are listed apart. Numbers of a reduced run show that the way works, nothing else."
)
COMPARISON_HEADS = (
    "difference",
    "95 % over seeds, or the differences",
    "95 % over seeds and test images",
    "p",
    "p (Holm)",
    "n",
    "",
)
COST_HEADS = ("synthetic images", "evaluations spent", "evaluations per run alone", "seconds", "seconds per run")
COST_LEGEND = (
    "Evaluations (forward passes of erasing, fitting and generating) and seconds are what these runs spent; what an earlier "
    "run had made costs nothing again. Alone: what one run of the row would need with an empty store, on average."
)


def write_table(table: Table, folder: Path) -> list[Path]:
    """Write ``<item>.{md,csv,tex,json}`` below ``folder`` and return their paths."""
    base = folder / table.item
    renderings = {".md": markdown(table), ".csv": comma_separated(table), ".tex": latex(table), ".json": as_json(table)}
    for suffix, text in renderings.items():
        write_text(base.with_name(base.name + suffix), text)
    return [base.with_name(base.name + suffix) for suffix in renderings]


def number(value: float | None, unit: str, signed: bool = False) -> str:
    """``0.729`` for a fraction, ``72.9`` for percentages, ``–`` for nothing."""
    if value is None:
        return MISSING
    text = f"{value:+.3f}" if signed else f"{value:.3f}"
    if unit != "fraction":
        text = f"{value:+.1f}" if signed else f"{value:.1f}"
    return text


def span(interval: Any, unit: str, signed: bool = False) -> str:
    """``[low, high]``."""
    if interval is None:
        return MISSING
    return f"[{number(interval.low, unit, signed)}, {number(interval.high, unit, signed)}]"


def spread(interval: Any, values: Sequence[float], unit: str, signed: bool = False) -> str:
    """The interval; the values themselves, ``(a, b, c)``, of too few seeds for one; nothing for a single value."""
    if interval is not None:
        return span(interval, unit, signed)
    return f"({', '.join(number(value, unit, signed) for value in values)})" if len(values) > 1 else ""


def p_text(value: float | None) -> str:
    return MISSING if value is None else f"{value:.3f}"


def label(table: Table, values: Sequence[str], keys: Sequence[str] | None = None) -> list[str]:
    """Values as the experiment wants them printed; of its rows where no other keys are given."""
    labels, keys = table.spec.labels, table.spec.rows if keys is None else keys
    return [labels.get(f"{key}={value}", labels.get(value, value)) for key, value in zip(keys, values, strict=True)]


def name(table: Table, keys: Sequence[str], values: Sequence[str]) -> str:
    """``da_fusion, alpha=0.5``: groups by their choice, other keys by name and value unless the experiment has words for it;
    what says nothing is left out."""
    parts = [
        shown if "." not in key or shown != value else f"{key.partition('.')[2]}={value}"
        for key, value, shown in zip(keys, values, label(table, values, keys), strict=True)
        if shown != MISSING
    ]
    return ", ".join(parts)


def column_title(table: Table, column: Sequence[str]) -> str:
    """``dataset.shots=4`` and the like; the metric where the table has one column only."""
    if not column:
        return table.spec.metric
    shown = [
        f"{key.rpartition('.')[2]}={text}"
        for key, text in zip(table.spec.columns, label(table, column, table.spec.columns), strict=True)
    ]
    return ", ".join(shown)


def marks(entry: Entry) -> str:
    """``2 of 3 data sets`` in place of a mean over them, ``n=3/8`` where seeds are missing, ``†`` oracle, ``*`` differs from
    the baseline after Holm, ``≈`` reproduced."""
    if entry.mean is None:
        there, num = entry.num_datasets or (0, 0)
        return f" ({there} of {num} data sets)" if there < num else ""
    text = f" (n={entry.n}/{entry.wanted})" if entry.n < entry.wanted else " (n=1)" if entry.n == 1 else ""
    text += " †" if entry.oracle else ""
    text += " *" if entry.p_adjusted is not None and entry.p_adjusted < 0.05 else ""
    return text + (" ≈" if entry.reproduced else "")


def cell_text(table: Table, entry: Entry) -> str:
    """Mean, interval and marks, or ``–``."""
    if entry.mean is None:
        return f"{MISSING}{marks(entry)}"
    unit = table.spec.unit
    around = spread(entry.interval, list(entry.values.values()), unit)
    return f"{number(entry.mean, unit)}{around and f' {around}'}{marks(entry)}"


def state_line(table: Table) -> str:
    total = sum(table.states.values())
    states = ", ".join(f"{count} {state}" for state, count in sorted(table.states.items()))
    return f"{total} run{'s' if total != 1 else ''}: {states}"


def legend(table: Table) -> list[str]:
    """What the marks that occur mean, and how the intervals were made."""
    from genaug.evaluation.statistics import FEWEST

    lines = [
        f"{table.spec.metric}, {table.spec.unit.replace('_', ' ')}: mean over {table.spec.over}; – is a missing cell."
    ]
    lines += [] if table.spec.overall is None else overall_legend(table.spec, table.spec.overall)
    if any(entry.interval is not None for entry in table.entries):
        lines.append(
            "[a, b]: 95 % BCa bootstrap interval of the mean; of few seeds it is too narrow (of 6 it holds 86 %)."
        )
    if any(1 < entry.n < FEWEST for entry in table.entries):
        lines.append(
            f"(a, b, …): the values themselves, where fewer than {FEWEST} {table.spec.over}s allow no interval."
        )
    if any(entry.n < entry.wanted for entry in table.entries):
        lines.append("n=a/b: only a of b seeds are there; the mean is over these a.")
    if any(entry.oracle for entry in table.entries):
        lines.append("† oracle: the test split chose the step that is shown, so the number is optimistic.")
    compared = [entry for entry in table.entries if entry.comparison is not None]
    if compared:
        lines.append(
            "* differs from the baseline: exact two-sided sign-flip test on paired seeds, p < .05 after Holm over "
            f"{len(compared)} comparison(s). Below {table.seeds_needed} seeds a comparison is marked underpowered."
        )
    if any(entry.reproduced for entry in table.entries):
        lines.append("≈ within the published value's tolerance.")
    return lines


def published_text(table: Table, entry: Entry) -> str:
    if entry.published is None:
        return MISSING
    return number(entry.published_value, table.spec.unit)


def markdown(table: Table) -> str:
    spec = table.spec
    lines = [f"# {spec.title}", "", f"`{table.command}`", "", f"{state_line(table)}."]
    lines += [f"- {reason}" for reason in table.reasons]
    lines += ["", f"**{REDUCED}**"] if table.reduced else []
    titles = [column_title(table, column) for column in table.columns]
    lines += ["", *_rule([*spec.rows, *titles])]
    for row in table.rows:
        entries = [table.entry(row, column) for column in table.columns]
        lines.append(_row([*label(table, row), *(cell_text(table, entry) for entry in entries)]))
        if any(entry.published for entry in entries) and not table.reduced:
            names = [f"{label(table, row)[0]}, published", *("" for _ in row[1:])]
            lines.append(_row([*names, *(published_text(table, entry) for entry in entries)]))
    lines += ["", *legend(table)]
    compared = [entry for entry in table.entries if entry.comparison is not None]
    if compared:
        baseline = ", ".join(f"{key}={value}" for key, value in spec.baseline.items())
        lines += ["", f"## Against {baseline}, paired by {spec.over}", ""]
        lines += _rule([*spec.rows, *(["column"] if spec.columns else []), *COMPARISON_HEADS])
        lines += [_row(comparison_cells(table, entry)) for entry in compared]
    lines += ["", "## Cost", "", *_rule([*spec.rows, *COST_HEADS])]
    lines += [_row([*label(table, row), *cost(table, row)]) for row in table.rows]
    lines += ["", COST_LEGEND]
    lines += _published_section(table)
    if table.notes:
        setting = " of the full setting" if table.reduced else ""
        lines += ["", f"## Deviations and open points{setting}", "", *(f"- {note}" for note in table.notes)]
    lines += ["", "## Provenance", "", *(f"- {line}" for line in provenance(table))]
    return "\n".join(lines) + "\n"


def comparison_cells(table: Table, entry: Entry) -> list[str]:
    """Row, column, difference, intervals, p-values, n and the underpowered mark."""
    comparison = entry.comparison
    assert comparison is not None
    unit = table.spec.unit
    place = [column_title(table, entry.column)] if table.spec.columns else []
    return [
        *label(table, entry.row),
        *place,
        number(comparison.mean, unit, signed=True),
        spread(comparison.interval, comparison.differences, unit, signed=True) or MISSING,
        span(entry.two_level, unit, signed=True),
        p_text(comparison.p_value),
        p_text(entry.p_adjusted),
        str(comparison.n),
        f"underpowered (n={comparison.n})" if entry.underpowered else "",
    ]


def cost(table: Table, row: tuple[str, ...]) -> list[str]:
    """One row under ``COST_HEADS``; areas repeat the cells of their curve and are left out."""
    own = [e for e in table.entries if e.row == row and not any(part.startswith("area(") for part in e.column)]
    cells = sum(entry.n * (entry.num_datasets or (1, 1))[0] for entry in own)
    if not cells:
        return [MISSING] * len(COST_HEADS)
    alone = [entry.alone for entry in own if entry.alone is not None]
    seconds = sum(entry.seconds for entry in own)
    return [
        f"{sum(entry.images for entry in own):,}",
        f"{sum(entry.evaluations for entry in own):,}",
        f"{sum(alone) / len(alone):,.0f}" if alone else MISSING,
        f"{seconds:.0f}",
        f"{seconds / cells:.1f}",
    ]


def _published_section(table: Table) -> list[str]:
    published = table.spec.published
    if not published:
        return []
    sources = dict.fromkeys(f"{p.source} ({p.evidence})" for p in published)
    lines = ["", "## Published values", "", *(f"- {source}" for source in sources)]
    if table.reduced:
        lines += ["", *_rule([*table.spec.keys(), "published", "tolerance"])]
        for entry in published:
            shown = number(entry.value, entry.unit)
            width = MISSING if entry.tolerance is None else f"±{entry.tolerance:g}"
            lines.append(_row([*(str(entry.where[key]) for key in table.spec.keys()), shown, width]))
    else:
        held = [entry for entry in table.entries if entry.reproduced is not None]
        if held:
            lines.append(
                f"- {sum(bool(e.reproduced) for e in held)} of {len(held)} complete table cells lie within the tolerance."
            )
    return lines


def provenance(table: Table) -> list[str]:
    """Commands, revisions, versions and hardware of the results."""
    then = "" if table.command.startswith("genaug") else f", then `genaug table {table.item}`"
    lines = [f"`{table.command}`{then}"]
    for environment in table.environments:
        versions = ", ".join(f"{name} {version}" for name, version in environment["versions"].items() if version)
        hardware = environment["gpu"] or environment["cpu"]
        lines.append(
            f"{environment['cells']} run(s), {duration(environment['hours'])} on {hardware}; "
            f"revision {environment['git_revision']}; Python {environment['python']}; {versions}"
        )
    return lines


def _rule(heads: Sequence[str]) -> list[str]:
    return [_row(heads), "|" + "---|" * len(heads)]


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(safe_name(cell, "markdown") for cell in cells) + " |"


def comma_separated(table: Table) -> str:
    """One line per row, column and table entry, for pandas and spreadsheets."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([
        *table.spec.keys(), "metric", "unit", "mean", "low", "high", "values", "n", "wanted", "datasets", "oracle", "published",
        "tolerance", "evidence", "source", "difference", "difference_low", "difference_high", "two_level_low", "two_level_high",
        "p", "p_holm", "underpowered", "images", "network_evaluations",
        "network_evaluations_alone", "seconds", "comparable_with_published",
    ])  # fmt: skip
    for entry in table.entries:
        comparison, published = entry.comparison, entry.published
        bounds = [entry.interval, comparison.interval if comparison else None, entry.two_level]
        low, difference_low, two_low = (b.low if b else None for b in bounds)
        high, difference_high, two_high = (b.high if b else None for b in bounds)
        fields = [
            *entry.row, *entry.column, table.spec.metric, table.spec.unit, entry.mean, low, high,
            " ".join(map(repr, entry.values.values())), entry.n, entry.wanted,
            "{} of {}".format(*entry.num_datasets) if entry.num_datasets else "",
            entry.oracle, entry.published_value, published.tolerance if published else None,
            published.evidence if published else None, published.source if published else None,
            comparison.mean if comparison else None, difference_low, difference_high, two_low, two_high,
            comparison.p_value if comparison else None, entry.p_adjusted, entry.underpowered if comparison else None,
            entry.images, entry.evaluations, entry.alone, round(entry.seconds, 1), not table.reduced,
        ]  # fmt: skip
        writer.writerow([safe_name(field, "csv") if isinstance(field, str) else field for field in fields])
    return out.getvalue()


def latex(table: Table) -> str:
    """A booktabs table: ours, and the published values in grey rows beneath."""
    spec = table.spec
    heads = [*spec.rows, *(column_title(table, column) for column in table.columns)]
    lines = [
        f"% {' '.join(table.command.split())}",
        "% needs \\usepackage{booktabs,xcolor}",
        "\\begin{tabular}{" + "l" * len(spec.rows) + "r" * len(table.columns) + "}",
        "\\toprule",
        " & ".join(_tex(head) for head in heads) + " \\\\",
        "\\midrule",
    ]
    for row in table.rows:
        entries = [table.entry(row, column) for column in table.columns]
        lines.append(
            " & ".join(_tex(text) for text in [*label(table, row), *(cell_text(table, e) for e in entries)]) + " \\\\"
        )
        if any(entry.published for entry in entries) and not table.reduced:
            names = ["\\quad published", *("" for _ in row[1:])]
            shown = [f"\\textcolor{{gray}}{{{_tex(published_text(table, entry))}}}" for entry in entries]
            lines.append(" & ".join([*names, *shown]) + " \\\\")
    lines += ["\\bottomrule", "\\end{tabular}"]
    lines += [f"% {_tex(line)}" for line in ([REDUCED] if table.reduced else []) + legend(table)]
    return "\n".join(lines) + "\n"


def _tex(text: str) -> str:
    text = safe_name(text, "latex")
    for plain, shown in (("–", "--"), ("†", "$^\\dagger$"), ("≈", "$\\approx$"), ("±", "$\\pm$"), ("≤", "$\\le$")):
        text = text.replace(plain, shown)
    return text


def as_json(table: Table) -> str:
    """Everything but the runs' own results, which are named, for other programs and for the report."""
    content = dataclasses.asdict(dataclasses.replace(table, results=[], lines=[]))
    del content["results"], content["lines"]
    content["cells"] = sorted(result["cell"] for result in table.results)
    for entry, source in zip(content["entries"], table.entries, strict=True):
        entry["n"], entry["gap_to_published"] = source.n, source.gap
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
