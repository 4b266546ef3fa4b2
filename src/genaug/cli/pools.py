"""Generated images: galleries, measures, audits, exports."""

import shlex
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from genaug.cli.completion import complete_run
from genaug.cli.options import Outputs, app
from genaug.core.errors import GenaugError

if TYPE_CHECKING:
    from genaug.data.export import Written

FEW_IMAGES = 5000

Features = Annotated[
    str, typer.Option(help="A timm backbone with its weights, random:NAME (random weights), or pixels (no network).")
]
PoolName = Annotated[
    str,
    typer.Argument(
        help="A pool's fingerprint (its first digits), or a run's folder name.", autocompletion=complete_run
    ),
]


@app.command()
def gallery(
    pools: Annotated[
        list[str],
        typer.Argument(
            help="Pools' fingerprints (first digits), or words of runs' folder names.", autocompletion=complete_run
        ),
    ],
    out: Annotated[Path | None, typer.Option(help="The file to write; gallery.png or gallery.html without.")] = None,
    html: Annotated[
        bool, typer.Option("--html", help="One HTML page with zoom, filters and keys; needs no network.")
    ] = False,
    sources: Annotated[int, typer.Option(help="Number of rows.")] = 20,
    variants: Annotated[int, typer.Option(help="Number of variants per row.")] = 8,
    outputs: Outputs = Path("outputs"),
) -> None:
    """Sources and variants, rejected ones too, with label, level and reason; several pools side by side, e.g. one per sigma."""
    from genaug.core.errors import boundary
    from genaug.core.files import write_text
    from genaug.drawing.contact_sheet import contact_sheet, side_by_side
    from genaug.drawing.gallery_page import gallery_page
    from genaug.runs.pools import find_pool

    path, seen = out or Path("gallery.html" if html else "gallery.png"), []
    html = html or path.suffix.lower() in (".html", ".htm")
    for pool in pools:
        found, dataset = find_pool(outputs, pool, variants, with_rejected=True)
        generator = found.samples[0].about["generator"] if found.samples else "empty"
        title = f"{dataset.name}, {generator} ({found.fingerprint})"
        seen.append((title, found, dataset))
        most = max(map(len, found.by_source().values()), default=0)
        typer.echo(
            f"{title}: {min(sources, len(found.by_source()))} sources, up to {min(variants, most)} variant(s) each"
        )
    if html:
        write_text(path, gallery_page(seen, sources, variants))
    else:
        picture = side_by_side([contact_sheet(found, dataset, sources, variants) for _, found, dataset in seen])
        with boundary(f"{path} cannot be written", "Name a file that ends in .png, or in .html for a page."):
            path.parent.mkdir(parents=True, exist_ok=True)
            picture.save(path)
    typer.echo(path)


@app.command()
def quality(
    pool: PoolName,
    features: Features,
    lpips: Annotated[bool, typer.Option("--lpips", help="Also LPIPS; downloads AlexNet's weights once.")] = False,
    outputs: Outputs = Path("outputs"),
) -> None:
    """KID, FID, precision, recall, density, coverage, distances, label agreement and a synthetic-to-real probe of a pool."""
    from genaug.core.files import write_json
    from genaug.core.store import Store
    from genaug.evaluation.quality import measure
    from genaug.runs.pools import find_pool

    found, dataset = find_pool(outputs, pool)
    values = measure(found, dataset, Store(outputs / "store"), features, lpips)
    generator = found.samples[0].about["generator"] if found.samples else ""
    path = outputs / "quality" / f"{found.fingerprint}.json"
    write_json(path, {"pool": found.fingerprint, "generator": generator, **values})
    for name, value in values["measures"].items():
        bounds = f"  [{value['low']:.4g}, {value['high']:.4g}]" if "low" in value else ""
        typer.echo(f"{name:<24}{value['value']:.4g}{bounds}")
    typer.echo(f"{values['num_synthetic']} synthetic and {values['num_real']} real images, features {features}; {path}")
    if values["real_split"] == "test":
        typer.echo("There is no validation split, so these are test images: select nothing by these measures.")
    if values["num_synthetic"] < FEW_IMAGES:
        typer.echo(f"FID is biased below {FEW_IMAGES} images: prefer KID, and compare FID at equal n only.")


