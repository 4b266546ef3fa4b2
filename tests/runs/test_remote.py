"""A place that several machines share: what is pushed arrives whole, is found again, and cut connections cost a repetition."""

import hashlib
import json
import shutil
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from genaug.core.errors import GenaugError
from genaug.core.files import write_text
from genaug.core.shards import IMAGES, Writer
from genaug.core.store import Store, is_whole
from genaug.data.packed import shards_of
from genaug.data.pool import ACCEPTED, manifest_rows, read_pool
from genaug.generators import forms
from genaug.runs import remote
from genaug.runs.collection import read_result
from genaug.runs.items import Item
from genaug.runs.remote import Remote, differences, pull, push, text_of, version_of
from genaug.runs.verification import verify
from tests.conftest import genaug
from tests.generators.test_publishing import Noise, Picky, build, dataset
from tests.runs.finished_run import write_finished


class Flaky(MemoryFileSystem):
    """A memory file system whose connection may be cut: requests after ``left`` fail, a write among them arrives in half."""

    protocol = "flaky"
    store: dict = {}
    pseudo_dirs = [""]
    left = 10**9

    def _count(self):
        type(self).left -= 1
        if type(self).left < 0:
            raise ConnectionResetError("connection reset by peer")

    def pipe_file(self, path, value, mode="overwrite", **kwargs):
        try:
            self._count()
        except ConnectionResetError:
            super().pipe_file(path, value[: len(value) // 2])
            raise
        super().pipe_file(path, value)

    def cat_file(self, path, start=None, end=None, **kwargs):
        self._count()
        return super().cat_file(path, start, end)

    def info(self, path, **kwargs):
        self._count()
        return super().info(path)


fsspec.register_implementation("flaky", Flaky, clobber=True)


@pytest.fixture
def url(monkeypatch):
    """An empty place with a good connection."""
    monkeypatch.setattr(remote, "AGAIN", (0.0, 0.0))
    Flaky.store, Flaky.pseudo_dirs, Flaky.left = {}, [""], 10**9
    Flaky.clear_instance_cache()
    return "flaky://place/shared"


def made(outputs: Path, name="digits_none-00000000000000aa", m=3) -> Path:
    """Outputs with a run, an artefact and two pools, one with rejected images."""
    store = Store(outputs / "store")
    write_finished(outputs / "runs" / name, metrics={"m": 0.5})
    (outputs / "runs" / name / "checkpoints").mkdir()
    write_text(outputs / "runs" / name / "checkpoints" / "resume.ckpt", "x" * 1000)

    def fit(work):
        write_text(work / "tokens" / "a.txt", "learned")
        return {"loss": 1.0}

    store.folder("fitted", "tokens", "00000000000000bb", fit)
    build(store, Noise(seed=0), dataset(), m)
    build(store, Picky(seed=0), dataset(), 2)
    forms._seen.clear()
    return outputs


def states(copied) -> dict[str, str]:
    return {f"{item.kind}/{item.name}": state for item, state in copied}


def content(outputs: Path) -> dict[str, bytes]:
    """Every file that counts."""
    kept = (p for p in outputs.rglob("*") if p.is_file() and not {"locks", "checkpoints"} & set(p.parts))
    return {path.relative_to(outputs).as_posix(): path.read_bytes() for path in kept}


def test_what_is_pushed_by_one_machine_is_pulled_whole_by_another_and_repeating_copies_nothing(tmp_path, url):
    here, there = made(tmp_path / "here"), tmp_path / "there"
    assert all(state.startswith("pushed") for state in states(push(here, Remote(url))).values())
    assert set(states(push(here, Remote(url))).values()) == {"there already"}
    assert len(states(pull(there, Remote(url)))) == 4
    assert content(there) == content(here)
    assert set(states(pull(there, Remote(url))).values()) == {"here already"}
    assert verify(there)[1] == [] and read_result(there / "runs" / "digits_none-00000000000000aa")
    assert {state for *_, state in differences(there, Remote(url))} == {"same"}
    assert not any("resume.ckpt" in path for path in Flaky.store)
    pool = build(Store(there / "store"), Noise(seed=0), dataset(), 3)
    assert pool.counts["images_generated"] == 0, "what was pulled is used"


@pytest.mark.parametrize("kept", [0, 1, 5, 17, 40, 75])
def test_connections_that_are_cut_leave_nothing_half_and_the_same_command_goes_on(tmp_path, url, kept):
    here, there = made(tmp_path / "here"), tmp_path / "there"
    Flaky.left = kept
    with pytest.raises(GenaugError, match=r"flaky://place/shared does not answer .*goes on where it stopped"):
        states(push(here, Remote(url)))
    Flaky.left = 10**9
    before = {path for path in Flaky.store if "/objects/" in path and not path.endswith(".partial")}
    assert all(object_is_whole(path) for path in before)
    states(push(here, Remote(url)))
    Flaky.left = kept // 3  # it asks for less
    with pytest.raises(GenaugError, match="does not answer"):
        states(pull(there, Remote(url)))
    assert verify(there)[1] == []
    Flaky.left = 10**9
    assert not [state for state in states(pull(there, Remote(url))).values() if state.startswith("damaged")]
    assert content(there) == content(here)


def object_is_whole(path: str) -> bool:
    return hashlib.sha256(Flaky.store[path].getvalue()).hexdigest() == Path(path).name


def test_several_machines_push_into_one_place_and_every_one_gets_all(tmp_path, url):
    """Also the same pool in two sizes, and one run made twice, whose versions both stay."""
    small, large = made(tmp_path / "a", m=2), made(tmp_path / "b", name="digits_none-00000000000000cc", m=4)
    write_finished(small / "runs" / "twice-00000000000000dd", metrics={"m": 1.0})
    write_finished(large / "runs" / "twice-00000000000000dd", metrics={"m": 2.0})
    states(push(large, Remote(url)))
    states(push(small, Remote(url)))
    for outputs in (small, large, tmp_path / "c"):
        states(pull(outputs, Remote(url)))
        assert verify(outputs)[1] == []
        assert len(read_runs(outputs)) == 3
        pool = Store(outputs / "store").pools()
        assert sorted(len(manifest_rows(folder)) for folder in pool) == [8, 16]
    assert read_runs(small)["twice-00000000000000dd"] == 1.0 and read_runs(large)["twice-00000000000000dd"] == 2.0
    twice = [path for path in Flaky.store if "items/runs/twice" in path]
    assert len(twice) == 2
    found = {name: state for _, name, state in differences(tmp_path / "c", Remote(url))}
    assert set(found.values()) == {"same"}


def read_runs(outputs: Path) -> dict[str, float]:
    return {
        path.parent.name: json.loads(path.read_text())["metrics"]["m"] for path in outputs.glob("runs/*/result.json")
    }


def test_differences_say_on_which_side_something_is(tmp_path, url):
    here, there = made(tmp_path / "here"), made(tmp_path / "there", name="other-00000000000000cc")
    states(push(here, Remote(url), ["digits_none", "tokens"]))
    write_finished(there / "runs" / "digits_none-00000000000000aa", metrics={"m": 9.0})
    found = {name: state for _, name, state in differences(there, Remote(url))}
    assert found["digits_none-00000000000000aa"] == "differs" and found["other-00000000000000cc"] == "only here"
    assert found["tokens-00000000000000bb"] == "same"
    shutil.rmtree(there / "store")
    assert {n: s for _, n, s in differences(there, Remote(url))}["tokens-00000000000000bb"] == "only there"


def test_what_is_damaged_here_is_not_pushed_and_what_is_damaged_there_is_not_taken(tmp_path, url):
    here, there = made(tmp_path / "here"), tmp_path / "there"
    (here / "store/fitted/tokens-00000000000000bb/tokens/a.txt").write_text("LEARNED")
    found = states(push(here, Remote(url)))
    assert found["fitted/tokens-00000000000000bb"].startswith("damaged: the content of tokens/a.txt")
    assert sum(state.startswith("pushed") for state in found.values()) == 3
    [target] = [path for path in Flaky.store if "/objects/" in path and b'"metrics"' in Flaky.store[path].getvalue()]
    Flaky.store[target].seek(0)
    Flaky.store[target].write(b"[")
    found = states(pull(there, Remote(url)))
    assert found["runs/digits_none-00000000000000aa"].startswith("damaged: ") and read_runs(there) == {}
    assert sum(state.startswith("pulled") for state in found.values()) == 2


@pytest.mark.parametrize("checked", [False, True])
def test_what_arrives_there_as_something_else_is_never_named(tmp_path, url, monkeypatch, checked):
    here, place = made(tmp_path / "here"), Remote(url)
    place.checked = checked  # whether the server itself compares what arrives, so that a look at the length does
    monkeypatch.setattr(
        Flaky, "pipe_file", lambda self, path, value, **_: MemoryFileSystem.pipe_file(self, path, value[:-1])
    )
    with pytest.raises(GenaugError, match=r"does not answer .*(is not what was sent|have arrived)"):
        states(push(here, place))
    assert not any("/items/" in path for path in Flaky.store)
    assert checked or all("partial" in path for path in Flaky.store)


def test_half_an_object_that_lies_there_is_sent_again(tmp_path, url):
    here, there = made(tmp_path / "here"), tmp_path / "there"
    states(push(here, Remote(url)))
    for path in [path for path in Flaky.store if "/items/" in path]:
        Flaky.store.pop(path)
    target = next(path for path in Flaky.store if "/objects/" in path)
    Flaky.store[target].truncate(1)
    states(push(here, Remote(url)))
    assert not [state for state in states(pull(there, Remote(url))).values() if state.startswith("damaged")]
    assert content(there) == content(here)


def test_an_item_under_the_name_of_another_is_not_taken(tmp_path, url):
    here, there = made(tmp_path / "here"), tmp_path / "there"
    states(push(here, Remote(url)))
    for name, other in (
        ("digits_none-00000000000000aa", "digits_none-00000000000000ab"),
        ("tokens-00000000000000bb",) * 2,
    ):
        for path in [path for path in Flaky.store if f"/{name}/" in path]:
            Flaky.store[path.replace(name, other.replace("bb", "bc"))] = Flaky.store.pop(path)
    found = states(pull(there, Remote(url)))
    for name in ("runs/digits_none-00000000000000ab", "fitted/tokens-00000000000000bc"):
        assert "is not what its name says" in found[name]
        assert not (there / name).exists() and not (there / "store" / name).exists()


@pytest.mark.parametrize(
    "name", ["../../../evil.txt", "/tmp/evil.txt", "a/../../evil.txt", "..\\evil.txt", "C:evil", "a//b", ""]
)
def test_no_file_of_a_foreign_place_lands_outside_its_folder(tmp_path, url, name):
    files = {name: {"sha256": "0" * 64, "size": 3}}
    place = Remote(url)
    path = f"{place.root}/items/runs/r-00000000000000aa/{version_of(files)}.json"
    place.files.pipe_file(path, remote.text_of(files).encode())
    [(_, state)] = pull(tmp_path / "outputs", Remote(url))
    assert "damaged" in state and "is no name of a file in its folder" in state
    assert not list(tmp_path.rglob("*evil*"))


@pytest.mark.parametrize("kind", ["..", "Runs", "a.b"])
def test_no_item_of_a_foreign_place_lands_outside_the_outputs(tmp_path, url, kind, monkeypatch):
    files = {"a": {"sha256": "0" * 64, "size": 3}}
    place = Remote(url)
    found = {(kind, "x"): [f"{place.root}/items/{kind}/x/{version_of(files)}.json"]}
    monkeypatch.setattr(place, "versions", lambda: found)
    [(_, state)] = pull(tmp_path / "outputs", place)
    assert "is no name of an item" in state


def test_lines_of_a_foreign_manifest_that_name_other_files_are_refused(tmp_path):
    store = Store(tmp_path)
    pool = build(store, Noise(seed=0), dataset(), 1)
    row = manifest_rows(pool.folder)[0]
    for wrong in ({"file_name": "../x.png"}, {"fingerprint": "../../x"}, {"index": "1"}):
        with pytest.raises(GenaugError, match="has a line that is none of a pool"):
            forms.adopt(store, pool.folder, [{**row, "source_id": "new", **wrong}])


def test_a_version_that_was_changed_there_is_not_read(url):
    place, files = Remote(url), {"a": {"sha256": "0" * 64, "size": 3}}
    path = f"{place.root}/items/runs/x/{version_of(files)}.json"
    place.files.pipe_file(path, text_of(files).encode())
    assert place.read(path) == files
    place.files.pipe_file(path, text_of({"a": {"sha256": "1" * 64, "size": 3}}).encode())
    with pytest.raises(GenaugError, match=r"is damaged .*its content has changed"):
        place.read(path)


def test_a_password_in_the_url_is_not_shown(url):
    with pytest.raises(GenaugError) as caught:
        Remote("nosuch://user:hunter2@host/place")
    assert "hunter2" not in str(caught.value) and "genaug[remote]" in str(caught.value)


def test_a_place_that_ends_with_the_process_is_refused():
    with pytest.raises(GenaugError, match=r"memory://shared ends with this process: write a folder"):
        Remote("memory://shared")


@pytest.mark.slow
def test_the_command_copies_by_name_and_says_what_differs(tmp_path):
    here, there, place = made(tmp_path / "here"), tmp_path / "there", (tmp_path / "place").as_uri()
    assert "2 pushed" in genaug("store", "push", place, "tokens", "digits", "--outputs", str(here))
    assert "2 pulled" in genaug("store", "pull", place, "--outputs", str(there))
    assert is_whole(there / "store/fitted/tokens-00000000000000bb")
    said = genaug("store", "diff", place, "--outputs", str(here), code=1)
    assert "only here  pools/" in said and "2 only here, 2 same" in said
    assert not (there / "store" / "pools").exists() and ACCEPTED not in said
    nowhere = (tmp_path / "plaec").as_uri()
    assert f"There is nothing at {nowhere}." in genaug("store", "pull", nowhere, "--outputs", str(there), code=2)
    said = genaug("store", "pull", place, "tokesn", "--outputs", str(there), code=2)
    assert f"There is nothing at {place} whose name has tokesn." in said
    empty = tmp_path / "empty"
    empty.mkdir()
    assert f"nothing finished in {empty}" in genaug("store", "push", place, "--outputs", str(empty), code=2)


def test_a_packed_pool_goes_to_another_machine_and_a_larger_one_replaces_it(tmp_path):
    here, there, place = tmp_path / "here", tmp_path / "there", f"file://{tmp_path}/place"
    store, pulled = (Store(outputs / "store", packed_from=1) for outputs in (here, there))
    for m in (2, 3):
        pool = build(store, Picky(seed=0), dataset(), m)
        assert [said.split(":")[0] for _, said in push(here, Remote(place))] == ["pushed"]
        assert [said.split(":")[0] for _, said in pull(there, Remote(place))] == ["pulled"]
        assert len(read_pool(pulled.pool(pool.fingerprint), dataset(), with_rejected=True).samples) == 4 * m
        again = build(pulled, Picky(seed=0), dataset(), m)
        assert again.counts["images_generated"] == 0 and again.rejected == pool.rejected
        assert {s.digest: s.open().tobytes() for s in again.samples} == {
            s.digest: s.open().tobytes() for s in pool.samples
        }
    assert [said for _, said in push(here, Remote(place))] == ["there already"]


def test_what_a_packed_pool_was_sealed_with_arrives_so_that_no_machine_looks_at_all_of_it_or_pushes_it_again(tmp_path):
    here, there, place = tmp_path / "here", tmp_path / "there", f"file://{tmp_path}/place"
    build(Store(here / "store", packed_from=1), Picky(seed=0), dataset(), 2)
    assert len(states(push(here, Remote(place)))) == len(states(pull(there, Remote(place)))) == 1
    [pool] = Store(there / "store").pools()
    assert Store(there / "store").packed.sealed() == set(shards_of(pool)) != set()
    build(Store(there / "store", packed_from=1), Picky(seed=0), dataset(), 2)
    assert set(states(push(there, Remote(place))).values()) == {"there already"}
    assert {state for *_, state in differences(here, Remote(place))} == {"same"}
    build(Store(there / "store", packed_from=1), Picky(seed=0), dataset(), 3)
    assert {state for *_, state in differences(there, Remote(place))} == {"differs"}


def test_a_pool_on_which_a_run_is_at_work_is_left_out_and_said_to_be(tmp_path, url):
    build(Store(tmp_path / "store", packed_from=1), Noise(seed=0), dataset(), 2)
    [pool] = Store(tmp_path / "store").pools()
    writer = Writer(pool, IMAGES)
    writer.append("00000000000000ff", b"data", "{}")
    [(_, said)] = push(tmp_path, Remote(url))
    assert said == "being written: push it again when its run has ended"
    writer.close()


def test_a_file_that_changes_while_it_is_pushed_is_not_kept_under_another_hash(tmp_path, url, monkeypatch):
    here = made(tmp_path / "here")
    files = Item.files
    monkeypatch.setattr(Item, "files", lambda item: {n: {**f, "sha256": "0" * 64} for n, f in files(item).items()})
    assert {state.partition(":")[0] for state in states(push(here, Remote(url))).values()} == {"being written"}
    assert not any("0" * 64 in path for path in Flaky.store)
