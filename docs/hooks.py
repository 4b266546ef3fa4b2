"""What MkDocs fills in from the code when it builds the site: keys, methods' pages, recipes, records, a picture.

A page asks for a part by a line ``<!-- made: NAME ARGUMENTS -->``. Nothing that is made here is committed.
"""

import html
import inspect
import json
import posixpath
import re
import textwrap
from pathlib import Path
from typing import Any

import hydra
from mkdocs.structure.files import File
from omegaconf import DictConfig, OmegaConf

from genaug.config import RunConfig
from genaug.config_source import component_of, register
from genaug.core.paths import presets
from genaug.core.registry import COMPONENTS
from genaug.keys import explain_fields
from genaug.tables.record import as_markdown
from genaug.tables.spec import read_spec

ROOT = Path(__file__).parents[1]
MADE = re.compile(r"^<!-- made: (\w+) ?(.*?) -->$", re.MULTILINE)
NEEDED = "???"
ADDED = ("leakage/erasure", *(f"generator/{part}" for part in ("lora", "lora_fit", "sentences", "collage")))
"""Groups that stand in no list of defaults: a command adds them, ``+generator/lora=…``."""


def on_files(files: Any, config: Any) -> Any:
    """One page of keys for each group of presets."""
    conf = register()
    with hydra.initialize_config_dir(str(conf), version_base="1.3"):
        for group, names in presets().items():
            files.append(File.generated(config, f"keys/{group.replace('/', '_')}.md", content=keys_page(group, names)))
        files.append(File.generated(config, "keys/run.md", content=run_page()))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Fill in what the page asks for."""
    return MADE.sub(lambda found: globals()[f"made_{found[1]}"](*found[2].split()), markdown)


def keys_page(group: str, names: list[str]) -> str:
    """The presets of a group, what each states, and the keys of the components behind them."""
    lines = [
        f"# {group}",
        "",
        f"Choose one with `{group}=NAME`" + (", e.g. `preset=smoke`." if group == "preset" else "."),
    ]
    lines += ["", "## Presets", ""]
    lines += [f"* [`{name}`](#{group.replace('/', '_')}-{name}): {comment(group, name)}" for name in names]
    first_preset: dict[str, str] = {}
    for name in names:
        first_preset.setdefault(component_of(group, name), name)
    for schema, name in first_preset.items():
        if schema in COMPONENTS.get(group, {}):
            lines += keys_of(group, schema, "none" if group == "filter" and schema == "none" else name)
    lines += ["", "## What each preset states", ""]
    for name in names:
        text = (ROOT / "conf" / group / f"{name}.yaml").read_text().strip()
        lines += [f"### `{name}` {{ #{group.replace('/', '_')}-{name} }}", "", "```yaml", text, "```", ""]
    return "\n".join(lines)


def comment(group: str, name: str) -> str:
    """The sentences at the top of a preset's file."""
    lines = (ROOT / "conf" / group / f"{name}.yaml").read_text().splitlines()
    head = [line.removeprefix("#").strip() for line in lines if not line.startswith("# @")]
    told = []
    for line, original in zip(head, [line for line in lines if not line.startswith("# @")], strict=True):
        if not original.startswith("#"):
            break
        told.append(line)
    return " ".join(told) or "the values below."


def keys_of(group: str, schema: str, preset: str) -> list[str]:
    """The table of a component's keys with the values of one preset."""
    key = group.replace("/", ".")
    place = "leakage/erasure@leakage.erasure" if group == "leakage/erasure" else group
    base = "pipeline" if group == "generator/lora_fit" else "da_fusion"
    others = [f"generator={base}"] if group.startswith("generator/") else []
    added = "+" if group in ADDED else ""
    config = hydra.compose("config", [*others, f"{added}{place}={preset}"])
    node = OmegaConf.select(config, key, throw_on_missing=False)
    kind = COMPONENTS[group][schema]
    about = textwrap.dedent(inspect.cleandoc(kind.__doc__ or "")).split("\n\n")[0].replace("\n", " ")
    return ["", f"## Keys of `{schema}`", "", about, "", *key_table(key, shown(node), f"value in `{preset}`"), ""]


def run_page() -> str:
    """The keys of the top level, outputs and trainer's among them."""
    rows = [("task", "train"), ("seed", "0"), ("experiment", "null")]
    run = RunConfig()
    wanted = [
        row for row in explain_fields(run) if row[0] in dict(rows) or row[0].startswith(("paths.", "generation."))
    ]
    return "\n".join(["# The run itself", "", "Keys without a group.", "", *table(wanted, "default"), ""])


def shown(node: DictConfig) -> Any:
    """An instance with the values of a node, also where some are still to be given."""
    kind = OmegaConf.get_type(node)
    found = kind.__new__(kind)
    for key in node:
        if OmegaConf.is_missing(node, key):
            value: Any = "(needed)"
        elif OmegaConf.is_interpolation(node, str(key)):
            value = "the run's " + OmegaConf.to_container(node, resolve=False)[key].strip("${}")  # type: ignore[index]
        else:
            value = node[key]
            if isinstance(value, DictConfig):
                value = (
                    shown(value)
                    if OmegaConf.get_type(value) is not dict
                    else OmegaConf.to_container(value, resolve=False)
                )
            elif OmegaConf.is_config(value):
                value = OmegaConf.to_container(value, resolve=False)
        setattr(found, str(key), value)
    return found


