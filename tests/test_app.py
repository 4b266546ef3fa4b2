import gc
import importlib
import json
import re
import shutil
import subprocess
import sys

import pytest
import torch
from typer.testing import CliRunner

import genaug as genaug_package
from genaug import app as genaug_app
from genaug.cli import app
from genaug.composition import compose_typed, compose_whole
from genaug.core.errors import GenaugError, release_memory
from genaug.explanation import message
from genaug.keys import explain_presets
from genaug.runs.cell import Cell, cell_fingerprint
from genaug.tables.sweep import plan_jobs
from tests.conftest import ROOT, genaug
from tests.leftovers import Leftover

WRONG = {
    "seed=-1": r"seed=-1 must be at least 0",
    "downstream.seed=-1": r"downstream\.seed=-1 must be at least 0",
    "leakage=model_centric leakage.erasure.seed=-1": r"leakage\.erasure\.seed=-1 must be at least 0",
    "recipe.seed=-1": r"recipe\.seed=-1 must be at least 0",
    "task=dance": r"task=dance must be one of train, generate, fit, prior",
    "trainer.num_workers=-1": r"trainer\.num_workers=-1 must be in \[0, 1024\]",
    "trainer.num_threads=0": r"trainer\.num_threads=0 must be in \[1, 1024\]",
    "mix.m=100000000000": r"mix\.m=100000000000 must be in \[0, 100000\]",
    "mix.m=1e20": r"mix\.m",
    "mix.alpha=nan": r"mix\.alpha=nan is not a finite number",
    "downstream.lr=inf": r"downstream\.lr=inf is not a finite number",
    "downstream.lr=1e20": r"downstream\.lr=1e\+20 must be in \(0, 100\]",
    "downstream.image_size=-8": r"downstream\.image_size=-8 must be in",
    "augment.zoom=1": r"augment\.zoom=1\.0 must be in \[0, 1\)",
    "filter=blank filter.min_std=-1": r"filter\.min_std=-1\.0 must be in \[0, 255\]",
    "prior.dtype=float8": r"prior\.dtype=float8 must be one of float32, bfloat16, float16",
    "generator=dafusion": r"Did you mean generator=da_fusion\? There are",
    "downstream=resnet": r"Did you mean downstream=resnet50 or",
    "generator.strength=0.5": r"belongs to generator=.*pipeline.*Did you mean generator\.t0\?$",
    "downstream.learning_rate=1": r"no key downstream\.learning_rate\. Did you mean downstream\.lr\?$",
    "hydra/launcher=nothing": r"no preset hydra/launcher=nothing",
    "mix.alhpa=0.5": r"no key mix\.alhpa.*Did you mean mix\.alpha",
    "+mix.alhpa=0.5": r"no key mix\.alhpa.*Did you mean mix\.alpha",
    "+typo=1": r"no key typo",
    "genrator=none": r"no key genrator.*generator",
    "generator=da_fusoin": r"no preset generator=da_fusoin.*da_fusion",
    "mix.alpha=1.5": r"mix\.alpha=1\.5 must be in \[0, 1\]",
    "mix.m=0": r"mix\.m=0.*mix\.alpha=0",
    "mix.m=many": r"mix\.m.*many",
    "generator.t0=0": r"generator\.t0.*\(0, 1\]",
    "generator.t0=1.5": r"generator\.t0.*\(0, 1\]",
    "generator.t0=[]": r"generator\.t0",
    "dataset=image_folder": r"dataset\.root",
    "dataset.shots=0": r"dataset\.shots=0.*at least 1",
    "task=tarin": r"task=tarin.*train",
    "trainer.devices=0": r"trainer\.devices=0",
    "trainer.precision=bf17": r"trainer\.precision=bf17 .*bf16-mixed",
    "trainer.accelerator=cuda:0": r"trainer\.accelerator=cuda:0 .*cpu, gpu",
    "generator=pipeline generator.path=x generator.arguments.a=1": r"write \+generator\.arguments\.NAME=.*pipeline",
    "dataset.root=/x": r"dataset\.root belongs to dataset=.*image_folder, .*choose one of these too",
    "generator=none generator.t0=0.5": r"generator\.t0 belongs to generator=\w.*leave generator\.t0 out",
    "mix=real_only +mix.m=3": r"mix\.m belongs to mix=concat, .*replace.*leave mix\.m out",
    "nowhere.key=1": r"no key nowhere\.key\. The top level has .*generator",
    "generator.num_steps=2.5": r"generator\.num_steps: .*2\.5.*Integer",
    "prior=sd1.5": r"no preset prior=sd1\.5\. Did you mean prior=sd15.* There are: lcm_sd15, [\w, ]+\.$",
    "leakage=data-centric": r"no preset leakage=data-centric\. Did you mean leakage=data_centric\? ",
    "generator.t0=[0.5": r"^generator\.t0=\[0\.5 cannot be read as KEY=VALUE .*close every bracket.*red\"'\.$",
    "experiment=da_fusion/fig9": r"Did you mean experiment=da_fusion/fig9_m or experiment=da_fusion/fig9_alpha\?$",
    "experiment=dafusion/fig9_m": r"Did you mean experiment=da_fusion/fig9_m",
    "experiment=null": r"^experiment=null names no preset: leave experiment out, or name one\.$",
    "preset=null": r"leave preset out",
    "hydra/launcher=null": r"leave hydra/launcher out",
    "generator=null": r"^generator=null names no preset: write generator=none\.$",
    "augment=null": r"write augment=none\.$",
    "filter=null": r"write filter=none\.$",
    "dataset=null": r"^dataset=null names no preset\. There are: dataset=.*dataset=digits",
    "mix=null": r"There are: .*mix=real_only",
    "generator=3": r"^generator=3 names no preset\. There are: .*generator=none",
    "generator=[none]": r"generator=\[none\] names no preset",
    "~generator": r"~generator names no preset: write generator=none\.$",
    "prior=/models/sd": r"^/models/sd is no preset of prior: .*; a folder is prior\.path=/models/sd\.$",
    "generator": r"^generator has no value: write generator=PRESET; genaug explain generator lists them\.$",
    "da_fusion": r"^da_fusion is a preset: write augment=da_fusion or generator=da_fusion\.$",
    "docs": r"^docs is a folder: genaug check docs says",
    "outputs=/tmp/x": r"There is no key outputs\. Did you mean .*paths\.outputs_dir\?$",
    "seed": r"^seed has no value: write seed=VALUE\.$",
    "demo/compare": r"^demo/compare is an experiment: write experiment=demo/compare\.$",
    "experiment=nothing_like_it": r"There are: .*da_fusion/fig9_m",
}