@app.command()
def leaks(pool: PoolName, features: Features, outputs: Outputs = Path("outputs")) -> None:
    """Nearest pairs of synthetic, training and test images: copying, leaks from the prior, duplicates in the data."""
    from genaug.core.store import Store
    from genaug.evaluation.leaks import audit
    from genaug.runs.pools import find_pool

    found, dataset = find_pool(outputs, pool)
    folder = outputs / "leaks" / found.fingerprint
    values = audit(found, dataset, Store(outputs / "store"), features, folder)
    typer.echo("\n".join([*values["summary"], str(folder / "leaks.json")]))


@app.command()
def export(
    pool: PoolName,
    out: Annotated[Path, typer.Option(help="A new folder.")],
    format: Annotated[str, typer.Option(help="coco, yolo, voc, imagefolder or webdataset")] = "imagefolder",
    real: Annotated[bool, typer.Option(help="Write the trial's real images too.")] = True,
    rejected: Annotated[bool, typer.Option("--rejected", help="Write rejected images too, marked as such.")] = False,
    outputs: Outputs = Path("outputs"),
) -> None:
    """Real and generated images as a folder for any other trainer. Rejected images are left out."""
    from genaug.runs.pools import find_run

    written = _write(find_run(outputs, pool), outputs, format, out, real, rejected, repository=str(out))
    typer.echo(_counted(written))
    for note in written.notes:
        typer.echo(note)
    if written.opens_as:
        typer.echo(f"opens as {shlex.join(written.opens_as)}")
    else:
        typer.echo("for the webdataset library: of each image its file, and its boxes in a .json beside it")


@app.command()
def push(
    pool: PoolName,
    repository: Annotated[
        str, typer.Argument(metavar="OWNER/NAME", help="A data set repository on the Hugging Face Hub.")
    ],
    real: Annotated[bool, typer.Option("--real", help="Push the trial's real images too.")] = False,
    rejected: Annotated[bool, typer.Option("--rejected", help="Push rejected images too, marked as such.")] = False,
    public: Annotated[bool, typer.Option("--public", help="Anyone may see it; private without.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Write the folder and send nothing.")] = False,
    out: Annotated[Path | None, typer.Option(help="A new folder; below outputs/push without.")] = None,
    outputs: Outputs = Path("outputs"),
) -> None:
    """Generated images to the Hugging Face Hub, with a data set card. Private, and without real images, unless you say so."""
    from genaug.data.push import open_repository
    from genaug.data.push import push as upload
    from genaug.runs.pools import find_run

    if repository.count("/") != 1:
        raise GenaugError(f"{repository} is no repository: write OWNER/NAME.")
    result = find_run(outputs, pool)
    address = "" if dry_run else open_repository(repository, private=not public)  # refused before anything is written
    folder = out or outputs / "push" / repository.replace("/", "--")
    if out is None and folder.exists():
        shutil.rmtree(folder)
    written = _write(result, outputs, "imagefolder", folder, real, rejected, repository)
    typer.echo(_counted(written))
    if dry_run:
        typer.echo("nothing was sent (--dry-run)")
        return
    upload(folder, repository)
    typer.echo(address)


def _counted(written: "Written") -> str:
    """How many images lie where; generated ones are training images."""
    splits = ", ".join(f"{count} {name}" for name, count in written.counts.items() if name != "generated")
    return f"{written.folder}: {splits}; {written.counts['generated']} of the training images are generated"


def _write(
    result: dict[str, Any],
    outputs: Path,
    form: str,
    folder: Path,
    real: bool,
    rejected: bool,
    repository: str,
) -> "Written":
    """Export a run's pool, with its card."""
    from genaug.core.files import write_text
    from genaug.data.card import dataset_card
    from genaug.data.export import export as write_export
    from genaug.runs.pools import pool_of

    found, dataset = pool_of(outputs, result, with_rejected=rejected)
    written = write_export(dataset, found, form, folder, real)
    write_text(folder / "README.md", dataset_card(repository, dataset, found, written, result))
    return written