def key_table(group: str, component: Any, head: str) -> list[str]:
    return table([(f"{group}.{key}", *rest) for key, *rest in explain_fields(component)], head)  # type: ignore[misc]


def table(rows: list[tuple[str, str, str, str]], head: str) -> list[str]:
    """Rows of ``explain_fields`` as a table."""
    lines = [f"| key | {head} | may be | what it is |", "|---|---|---|---|"]
    for key, value, doc, rule in rows:
        cells = (f"`{key}`", f"`{value}`" if value else "", rule, doc.replace("``", "`"))
        lines.append(
            "| "
            + " | ".join(
                cell.replace("|", "\\|").replace("<", "&lt;") if i > 1 else cell.replace("|", "\\|")
                for i, cell in enumerate(cells)
            )
            + " |"
        )
    return lines


def made_readme(path: str) -> str:
    """A page that stands beside the code, e.g. of a method."""
    return without_local_links((ROOT / "src" / "genaug" / path / "README.md").read_text(), f"src/genaug/{path}")


def made_setup() -> str:
    """What setting up costs, as the README says it."""
    return without_local_links(
        (ROOT / "README.md").read_text().split("## What setting up costs\n", 1)[1].split("\n## ")[0], ""
    )


def made_recipes() -> str:
    """The recipes of CONTRIBUTING.md."""
    text = (ROOT / "CONTRIBUTING.md").read_text().split("## Recipes", 1)[1].split("\n## ")[0]
    return without_local_links(re.sub(r"^### ", "## ", text, flags=re.MULTILINE), "")


def made_groups() -> str:
    """The pages of keys, each with its presets."""
    lines = [f"* [{group}]({group.replace('/', '_')}.md): {', '.join(names)}" for group, names in presets().items()]
    return "\n".join(["* [The run itself](run.md): task, seed, outputs", *lines])


def made_experiments() -> str:
    """The list of all experiments: the pages of the papers behind each other."""
    parts = [without_local_links((ROOT / "experiments" / "README.md").read_text().split("\n", 1)[1], "experiments")]
    for page in sorted((ROOT / "experiments").glob("*/README.md")):
        head, _, table = page.read_text().partition("\n\n")
        parts += [f"#{head}", without_local_links(table.partition("\n\n")[2], page.parent.relative_to(ROOT).as_posix())]
    return "\n\n".join(parts)


def made_records() -> str:
    """What the committed records hold, one table for each."""
    parts = []
    for path in sorted((ROOT / "experiments" / "results").glob("*/*.json")):
        item = path.relative_to(ROOT / "experiments" / "results").with_suffix("").as_posix()
        spec, record = read_spec(item), json.loads(path.read_text())
        reduced = "A reduced run (`preset=smoke`): it shows that the way from command to table works, and nothing else."
        parts += [f"## {item}: {spec.title}", *([reduced] if record["reduced"] else []), as_markdown(record, spec)]
    return "\n\n".join(parts)


def without_local_links(text: str, folder: str) -> str:
    """Links to files of the repository as their paths: the site has only its own pages."""

    def path(found: re.Match[str]) -> str:
        name, target = found[1].strip("`"), found[2]
        if target.startswith(("http", "#")):
            return found[0]
        place = posixpath.normpath(posixpath.join(folder, target))
        return f"`{place}`" if name in place else f"{name} (`{place}`)"

    return re.sub(r"\[([^\]]+)\]\(([^)]+)\)", path, text)


def made_stages() -> str:
    """The stages of a run as a picture: what each does, and where what it makes is kept."""
    from genaug import stages

    classes = {cls.name: cls for cls in reversed(stages.Stage.__subclasses__())}  # of one name the first
    told = {
        "data": "Read the data set and draw the training images.",
        "check": "Look at what the prior makes of a few of the images, and say so if it cannot draw such.",
    }
    places = {
        "check": "store/checks",
        "erase": "store/erasures",
        "fit": "store/fitted",
        "generate": "store/images, store/pools",
        "filter": "beside the pool",
        "train": "runs/…/result.json",
    }
    width, row, parts = 360, 98, []
    for number, name in enumerate(stages.STAGES):
        about = told.get(name) or inspect.cleandoc(classes[name].__doc__ or "").split("\n\n")[0]
        top, place = 4 + number * row, html.escape(places.get(name, "kept nowhere"))
        lines = textwrap.wrap(about.replace("\n", " ").replace("``", ""), 54, max_lines=3, placeholder=" …")
        parts.append(f'<rect x="4" y="{top}" width="{width - 8}" height="{row - 20}" rx="6"/>')
        parts.append(f'<text class="name" x="14" y="{top + 19}">{name}</text>')
        parts.append(f'<text class="place" x="{width - 14}" y="{top + 19}" text-anchor="end">{place}</text>')
        parts += [f'<text x="14" y="{top + 37 + 15 * i}">{html.escape(line)}</text>' for i, line in enumerate(lines)]
        if name != stages.STAGES[-1]:
            middle, bottom = width // 2, top + row - 20
            parts.append(f'<path d="M{middle} {bottom} v14 m-4 -5 l4 5 l4 -5"/>')
    height = 4 + len(stages.STAGES) * row - 16
    return (
        f'<figure class="stages"><svg viewBox="0 0 {width} {height}" role="img" aria-label="The stages of a run">'
        + "".join(parts)
        + "</svg></figure>"
    )
