"""One HTML page with everything that a reader of the results asks for; no script, nothing loaded from elsewhere."""

import base64
import io
import math
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from PIL import Image

from genaug.core.errors import GenaugError
from genaug.core.files import read_json, write_text
from genaug.core.store import Store
from genaug.data.pool import Pool
from genaug.data.sample import Dataset, Sample
from genaug.drawing import charts
from genaug.drawing.charts import Point, Series
from genaug.drawing.contact_sheet import caption
from genaug.runs.collection import value_at
from genaug.runs.pools import pool_of
from genaug.tables import render
from genaug.tables.table import Entry, Table, text_of
from genaug.tables.verdict import verdicts

NUM_CLASSES, NUM_VARIANTS, NUM_PAIRS = 10, 4, 8
THUMBNAIL = 96  # pixels
QUALITY = {"measures": dict, "generator": str, "num_synthetic": int, "features": str}
"""Keys of what ``genaug quality`` writes and the types of their values."""
NUMERIC_KEYS = ("alpha", "m", "t0", "shots", "fraction", "sigma")


def write_report(tables: Sequence[Table], outputs: Path, path: Path) -> None:
    """Write the page for these tables; galleries, quality and leak audits come from the pools that their cells used."""
    from jinja2 import Environment

    pools = _pools(tables, outputs)
    text = files("genaug.tables").joinpath("report.html.j2").read_text()
    page = Environment(autoescape=True, trim_blocks=True).from_string(text)
    write_text(
        path,
        page.render(
            title="Do generated training images help?",
            num_cells=len({result["fingerprint"] for table in tables for result in table.results}),
            hours=sum(environment["hours"] for table in tables for environment in table.environments),
            verdicts=[
                {"item": table.item, "sentences": " ".join(verdict.sentences), "warnings": verdict.warnings}
                for table in tables
                for verdict in verdicts(table, outputs)
            ],
            tables=[table_view(table) for table in tables],
            galleries=[view for result in pools.values() if (view := gallery_view(result, outputs)) is not None],
            quality=quality_view(tables, outputs),
            leaks=[view for pool in pools if (view := leak_view(pool, outputs)) is not None],
            provenance=[{"item": table.item, "lines": render.provenance(table)} for table in tables],
        ),
    )


def table_view(table: Table) -> dict[str, Any]:
    """One table as the template wants it."""
    spec = table.spec
    rows = []
    for row in table.rows:
        entries = [table.entry(row, column) for column in table.columns]
        published = any(entry.published for entry in entries) and not table.reduced
        rows.append(
            {
                "names": render.label(table, row),
                "cells": [_cell(table, entry) for entry in entries],
                "published": [render.published_text(table, entry) for entry in entries] if published else None,
            }
        )
    compared = [entry for entry in table.entries if entry.comparison is not None]
    names = [*spec.rows, *(["column"] if spec.columns else [])]
    return {
        "item": table.item,
        "anchor": table.item.replace("/", "-"),
        "title": spec.title,
        "command": table.command,
        "states": ". ".join([render.state_line(table), *table.reasons]),
        "reduced": render.REDUCED if table.reduced else "",
        "row_heads": spec.rows,
        "heads": [render.column_title(table, column) for column in table.columns],
        "rows": rows,
        "legend": render.legend(table),
        "charts": [chart for chart in (*curve_views(table), gain_view(table)) if chart is not None],
        "baseline": ", ".join(f"{key}={value}" for key, value in spec.baseline.items()),
        "num_names": len(names),
        "comparison_heads": [*names, *render.COMPARISON_HEADS],
        "comparisons": [render.comparison_cells(table, entry) for entry in compared],
        "cost_heads": render.COST_HEADS,
        "cost_legend": render.COST_LEGEND,
        "costs": [[*render.label(table, row), *render.cost(table, row)] for row in table.rows],
        "notes": table.notes,
        "sources": list(dict.fromkeys(f"{p.source} ({p.evidence})" for p in spec.published)),
    }


def _cell(table: Table, entry: Entry) -> dict[str, str]:
    return {
        "mean": render.number(entry.mean, table.spec.unit),
        "span": render.spread(entry.interval, list(entry.values.values()), table.spec.unit),
        "marks": render.marks(entry),
    }


