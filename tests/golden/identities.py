"""Identities of every preset and of every experiment's first and last run, as they stand in ``fingerprints.json``.

``python -m tests.golden.identities`` computes them again, prints what differs and writes the file. A commit that moves code
changes nothing in it; a commit that means to change an identity says so and bumps the component's ``version``.
"""

import json
import re
from pathlib import Path
from typing import Any

from genaug.composition import compose_typed
from genaug.config import RunConfig
from genaug.core.errors import GenaugError
from genaug.core.identity import canonical, fingerprint
from genaug.runs.cell import cell_fingerprint
from genaug.tables.overview import OWN
from genaug.tables.spec import items
from genaug.tables.sweep import expand
from tests.conftest import ROOT

FILE = Path(__file__).with_name("fingerprints.json")
GROUPS = sorted(
    path.relative_to(ROOT / "conf").as_posix()
    for path in (ROOT / "conf").rglob("*")
    if path.is_dir() and path.relative_to(ROOT / "conf").parts[0] not in ("hydra", "preset", "experiment")
)


def compose(*overrides: str) -> RunConfig:
    """Composed, with what the errors ask for: ``somewhere`` for a folder, class names for a preset that needs them."""
    for _ in range(4):
        try:
            return compose_typed(list(overrides))
        except GenaugError as error:
            if needed := re.match(r"([\w.]+) is needed here", str(error)):
                overrides = (*overrides, f"{needed[1]}=somewhere")
            elif "allow_reference_bugs=true" in str(error):
                overrides = (*overrides, "generator.tokens.allow_reference_bugs=true")
            elif "generator.sentences.path=FILE" in str(error):
                overrides = (*overrides, "generator.sentences.texts=[a photo]")
            elif "leakage=none" in str(error):  # a preset that needs class names is refused under data_centric
                overrides = (*overrides, "leakage=none")
            else:
                raise
    raise AssertionError(f"{overrides} still lack something")


def of_preset(group: str, name: str) -> dict[str, str]:
    """Identity of one preset's component; of a generator's also what it learns and its first image on embedded data."""
    parts_of_diff_mix = dict.fromkeys(("generator/tokens", "generator/lora"), ("generator=diff_mix",))
    parent = {**parts_of_diff_mix, "leakage/erasure": ("leakage=model_centric",)}
    config = compose(
        *parent.get(group, ()), f"{'+' * (group in ('generator/sentences', 'generator/collage'))}{group}={name}"
    )
    component: Any = config
    for part in group.split("/"):
        component = getattr(component, part)
    found = {"component": fingerprint(canonical(component, read=False))}
    if group == "generator":
        task = "digits" if "classification" in config.generator.tasks else "digit_scenes"
        dataset = compose(f"dataset={task}", "dataset.shots=2").dataset.load()
        fit = config.generator.fit_fingerprint(dataset, config.prior_identity())
        found["fit"] = fit
        if config.generator.makes_pool and name != "folder":  # its images are on the user's disk
            found["image"] = config.generator.variant_of(dataset.train[0], 0, dataset, fit).fingerprint
    return found


def of_run(config: RunConfig) -> str:
    """Identity of a run; where its data or weights are not on this machine, of everything that its configuration says."""
    if config.dataset.embedded and config.prior.folder is not None:
        return cell_fingerprint(config)
    names = ("task", "seed", "dataset", "prior", "leakage", "generator", "filter", "mix", "augment", "downstream")
    return fingerprint(*(canonical(getattr(config, name), read=False) for name in names), canonical(config.trainer))


def of_experiment(item: str) -> dict[str, str]:
    """Identities of the first and the last run of an experiment's sweep."""
    configs = [cell.config for cell in expand(item, []).cells if cell.config is not None]
    return {"first": of_run(configs[0]), "last": of_run(configs[-1])}


def identities() -> dict[str, dict[str, str]]:
    """Those of all presets and experiments but the ones on a user's images, whose settings depend on these:
    ``{"generator/psld": {"component": …, "fit": …, "image": …}, "experiment/demo/compare": {"first": …, "last": …}}``."""
    presets = {
        f"{group}/{path.stem}": of_preset(group, path.stem)
        for group in GROUPS
        for path in sorted((ROOT / "conf" / group).glob("*.yaml"))
    }
    return presets | {f"experiment/{item}": of_experiment(item) for item in items() if not item.startswith(OWN)}


def difference(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """One line for each entry that is new, gone or changed."""
    lines = []
    for key in sorted(old.keys() | new.keys()):
        for part in sorted(old.get(key, {}).keys() | new.get(key, {}).keys()):
            before, after = old.get(key, {}).get(part), new.get(key, {}).get(part)
            if before != after:
                lines.append(f"{key} {part}: {before} -> {after}")
    return lines


def main() -> None:
    old = json.loads(FILE.read_text()) if FILE.exists() else {}
    new = identities()
    print("\n".join(difference(old, new)) or "nothing differs")
    FILE.write_text(json.dumps(new, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
