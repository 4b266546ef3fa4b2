import numpy as np

from genaug.core.identity import digest_bytes
from genaug.core.seeding import derive
from genaug.data.sample import Sample, SyntheticSample
from genaug.evaluation.agreement import label_agreement, strength_of


def picture(level, seed):
    noise = np.random.default_rng(seed).integers(0, 20, (16, 16, 3))
    return (level + noise).clip(0, 255).astype(np.uint8)


def real(count=10):
    images = [(label, picture(40 + 160 * label, 100 * label + i)) for label in (0, 1) for i in range(count)]
    return [
        Sample(id=f"{label}/{i}", digest=digest_bytes(image.tobytes()), image=image, label={label: 1.0})
        for i, (label, image) in enumerate(images)
    ]


def variant(source, level, t0, label=None):
    image = picture(level, derive(source.id, t0) % 1000)
    return SyntheticSample(
        id="s", digest=digest_bytes(image.tobytes()), image=image, label=label or source.label, source_id=source.id, index=0,
        about={"t0": t0},
    )  # fmt: skip


def test_variants_that_left_their_class_are_counted_by_strength(tmp_path):
    samples = real()
    dark = [sample for sample in samples if 0 in sample.label]
    made = [variant(s, 40, 0.25) for s in dark] + [variant(s, 200, 0.75) for s in dark]
    found = label_agreement(made, samples, "pixels", tmp_path)
    assert found.accuracy == 1.0 and found.by_strength == {"t0 0.25": (10, 10), "t0 0.75": (0, 10)}


def test_a_variant_of_an_image_that_is_not_here_is_judged_too(tmp_path):
    stranger = Sample(id="gone", digest="gone", image=picture(40, 1), label={0: 1.0})
    found = label_agreement([variant(stranger, 40, 0.5)], real(), "pixels", tmp_path)
    assert found.by_strength == {"t0 0.5": (1, 1)}


def test_a_label_shared_by_two_classes_agrees_with_either(tmp_path):
    samples = real()
    made = [variant(samples[0], 200, 0.5, label={0: 0.5, 1: 0.5})]
    assert label_agreement(made, samples, "pixels", tmp_path).by_strength == {"t0 0.5": (1, 1)}


def test_no_variant_is_recognised_by_its_own_source(tmp_path):
    """Labels of chance: who knows the source knows the label, who does not is right half of the time."""
    rng = np.random.default_rng(0)
    samples = []
    for i in range(60):
        image = rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)
        samples.append(Sample(id=str(i), digest=digest_bytes(image.tobytes()), image=image, label={int(i % 2): 1.0}))
    copies = [
        SyntheticSample(id=f"s{s.id}", digest=f"s{s.digest}", image=s.image, label=s.label, source_id=s.id, index=0)
        for s in samples
    ]
    found = label_agreement(copies, samples, "pixels", tmp_path)
    assert found.by_strength[""][0] == round(found.accuracy * 60) < 45


def test_a_class_of_one_image_does_not_silence_the_judge_of_the_others(tmp_path):
    samples = real()
    pixels = picture(120, 999)
    alone = Sample(id="2/0", digest=digest_bytes(pixels.tobytes()), image=pixels, label={2: 1.0})
    made = [variant(samples[0], 200, 0.5), variant(samples[1], 40, 0.5), variant(alone, 120, 0.5)]
    found = label_agreement(made, [*samples, alone], "pixels", tmp_path)
    assert found.accuracy == 1.0 and found.by_strength == {"t0 0.5": (1, 2)}  # the third is not judged


def test_too_few_real_images_train_no_judge(tmp_path):
    samples = real(1)
    assert label_agreement([variant(samples[0], 40, 0.5)], samples, "pixels", tmp_path) is None


def test_the_strength_of_an_image_is_what_was_drawn_for_it():
    sample = real(1)[0]
    assert strength_of(variant(sample, 40, 0.5)) == "t0 0.5"
