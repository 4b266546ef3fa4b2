"""Pools of finished runs: which pool a word means, and real data that are those that the run read."""

from dataclasses import asdict

import pytest

from genaug.composition import compose_typed
from genaug.core.errors import GenaugError
from genaug.runs.pools import dataset_of, find_pool, find_run, pool_of
from tests.runs.finished_run import write_finished


def test_real_data_are_what_the_run_read_whatever_the_preset_says_now():
    """A preset edited after the run: the stored configuration counts."""
    config = asdict(compose_typed(["dataset=digits"]))
    config["dataset"]["image_size"] = 48
    dataset = dataset_of({"cell": "c", "source": "dataset/digits", "config": config})
    assert dataset.train[0].open().size == (48, 48)


def test_a_word_that_means_several_pools_is_answered_with_their_list(tmp_path):
    for i, pool in enumerate(("aaaa000011112222", "aaab000011112222")):
        write_finished(tmp_path / "runs" / f"digits_{i}-{pool}", pool=pool)
    write_finished(tmp_path / "runs" / "digits_2-aaac000011112222")  # without generated images
    with pytest.raises(
        GenaugError, match=r"may mean 2 pools.*more of its run.s name.*\n  aaaa0000.*digits_0.*\n  aaab0000.*digits_1"
    ):
        find_pool(tmp_path, "aaa", 4)
    with pytest.raises(GenaugError, match=r"has a pool 'zzz'\. Pools:\n  aaa"):
        find_pool(tmp_path, "zzz", 4)
    assert find_run(tmp_path, "dig*_1")["pool"].startswith("aaab")
    for path in ("data/dig*_1", "/data/dig/*_1", "outputs/runs/digits_1"):
        assert find_run(tmp_path, path)["pool"].startswith("aaab")
    with pytest.raises(GenaugError, match=r"digits_0-aaaa0000.*Run its command again"):
        find_pool(tmp_path, "aaaa", 4)  # one pool; what it says of its data set is not enough


def test_images_that_were_removed_are_told_with_what_makes_them_again(tmp_path):
    config = asdict(compose_typed(["dataset=digits"]))
    about = {"cell": "c", "source": "dataset/digits", "config": config, "pool": "aaaa000011112222"}
    result = {**about, "overrides": ["task=train", "generator=real_guidance", "generator.prompt='a b'"]}
    with pytest.raises(
        GenaugError, match=r"The images of c are no longer .*: genaug run task=generate generator=real_guidance 'gen"
    ):
        pool_of(tmp_path, result, 4)


def test_a_result_of_somebody_else_chooses_among_our_data_sets_alone():
    config = asdict(compose_typed(["dataset=digits"]))
    config["dataset"]["name"] = "${oc.env:HOME}"
    dataset = dataset_of({"cell": "c", "source": "dataset/digits", "config": config})
    assert dataset.name == "${oc.env:HOME}"  # a name like any other: nothing is worked out
    config["dataset"]["_target_"] = "os.system"
    for source in ("dataset/digits", "subprocess.run", "dataset/unheard"):
        with pytest.raises(GenaugError, match=r"c/result\.json names a data set that this project does not have"):
            dataset_of({"cell": "c", "source": source, "config": config})


def test_a_result_of_somebody_else_runs_no_command(tmp_path):
    pytest.importorskip("webdataset", reason="the extra webdataset is not installed")
    config = asdict(compose_typed(["dataset=webdataset", "dataset.train=a.tar"]))
    config["dataset"]["train"] = f"pipe:touch {tmp_path}/ran"
    with pytest.raises(GenaugError, match="pipe:"):
        dataset_of({"cell": "c", "source": "dataset/webdataset", "config": config})
    assert not (tmp_path / "ran").exists()


def test_the_folders_of_many_runs_are_listed_once(tmp_path, monkeypatch):
    import os

    from genaug.runs.collection import run_folders

    runs = tmp_path / "runs"
    for i in range(30):
        write_finished(runs / f"digits_s{i}-{i:016x}")
    listed = []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: listed.append(path) or scandir(path))
    assert {run_folders(runs)[f"{i:016x}"].name for i in range(30)} == {f"digits_s{i}-{i:016x}" for i in range(30)}
    assert listed == [runs]
    assert run_folders(tmp_path / "nothing") == {}


def test_real_images_that_have_moved_are_told_with_the_run_that_needs_them():
    config = asdict(compose_typed(["dataset=image_folder", "dataset.root=gone"]))
    with pytest.raises(
        GenaugError, match=r"real images of c cannot be read: dataset\.root=gone is not a folder\. Put them back"
    ):
        dataset_of({"cell": "c", "source": "dataset/image_folder", "config": config})
