"""What an experiment on one's own images leaves open is chosen once, said, kept, and gives way to every key."""

import shlex

import numpy as np
import pytest
from PIL import Image

from genaug.api import compose
from genaug.choosing import choose, found_layout
from genaug.core.errors import GenaugError
from genaug.tables.arrangement import collect
from genaug.tables.plan import plan, report_plan
from genaug.tables.spec import read_spec
from genaug.tables.sweep import expand
from tests.conftest import genaug

ITEM = "own/classification"


def photographs(root, count=8):
    for c, name in enumerate(("kite", "tit")):
        (root / name).mkdir(parents=True)
        for i in range(count):
            pixels = np.random.default_rng(100 * c + i).integers(0, 255, (6, 6, 3), dtype=np.uint8)
            Image.fromarray(pixels).resize((70, 50), Image.Resampling.BICUBIC).save(root / name / f"{i}.png")
    return root


def boxes(root, count=8):
    for split in ("train", "test"):
        (root / split / "images").mkdir(parents=True)
        (root / split / "labels").mkdir()
        for i in range(count):
            pixels = np.random.default_rng(i + 50 * (split == "test")).integers(0, 255, (40, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / split / "images" / f"{i}.png")
            (root / split / "labels" / f"{i}.txt").write_text("0 0.5 0.5 0.4 0.4")
    (root / "data.yaml").write_text("train: train/images\ntest: test/images\nnames: [cat]\n")
    return root


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    place = tmp_path_factory.mktemp("own")  # one for all: the prior looks at the images once
    return [f"dataset.root={photographs(place / 'my birds')}", f"paths.outputs_dir={place / 'outputs'}"]


def chosen(words, item=ITEM):
    return dict(text.split("=", 1) for text in choose(item, words).overrides)


@pytest.mark.slow
def test_the_runs_have_what_was_chosen_and_keys_of_the_command_line_win(own):
    found = chosen(own)
    assert found["dataset"] == "image_folder" and found["dataset.image_size"] == "64" and found["mix.m"] == "10"
    assert "generator.t0" in found and "downstream.num_steps" in found
    sweep = expand(ITEM, [*own, "mix.m=3", "seed=0"])
    configs = [cell.config for cell in sweep.cells]
    assert {c.mix.m for c in configs} == {3} and {c.dataset.image_size for c in configs} == {64}
    assert {str(c.generator.t0) for c in configs if c.generator.name == "real_guidance"} == {found["generator.t0"]}
    assert {c.downstream.num_steps for c in configs} == {int(found["downstream.num_steps"])}
    single = compose([f"experiment={ITEM}", *own])
    assert single.mix.m == 10 and single.dataset.name == "my birds"


@pytest.mark.slow
def test_the_plan_says_what_was_chosen_and_why(own):
    said = report_plan(plan(expand(ITEM, [*own, "seed=0"]), read_spec(ITEM)), "h100")
    assert "the median image has 70 px" in said and "settings.yaml" in said and "mix.m=10" in said


@pytest.mark.slow
def test_settings_are_kept_in_a_file_that_may_be_changed_for_a_data_set_and_its_draw(own):
    file = choose(ITEM, own).file
    text = file.read_text()
    file.write_text(text.replace("mix.m=10", "mix.m=4"))
    assert chosen(own)["mix.m"] == "4"
    assert choose(ITEM, [*own, "dataset.shots=2"]).file != file
    file.write_text("settings: 7")
    with pytest.raises(GenaugError, match=r"settings\.yaml cannot be read"):
        choose(ITEM, own)
    file.unlink()
    assert choose(ITEM, own).file.read_text() == text


@pytest.mark.slow
def test_a_verdict_before_any_run_says_what_to_run(own):
    root, outputs = own[0], own[1].partition("=")[2]
    said = genaug("verdict", ITEM, root, "--outputs", outputs, code=2)
    assert f"is complete below {outputs}. Run it first: python train.py -m experiment={ITEM}" in said


@pytest.mark.slow
def test_a_table_on_ones_own_images_is_the_whole_thing_unless_a_preset_shrinks_it(own):
    spec = read_spec(ITEM)
    assert not collect(expand(ITEM, [*own, "mix.m=3"]), spec).reduced
    assert collect(expand(ITEM, [*own, "preset=smoke"]), spec).reduced


def test_a_preset_keeps_its_own_values(own):
    assert not {"downstream", "downstream.num_steps", "mix.m", "dataset.shots"} & chosen([*own, "preset=smoke"]).keys()
    smoke = expand(ITEM, [*own, "preset=smoke"])
    assert {cell.config.mix.m for cell in smoke.cells} == {2} and {cell.state for cell in smoke.cells} == {"missing"}
    assert {cell.config.dataset.image_size for cell in smoke.cells} == {64}


def test_a_setting_that_no_method_of_the_command_line_has_is_left_out(own, tmp_path):
    assert "generator.t0" in chosen([*own, "generator=none,real_guidance"])
    words = [*own, "generator=none,folder", f"generator.root={tmp_path}"]
    assert "generator.t0" not in chosen(words) and "mix.m" in chosen(words)
    assert "generator.t0" in chosen([*own, "generator=none,unheard_of"])  # which is said where it is composed


def test_a_folder_with_boxes_is_read_as_it_is_and_goes_to_the_other_experiment(tmp_path):
    words = [f"dataset.root={boxes(tmp_path / 'mine')}", f"paths.outputs_dir={tmp_path / 'outputs'}"]
    found = chosen(words, "own/detection")
    assert found["dataset"] == "yolo" and found["downstream"] == "detector_tiny" and "generator.t0" not in found
    with pytest.raises(GenaugError, match="write experiment=own/detection"):
        choose(ITEM, words)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "write dataset.root=FOLDER"),
        (["dataset.root=a,b"], "one data set"),
        (["dataset.root=/nowhere"], "/nowhere"),
    ],
)
def test_what_cannot_be_chosen_from_is_explained(words, said, tmp_path):
    with pytest.raises(GenaugError, match=said):
        choose(ITEM, [*words, f"paths.outputs_dir={tmp_path}"])