@pytest.mark.parametrize("override", WRONG)
def test_a_wrong_override_is_answered_in_one_sentence_with_the_remedy(override):
    with pytest.raises(GenaugError, match=WRONG[override]):
        Cell.of(compose_typed(override.split()))


@pytest.mark.parametrize(
    "words", [["generator=none,null"], ["experiment=null"], ["experiment=demo/compare", "mix=null"]]
)
def test_a_sweep_over_what_names_no_preset_is_refused_at_once(words):
    with pytest.raises(GenaugError, match=r"names no preset"):
        plan_jobs(words)


OWN_FILES = {
    "generator": (
        "defaults: [_none, _self_]\nstrength: 1\n",
        "^In generator=mine: NoGenerator has no field strength. It has name, seed.$",
    ),
    "mix": ("defaults: [_replace, _self_]\nm: many\n", "^In mix=mine, mix.m: Value 'many' .*Integer.$"),
    "experiment": (
        "# @package _global_\ndataset: {shotz: 4}\n",
        "^In experiment=my/own: There is no key dataset.shotz. Did you mean dataset.shots",
    ),
}


@pytest.mark.parametrize("group", OWN_FILES)
def test_a_wrong_key_of_a_file_of_ones_own_is_answered_with_the_file(tmp_path, monkeypatch, group):
    monkeypatch.chdir(tmp_path)
    content, said = OWN_FILES[group]
    file, choice = ("experiments/my/own", "my/own") if group == "experiment" else (f"conf/{group}/mine", "mine")
    (tmp_path / file).parent.mkdir(parents=True)
    (tmp_path / f"{file}.yaml").write_text(content)
    with pytest.raises(GenaugError, match=said):
        compose_typed([f"{group}={choice}"])


LAUNCHERS = sorted((ROOT / "conf/hydra/launcher").glob("[!c]*.yaml"))


