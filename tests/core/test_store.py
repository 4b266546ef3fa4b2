import errno
import json
import multiprocessing
import os
import shutil
import signal
import time
from pathlib import Path

import pytest
from PIL import Image, PngImagePlugin

from genaug.core.errors import GenaugError
from genaug.core.files import PARTIAL, read_json, write_json
from genaug.core.store import Store, check_writable


def make_slowly(root: Path, log: Path) -> None:
    def make(work: Path) -> dict:
        with log.open("a") as file:
            file.write("made\n")
        time.sleep(0.5)
        (work / "weights.txt").write_text("w")
        return {}

    Store(root).folder("fitted", "thing", "f" * 16, make)


def test_two_processes_that_ask_for_one_artefact_make_it_once(tmp_path):
    log = tmp_path / "log"
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=make_slowly, args=(tmp_path / "store", log)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    assert log.read_text() == "made\n"


def test_an_interrupted_attempt_is_resumed_and_nothing_half_made_is_published(tmp_path):
    store = Store(tmp_path)

    def interrupted(work: Path) -> dict:
        (work / "step-1").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.folder("fitted", "thing", "a" * 16, interrupted)
    assert not (tmp_path / "fitted" / f"thing-{'a' * 16}").exists()

    def resumed(work: Path) -> dict:
        assert (work / "step-1").read_text() == "half"
        return {"steps": 2}

    folder, made = store.folder("fitted", "thing", "a" * 16, resumed)
    assert made
    assert read_json(folder / "artefact.json")["steps"] == 2
    again, made = store.folder("fitted", "thing", "a" * 16, interrupted)
    assert again == folder and not made


def test_the_rest_of_a_checkpoint_in_whose_middle_an_attempt_was_killed_is_no_part_of_the_artefact(tmp_path):
    store = Store(tmp_path)

    def killed(work: Path) -> dict:
        (work / "checkpoints").mkdir()
        (work / "checkpoints" / f".resume.pt.host-1-2-3{PARTIAL}").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.folder("fitted", "thing", "a" * 16, killed)

    def resumed(work: Path) -> dict:
        (work / "weights").write_text("w")
        return {}

    folder, _ = store.folder("fitted", "thing", "a" * 16, resumed)
    assert read_json(folder / "artefact.json")["files"] == {"weights": 1}
    assert list(folder.rglob(f"*{PARTIAL}")) == []  # genaug gc would remove it, and the artefact would count as damaged


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda path: path.write_bytes(b"123"), "weights has 3 bytes instead of 8"),
        (lambda path: path.write_bytes(b"12345679"), "the content of weights has changed"),
        (lambda path: path.unlink(), "weights is missing"),
    ],
)
def test_an_artefact_whose_file_is_damaged_is_made_again(tmp_path, capsys, damage, said):
    store = Store(tmp_path)

    def make(work: Path) -> dict:
        (work / "weights").write_bytes(b"12345678")
        return {}

    folder, _ = store.folder("fitted", "thing", "b" * 16, make)
    for _ in range(2):  # the second time after it was found whole
        damage(folder / "weights")
        assert store.folder("fitted", "thing", "b" * 16, make) == (folder, True)
        assert (folder / "weights").read_bytes() == b"12345678"
        assert store.folder("fitted", "thing", "b" * 16, make) == (folder, False)
    assert said in capsys.readouterr().err


def test_an_image_carries_its_metadata_and_a_damaged_one_is_named(tmp_path):
    store = Store(tmp_path)
    path = store.image_path("c" * 16)
    store.put_image("c" * 16, Image.new("RGB", (8, 8), "red"), {"t0": 0.5})
    assert store.known(["c" * 16]) == {"c" * 16} and store.about_image("c" * 16)["t0"] == 0.5
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(GenaugError, match=path.name):
        store.about_image("c" * 16)


