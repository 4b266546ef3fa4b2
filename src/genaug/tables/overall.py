"""Means over data sets: the "Overall" panels of papers, from the tables of several experiments, each about one data set.

What a seed has is the mean over the data sets of what it has there. So seeds are resampled, and methods paired by seed, for all
data sets at once, and a seed that one of them lacks has no mean. Numbers of two data sets never stand beside each other.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from statistics import fmean

from genaug.core.errors import GenaugError
from genaug.tables.spec import Overall, TableSpec
from genaug.tables.table import Arranged, Entry, Place, text_of


def labelled(part: Arranged, labels: Mapping[str, str], item: str) -> Arranged:
    """The same with its rows and columns under their labels, by which experiments agree where their presets differ.

    Raises:
        GenaugError: if two rows have one label.
    """

    def named(values: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(labels.get(value, value) for value in values)

    entries = {(named(row), named(column)): entry for (row, column), entry in part.entries.items()}
    if len(entries) < len(part.entries):
        raise GenaugError(
            f"experiments/{item}.yaml: two rows have one label in table.labels, so that no mean can be taken."
        )
    return Arranged(
        rows=list(map(named, part.rows)), columns=list(dict.fromkeys(map(named, part.columns))), entries=entries
    )


def mean_over_datasets(parts: Mapping[str, Arranged], spec: TableSpec) -> Arranged:
    """The table of means.

    Args:
        parts: by experiment, its values under their labels.
    """
    assert spec.overall is not None
    found = Arranged(rows=[], columns=[], entries={})
    for name, items in spec.overall.items.items():
        members = [_on_scale(parts[item], spec.overall, spec.rows) for item in items]
        places = dict.fromkeys(place for member in members for place in member.entries)
        for row, column in places:
            own = [member.entries[row, column] for member in members if (row, column) in member.entries]
            place = row, (name, *column) if name else column
            found.entries[place] = _mean(place, own, len(members))
        found.columns += [(name, *column) if name else column for member in members for column in member.columns]
        found.rows += [row for member in members for row in member.rows]
    found.rows, found.columns = list(dict.fromkeys(found.rows)), list(dict.fromkeys(found.columns))
    return found


def _mean(place: Place, parts: Sequence[Entry], num_datasets: int) -> Entry:
    there = [part for part in parts if part.values]
    seeds = set.intersection(*(set(part.values) for part in there)) if len(there) == num_datasets else set()
    return Entry(
        row=place[0],
        column=place[1],
        wanted=max(part.wanted for part in parts),
        values={seed: fmean(part.values[seed] for part in there) for seed in sorted(seeds)},
        num_datasets=(len(there), num_datasets),
        dataset=f"mean over {num_datasets} data sets",
        oracle=any(part.oracle for part in parts),
        images=sum(part.images for part in parts),
        evaluations=sum(part.evaluations for part in parts),
        seconds=sum(part.seconds for part in parts),
        generated=[fingerprint for part in parts for fingerprint in part.generated],
    )


def _on_scale(part: Arranged, overall: Overall, keys: Sequence[str]) -> Arranged:
    """A data set's values as they are, or from 0 for the least of a column to 1 for its greatest; of a column that is not
    complete, or in which all values agree, there are none."""
    out = {key: text_of(value) for key, value in overall.without.items()}
    rows = [
        row
        for row in part.rows
        if not out or any(out.get(key, text) != text for key, text in zip(keys, row, strict=True))
    ]
    entries = {place: entry for place, entry in part.entries.items() if place[0] in rows}
    if overall.scale == "none":
        return Arranged(rows=rows, columns=part.columns, entries=entries)
    for column in part.columns:
        own = {place: entry for place, entry in entries.items() if place[1] == column}
        values = [value for entry in own.values() for value in entry.values.values()]
        low, high = min(values, default=0.0), max(values, default=0.0)
        whole = low < high and all(entry.n == entry.wanted for entry in own.values())
        for place, entry in own.items():
            scaled = {seed: (value - low) / (high - low) for seed, value in entry.values.items()} if whole else {}
            entries[place] = dataclasses.replace(entry, values=scaled)
    return Arranged(rows=rows, columns=part.columns, entries=entries)


def overall_legend(spec: TableSpec, overall: Overall) -> list[str]:
    """What a mean over data sets is, for the lines under a table."""
    over, names = spec.over, ", ".join(overall.experiments)
    lines = [
        f"Each {over}'s value is its mean over the data sets ({names}), and {over}s are resampled for all of them at once. "
        "Where a data set has no value there is no mean."
    ]
    if overall.scale != "none":
        lines.append(
            "Within a data set and a column 0 is the least and 1 the greatest value of any row and seed: the numbers depend on "
            "which rows there are, and are no accuracies."
        )
    return lines
