from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pytest

from genaug.core.identity import (
    DRAWN,
    FIT,
    NOT_IDENTITY,
    canonical,
    canonical_text,
    fingerprint,
    fingerprints_of,
    identified,
)
from genaug.core.seeding import choice, derive, uniform
from genaug.downstream.classification.config import Classifier
from genaug.downstream.detection.config import Detector
from genaug.evaluation.filters import ClipMargin
from genaug.priors.config import PriorConfig


@identified("Thing")
@dataclass(kw_only=True, slots=True)
class Thing:
    name: str = field(default="a", metadata=NOT_IDENTITY)
    learned: int = field(default=1, metadata=FIT)
    law: Any = field(default=0.5, metadata=DRAWN)
    guidance: float = 7.5
    version: ClassVar[int] = 1


@identified("NewerThing")
@dataclass(kw_only=True, slots=True)
class NewerThing(Thing):
    version: ClassVar[int] = 2


def test_golden_fingerprints_do_not_drift():
    # a change here gives every stored image and result a new identity: bump a component's version instead
    assert fingerprint({"b": 1, "a": [1.5, None, True]}) == "130168063cf91593"
    assert fingerprint(Thing()) == "722760d29c32ad9a"


def test_what_cannot_change_a_result_is_not_identity():
    assert fingerprint(Thing(name="x")) == fingerprint(Thing(name="y"))
    assert fingerprint(Thing(guidance=3)) != fingerprint(Thing())


def test_an_integral_float_is_the_same_number():
    assert fingerprint(Thing(guidance=7)) == fingerprint(Thing(guidance=7.0))


def test_stages_keep_fit_and_sampling_apart():
    assert set(canonical(Thing(), stage="fit")) == {"component", "version", "learned"}
    assert set(canonical(Thing(), stage="sample")) == {"component", "version", "guidance"}
    assert set(canonical(Thing())) == {"component", "version", "learned", "law", "guidance"}


def test_a_new_version_is_a_new_identity():
    changed = canonical(NewerThing()) | {"component": "Thing"}
    assert changed != canonical(Thing())
    assert changed | {"version": 1} == canonical(Thing())


def test_an_identity_hangs_on_the_stated_name_and_not_on_the_name_of_the_class():
    @identified("Thing")
    @dataclass(kw_only=True, slots=True)
    class Renamed(Thing):
        pass

    @dataclass(kw_only=True, slots=True)
    class Unnamed(Thing):
        pass

    assert fingerprint(Renamed()) == fingerprint(Thing())
    with pytest.raises(TypeError, match="without a name"):
        fingerprint(Unnamed())


def test_order_of_keys_does_not_matter_and_order_of_parts_does():
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
    assert fingerprint("a", "b") != fingerprint("b", "a")


def test_what_has_no_canonical_form_is_refused():
    with pytest.raises(TypeError, match="no canonical form"):
        fingerprint(object())
    with pytest.raises(ValueError):
        fingerprint(float("nan"))


PATHS: dict[str, Callable[[str], Any]] = {
    "prior.lora_path": lambda path: PriorConfig(lora_path=path, image_size=32).identity(),
    "prior.vae_path": lambda path: PriorConfig(vae_path=path, image_size=32).identity(),
    "classifier.weights_path": lambda path: Classifier(mode="finetune", weights_path=path, seed=0, image_size=32),
    "detector.weights_path": lambda path: Detector(
        architecture="fcos", weights="coco", weights_path=path, seed=0, image_size=32
    ),
    "clip.path": lambda path: ClipMargin(path=path),
}


@pytest.mark.parametrize("key", PATHS)
def test_files_and_folders_of_weights_count_by_content_and_not_by_place(key: str, tmp_path: Path):
    identity = lambda path: fingerprint(PATHS[key](str(path)))
    for name, content in (("a", "weights"), ("b", "weights"), ("other", "others")):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.safetensors").write_text(content)
        (tmp_path / name / "folder" / "unet").mkdir(parents=True)
        (tmp_path / name / "folder" / "unet" / "model.safetensors").write_text(content)
    file = lambda name: tmp_path / name / f"{name}.safetensors"
    assert identity(file("a")) == identity(file("b")) != identity(file("other"))
    assert identity(tmp_path / "a" / "folder") == identity(tmp_path / "b" / "folder")
    assert identity(tmp_path / "a" / "folder") != identity(tmp_path / "other" / "folder")
    assert identity("owner/model@1") != identity("owner/model@2")

    before = identity(file("a"))
    file("a").write_text("weights of another training")
    assert identity(file("a")) != before


def test_golden_seeds_do_not_drift():
    assert derive("image", "noise") == 532828948343160110
    assert 0 <= derive("anything") < 2**63


def test_words_of_a_seed_cannot_run_together():
    assert derive("ab", "c") != derive("a", "bc")
    assert derive("a", "b") != derive("b", "a")


def test_uniform_numbers_and_choices_are_uniform():
    values = [uniform("u", i) for i in range(4000)]
    assert abs(sum(values) / 4000 - 0.5) < 4 / (12 * 4000) ** 0.5  # four standard errors
    counts = [0] * 5
    for i in range(4000):
        counts[choice(5, "c", i)] += 1
    assert all(abs(count - 800) < 4 * (4000 * 0.2 * 0.8) ** 0.5 for count in counts)


def test_what_many_fingerprints_share_is_hashed_once_and_changes_none():
    shared = ("fitted", {"digest": "d", "label": {1: 0.5}}, ["a", "b"])
    end = fingerprints_of(*shared)
    for draws, index in (({"t0": 1.0}, 0), ({}, 12), ({"prompt": 'a "photo", of'}, 3)):
        assert end(f"{canonical_text(draws)},{index}".encode()) == fingerprint(*shared, draws, index)