@pytest.mark.parametrize("file", LAUNCHERS, ids=lambda file: file.stem)
def test_a_launcher_that_is_not_installed_names_its_extra_which_there_is(file):
    target = re.search(r"_target_: (\S+)", file.read_text())
    said = message(RuntimeError(f"Unknown plugin class : '{target[1]}'"))
    assert said is not None and f"hydra/launcher={file.stem} comes with an extra" in said
    assert f"pip install 'genaug[{file.stem}]'" in said
    assert f"\n{file.stem} = [" in (ROOT / "pyproject.toml").read_text()


@pytest.mark.skipif(shutil.which("srun") is not None, reason="SLURM is here")
def test_a_sweep_for_slurm_without_slurm_is_answered_in_a_sentence(tmp_path):
    submitit = pytest.importorskip("submitit")
    with pytest.raises(RuntimeError) as error:
        submitit.AutoExecutor(tmp_path, cluster="slurm")
    assert "No srun is here: start hydra/launcher=submitit_slurm where sbatch works" in str(message(error.value))


@pytest.mark.parametrize(
    ("choice", "key", "value"),
    [
        ("dataset=image_folder", "root", "NEEDED"),
        ("dataset=hf", "path", "NEEDED"),
        ("downstream=detector_tiny", "image_size", 64),
    ],
)
def test_a_preset_is_explained_with_what_it_needs(choice, key, value):
    assert getattr(getattr(compose_whole(choice), choice.partition("=")[0]), key) == value


@pytest.mark.slow
def test_a_preset_is_explained_by_the_command() -> None:
    """In a process that has composed nothing before."""
    assert "downstream.image_size=64" in genaug("explain", "downstream=detector_tiny")


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("seed", "seed\n    The trial."),
        ("mix.alpha", "mix.alpha of mix=diff_mix, replace, replace_global\n    Probability of a synthetic draw"),
        ("generator.t0", ", real_guidance_low, "),
        ("generator.labels.paste_back", "are put back: ``none``, ``hard`` or ``feathered``"),
        ("leakage.erasure.num_steps", "DDIM steps of a whole trajectory. Must be in [1, 1000]."),
        ("tracking.mlflow", "Mirror every run in MLflow"),
        ("mix.m=3", "mix.m of mix="),
        ("recipe", "recipe.unet_steps=3000\n    Optimiser steps of U-Net and text encoder"),
        ("paths", "paths.packed_from=10000\n"),
    ],
)
def test_a_key_is_explained_alone_with_the_presets_that_have_it(key, said):
    assert said in CliRunner().invoke(app, ["explain", key]).output


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        ("ti_iclr", "ti_iclr is a preset: write genaug explain generator/tokens=ti_iclr."),
        ("t0", "t0 is the end of a key: write genaug explain generator.t0."),
        ("nothing", "nothing is not a group or a key. Write one of augment, dataset,"),
        ("generator.nothing", "There is no key generator.nothing."),
        ("generator.guidanse", "Did you mean generator.guidance"),
        ("generator/tokens=ti_iclr", "a part of generator: genaug explain generator=PRESET prints its keys"),
        ("preset=smoke", "preset has no keys of its own to explain"),
    ],
)
def test_what_cannot_be_explained_is_answered_with_what_to_write(choice, said):
    done = CliRunner().invoke(app, ["explain", choice])
    assert said in str(done.exception)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("Unable to allocate 80.0 TiB"),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:124] . DefaultCPUAllocator: can't allocate memory: you tried 64 bytes."
        ),
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("MPS backend out of memory"),
    ],
)
def test_too_little_memory_in_training_is_said_with_what_to_write(error):
    failure = KeyError("step")
    failure.__cause__ = error  # however deep it lies
    assert "not enough memory" in message(failure) and "smaller downstream.batch_size" in message(failure)
    assert message(RuntimeError("shapes do not match")) is None


@pytest.mark.parametrize("way", ["command line", "Python"])
def test_a_run_of_a_sweep_that_fails_gives_its_memory_back(tmp_path, monkeypatch, way):
    """Lightning's trainer and model hold each other, so a later run would find the device full."""
    held = []

    def fail(cell):
        model = Leftover(held)
        raise torch.OutOfMemoryError(f"CUDA out of memory of {model}")

    gc.disable()
    monkeypatch.setattr(importlib.import_module("genaug.run"), "run", fail)
    config, folder = ["generator=none", "dataset.shots=1", "tracking=local"], tmp_path / "sweeps"
    words = [*config, "seed=0,1", f"paths.outputs_dir={tmp_path}"]
    hydras = ["-m", "hydra.launcher.processes=1", f"hydra.sweep.dir={folder}"]
    monkeypatch.setattr(sys, "argv", ["train.py", *hydras, *words])
    try:
        with pytest.raises(SystemExit if way == "command line" else GenaugError):
            genaug_app.main() if way == "command line" else genaug_package.sweep(words)
        assert len(held) == 2 and [model() for model in held] == [None, None]
    finally:
        gc.enable()


