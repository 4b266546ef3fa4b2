"""What is in a folder of labelled images, and what would spoil a comparison on it: found before anything is computed.

Faults are those that stop a run; warnings those that a run would not notice: copies within a split, near-copies across splits,
one image under two labels, classes that a file's size or colours give away, blank images, classes of one image.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from PIL import Image

from genaug.core.errors import GenaugError
from genaug.data.sample import NO_TEST, Dataset, Sample, without_objects
from genaug.data.sources.base import Source, with_white_points
from genaug.data.summary import per_class, shortened
from genaug.evaluation.leaks import HASH_DETAIL, perceptual_hash
from genaug.evaluation.look_alikes import PATCHES, exported_copies, neighbours, saved_again

MOST_IMAGES = 4000
"""Images whose pixels are looked at, evenly spread over the splits."""
BLANK = 3.0
"""Standard deviation of a thumbnail below which an image shows nothing."""
DETAILED = 32
"""Shorter side, in pixels, below which images hold too little to tell neighbours from others: digits have many alike."""
TINY_SIDE, TINY_BOX = 16, 4
IMBALANCE, FEW_TRAIN, FEW_TEST = 10, 4, 5
GIVEN_AWAY = 0.5
"""Share of the errors of naming the commonest class that a file's size, format or colour mode must avoid to be reported."""
SHOWN = 3
SPLITS = ("train", "val", "test")
SAYS_NOTHING = re.compile(r"(?:class|label|category|cat|c|n|id)?[ _-]*\d+", re.IGNORECASE)


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """One image, looked at."""

    split: str
    sample: Sample
    size: tuple[int, int]
    mode: str
    """Pillow's colour mode of the file."""
    format: str
    grey: np.ndarray
    """float32 [32, 32]: a grey thumbnail, 0 to 255."""
    spread: float
    """Standard deviation over a thumbnail of the colour that varies most; 0 where all is one colour."""
    bits: np.ndarray
    """bool [64]: its perceptual hash."""
    patches: np.ndarray
    """float32 [8, 8, 3]: a thumbnail of its colours, 0 to 255."""


