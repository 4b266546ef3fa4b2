"""Make and publish a pool: the images that no earlier run has made, and the manifest that names them all."""

import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from genaug.core.claims import claim
from genaug.core.errors import GenaugError, first_line, out_of_memory, release_memory
from genaug.core.files import as_json
from genaug.core.identity import fingerprint
from genaug.core.progress import Progress
from genaug.core.store import Store
from genaug.data.pool import Pool
from genaug.data.sample import Boxes, Dataset
from genaug.generators.base import Generated, Generator, Variant
from genaug.generators.forms import Form, form_of

NUM_WRITERS = 2  # threads that compress and write PNG files beside the sampler
Make = Callable[[list[Variant]], Iterable[Generated]]
WAIT = 0.5  # seconds between looks at what other processes have made
LOOK = 10.0  # seconds between such looks while there is work to do: they cost, where a million images are wanted


def make_pool(
    store: Store,
    generator: Generator,
    dataset: Dataset,
    fitted: Path | None,
    fitted_fingerprint: str,
    load_prior: Callable[[], Any],
    num_variants: int,
    say: Callable[[str], None] = print,
    device: Callable[[], str] = lambda: "cpu",
) -> Pool:
    """The pool of ``generator`` on ``dataset.train`` with ``num_variants`` (M) images per source.

    Only images that no earlier run has published are made, and those that are damaged; ``load_prior`` and ``device`` (where
    torch computes) are called only if there are some. Several processes share the work, each image is made by one of them.
    """
    pool_fingerprint = pool_identity(generator, dataset, fitted_fingerprint)
    folder = store.pool(pool_fingerprint)
    left_out = generator.left_out(dataset, num_variants)
    for reason, count in left_out.items():
        say(f"{generator.name}: {count} image(s) {reason} are left out")
    made, evaluations = dict[str, dict[str, Any]](), 0
    pool = form_of(store, folder).published(num_variants, dataset)
    if pool is None:
        variants = generator.variants(dataset, num_variants, fitted_fingerprint)
        # images of equal content share a variant: it is made once
        wanted = {variant.fingerprint: variant for variant in variants}
        form = form_of(store, folder, len(wanted))
        abouts = form.verified(wanted)
        known = store.known(wanted)
        missing = [variant for name, variant in wanted.items() if name not in known]
        if missing:
            prior = load_prior() if generator.uses_prior else None
            before = prior.num_evaluations if prior is not None else 0
            make = lambda share: generator.generate(share, dataset, prior, fitted, device())
            try:
                made = fill(store, form, generator, dataset, make, missing, say)
            finally:
                form.close()
            evaluations = prior.num_evaluations - before if prior is not None else 0
        with store.lock(pool_fingerprint, say):
            pool = form.publish(variants, num_variants, abouts | made, dataset, say)
    pool.counts = {
        "images_generated": len(made),
        "images_reused": len(pool.samples) + sum(pool.rejected.values()) - len(made),
        "network_evaluations": evaluations,
        **({"images_left_out": sum(left_out.values())} if left_out else {}),
    }
    return pool


def fill(
    store: Store,
    form: Form,
    generator: Generator,
    dataset: Dataset,
    make: Make,
    missing: list[Variant],
    say: Callable[[str], None],
) -> dict[str, dict[str, Any]]:
    """Make what is missing, share by share, together with whoever else makes some of it.

    Returns:
        what was published with each image that was made here, by fingerprint.
    """
    todo = in_order(missing, dataset)
    made: dict[str, dict[str, Any]] = {}
    started, progressed, waiting = time.perf_counter(), time.monotonic(), False
    looked = progressed
    while todo:
        with claim(store, list(todo)) as (share, owners):
            if share:
                made |= _publish_share(store, form, generator, dataset, make, [todo[name] for name in share], say)
        done = set(share)
        if not share or time.monotonic() - looked > LOOK:
            done |= store.known(todo)
            looked = time.monotonic()
        left = {name: variant for name, variant in todo.items() if name not in done}
        if len(left) < len(todo):
            progressed = time.monotonic()
        elif not share:
            if not waiting:
                say(f"waiting for {len(left)} images that others make: {'; '.join(owners)}")
                waiting = True
            if store.lock_timeout is not None and time.monotonic() - progressed > store.lock_timeout:
                raise GenaugError(
                    f"{len(left)} images have not come for {store.lock_timeout:g} s from {'; '.join(owners)}. End it if it "
                    "hangs, or write paths.lock_timeout=null to wait for as long as it takes."
                )
            time.sleep(WAIT)
        todo = left
    seconds = time.perf_counter() - started
    say(f"{len(made)} images by {generator.name} in {seconds:.1f} s ({len(made) / max(seconds, 1e-9):.1f} images/s)")
    return made


def in_order(missing: list[Variant], dataset: Dataset) -> dict[str, Variant]:
    """Variants by fingerprint, so that images of equal draws fill whole batches and those of one source share its encoding."""
    places = {sample.id: place for place, sample in enumerate(dataset.train)}
    ordered = sorted(missing, key=lambda v: (as_json(v.draws, "draws"), places[v.source.id], v.index))
    return {variant.fingerprint: variant for variant in ordered}