def test_a_prior_that_is_not_here_leaves_the_strength_to_the_methods_and_keeps_nothing(own, tmp_path):
    found = choose(ITEM, [*own, f"prior.path={tmp_path / 'absent'}"])
    assert "generator.t0" in found.note and found.file is None
    assert not any(text.startswith("generator.t0") for text in found.overrides) and found.overrides


def test_experiments_that_state_their_settings_are_left_alone():
    assert choose("demo/compare", ["seed=0"]).overrides == []


def test_class_names_that_a_refusal_asks_for_are_taken(tmp_path):
    for name in ("disc", "grün & blau"):
        for day in ("monday", "tuesday"):
            photographs(tmp_path / name / day, count=1)
    with pytest.raises(GenaugError, match="lie in further folders") as refused:
        found_layout(tmp_path, [])
    (word,) = shlex.split(str(refused.value).rpartition("are, write ")[2].removesuffix("."))
    words = [f"dataset.root={tmp_path}", word]
    read = compose([f"dataset={found_layout(tmp_path, words).preset}", *words]).dataset.read()
    assert read.class_names == ("disc", "grün & blau") and len(read.train) + len(read.val) + len(read.test) == 8


def test_a_table_that_a_refusal_asks_for_is_taken(tmp_path):
    photographs(tmp_path)
    rows = [f"{name}/{i}.png,{name}" for name in ("kite", "tit") for i in range(8)]
    for file in ("one.csv", "two.csv"):
        (tmp_path / file).write_text("\n".join(["picture,bird", *rows]))
    (tmp_path / "kite").rename(tmp_path / "more")
    (tmp_path / "more").rename(tmp_path / "tit" / "kite")  # no class folders
    (tmp_path / "one.csv").write_text("\n".join(["picture,bird", *rows]).replace("kite/", "tit/kite/"))
    with pytest.raises(GenaugError, match=r"holds one\.csv, two\.csv: .*dataset\.table=FILE"):
        found_layout(tmp_path, [])
    assert set(found_layout(tmp_path, ["dataset.table=one.csv"]).overrides) == {
        "dataset.image=picture",
        "dataset.label=bird",
    }


def test_a_column_of_splits_is_taken_for_them_whatever_it_is_called(tmp_path):
    photographs(tmp_path / "kind")
    rows = [
        f"kind/{name}/{i}.png,{name},{('train', 'valid', 'test')[i % 3]}" for name in ("kite", "tit") for i in range(8)
    ]
    (tmp_path / "birds.csv").write_text("\n".join(["picture,bird,fold", *rows]))
    layout = found_layout(tmp_path, ["dataset.table=birds.csv"])
    words = [f"dataset={layout.preset}", *layout.overrides, f"dataset.root={tmp_path}"]
    read = compose(words).dataset.read()
    assert (len(read.train), len(read.val), len(read.test)) == (6, 6, 4) and read.class_names == ("kite", "tit")