@dataclass(kw_only=True, slots=True)
class FolderCheck:
    """What was found."""

    dataset: Dataset | None
    """As a run reads it (before any few-shot draw); None where no run can."""
    looks: list[Look] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    """What stops a run, and what to do about it."""
    warnings: list[str] = field(default_factory=list)
    overrides: list[str] = field(default_factory=list)
    """What to write so that a run reads the folder nevertheless, one for each fault that this overcomes."""

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Smallest, median and largest longer side, in pixels."""
        sides = sorted(max(look.size) for look in self.looks)
        return sides[0], sides[len(sides) // 2], sides[-1]


def check_folder(source: Source) -> FolderCheck:
    """Everything that is found in the folder of a data set."""
    found = FolderCheck(dataset=None)
    try:
        found.dataset = source.read()
    except GenaugError as error:
        found.faults.append(str(error))
        if getattr(source, "skip_corrupt", None) is False:
            try:
                found.dataset = replace(source, skip_corrupt=True).read()  # type: ignore[call-arg]
                found.overrides.append("dataset.skip_corrupt=true")
            except GenaugError:
                return found
    if found.dataset is None:
        return found
    try:
        found.dataset = with_white_points(found.dataset)
    except GenaugError as error:
        found.faults.append(str(error))
    found.looks = _look_at(found.dataset)
    _copies(found)
    _near_copies(found)
    found.warnings += exported_copies(source, found.dataset)
    _counts(found)
    _pictures(found)
    _given_away(found)
    if found.dataset.task == "detection":
        found.faults += without_objects(found.dataset, "train", "test")
        _boxes(found, source.image_size)
    return found


def _look_at(dataset: Dataset) -> list[Look]:
    every = [(split, sample) for split in SPLITS for sample in getattr(dataset, split)]
    step = max(1, -(-len(every) // MOST_IMAGES))

    def look(item: tuple[str, Sample]) -> Look | None:
        split, sample = item
        mode, kind = "RGB", "array"
        if isinstance(sample.image, Path):
            try:
                with Image.open(sample.image) as header:
                    mode, kind = header.mode, header.format or ""
                picture = sample.open()
            except (GenaugError, OSError):  # said by the reader
                return None
        else:
            picture = sample.open()
        grey = picture.convert("L").resize((HASH_DETAIL, HASH_DETAIL), Image.Resampling.LANCZOS)
        bits = perceptual_hash(grey)
        colours = np.asarray(picture.resize((HASH_DETAIL, HASH_DETAIL), Image.Resampling.LANCZOS), dtype=np.float32)
        spread = float(colours.std((0, 1)).max())
        patches = np.asarray(picture.resize((PATCHES, PATCHES), Image.Resampling.BOX), dtype=np.float32)
        return Look(split, sample, picture.size, mode, kind, np.asarray(grey, dtype=np.float32), spread, bits, patches)

    with ThreadPoolExecutor() as threads:
        return [seen for seen in threads.map(look, every[::step]) if seen is not None]


def _copies(found: FolderCheck) -> None:
    """Files of one content: in two splits, under two labels, or twice in one split."""
    dataset = found.dataset
    assert dataset is not None
    groups: dict[str, list[tuple[str, Sample]]] = defaultdict(list)
    for split in SPLITS:
        for sample in getattr(dataset, split):
            groups[sample.digest].append((split, sample))
    twice = [group for group in groups.values() if len(group) > 1]
    across = [group for group in twice if len({split for split, _ in group}) > 1]
    if across:
        one_file = len({sample.id for _, sample in across[0]}) == 1
        carved = ", before the splits are carved" if _is_carved(across) else ""
        found.faults.append(
            f"{len(across)} image(s) are in two splits, e.g. {_pair(*across[0][:2])}: results on them would not count, and a "
            "run refuses them. "
            + ("Name each file for one split alone." if one_file else f"Remove the copies{carved}.")
        )
    labelled = [group for group in twice if len({s.class_index for _, s in group if s.has_class}) > 1]
    if labelled:
        detects = dataset.task == "detection"
        what, which = ("have two lists of boxes", "list") if detects else ("stand under two classes", "label")
        found.warnings.append(f"{len(labelled)} image(s) {what}, e.g. {_pair(*labelled[0][:2])}: one {which} is wrong.")
    within = [group for group in twice if group not in across and group not in labelled]
    if within:
        found.warnings.append(
            f"{sum(len(group) - 1 for group in within)} image(s) are copies of another one of their split, e.g. "
            f"{_pair(*within[0][:2])}: they count twice."
        )


def _is_carved(groups: Sequence[Sequence[tuple[str, Sample]]]) -> bool:
    """Whether files of one folder are in different splits."""
    return any(len({Path(sample.id).parent for _, sample in group}) < len(group) for group in groups)


def _pair(one: tuple[str, Sample], other: tuple[str, Sample]) -> str:
    return f"{one[1].id} ({one[0]}) and {other[1].id} ({other[0]})"


def _near_copies(found: FolderCheck) -> None:
    """Pictures that look alike although their files differ: saved again, scaled, neighbours in a film, mirrored or turned."""
    looks = [look for look in found.looks if look.spread >= BLANK]
    if len(looks) < 2:
        return
    same = saved_again(np.stack([look.bits for look in looks]), np.stack([look.grey for look in looks]))
    detailed = [i for i, look in enumerate(looks) if min(look.size) >= DETAILED]
    close, turned = neighbours(np.asarray([looks[i].patches for i in detailed]))
    same |= {(detailed[i], detailed[j]) for i, j in close}
    pairs = [(looks[i], looks[j]) for i, j in sorted(same) if looks[i].sample.digest != looks[j].sample.digest]
    across = [(a, b) for a, b in pairs if a.split != b.split]
    within = [(a, b) for a, b in pairs if a.split == b.split]
    by_turns = [(looks[detailed[i]], looks[detailed[j]]) for i, j in sorted(turned)]
    by_turns = [(a, b) for a, b in by_turns if a.split != b.split]
    if across:
        found.warnings.append(
            f"{len(across)} pair(s) of images in different splits look alike, e.g. {_seen(*across[0])}: the test may be of "
            "what was trained on. Put all views of one thing into one split."
        )
    if by_turns:
        found.warnings.append(
            f"{len(by_turns)} pair(s) of images in different splits look alike after a turn or mirrored, e.g. "
            f"{_seen(*by_turns[0])}: the test may be of what was trained on. Split the images before you augment them."
        )
    if within:
        found.warnings.append(f"{len(within)} pair(s) of images of one split look alike, e.g. {_seen(*within[0])}.")


def _seen(one: Look, other: Look) -> str:
    return _pair((one.split, one.sample), (other.split, other.sample))


def _counts(found: FolderCheck) -> None:
    dataset = found.dataset
    assert dataset is not None
    what, names = ("boxes" if dataset.task == "detection" else "images"), dataset.class_names
    if not dataset.test:
        found.faults.append(NO_TEST.format(name=dataset.name))
    by_split = {split: per_class(getattr(dataset, split)) for split in SPLITS}
    train = by_split["train"]
    few = [name for i, name in enumerate(names) if 0 < train[i] < FEW_TRAIN]
    if few:
        found.warnings.append(
            f"fewer than {FEW_TRAIN} {what} to train on in {shortened(few)}: nothing can be learned of them."
        )
    counts = [train[i] for i in range(len(names)) if train[i]]
    if counts and max(counts) >= IMBALANCE * min(counts):
        found.warnings.append(
            f"the commonest class has {max(counts)} {what} to train on, the rarest {min(counts)}: read test/accuracy_macro, "
            "which counts classes alike; dataset.shots draws the same number of each."
            if dataset.task != "detection"
            else f"the commonest class has {max(counts)} {what} to train on, the rarest {min(counts)}."
        )
    for split in ("train", "test") if dataset.test else ("train",):
        absent = [name for i, name in enumerate(names) if not by_split[split][i]]
        if absent:
            found.warnings.append(f"no {what} in {split} of {shortened(absent)}.")
    scarce = [name for i, name in enumerate(names) if 0 < by_split["test"][i] < FEW_TEST]
    if scarce:
        found.warnings.append(
            f"fewer than {FEW_TEST} {what} to test on in {shortened(scarce)}: one image more or less moves the result by "
            "a large step."
        )
    count = sum(len(getattr(dataset, split)) for split in SPLITS)
    if dataset.task != "detection" and len(names) > max(10, count / 2):
        found.warnings.append(
            f"{len(names)} classes for {count} images: are {shortened(names[:3])} … classes? If not, name their column with "
            "dataset.label=COLUMN, or the folder that holds their folders."
        )
    several = [name for name in names if len(parts := re.split(r"\s*[,;|]\s*", name)) > 1 and set(parts) <= {*names}]
    if several:
        found.warnings.append(f"{several[0]!r} looks like several classes at once: an image has one class here.")
    alike = Counter(re.sub(r"[\W_]+", "", name.casefold()) for name in names)
    twins = [name for name in names if alike[re.sub(r"[\W_]+", "", name.casefold())] > 1]
    if twins:
        found.warnings.append(
            f"classes that differ by case, blanks or punctuation alone: {shortened(twins)}. Are they one?"
        )
    mute = [name for name in names if SAYS_NOTHING.fullmatch(name)]
    if mute and len(mute) == len(names):
        found.warnings.append(
            f"class names that say nothing to a prompt: {shortened(mute)}. Rename the classes, or write "
            "leakage=data_centric, which does not name them."
        )


def _pictures(found: FolderCheck) -> None:
    looks = found.looks
    _warn(found, "show nothing (one colour)", [x for x in looks if x.spread < BLANK], "Are they placeholders?")
    small = [look for look in looks if min(look.size) < TINY_SIDE]
    _warn(found, f"are smaller than {TINY_SIDE} px", small, "They are enlarged, and blurred.")
    long = [look for look in looks if max(look.size) > 4 * min(look.size)]
    _warn(found, "are more than four times as long as wide", long, "Squashed to a square, they show little.")
    if looks:
        least, _, most = found.sizes
        if most > 8 * least:
            found.warnings.append(
                f"longer sides go from {least} to {most} px: some images are enlarged, others are not."
            )


def _warn(found: FolderCheck, what: str, looks: Sequence[Look], then: str) -> None:
    if looks:
        examples = ", ".join(look.sample.id for look in looks[:SHOWN])
        found.warnings.append(f"{len(looks)} image(s) {what}, e.g. {examples}. {then}")


def _given_away(found: FolderCheck) -> None:
    """Whether the kind of a file tells its class, which a model learns instead of what the images show."""
    looks = [look for look in found.looks if look.sample.label]
    kinds: dict[str, Callable[[Look], object]] = {
        "colour mode": lambda look: look.mode,
        "format": lambda look: look.format,
        "size": lambda look: look.size,
    }
    commonest = _right(looks, lambda look: None)
    for kind, of in kinds.items():
        number = len({of(look) for look in looks})
        if not 2 <= number <= max(8, len(looks) // 10) or commonest == len(looks):
            continue
        right = _right(looks, of)
        if right - commonest >= GIVEN_AWAY * (len(looks) - commonest):
            examples = {}
            for look in looks:
                examples.setdefault(of(look), look.sample.class_index)
            assert found.dataset is not None
            shown = ", ".join(
                f"{_written(value)}: {found.dataset.class_names[index]}"
                for value, index in list(examples.items())[:SHOWN]
            )
            found.warnings.append(
                f"the {kind} of a file tells its class in {right} of {len(looks)} images ({shown}): a model may learn that "
                "instead of what is shown. Save all images alike."
            )


def _right(looks: Iterable[Look], of: Callable[[Look], object]) -> int:
    """Images whose class is the commonest of their kind."""
    counts: dict[object, Counter[int]] = defaultdict(Counter)
    for look in looks:
        counts[of(look)][look.sample.class_index] += 1
    return sum(max(counter.values()) for counter in counts.values())


def _written(value: object) -> str:
    return f"{value[0]} x {value[1]} px" if isinstance(value, tuple) else str(value)


def _boxes(found: FolderCheck, image_size: int) -> None:
    tiny, whole, double = [], [], []
    for look in found.looks:
        boxes = look.sample.boxes
        if boxes is None or not len(boxes.labels):
            continue
        sides = boxes.xyxy[:, 2:] - boxes.xyxy[:, :2]
        scale = image_size / max(look.size)
        if (sides.min(axis=1) * scale < TINY_BOX).any():
            tiny.append(look)
        if (sides.prod(axis=1) >= 0.98 * look.size[0] * look.size[1]).any():
            whole.append(look)
        rows = [(int(label), *xyxy) for label, xyxy in zip(boxes.labels, boxes.xyxy.round().tolist(), strict=True)]
        if len(set(rows)) < len(rows):
            double.append(look)
    _warn(
        found, f"have a box below {TINY_BOX} px at dataset.image_size={image_size}", tiny, "No detector finds it there."
    )
    _warn(found, "have a box around all of the image", whole, "Is it a label of the image?")
    _warn(found, "have the same box twice", double, "Remove one.")
    for split in SPLITS:
        looks = [look for look in found.looks if look.split == split]
        empty = [look for look in looks if not look.sample.has_class]
        if len(empty) > len(looks) / 2:
            _warn(found, f"of {split} have no box", empty, "More than half are background: are label files missing?")
