"""A folder of one's own: what is in it, what would go wrong, what to choose, what it costs."""

import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from genaug.cli.completion import complete_override
from genaug.cli.options import Outputs, app, placed
from genaug.core.errors import GenaugError

if TYPE_CHECKING:
    from rich.console import Console

    from genaug.config import RunConfig
    from genaug.data.sample import Dataset

Gpu = Annotated[str, typer.Option(help="A GPU to state the cost on: h200, h100, a100, l40s, 4090, 3090 or v100.")]


@app.command()
def check(
    folder: Annotated[Path, typer.Argument(help="Labelled images: class folders, COCO, VOC, YOLO, or a table.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="As for train.py, e.g. prior=sd15.", autocompletion=complete_override)
    ] = None,
    look_at_prior: Annotated[
        bool, typer.Option("--prior/--no-prior", help="See what the prior makes of images.")
    ] = True,
    gpu: Gpu = "h100",
    outputs: Outputs = Path("outputs"),
) -> None:
    """Look at your folder before you run anything: contents, faults, what the prior can draw, settings, cost, the command.

    The exit code is 0 only if a run would take the folder.
    """
    from rich.console import Console

    from genaug.choosing import choose, found_layout, layout_settings, named_layout
    from genaug.composition import compose_typed
    from genaug.core.names import safe_name
    from genaug.core.paths import sweep_command
    from genaug.drawing.class_sheet import class_sheet
    from genaug.evaluation.folder_check import check_folder
    from genaug.tables import folder_check as show
    from genaug.tables.plan import plan
    from genaug.tables.spec import read_spec
    from genaug.tables.sweep import expand

    console = Console(highlight=False, soft_wrap=True)
    given, outputs = placed(overrides, outputs)
    named = named_layout(folder, given)
    layout = named or found_layout(folder, given)
    item, folder_is = f"own/{layout.task}", f"{layout.key}={folder}"
    reading = [] if named else [row.override for row in layout_settings(layout)]
    config = compose_typed([f"experiment={item}", *reading, folder_is, *given])
    found = check_folder(config.dataset)
    show.print_contents(found, layout, console)
    show.print_findings(found, layout, console)
    if found.dataset is None or not found.looks:
        raise typer.Exit(1)
    place = outputs / "check" / safe_name(config.dataset.name, "folder")
    place.mkdir(parents=True, exist_ok=True)
    class_sheet(found.dataset).save(place / "classes.png")
    console.print(f"its classes to look at: {place / 'classes.png'}", markup=False)
    if len(found.faults) > len(found.overrides):
        console.print("No run reads the folder as it is: see the faults above.")
        raise typer.Exit(1)

    needed = reading if layout.key != "dataset.root" else []  # of dataset.root the layout is looked for
    words = [*needed, folder_is, *found.overrides, *given]
    if look_at_prior:
        choice = choose(item, [*words, f"paths.outputs_dir={outputs}"])
        config = compose_typed([f"experiment={item}", *choice.overrides, *words, f"paths.outputs_dir={outputs}"])
        gflops = None if choice.note else _look_at_prior(config, found.dataset, place, console)  # the note says why not
        show.print_settings(choice, console)
        planned = plan(expand(item, words, outputs), read_spec(item))
        for line in show.cost_lines(planned.cost, gpu, gflops):
            console.print(line, markup=False)
    else:
        console.print("Settings and cost rest on what the prior makes of the images, which --no-prior leaves out.")
    elsewhere = outputs != Path("outputs")
    place = [f"paths.outputs_dir={outputs}"] if elsewhere else []
    command = shlex.join([*sweep_command(), f"experiment={item}", *words, *place])
    brief = " ".join(_trial([f"experiment={item}", *dict.fromkeys([*reading, *words])], found.dataset))
    console.print(f"\nto go on (with {brief}, a try in minutes):\n{command}", markup=False)
    console.print("then, for the answer:", markup=False)
    place = ["--outputs", str(outputs)] if elsewhere else []
    console.print(shlex.join(["genaug", "verdict", item, *words, *place]), markup=False)


def _trial(words: list[str], dataset: "Dataset") -> list[str]:
    """What to add for a try in minutes: the preset, and fewer shots where its own are more than the rarest class has."""
    from genaug.composition import compose_typed
    from genaug.data.summary import per_class

    shots = compose_typed([*words, "preset=smoke"]).dataset.shots
    rarest = min(per_class(dataset.train).values(), default=0)
    return ["preset=smoke", *([f"dataset.shots={rarest}"] if shots is not None and rarest < shots else [])]


def _look_at_prior(config: "RunConfig", dataset: "Dataset", place: Path, console: "Console") -> float | None:
    """The prior check, printed; the speed of this machine in the prior, None where it cannot be loaded, which is said."""
    from genaug.choosing import look
    from genaug.tables.folder_check import probed_gflops

    device = config.trainer.device()
    try:
        found, picture = look(config, dataset, device)
        print("measuring how fast this machine is …", file=sys.stderr, flush=True)
        gflops = probed_gflops(config.prior.load(device), config.prior)
    except GenaugError as error:
        console.print(f"look at: {error}", markup=False)
        return None
    console.print(found.sentence, markup=False)
    shutil.copyfile(picture, place / picture.name)
    console.print(f"what it makes of them: {place / picture.name}", markup=False)
    return gflops