def _publish_share(
    store: Store,
    form: Form,
    generator: Generator,
    dataset: Dataset,
    make: Make,
    share: list[Variant],
    say: Callable[[str], None],
) -> dict[str, dict[str, Any]]:
    """Make and publish these images; without memory for a batch, halve it and go on. Returns as ``fill``."""
    wanted, made = share, dict[str, dict[str, Any]]()
    while wanted:
        size = None
        try:
            made |= publish(form, make(wanted), wanted, generator, dataset)
        except Exception as error:
            size = generator.halve_batch() if out_of_memory(error) else None
            if size is None:
                raise
            say(f"there is not enough memory ({first_line(error)}): going on with batches of {size}")
        if size is not None:  # by now nothing holds what the failed batch has left
            release_memory()
        known = store.known([variant.fingerprint for variant in wanted])
        wanted = [variant for variant in wanted if variant.fingerprint not in known]
    return {
        name: made[name] if name in made else store.about_image(name)
        for name in (variant.fingerprint for variant in share)
    }


def pool_identity(generator: Generator, dataset: Dataset, fitted_fingerprint: str) -> str:
    """Fingerprint of a pool. Its manifest names the sources, so their ids count, unlike for the images themselves."""
    ids = [sample.id for sample in dataset.train]
    return fingerprint(fitted_fingerprint, generator, dataset.train_identity(), ids)


def publish(
    form: Form, images: Iterable[Generated], wanted: list[Variant], generator: Generator, dataset: Dataset
) -> dict[str, dict[str, Any]]:
    """Write images as they come, from threads; a killed run loses at most those in flight.

    Returns:
        what was published with each image, by fingerprint.

    Raises:
        GenaugError: if the generator does not yield one image in RGB for each variant, with an annotation that fits it.
    """
    asked = {variant.fingerprint for variant in wanted}
    started = time.perf_counter()
    pending: dict[str, Future[dict[str, Any]]] = {}
    made: dict[str, dict[str, Any]] = {}
    title = f"generating ({generator.name})"
    with ThreadPoolExecutor(NUM_WRITERS) as writers, Progress(title, len(wanted), unit="images") as progress:
        done, last = 0, started
        for item in images or ():
            now = time.perf_counter()
            check_generated(item, generator, dataset)
            row = _row(item, generator, dataset, seconds=now - last)
            name = item.variant.fingerprint
            if name not in asked:
                raise GenaugError(f"generator={generator.name} yields an image twice, or one that nobody asked for.")
            asked.remove(name)
            pending[name] = writers.submit(form.put, name, item.image, row)
            done, last = done + 1, now
            progress.update(done)
            if len(pending) > 64:
                first = next(iter(pending))
                made[first] = pending.pop(first).result()  # raises here what failed in a thread, e.g. a full disk
        made |= {name: future.result() for name, future in pending.items()}
    if asked:
        raise GenaugError(
            f"generator={generator.name} yields {done} of {len(wanted)} images: yield one Generated for each variant."
        )
    return made


def check_generated(item: Generated, generator: Generator, dataset: Dataset) -> None:
    """Raise ``GenaugError`` for what a pool cannot hold: where somebody's own generator is wrong, this says how."""
    by = f"generator={generator.name} yields"
    if not isinstance(item, Generated):
        raise GenaugError(
            f"{by} {type(item).__name__}: yield Generated(variant=variant, image=image) for each variant."
        )
    mode = getattr(item.image, "mode", None)
    if mode != "RGB":
        what = f"an image of the mode {mode}" if mode else f"{type(item.image).__name__} for an image"
        raise GenaugError(
            f"{by} {what}: give Pillow's images in RGB, e.g. image.convert('RGB'), or Image.fromarray(pixels) of uint8 "
            "[height, width, 3]."
        )
    if 0 in item.image.size:
        raise GenaugError(
            f"{by} an image of {item.image.width} x {item.image.height} pixels for {item.variant.source.id}."
        )
    source, label, num_classes = item.variant.source, item.label, len(dataset.class_names)
    if label is not None and not (
        isinstance(label, dict)
        and all(index in range(num_classes) for index in label)
        and (abs(sum(label.values()) - generator.label_sum) < 1e-3 or not (label or source.label))
    ):
        raise GenaugError(
            f"{by} the label {label} for an image of {source.id}: write the weights of classes, which sum to "
            f"{generator.label_sum:g}, by their "
            f"index from 0 to {num_classes - 1}, e.g. {{0: 1.0}}."
        )
    if source.boxes is not None and item.boxes is None and item.image.size != source.size:
        sizes = " x ".join(map(str, item.image.size)), " x ".join(map(str, source.size))
        raise GenaugError(
            f"{by} an image of {sizes[0]} pixels for {source.id} of {sizes[1]}, whose boxes do not fit it: keep the size, or "
            "give boxes in pixels of the image."
        )


def _row(item: Generated, generator: Generator, dataset: Dataset, seconds: float) -> dict[str, Any]:
    """One line of the manifest, without the file name."""
    variant = item.variant
    label = variant.source.label if item.label is None else item.label
    row: dict[str, Any] = {
        "source_id": variant.source.id,
        "index": variant.index,
        "generator": generator.name,
        "label": {dataset.class_names[i]: weight for i, weight in label.items()},
        **variant.draws,
        **item.about,
        "rejected": item.rejected,
        "seconds": round(seconds, 4),
    }
    boxes = variant.source.boxes if item.boxes is None else item.boxes
    if boxes is not None:
        row["objects"] = _box_rows(boxes, dataset)
    return row


def _box_rows(boxes: Boxes, dataset: Dataset) -> list[dict[str, Any]]:
    """Boxes as manifest rows: COCO order x, y, width, height in pixels, and the class name."""
    return [
        {"bbox": [x1, y1, x2 - x1, y2 - y1], "category": dataset.class_names[label], "crowd": bool(crowd)}
        for (x1, y1, x2, y2), label, crowd in zip(boxes.xyxy.tolist(), boxes.labels, boxes.crowd, strict=True)
    ]
