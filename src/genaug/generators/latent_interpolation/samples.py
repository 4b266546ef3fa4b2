"""The images that the autoencoder is fitted to; no label of theirs is read."""

from collections.abc import Sequence
from pathlib import Path

from genaug.core.errors import GenaugError
from genaug.core.identity import content_digest
from genaug.data.sample import Dataset, Sample
from genaug.data.sources.tree import image_files
from genaug.generators.latent_interpolation.sections import Training


def fitted_samples(training: Training, dataset: Dataset) -> Sequence[Sample]:
    """The training images of ``training.images``, then those of ``training.extra_dir``. All of them come in the order of
    their ids: whatever was drawn, the same autoencoder is learned."""
    everything = sorted((*dataset.train, *dataset.undrawn), key=lambda sample: sample.id)
    chosen = everything if training.images == "all" else dataset.train
    return [*chosen, *extra_samples(training.extra_dir, dataset)]


def extra_samples(extra_dir: str | None, dataset: Dataset) -> Sequence[Sample]:
    """The unlabelled images; refuses any that is also scored."""
    if extra_dir is None:
        return ()
    root = Path(extra_dir).expanduser()
    if not root.is_dir() or not (paths := [path for _, path in image_files(root)]):
        raise GenaugError(f"generator.training.extra_dir={extra_dir} holds no images.")
    samples = [
        Sample(id=f"extra/{path.relative_to(root).as_posix()}", digest=content_digest(path), image=path)
        for path in paths
    ]
    scored = {sample.digest for sample in (*dataset.val, *dataset.test)}
    shared = [sample.id for sample in samples if sample.digest in scored]
    if shared:
        raise GenaugError(
            f"{len(shared)} image(s) of generator.training.extra_dir are also in the validation or test split, "
            f"e.g. {shared[0]}. Remove them: results on them would not count."
        )
    return samples