def curve_views(table: Table) -> list[dict[str, Any]]:
    """A chart for each swept key with numeric values: a column key, or a row key such as ``mix.alpha``."""
    views = []
    for key in table.spec.keys():
        if key.rpartition(".")[2] not in NUMERIC_KEYS:
            continue
        groups: dict[tuple[str, ...], Series] = {}
        for entry in table.entries:
            place = dict(zip(table.spec.keys(), (*entry.row, *entry.column), strict=True))
            x = _as_number(place.pop(key))
            if x is None or (entry.mean is None and entry.published is None):
                continue
            if any(text.startswith("area(interval") for text in place.values()):
                continue  # the other norm tells the same story
            name = render.name(table, list(place), list(place.values()))
            _add_point(groups.setdefault(tuple(place.values()), Series(name=name, points=[])), table, entry, x)
        drawn = [s for s in groups.values() if len({p.x for p in (*s.points, *s.published)}) > 1]
        if drawn and any(s.points for s in drawn):
            axis = key.rpartition(".")[2]
            views.append(_chart(charts.line_chart(drawn, axis, _metric(table)), drawn, f"{_metric(table)} over {key}."))
    return views


def _add_point(series: Series, table: Table, entry: Entry, x: float) -> None:
    unit = table.spec.unit
    if entry.mean is not None:
        low, high = (entry.interval.low, entry.interval.high) if entry.interval else (None, None)
        title = f"{series.name}, {x:g}: {render.cell_text(table, entry)}"
        series.points.append(Point(x=x, y=entry.mean, low=low, high=high, title=title))
    if entry.published_value is not None and not table.reduced:
        title = f"{series.name}, {x:g}, published: {render.number(entry.published_value, unit)}"
        series.published.append(Point(x=x, y=entry.published_value, title=title))


def gain_view(table: Table) -> dict[str, Any] | None:
    """Gain over the baseline against the network evaluations that a cell would need on its own."""
    series = []
    for entry in table.entries:
        comparison = entry.comparison
        if comparison is None or entry.alone is None:
            continue
        name = render.name(table, table.spec.keys(), (*entry.row, *entry.column))
        interval = comparison.interval
        point = Point(
            x=entry.alone,
            y=comparison.mean,
            low=interval.low if interval else None,
            high=interval.high if interval else None,
            title=f"{name}: {render.number(comparison.mean, table.spec.unit, signed=True)}",
        )
        series.append(Series(name=name, points=[point]))
    if not series:
        return None
    svg = charts.scatter_chart(series, "network evaluations of one run", "difference to the baseline")
    return _chart(svg, series, "Cost against gain: mean difference over seeds with its interval.")


def _chart(svg: str, series: Sequence[Series], text: str) -> dict[str, Any]:
    legend = [{"mark": charts.legend_mark(i), "name": s.name} for i, s in enumerate(series)]
    hollow = " Hollow: published." if any(s.published for s in series) else ""
    return {"svg": svg, "legend": legend, "caption": text + hollow}


def _metric(table: Table) -> str:
    unit = {"fraction": "", "percent": ", %", "error_percent": ", error %"}[table.spec.unit]
    return table.spec.metric.rpartition("/")[2].replace("_", " ") + unit


def _as_number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _pools(tables: Sequence[Table], outputs: Path) -> dict[str, dict[str, Any]]:
    """One result per data set and setting of a generator that used a pool: its gallery stands for all its seeds."""
    found: dict[tuple[str, ...], dict[str, Any]] = {}
    for table in tables:
        swept = [key for key in table.spec.keys() if key.startswith("generator.")]
        for result in table.results:
            if result["pool"] and Store(outputs / "store").pool(result["pool"]).is_dir():
                values = [f"{key}={text_of(value_at(result['config'], key))}" for key in swept]
                names = result["names"]
                setting = " ".join([names["generator"], *values])
                found.setdefault((names["dataset"], setting), {**result, "setting": setting})
    return {result["pool"]: result for result in found.values()}


def gallery_view(result: dict[str, Any], outputs: Path) -> dict[str, Any] | None:
    """Sources and their first variants, one source per class."""
    try:
        pool, dataset = pool_of(outputs, result, NUM_VARIANTS)
    except GenaugError:
        return None  # the data set has left this machine, and with it the labels of the pool
    names = result["names"]
    title = f"{result['setting']} on {names['dataset']}, seed {result['seed']}"
    seam = "" if pool.sharpness is None else f"outside the boxes {pool.sharpness:.0%} of the sources' gradient"
    return {"title": title, "pool": pool.fingerprint, "seam": seam, "strips": _strips(pool, dataset)}


