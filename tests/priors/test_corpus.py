"""What the tiny prior is trained on: training splits alone, drawn from the seed alone."""

import pytest
import torch

from genaug.core.errors import GenaugError
from genaug.priors.corpus import (
    DIGIT_WORDS,
    MICROGRAPH_SUBJECT,
    PROMPT_TEMPLATES,
    Corpus,
    draw_digits,
    draw_pictures,
    draw_scenes,
    load_corpus,
)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def small_corpus() -> Corpus:
    """Random strokes and pictures in place of files, so that these tests need no data."""
    pictures = [torch.randint(256, (3, 128, 150 + i), generator=seeded(i), dtype=torch.uint8) for i in range(4)]
    subjects = ["potted plant", "cup", MICROGRAPH_SUBJECT, MICROGRAPH_SUBJECT]
    digits = torch.zeros(20, 28, 28, dtype=torch.uint8)
    digits[:, 6:22, 12:15] = 255
    return Corpus(digits, torch.arange(20) % 10, pictures, subjects, num_photographs=2)


@pytest.fixture(scope="module")
def real_corpus(request):
    shared = request.getfixturevalue("shared")
    return load_corpus(shared("mnist").parent)


def test_only_training_splits_are_read(real_corpus, shared):
    root = shared("mnist").parent
    files = [path.relative_to(root).as_posix() for path in real_corpus.files]
    assert len(files) == len(set(files)) == 2 + 493 + 35 + 205
    held_out = set()
    for name, split in (("coco_cc", "val"), ("bccd", "val"), ("bccd", "test")):
        names = (root / name / "ImageSets" / "Main" / f"{split}.txt").read_text().split()
        held_out |= {f"{name}/JPEGImages/{stem}.jpg" for stem in names}
    held_out |= {path.relative_to(root).as_posix() for path in (root / "custom_coco_256" / "test").rglob("*")}
    assert not held_out & set(files)
    assert not [name for name in files if "t10k" in name or "/test/" in name]
    train = {line.split(",")[1] for line in (root / "coco_cc" / "ATTRIBUTION.csv").read_text().splitlines()
             if line.startswith("train2017")}  # fmt: skip
    assert {name.split("/")[-1] for name in files if name.startswith("coco_cc")} <= train


def test_every_mnist_training_digit_is_there_with_its_label(real_corpus):
    assert real_corpus.digits.shape == (60_000, 28, 28)
    assert real_corpus.labels.bincount().tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]


def test_a_missing_data_folder_is_named(tmp_path):
    with pytest.raises(GenaugError, match=r"lacks the folder .*mnist.*Write recipe\.data_dir=FOLDER"):
        load_corpus(tmp_path)


def test_a_missing_file_is_named(tmp_path):
    for name in ("mnist", "custom_coco_256", "coco_cc/ImageSets/Main", "bccd/ImageSets/Main"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "coco_cc/ImageSets/Main/train.txt").write_text("")
    (tmp_path / "bccd/ImageSets/Main/train.txt").write_text("")
    with pytest.raises(GenaugError, match=r"train-images-idx3-ubyte\.gz is missing"):
        load_corpus(tmp_path)


@pytest.mark.parametrize("strong", [False, True])
def test_the_same_seed_draws_the_same_digits(small_corpus, strong):
    images, subjects = draw_digits(small_corpus, seeded(5), 40, strong=strong)
    again, same = draw_digits(small_corpus, seeded(5), 40, strong=strong)
    other, _ = draw_digits(small_corpus, seeded(6), 40, strong=strong)
    assert torch.equal(images, again) and subjects == same and not torch.equal(images, other)
    assert images.shape == (40, 3, 32, 32) and images.min() >= 0 and images.max() <= 1
    assert all(any(word in DIGIT_WORDS for word in subject.split()) for subject in subjects)


def test_a_bare_digit_word_means_white_on_black(small_corpus):
    images, subjects = draw_digits(small_corpus, seeded(0), 200)
    bare = torch.tensor([subject in DIGIT_WORDS for subject in subjects])
    border = images[:, :, 0].amax((1, 2))
    grey = (images.amax(1) - images.amin(1)).amax((1, 2))
    assert grey[bare].max() < 1e-6 and border[bare].mean() < 0.2
    assert 0 < (~bare).float().mean() < 0.25, "one in eight is tinted or inverted, and says so"


def test_scenes_name_their_digits_and_their_background(small_corpus):
    images, subjects = draw_scenes(small_corpus, seeded(1), 12)
    assert images.shape == (12, 3, 64, 64) and images.min() >= 0 and images.max() <= 1
    for subject in subjects:
        digits, background = subject.split(" on a ")
        assert background.endswith("background")
        assert 1 <= len(digits.split(" and a ")) <= 4 and set(digits.split(" and a ")) <= set(DIGIT_WORDS)


def test_pictures_are_photographs_or_micrographs_as_asked(small_corpus):
    images, subjects = draw_pictures(small_corpus, seeded(2), 10, 64)
    assert images.shape == (10, 3, 64, 64) and images.min() >= 0 and images.max() <= 1
    assert set(subjects) == {"potted plant", "cup"}
    _, subjects = draw_pictures(small_corpus, seeded(2), 10, 32, micrograph_prob=1.0)
    assert set(subjects) == {MICROGRAPH_SUBJECT}


def test_the_27_templates_of_textual_inversion_are_in_the_prompts():
    assert len(PROMPT_TEMPLATES) == len(set(PROMPT_TEMPLATES)) == 27
    assert all(template.count("{}") == 1 for template in PROMPT_TEMPLATES)
