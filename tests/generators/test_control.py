"""Controls: what stands in a generator's place is what its kind says."""

import numpy as np
import pytest

from genaug.api import compose


def made(kind):
    config = compose(["generator=control", f"generator.kind={kind}", "dataset.shots=2"])
    dataset = config.dataset.load()
    variants = config.generator.variants(dataset, 3, "")
    return dataset, list(config.generator.generate(variants, dataset, None, None))


def test_copies_are_their_sources_with_their_labels():
    _, images = made("copies")
    assert len(images) == 60
    assert all(g.label is None and np.array_equal(np.asarray(g.image), g.variant.source.image) for g in images)


@pytest.mark.parametrize("kind", ["held_back", "random_labels"])
def test_held_back_images_are_training_images_of_the_class_that_were_not_drawn(kind):
    dataset, images = made(kind)
    whole = compose(["generator=none", "dataset.shots=null"]).dataset.load()
    known = {sample.image.tobytes(): sample for sample in whole.train}
    drawn = {sample.id for sample in dataset.train}
    found = [known[np.asarray(g.image).tobytes()] for g in images]
    assert not drawn & {sample.id for sample in found} and len({sample.id for sample in found}) > 30
    assert all(s.class_index == g.variant.source.class_index for s, g in zip(found, images, strict=True))


def test_random_labels_are_right_by_chance_alone():
    _, images = made("random_labels")
    right = [g.variant.source.class_index in g.label for g in images]
    assert 0 < sum(right) < len(images) / 3