def _strips(pool: Pool, dataset: Dataset) -> list[list[dict[str, Any]]]:
    strips, shown = [], set()
    groups = pool.by_source()
    for source in dataset.train:
        name = dataset.class_names[source.class_index] if source.label else source.id.rpartition("/")[2]
        if source.id not in groups or name in shown or len(strips) == NUM_CLASSES:
            continue
        shown.add(name)
        pictures = [_picture(source, name, f"real image, {name}") | {"source": True}]
        for j, variant in enumerate(groups[source.id][:NUM_VARIANTS]):
            pictures.append(_picture(variant, caption(variant) or f"j={j}", f"variant {j} of {name}"))
        strips.append(pictures)
    return strips


def _picture(sample: Sample, text: str, alt: str) -> dict[str, Any]:
    return {"uri": data_uri(sample.open()), "caption": text, "alt": alt}


def data_uri(image: Image.Image) -> str:
    """A small copy as PNG in a ``data:`` address."""
    image = image.convert("RGB")
    if max(image.size) > THUMBNAIL:
        image.thumbnail((THUMBNAIL, THUMBNAIL))
    data = io.BytesIO()
    image.save(data, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(data.getvalue()).decode()


def quality_view(tables: Sequence[Table], outputs: Path) -> dict[str, Any] | None:
    """Measures of ``genaug quality`` for the pools, and how each goes with the metric over the table's runs."""
    found = {pool: read_json(outputs / "quality" / f"{pool}.json", QUALITY) for pool in _all_pools(tables)}
    measured = {pool: values for pool, values in found.items() if values is not None}
    if not measured:
        return None
    keys = list(dict.fromkeys(key for values in measured.values() for key in values["measures"]))
    rows = []
    for pool, values in measured.items():
        shown = [_measure(values["measures"].get(key)) for key in keys]
        rows.append([f"{values['generator']} ({pool[:8]})", str(values["num_synthetic"]), *shown])
    features = sorted({values["features"] for values in measured.values()})
    lines = [
        f"Features: {', '.join(features)}. FID is biased for few images: compare it at equal n only, and prefer KID."
    ]
    return {"heads": ["pool", "n", *keys], "rows": rows, "lines": lines + _correlations(tables, measured, keys)}


def _measure(value: Any) -> str:
    if value is None:
        return render.MISSING
    text = f"{value['value']:.4g}"
    return text + (f" [{value['low']:.3g}, {value['high']:.3g}]" if "low" in value else "")


def _all_pools(tables: Sequence[Table]) -> list[str]:
    return list(dict.fromkeys(result["pool"] for table in tables for result in table.results if result["pool"]))


def _correlations(tables: Sequence[Table], measured: dict[str, Any], keys: Sequence[str]) -> list[str]:
    """Spearman's rank correlation of each measure with the metric over all runs whose pool was measured."""
    from scipy import stats

    lines = []
    for table in tables:
        cells = [r for r in table.results if r["pool"] in measured and table.spec.metric in r["metrics"]]
        for key in keys:
            pairs = [
                (measured[cell["pool"]]["measures"][key]["value"], cell["metrics"][table.spec.metric])
                for cell in cells
                if key in measured[cell["pool"]]["measures"]
            ]
            if len({x for x, _ in pairs}) < 4 or len({y for _, y in pairs}) < 2:
                continue  # fewer than four different pools say nothing, and runs that are all alike neither
            found: Any = stats.spearmanr([x for x, _ in pairs], [y for _, y in pairs])
            lines.append(
                f"{table.item}: {key} against {table.spec.metric}, Spearman {found.statistic:+.2f} (n={len(pairs)})."
            )
    return lines


def leak_view(pool: str, outputs: Path) -> dict[str, Any] | None:
    """Summary and nearest pairs of ``genaug leaks``."""
    found = read_json(outputs / "leaks" / pool / "leaks.json", {"pairs": list, "summary": list})
    if found is None:
        return None
    pairs = []
    for pair in found["pairs"][:NUM_PAIRS]:
        pictures = []
        for side in ("synthetic", "real"):
            with Image.open(outputs / "leaks" / pool / pair[side]["file"]) as image:
                uri = data_uri(image)
            text = f"{pair[side]['id'].rpartition('/')[2][:18]}"
            pictures.append({"uri": uri, "caption": text, "alt": f"{side} image of a nearest pair"})
        pictures[1]["caption"] += f" {pair['direction']}, similarity {pair['similarity']:.3f}"
        pairs.append(pictures)
    return {"pool": pool, "lines": found["summary"], "pairs": pairs}