def test_what_torch_keeps_of_a_devices_memory_is_given_back_with_the_rest(monkeypatch):
    emptied = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append(True))
    release_memory()
    assert emptied == [True]


def test_the_console_says_its_version_and_what_it_is_for():
    assert CliRunner().invoke(app, ["--version"]).output == f"genaug {genaug_package.__version__}\n"
    assert "Do generated training images help your model?" in CliRunner().invoke(app, ["--help"]).output


def test_the_presets_of_a_group_are_explained_by_the_heads_of_their_files():
    heads = dict(explain_presets("prior"))
    assert "Stable Diffusion 1.4, the base model of DA-Fusion." in heads["sd14"]
    assert all(heads.values())


def test_a_key_is_never_proposed_for_itself():
    for overrides in (["dataset.root=/x"], ["generator=none", "generator.t0=0.5"], ["mix=real_only", "mix.m=3"]):
        with pytest.raises(GenaugError) as raised:
            compose_typed(overrides)
        assert "Did you mean" not in str(raised.value)
    with pytest.raises(GenaugError, match=r"no key generator.tO. Did you mean generator.t0 or generator.eta.$"):
        compose_typed(["generator.tO=0.5"])


def test_a_prior_that_lacks_a_part_is_refused_before_it_is_loaded(tmp_path):
    (tmp_path / "unet").mkdir()
    with pytest.raises(GenaugError, match=r"lacks vae/, text_encoder/"):
        Cell.of(compose_typed([f"prior.path={tmp_path}"]))


def test_generator_and_mix_that_leave_nothing_are_refused():
    with pytest.raises(GenaugError, match="nothing to train on"):
        compose_typed(["generator=none", "mix=synthetic_only"]).check()


def fingerprints(*overrides):
    return cell_fingerprint(compose_typed(list(overrides)))


def test_what_cannot_reach_the_result_is_not_part_of_a_cell():
    assert fingerprints("generator=none", "mix.alpha=0.3") == fingerprints("generator=none", "mix.alpha=0.7", "mix.m=2")
    assert fingerprints("mix.alpha=0") == fingerprints("generator=none")
    assert fingerprints("tracking=local") == fingerprints() == fingerprints("trainer.num_workers=2")
    assert fingerprints("generator.batch_size=8") == fingerprints()


@pytest.mark.parametrize(
    "override", ["seed=1", "mix.alpha=0.3", "mix.m=2", "generator.t0=0.5", "dataset.shots=2", "augment=none"]
)
def test_what_can_change_the_result_is_part_of_a_cell(override):
    assert fingerprints(override) != fingerprints()


def test_help_can_be_read_by_a_person():
    text = subprocess.run([sys.executable, "train.py", "--help"], capture_output=True, text=True, cwd=ROOT).stdout
    for word in ("mix.alpha", "generator.t0", "dataset.shots", "A sweep", "generator  ", "da_fusion", "image_folder"):
        assert word in text


def test_keys_are_explained_from_their_docstrings():
    from genaug.keys import explain_fields

    rows = {key: rest for key, *rest in explain_fields(compose_typed([]).mix)}
    assert rows["alpha"] == ["0.5", "Probability of a synthetic draw, in [0, 1].", "in [0, 1]"]
    config = compose_typed([])
    for group in (
        "dataset",
        "prior",
        "generator",
        "mix",
        "augment",
        "downstream",
        "trainer",
        "tracking",
        "recipe",
        "paths",
    ):
        silent = [key for key, _, doc, _ in explain_fields(getattr(config, group)) if not doc]
        assert not silent, f"{group}: {silent} have no docstring"


def test_a_resolved_configuration_is_plain_json():
    assert json.loads(json.dumps(Cell.of(compose_typed([])).resolved))["mix"]["alpha"] == 0.5
