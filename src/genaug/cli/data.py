"""A folder of one's own: what is in it, what would go wrong, what to choose, what it costs."""

import shlex
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from genaug.cli.options import Outputs, app
from genaug.core.errors import GenaugError

if TYPE_CHECKING:
    from rich.console import Console

    from genaug.config import RunConfig
    from genaug.data.sample import Dataset
    from genaug.evaluation.prior_check import PriorCheck

Gpu = Annotated[str, typer.Option(help="A GPU to state the cost on: h200, h100, a100, l40s, 4090, 3090 or v100.")]


@app.command()
def check(
    folder: Annotated[Path, typer.Argument(help="Labelled images: class folders, COCO, VOC, YOLO, or a table.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="As for train.py, e.g. prior=sd15.")] = None,
    look_at_prior: Annotated[
        bool, typer.Option("--prior/--no-prior", help="See what the prior makes of images.")
    ] = True,
    gpu: Gpu = "h100",
    outputs: Outputs = Path("outputs"),
) -> None:
    """Look at your folder before you run anything: contents, faults, what the prior can draw, settings, cost, the command.

    The exit code is 1 if a run would refuse the folder.
    """
    from rich.console import Console

    from genaug.composition import compose_typed
    from genaug.core.device import best_device
    from genaug.core.names import safe_name
    from genaug.data.sources.base import FolderSource
    from genaug.data.sources.layout import recognise
    from genaug.drawing.class_sheet import class_sheet
    from genaug.evaluation.folder_check import check_folder
    from genaug.evaluation.suggestions import image_size, suggestions
    from genaug.tables import folder_check as show
    from genaug.tables.plan import plan
    from genaug.tables.spec import read_spec
    from genaug.tables.sweep import expand

    console = Console(highlight=False, soft_wrap=True)
    layout = recognise(folder)
    chosen = [f"dataset.root={folder}", *layout.overrides]
    if layout.preset != ("yolo" if layout.task == "detection" else "image_folder"):
        chosen.insert(0, f"dataset={layout.preset}")
    extra = list(overrides or [])
    detector = ["downstream=detector_tiny", "augment=none"] if layout.task == "detection" else []
    start = [f"dataset={layout.preset}", f"dataset.root={folder}", *layout.overrides, *detector]
    config = compose_typed([*start, "generator=real_guidance", *extra])
    assert isinstance(config.dataset, FolderSource)
    found = check_folder(config.dataset)
    show.print_contents(found, layout, console)
    show.print_findings(found, console)
    if found.dataset is None or not found.looks:
        raise typer.Exit(1)
    place = outputs / "check" / safe_name(config.dataset.name, "folder")
    place.mkdir(parents=True, exist_ok=True)
    class_sheet(found.dataset).save(place / "classes.png")
    console.print(f"its classes to look at: {place / 'classes.png'}", markup=False)

    device = best_device()
    given = {word.partition("=")[0] for word in extra}
    side = [f"dataset.image_size={image_size(found.sizes[1], layout.task, device)}"]
    side = side if "dataset.image_size" not in given else []
    config = compose_typed([*start, "generator=real_guidance", *side, *extra])
    seen = gflops = None
    if look_at_prior:
        seen, gflops = _look_at_prior(config, found.dataset, device, place, outputs, console)
    rows = suggestions(found.dataset, found.sizes[1], device, seen)
    rows = [row for row in rows if row.override.partition("=")[0] not in given]
    show.print_suggestions(rows, console)
    experiment = f"own/{layout.task}"
    words = [*chosen, *found.overrides, *(row.override for row in rows), *extra]
    if found.faults and not found.overrides:
        console.print("No run reads the folder as it is: see the faults above.")
        raise typer.Exit(1)
    planned = plan(expand(experiment, words, outputs), read_spec(experiment))
    for line in show.cost_lines(planned.cost, gpu, gflops):
        console.print(line, markup=False)
    sweep = ["python", "train.py", "-m"] if Path("train.py").is_file() else ["genaug", "sweep"]
    command = shlex.join([*sweep, f"experiment={experiment}", *words])
    console.print(f"\nto go on (with preset=smoke, a try in minutes):\n{command}", markup=False)
    console.print("then, for the answer:", markup=False)
    console.print(shlex.join(["genaug", "verdict", experiment, *words]), markup=False)


def _look_at_prior(
    config: "RunConfig", dataset: "Dataset", device: str, place: Path, outputs: Path, console: "Console"
) -> "tuple[PriorCheck | None, float | None]":
    """The prior check, printed, and the speed of this machine in the prior; a prior that cannot be loaded is said."""
    from genaug.core.store import Store
    from genaug.evaluation.prior_check import source_identity, stored_check
    from genaug.tables.folder_check import probed_gflops

    prior = config.prior
    try:
        found, picture = stored_check(
            Store(outputs / "store"),
            prior,
            source_identity(config.dataset),
            dataset,
            lambda: prior.load(device),
            config.leakage.class_names,
        )
        gflops = probed_gflops(prior.load(device), prior)
    except GenaugError as error:
        console.print(f"look at: {error}", markup=False)
        return None, None
    console.print(found.sentence, markup=False)
    shutil.copyfile(picture, place / picture.name)
    console.print(f"what it makes of them: {place / picture.name}", markup=False)
    return found, gflops