@pytest.mark.parametrize("about", [b"", b"{}", b"[]", b'{"fingerprint": "b", "files": {"weights": "x"}}', bytes(256)])
def test_an_artefact_whose_description_is_damaged_is_made_again(tmp_path, about):
    store = Store(tmp_path)

    def make(work: Path) -> dict:
        (work / "weights").write_bytes(b"12345678")
        return {}

    folder, _ = store.folder("fitted", "thing", "b" * 16, make)
    (folder / "artefact.json").write_bytes(about)
    assert store.folder("fitted", "thing", "b" * 16, make) == (folder, True)
    assert store.folder("fitted", "thing", "b" * 16, make) == (folder, False)


def test_an_image_whose_pixels_are_not_those_published_is_named(tmp_path):
    store = Store(tmp_path)
    path, other = store.image_path("e" * 16), store.image_path("f" * 16)
    store.put_image("e" * 16, Image.new("RGB", (8, 8), "red"), {"t0": 0.5})
    store.put_image("f" * 16, Image.new("RGB", (8, 8), "blue"), {"t0": 0.5})
    with Image.open(path) as image, Image.open(other) as changed:
        chunk = PngImagePlugin.PngInfo()
        chunk.add_text("genaug", image.text["genaug"])
        changed.save(path, format="PNG", pnginfo=chunk)
    with pytest.raises(GenaugError, match=f"{path.name} is damaged .its pixels have changed"):
        store.about_image("e" * 16)
    shutil.copy(other, path)
    with pytest.raises(GenaugError, match=f"{path.name} is damaged .it is the image {'f' * 16}"):
        store.about_image("e" * 16)


def test_whoever_waits_is_told_who_holds_the_lock_and_gives_up_in_time(tmp_path):
    said: list[str] = []
    with (
        Store(tmp_path).lock("a" * 16),
        pytest.raises(GenaugError, match=rf"after 0.3 s: process {os.getpid()} on .*, since 20.*paths.lock_timeout"),
        Store(tmp_path, lock_timeout=0.3).lock("a" * 16, said.append),
    ):
        raise AssertionError("two hold one lock")
    assert f"process {os.getpid()} on" in said[0]


def hold_and_die(root: Path) -> None:
    with Store(root).lock("a" * 16):
        os.kill(os.getpid(), signal.SIGKILL)


def test_the_lock_of_a_process_that_was_killed_is_free(tmp_path):
    process = multiprocessing.get_context("fork").Process(target=hold_and_die, args=(tmp_path,))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL and (tmp_path / "locks" / f"{'a' * 16}.owner").exists()
    with Store(tmp_path, lock_timeout=0.1).lock("a" * 16, pytest.fail):
        pass
    assert not (tmp_path / "locks" / f"{'a' * 16}.owner").exists()


def test_a_full_disk_leaves_no_image_behind(tmp_path, monkeypatch):
    store = Store(tmp_path)

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        store.put_image("d" * 16, Image.new("RGB", (8, 8)), {})
    assert store.known(["d" * 16]) == set()


def test_a_reader_never_sees_half_a_json_file(tmp_path, monkeypatch):
    path = tmp_path / "result.json"
    write_json(path, {"a": 1})

    def crash(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", crash)
    with pytest.raises(KeyboardInterrupt):
        write_json(path, {"a": 2})
    assert json.loads(path.read_text()) == {"a": 1}


def test_a_folder_that_cannot_be_written_is_said_before_any_work(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(GenaugError, match=r"paths\.outputs_dir"):
        check_writable(tmp_path / "file" / "outputs")


@pytest.mark.parametrize("change", [("1.25", "1.26"), ('"a.txt"', '"b.txt"'), ("learned", "learnt")])
def test_any_change_of_what_is_said_of_an_artefact_is_found_and_made_again(tmp_path, change):
    def learn(work):
        (work / "a.txt").write_text("x")
        return {"loss": 1.25, "note": "learned"}

    store = Store(tmp_path)
    folder, _ = store.folder("fitted", "tokens", "a" * 16, learn)
    about = (folder / "artefact.json").read_text()
    assert change[0] in about
    (folder / "artefact.json").write_text(about.replace(*change))
    _, is_new = store.folder("fitted", "tokens", "a" * 16, learn)
    assert is_new and (folder / "artefact.json").read_text() == about
