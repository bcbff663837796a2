"""The command line as a user meets it: each command, what it leaves on the disk, and what it says when it cannot."""

import errno
import io
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import get_args, get_type_hints

import numpy as np
import pytest
import torch
from helpers import PATIENCE
from PIL import Image

import kodm_lite
from kodm_lite import (
    KuramotoProcess,
    LocalCoupling,
    angle_difference,
    calibrate,
    checkpoints,
    cli,
    recipes,
    sample,
    to_uint8,
)
from kodm_lite.checkpoints import Model
from kodm_lite.cli.common import as_options, with_home
from kodm_lite.encoding import Angles, GreyLevels
from kodm_lite.metrics import nearest_distances
from kodm_lite.networks import SIZES, PeriodicMLP, PeriodicUNet
from kodm_lite.pictures.files import FILM_BYTES, grid, write_film
from kodm_lite.reproduce.table import summary, table
from kodm_lite.training import TrainingOptions, read_log

PROCESS = KuramotoProcess()
QUICK = ["--steps", "3"]
COMMANDS = {
    "": cli.Program,
    "train textures-32": recipes.TextureRecipe,
    "train textures-32-local": recipes.TextureRecipe,
    "train fingerprints": recipes.FingerprintRecipe,
    "train digits-16": recipes.DigitsRecipe,
    "train terrain-32": recipes.TerrainRecipe,
    "train published": recipes.PublishedRecipe,
    "train folder": recipes.FolderRecipe,
    "sample": cli.Sample,
    "evaluate": cli.Evaluate,
    "reproduce": cli.Reproduce,
    "info": cli.Info,
    "data": cli.Data,
}
TINY = {"width": 8, "multipliers": (1, 2), "blocks": 1, "patch": 1, "attention": ()}


def unet(channels=1, classes=None):
    """A network whose last layers, which start at zero, are random: its samples depend on everything."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = PeriodicUNet(channels, PROCESS, **TINY, classes=classes)
        for weight in (network.last.weight, network.pooled[-1].weight):
            torch.nn.init.normal_(weight, std=0.1)
        return network


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Files of tiny models: grey with classes, colours, plain oscillators."""
    folder = tmp_path_factory.mktemp("models")
    grey = unet(classes=2)
    data = torch.zeros(4, 1, 8, 8)
    calibration = calibrate(grey, PROCESS, data, points=3)
    card = {"classes": ["brick", "grass"], "evil": "\x1b[31mred\u202e", "bad\x07key": 1}
    checkpoints.save(folder / "grey.safetensors", Model(grey, PROCESS, (1, 8, 8), GreyLevels(0.9), calibration, card))
    checkpoints.save(folder / "rgb.safetensors", Model(unet(3), PROCESS, (3, 8, 8), GreyLevels(0.9), None, {}))
    mlp = PeriodicMLP(3, PROCESS, width=8, depth=1)
    checkpoints.save(folder / "mlp.safetensors", Model(mlp, PROCESS, (3,), GreyLevels(0.9), None, {}))
    return folder


@pytest.fixture
def grey(models):
    return str(models / "grey.safetensors")


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """Four images in each of two sub-folders."""
    folder = tmp_path_factory.mktemp("photographs")
    pixels = np.random.default_rng(0).integers(0, 256, (8, 12, 10, 3), dtype=np.uint8)
    for k, image in enumerate(pixels):
        path = folder / ("cats", "dogs")[k % 2] / f"{k}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(image).save(path)
    return folder


@pytest.fixture
def tiny_recipes(monkeypatch):
    """Recipes with a network that trains in no time."""
    monkeypatch.setitem(recipes.images.SIZES, "small", TINY)


def train_folder(photographs, out, *options):
    words = ["--size", "8", "--batch-size", "4", "--simulation-steps", "20", "--out", str(out)]
    return cli.main(["train", "folder", str(photographs), *words, *options])


def fails(capsys, words, *expected):
    """The command says what is wrong in one line on stderr, prints nothing else, and leaves with status 1."""
    assert cli.main([str(word) for word in words]) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("kodm-lite: ") and err.count("\n") == 1
    for text in expected:
        assert text in err, err


def usage_error(capsys, words):
    with pytest.raises(SystemExit) as left:
        cli.main(words)
    assert left.value.code == 2
    return capsys.readouterr().err


def phases(path):
    with np.load(path, allow_pickle=False) as archive:
        return archive["phases"]


def apart(a, b):
    """The largest angle between two arrays of phases."""
    return float(angle_difference(torch.from_numpy(a), torch.from_numpy(b)).abs().max())


def in_subprocess(*words, **options):
    command = [sys.executable, "-m", "kodm_lite", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, **options)


def helped(capsys, words):
    """The help of a command, on one line and without frames."""
    with pytest.raises(SystemExit) as left:
        cli.main([*words, "--help"])
    assert left.value.code == 0
    return " ".join(re.sub("[│|]", " ", capsys.readouterr().out).split())


@pytest.mark.parametrize("words, command", COMMANDS.items(), ids=str)
def test_help_explains_every_option(capsys, words, command):
    text = helped(capsys, words.split())
    assert text.startswith(f"usage: {' '.join(['kodm-lite', *words.split()])} ")
    options = [TrainingOptions] if words.startswith("train ") else []
    for described in (command, *options):
        documents = "".join(base.__doc__ for base in described.__mro__[:-1])
        for name in described.__dataclass_fields__:
            option = "--" + name.strip("_").replace("_", "-")
            explanation = re.search(rf"^ +{name}: +(\S+ \S+)", documents, re.MULTILINE)
            assert explanation and explanation[1] in text, name
            assert option in text or name in ("model", "name", "source", "path", "recipe", "command", "training"), name


def test_first_help_has_examples_that_are_understood(capsys):
    examples = [line.split()[1:] for line in cli.DESCRIPTION.splitlines() if line.startswith("  kodm-lite ")]
    assert len(examples) == 4
    markers = (cli.tyro.conf.OmitArgPrefixes, cli.tyro.conf.OmitSubcommandPrefixes)
    kinds = [type(cli.tyro.cli(cli.Program, args=words, config=markers).command) for words in examples]
    assert kinds == [cli.Train, cli.Train, cli.Sample, cli.Evaluate]


def test_the_recipes():
    one = cli.tyro.cli(cli.Program, args=["command:train", "command.recipe:textures-32"]).command.recipe
    local = cli.tyro.cli(cli.Program, args=["command:train", "command.recipe:textures-32-local"]).command.recipe
    assert one.coupling == kodm_lite.GlobalCoupling() and local.coupling == LocalCoupling(4, "reflect")
    assert one.folder != local.folder
    assert one.training == local.training == recipes.recommended_options()
    assert set(get_args(get_type_hints(recipes.ImageRecipe)["network"])) == set(SIZES)
    data, validation = one.data()
    assert data.theta.shape == (32768, 1, 32, 32) and validation.theta.shape == (512, 1, 32, 32)
    assert not (validation.theta[:, None, :, :4, :4] == data.theta[None, :50, :, :4, :4]).flatten(2).all(2).any()


HELP = """
from kodm_lite import cli
try:
    cli.main(["--help"])
except SystemExit:
    pass
"""


@pytest.mark.parametrize("code, own", [("import kodm_lite", ("tyro", "kodm_lite.cli")), (HELP, ())])
def test_the_package_and_its_help_load_none_of_this(code, own):
    names = ("accelerate", "skimage", "matplotlib.pyplot", "kodm_lite.sphere", *own)
    code += f"\nimport sys; print([name for name in {names} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_version(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"kodm-lite {kodm_lite.__version__}\n"


@pytest.mark.parametrize(
    "words, advice",
    [
        ("trian textures-32", "did you mean kodm-lite train?"),
        ("train texture-32 --steps 4", "did you mean kodm-lite train textures-32?"),
        ("train textures-32 --stps 4", "see kodm-lite train textures-32 --help"),
        ("train --steps 4", "see kodm-lite train --help"),
        ("sample digits-16 -n many", "see kodm-lite sample --help"),
        ("dream", "see kodm-lite --help"),
        ("", "see kodm-lite --help"),
    ],
)
def test_words_that_cannot_be_understood_get_advice(capsys, words, advice):
    assert usage_error(capsys, words.split()).splitlines()[-1] == f"kodm-lite: {advice}"


def test_help_says_what_a_training_costs_and_when_it_is_saved(capsys):
    text = helped(capsys, [])
    for expected in ("40 to 50 minutes", "every two minutes", "SIGTERM", "SIGHUP", "step 50", "after 20 steps"):
        assert expected in text
    assert "--tyro-write-completion" in text and "those of Apple are not" in text


@pytest.mark.parametrize(
    "message, expected",
    [
        ("size: got 7, expected 8; try size=8", "size: got 7, expected 8; try --size 8"),
        ("try another, or resume=False to start anew", "try another, or --no-resume to start anew"),
        ("try test_share=0.25", "try --test-share 0.25"),
        ("try coupled=True or seed=0", "try --coupled or --seed 0"),
        ("try sample(..., steps=n) or theta=None, as x=3", "try sample(..., steps=n) or theta=None, as x=3"),
    ],
)
def test_advice_of_the_library_is_said_as_options(message, expected):
    assert as_options(message) == expected


def test_a_tilde_is_home_wherever_it_stands(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("USERPROFILE", "/home/me")
    for word in ("~/a", "--out=~/a", "--out=~/a=b"):
        assert with_home(word) == word.replace("~", "/home/me")
    for word in ("a~", "--out=a/~/b", "--out", "", "-n=~"):
        assert with_home(word) == word


def test_train_then_sample_as_the_training_says(capsys, photographs, tmp_path, monkeypatch, tiny_recipes):
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "my run"
    assert train_folder(photographs, out, "--classes", "--channels", "3", *QUICK) == 0
    printed = capsys.readouterr().out
    assert "images 3 x 8 x 8" in printed and str(out / "model.safetensors") in printed
    model = checkpoints.load(out / "model.safetensors")
    assert model.shape == (3, 8, 8) and model.encoding.scale == 0.5
    assert model.calibration is not None and 0 <= model.calibration.damping <= 0.2
    assert model.card["classes"] == ["cats", "dogs"] and model.card["name"] == "my run"
    assert model.card["seed"] == 0 and model.card["step"] == 3 and model.card["minutes"] > 0
    assert {"data", "licence", "device", "cores", "versions", "validations", "options"} <= model.card.keys()
    assert [line["step"] for line in read_log(out) if "validation" in line] == [3]

    words = shlex.split(printed.rsplit("Samples: kodm-lite ")[1])
    assert words[:2] == ["sample", str(out)]
    assert cli.main([*words, *QUICK, "--method", "ancestral", "--class", "dogs"]) == 0
    with Image.open("samples.png") as picture:
        assert picture.mode == "RGB" and picture.size == (15 * 35, 15 * 35)

    assert train_folder(photographs, out, "--classes", "--channels", "3", *QUICK) == 0  # nothing left to do
    again = checkpoints.load(out / "model.safetensors")
    assert again.calibration == model.calibration and again.card["classes"] == ["cats", "dogs"]
    assert all(map(torch.equal, model.network.state_dict().values(), again.network.state_dict().values()))


def test_train_refuses_another_run_in_words_of_the_command(capsys, photographs, tmp_path, tiny_recipes):
    assert train_folder(photographs, tmp_path, *QUICK) == 0
    assert train_folder(photographs, tmp_path, *QUICK, "--seed", "1") == 1
    assert "or --no-resume to start anew" in capsys.readouterr().err
    assert train_folder(photographs, tmp_path, *QUICK, "--seed", "1", "--no-resume") == 0
    assert checkpoints.load(tmp_path / "model.safetensors").card["seed"] == 1


def test_mirror_images_are_learned_and_not_measured(photographs, tmp_path):
    recipe = recipes.FolderRecipe(path=photographs, size=8, flips=True, out=tmp_path / "out")
    plain = recipes.FolderRecipe(path=photographs, size=8, out=tmp_path / "out")
    (learned, measured), (squares, others) = recipe.data(), plain.data()
    assert torch.equal(learned.theta[::2], squares.theta) and torch.equal(learned.theta[1::2], squares.theta.flip(-1))
    assert torch.equal(measured.theta, others.theta)


def test_a_training_begins_with_the_weights_of_another(photographs, tmp_path, tiny_recipes):
    assert train_folder(photographs, tmp_path / "first", *QUICK) == 0
    weights = checkpoints.load(tmp_path / "first" / "model.safetensors").network.state_dict()
    second = recipes.FolderRecipe(
        path=photographs, radius=2, start=(str(tmp_path / "first" / "model.safetensors"),), out=tmp_path / "second"
    )
    prepared = recipes.prepare(second)
    assert all(torch.equal(x, weights[name]) for name, x in prepared.network.state_dict().items())
    assert prepared.process.coupling == LocalCoupling(2, "reflect")
    with pytest.raises(ValueError, match="start: got a network .* expected"):
        recipes.prepare(recipes.FolderRecipe(path=photographs, channels=3, start=second.start, out=tmp_path / "third"))


def test_a_training_begins_with_the_mean_of_several(photographs, tmp_path, tiny_recipes):
    folders = [tmp_path / name for name in "ab"]
    for seed, folder in enumerate(folders):
        assert train_folder(photographs, folder, *QUICK, "--seed", str(seed)) == 0
    weights = [checkpoints.load(folder / "model.safetensors").network.state_dict() for folder in folders]
    assert train_folder(photographs, tmp_path / "mean", "--steps", "0", "--start", *map(str, folders)) == 0
    mean = checkpoints.load(tmp_path / "mean" / "model.safetensors")
    for name, weight in mean.network.state_dict().items():
        expected = torch.stack([other[name] for other in weights]).mean(0)
        torch.testing.assert_close(weight, expected, rtol=1e-5, atol=1e-6)
    assert mean.card["start"] == ", ".join(map(str, folders)) and mean.card["step"] == 0
    assert mean.calibration is not None
    with pytest.raises(ValueError, match="start: got the string 'textures-32', expected a tuple"):
        recipes.prepare(recipes.FolderRecipe(path=photographs, start="textures-32", out=tmp_path / "none"))


def test_one_photograph_is_enough(capsys, photographs, tmp_path, tiny_recipes):
    one = tmp_path / "one"
    one.mkdir()
    (one / "a.png").write_bytes((photographs / "cats" / "0.png").read_bytes())
    fails(capsys, ["train", "folder", one, "--size", "8", "--crops", "5"], "try --test-share 0")
    assert train_folder(one, tmp_path / "run", *QUICK, "--crops", "5", "--test-share", "0", "--radius", "2") == 0
    model = checkpoints.load(tmp_path / "run" / "model.safetensors")
    assert model.card["images"] == 5 and model.process.coupling == LocalCoupling(2, "reflect")
    assert not any("validation" in line for line in read_log(tmp_path / "run"))


def test_ctrl_c_stops_and_the_same_command_goes_on(photographs, tmp_path):
    """A real process with a real signal; the small network as it is."""
    words = ["train", "folder", photographs, "--size", "8", "--batch-size", "2", "--simulation-steps", "20"]
    words += [
        "--decay",
        "constant",
        "--log-every",
        "1",
        "--validate-every",
        "0",
        "--classes",
        "--out",
        tmp_path / "run",
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "kodm_lite", *map(str, words), "--steps", "100000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while len(read_log(tmp_path / "run")) < 2 and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, err
    assert "the same command goes on" in out and "Traceback" not in err
    assert err.splitlines()[-1].startswith("stopped after step ") and "step 2 of 100000, loss" in err
    model = checkpoints.load(tmp_path / "run" / "model.safetensors")
    stopped = model.card["step"]
    assert stopped >= 2 and model.card["classes"] == ["cats", "dogs"]
    assert cli.main([*map(str, words), "--steps", str(stopped + 2)]) == 0
    assert [line["step"] for line in read_log(tmp_path / "run")] == list(range(1, stopped + 3))


@pytest.mark.parametrize("n, columns, rows, larger", [(1, 1, 1, 64), (5, 3, 2, 20), (16, 4, 4, 15)])
def test_a_grid_shows_the_samples_in_order_and_large(grey, tmp_path, n, columns, rows, larger):
    out = tmp_path / "grid.png"
    assert cli.main(["sample", grey, "-n", str(n), *QUICK, "--out", str(out)]) == 0
    model = checkpoints.load(grey)
    options = {"steps": 3, "calibration": model.calibration, "seeds": range(n)}
    theta = sample(model.network, PROCESS, (n, 1, 8, 8), **options)
    with Image.open(out) as picture:
        assert picture.mode == "L" and picture.size == (larger * (columns * 9 - 1), larger * (rows * 9 - 1))
        assert 512 <= picture.width < 600
        drawn = np.asarray(picture).astype(int)
    pixels = drawn[::larger, ::larger]
    assert (drawn == pixels.repeat(larger, 0).repeat(larger, 1)).all(), "every pixel is a square of them"
    k = n - 1
    i, j = 9 * (k // columns), 9 * (k % columns)
    assert np.abs(pixels[i : i + 8, j : j + 8] - to_uint8(theta[k, 0], 0.9).numpy()).max() <= 1
    assert (pixels[:, 8::9] == 0).all() and (pixels[8::9] == 0).all()


def test_an_archive_has_phases_seeds_and_header(grey, tmp_path):
    out = tmp_path / "a.npz"
    words = ["sample", grey, "-n", "5", "--seed", "7", *QUICK, "--out", str(out), "--class", "grass"]
    assert cli.main([*words, "--method", "euler"]) == 0
    with np.load(out, allow_pickle=False) as archive:
        assert set(archive) == {"phases", "seeds", "header"}
        theta, seeds, header = archive["phases"], archive["seeds"], json.loads(str(archive["header"]))
    assert theta.dtype == np.float32 and theta.shape == (5, 1, 8, 8) and seeds.tolist() == [7, 8, 9, 10, 11]
    assert header["method"] == "euler" and header["steps"] == 3 and header["class"] == "grass"
    assert header["weights_sha256"] == checkpoints.read_header(grey)["weights_sha256"]
    assert KuramotoProcess.from_dict(header["process"]) == PROCESS and header["encoding"]["scale"] == 0.9
    model = checkpoints.load(grey)

    def score(x, t):
        return model.network(x, t, torch.ones(len(x), dtype=torch.long))

    expected = sample(score, PROCESS, (5, 1, 8, 8), steps=3, method="euler", seeds=range(7, 12))
    assert apart(theta, expected.numpy()) < 1e-4


def test_an_array_of_numpy_has_the_phases_alone(grey, tmp_path):
    for name in ("a.npy", "a.npz"):
        assert cli.main(["sample", grey, "-n", "3", *QUICK, "--out", str(tmp_path / name)]) == 0
    theta = np.load(tmp_path / "a.npy", allow_pickle=False)
    assert theta.dtype == np.float32 and np.array_equal(theta, phases(tmp_path / "a.npz"))


def test_images_depend_on_their_seed_and_not_on_number_or_chunk(grey, tmp_path):
    words = ["sample", grey, *QUICK, "--out"]
    for name, options in {"a": "-n 7", "b": "-n 7 --chunk 3", "c": "-n 3 --seed 4", "d": "-n 7 --class brick"}.items():
        assert cli.main([*words, str(tmp_path / f"{name}.npz"), *options.split()]) == 0
    a, b, c, d = (phases(tmp_path / f"{name}.npz") for name in "abcd")
    assert apart(a, b) < 1e-4 and apart(a[4:], c) < 1e-4
    assert all(apart(a[i], a[j]) > 1 for i in range(7) for j in range(i))
    assert apart(a, d) > 1e-3


MEMORY = """
import sys
from kodm_lite import cli

peaks = []
for n in ("256", "10000"):
    cli.main([*sys.argv[1:], "-n", n, "--out", n + ".npz"])
    peaks.append(open("/proc/self/status").read().split("VmHWM:")[1].split()[0])
print(*peaks)
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="the peak of the memory is read from /proc")
def test_ten_thousand_images_take_the_memory_of_one_chunk_and_of_themselves(grey, tmp_path):
    words = [sys.executable, "-c", MEMORY, "sample", grey, "--method", "euler", "--steps", "1"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=True)
    few, many = (int(peak) for peak in done.stdout.split()[-2:])
    assert phases(tmp_path / "10000.npz").shape == (10_000, 1, 8, 8)
    assert many - few < 40_000, "kB; the images are 2500"


def test_a_folder_gets_one_file_for_each_image(models, tmp_path):
    out = tmp_path / "new" / "images"
    words = ["sample", str(models / "rgb.safetensors"), *QUICK]
    assert cli.main([*words, "-n", "3", "--chunk", "2", "--out", f"{out}/"]) == 0
    assert sorted(file.name for file in out.iterdir()) == ["00000.png", "00001.png", "00002.png"]
    assert cli.main([*words, "-n", "3", "--out", str(tmp_path / "a.npz")]) == 0
    for k, theta in enumerate(phases(tmp_path / "a.npz")):
        with Image.open(out / f"0000{k}.png") as picture:
            pixels = np.asarray(picture).astype(int)
        assert np.abs(pixels - to_uint8(torch.from_numpy(theta), 0.9).movedim(0, -1).numpy()).max() <= 1


@pytest.mark.parametrize("name, steps, frames", [("grey", 3, 4), ("rgb", 101, 52)])
def test_a_film_ends_with_the_samples(models, tmp_path, name, steps, frames):
    words = ["sample", str(models / f"{name}.safetensors"), "-n", "5", "--chunk", "4", "--steps", str(steps)]
    assert cli.main([*words, "--out", str(tmp_path / "a.npz"), "--trajectory", str(tmp_path / "film.gif")]) == 0
    with Image.open(tmp_path / "film.gif") as film:
        assert film.n_frames == frames and film.info["loop"] == 0
        larger = film.width // 35
        assert film.size == (35 * larger, 8 * larger) and larger == 15
        film.seek(frames - 1)
        last = np.asarray(film.convert("RGB")).astype(int)[::larger, ::larger]
    expected = np.asarray(
        grid(torch.from_numpy(phases(tmp_path / "a.npz")[:4]), GreyLevels(0.9), columns=4).convert("RGB")
    )
    assert np.abs(last - expected).mean() < (1 if name == "grey" else 20)  # a GIF has 256 colours


def test_a_long_film_is_thinned_out_but_keeps_its_end(tmp_path):
    generator = torch.Generator().manual_seed(0)
    frames = [torch.rand(1, 1, 256, 256, generator=generator) * 2 - 1 for _ in range(31)]
    write_film(tmp_path / "film.gif", frames, GreyLevels(0.9))
    assert (tmp_path / "film.gif").stat().st_size <= FILM_BYTES
    with Image.open(tmp_path / "film.gif") as film:
        assert 1 < film.n_frames < 31
        film.seek(film.n_frames - 1)
        last = np.asarray(film.convert("L"))[::2, ::2]
    assert np.abs(last.astype(int) - to_uint8(frames[-1][0, 0], 0.9).numpy()).max() <= 1


def test_nothing_is_overwritten_unasked(capsys, grey, tmp_path):
    for name in ("a.png", "a.npz", "a.gif"):
        (tmp_path / name).write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("mine")
    words = ["sample", grey, "-n", "2", *QUICK, "--out"]
    for name in ("a.png", "a.npz", "full"):
        fails(capsys, [*words, tmp_path / name], "exists", "try --overwrite")
    fails(capsys, [*words, tmp_path / "b.png", "--trajectory", tmp_path / "a.gif"], "exists")
    assert all((tmp_path / name).read_text() == "mine" for name in ("a.png", "a.npz", "a.gif"))
    assert not (tmp_path / "b.png").exists()
    for name in ("a.png", "full"):
        assert cli.main([*words, str(tmp_path / name), "--overwrite"]) == 0
    assert {file.name for file in (tmp_path / "full").iterdir()} == {"mine", "00000.png", "00001.png"}
    Image.open(tmp_path / "a.png").verify()


def test_info(capsys, models, grey):
    assert cli.main(["info", grey]) == 0
    text = capsys.readouterr().out
    header = checkpoints.read_header(grey)
    for expected in (grey, str(header["parameters"]), "'PeriodicUNet'", "[1, 8, 8]", "['brick', 'grass']", "'global'"):
        assert expected in text
    assert "\x1b" not in text and "\x07" not in text and "\u202e" not in text and r"\x1b[31mred" in text
    assert cli.main(["info"]) == 0
    assert "shipped models:" in capsys.readouterr().out


def test_shipped_models_go_by_name(capsys, models, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "_PRETRAINED", models)
    assert cli.main(["info"]) == 0
    assert "grey, mlp, rgb" in capsys.readouterr().out
    assert cli.main(["sample", "grey", "-n", "1", *QUICK, "--out", str(tmp_path / "a.png")]) == 0
    capsys.readouterr()
    fails(capsys, ["sample", "gray"], "'gray'", "['grey', 'mlp', 'rgb']")


def test_oscillators_are_no_pictures(capsys, models, tmp_path):
    words = ["sample", models / "mlp.safetensors", "-n", "2", *QUICK, "--out"]
    fails(capsys, [*words, tmp_path / "a.png"], "(3,)", "ends in .npz")
    fails(capsys, [*words, tmp_path / "a.npz", "--trajectory", tmp_path / "a.gif"], "(3,)")
    assert cli.main([str(word) for word in [*words, tmp_path / "a.npz"]]) == 0
    assert phases(tmp_path / "a.npz").shape == (2, 3)


def test_errors_of_sampling(capsys, models, grey, tmp_path):
    out = ["--out", tmp_path / "x.png"]
    fails(capsys, ["sample", "nothing-here", *out], "'nothing-here'", "expected")
    fails(capsys, ["info", tmp_path], "model.safetensors: got no such file")
    (tmp_path / "damaged.safetensors").write_bytes((models / "rgb.safetensors").read_bytes()[:-1])
    for command in ("sample", "info"):
        fails(capsys, [command, tmp_path / "damaged.safetensors"], "bytes, expected")
    torch.save({}, tmp_path / "pickle.pt")
    fails(capsys, ["sample", tmp_path / "pickle.pt", *out], "never loads pickles")
    for option in ("-n", "--steps", "--chunk"):
        fails(capsys, ["sample", grey, option, "0", *out], "got 0, expected an integer from 1")
    fails(capsys, ["sample", grey, "--method", "magic", *out], "method: got 'magic', expected one of ode, ancestral")
    fails(capsys, ["sample", grey, "--seed", "-1", *out], "seed: got -1")
    fails(capsys, ["sample", grey, "--class", "wool", *out], "'wool'", "['brick', 'grass']")
    fails(capsys, ["sample", models / "rgb.safetensors", "--class", "1", *out], "no classes")
    fails(capsys, ["sample", models / "rgb.safetensors", "--method", "ancestral", *out], "calibration", "try ode")
    fails(capsys, ["sample", models / "rgb.safetensors", "--method", "hybrid", *out], "calibration", "try ode")
    fails(capsys, ["sample", grey, "--device", "nonsense", *out], "device: got 'nonsense'")
    fails(capsys, ["sample", grey, "--out", "a.jpg"], "a.jpg", "try a.png")
    fails(capsys, ["sample", grey, "--trajectory", "a.mp4", *out], "try a.gif")
    assert not (tmp_path / "x.png").exists()
    for words in (["sample", grey, "-n", "many"], ["sample"], ["dream"], []):
        assert "For full helptext" in usage_error(capsys, words)


def test_a_warning_is_a_note_without_a_line_of_code(capsys, photographs, tmp_path, tiny_recipes):
    shutil.copytree(photographs, tmp_path / "images")
    (tmp_path / "images" / "cats" / "broken.png").write_text("no image")
    assert train_folder(tmp_path / "images", tmp_path / "out", "--steps", "0", "--skip-broken") == 0
    err = capsys.readouterr().err
    assert "kodm-lite: note: image_folder: left out 1 of " in err and ".py:" not in err and "warnings.warn" not in err


def test_errors_of_training(capsys, photographs, tmp_path, tiny_recipes):
    (tmp_path / "empty").mkdir()
    fails(capsys, ["train", "folder", tmp_path / "missing"], "does not exist")
    fails(capsys, ["train", "folder", tmp_path / "empty"], "no files")
    fails(capsys, ["train", "folder", photographs, "--size", "7"], "multiple of 2", "try --size 8")
    fails(capsys, ["train", "folder", photographs / "cats", "--size", "8", "--classes"], "images without classes")
    few = ["train", "folder", photographs, "--size", "8", "--simulation-steps", "5"]
    fails(capsys, few, "simulation_steps: got 5 for", "try --simulation-steps 15")
    assert "steps: got -1" in usage_error(capsys, ["train", "folder", str(photographs), "--steps", "-1"])
    assert "--steps" in usage_error(capsys, ["train", "folder", str(photographs), "--stpes", "3"])
    (tmp_path / "file").touch()
    assert train_folder(photographs, tmp_path / "file" / "run") == 1
    assert str(tmp_path / "file" / "run") in capsys.readouterr().err


def test_what_cannot_be_written_fails_before_sampling(capsys, grey, tmp_path, monkeypatch):
    monkeypatch.setattr(Model, "sample", lambda *args, **options: pytest.fail("sampled"))
    (tmp_path / "file").touch()
    fails(capsys, ["sample", grey, "--out", tmp_path / "file" / "a.png"], f"{tmp_path / 'file'} cannot be written")
    fails(capsys, ["sample", grey, "--out", tmp_path / "file"], "got the file")
    (tmp_path / "folder.png").mkdir()
    fails(capsys, ["sample", grey, "--out", tmp_path / "folder.png"], "got the folder")

    def refused(dir):  # as a read-only folder does, which root does not notice
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(tempfile, "TemporaryFile", refused)
    for name in ("a.png", "a.npz", "folder"):
        fails(capsys, ["sample", grey, "--out", tmp_path / name], "cannot be written", "Permission denied")


def test_a_full_disk_leaves_no_half_file(capsys, grey, tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    for name in ("a.png", "a.npz"):
        fails(capsys, ["sample", grey, "-n", "1", *QUICK, "--out", tmp_path / name], name, "No space left")
    assert not list(tmp_path.iterdir())


def test_ctrl_c_and_lack_of_memory_while_sampling(capsys, grey, tmp_path, monkeypatch):
    words = ["sample", grey, "--out", str(tmp_path / "a.png")]
    for error, status in ((KeyboardInterrupt(), 130), (MemoryError(), 1), (torch.cuda.OutOfMemoryError("full"), 1)):

        def stop(*args, error=error, **options):
            raise error

        monkeypatch.setattr(Model, "sample", stop)
        assert cli.main(words) == status
        err = capsys.readouterr().err
        assert (err == "") == (status == 130)
    assert "--chunk" in err and not list(tmp_path.iterdir())


def test_as_a_module_and_into_a_closed_pipe(grey):
    done = in_subprocess("info", grey)
    assert done.returncode == 0 and done.stderr == "" and "'PeriodicUNet'" in done.stdout
    read, write = os.pipe()
    os.close(read)
    with io.FileIO(write, "w") as closed:
        words = [sys.executable, "-m", "kodm_lite", "--help"]
        done = subprocess.run(words, stdout=closed, stderr=subprocess.PIPE, text=True, timeout=PATIENCE)
    assert done.returncode == 141 and done.stderr == ""


@pytest.fixture(scope="module")
def textured(tmp_path_factory):
    """A tiny model of images of 32 x 32 pixels."""
    path = tmp_path_factory.mktemp("textured") / "model.safetensors"
    checkpoints.save(path, Model(unet(), PROCESS, (1, 32, 32), GreyLevels(0.5), None, {}))
    return path


def test_evaluate_prints_a_table_and_writes_the_same_numbers(capsys, textured, tmp_path):
    out = tmp_path / "metrics.json"
    words = ["evaluate", str(textured), "--data", "textures-32", "-n", "24", "--steps", "2", "--out", str(out)]
    assert cli.main([*words, "--chunk", "10"]) == 0
    printed = capsys.readouterr().out
    found = json.loads(out.read_text())
    assert found["images"] == 24 and found["data"] == "textures-32" and found["steps"] == 2
    for row in found["rows"]:
        line = next(line for line in printed.splitlines() if line.startswith(row["metric"]))
        assert line[len(row["metric"]) :].split()[0] == f"{row['value']:.4g}"
    distance = next(row for row in found["rows"] if row["metric"] == "Fréchet texture distance")
    assert distance["value"] > 3 * distance["floor"], "an untrained model is far from real images"
    assert cli.main(words) == 1 and "--overwrite" in capsys.readouterr().err


def test_evaluate_needs_enough_images_before_it_draws(capsys, textured, monkeypatch):
    monkeypatch.setattr(Model, "sample", None)
    fails(capsys, ["evaluate", textured, "--data", "textures-32", "-n", "19"], "got 19 generated images and 38")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--data", "nowhere"], "data: got 'nowhere', expected a folder of images or one of textures-32, "),
        (["--data", "digits-16"], "data: got images of shape (1, 16, 16), expected (1, 32, 32)"),
        (["--data", "textures-32", "-n", "0"], "n: got 0"),
        (["--data", "textures-32", "-n", "24", "--steps", "1", "--method", "sde"], "method: got 'sde'"),
    ],
)
def test_evaluate_says_what_is_wrong(capsys, textured, options, message):
    assert cli.main(["evaluate", str(textured), *options]) == 1
    assert message in capsys.readouterr().err


def test_data_lists_explains_and_checks(capsys, tmp_path):
    assert cli.main(["data"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in (*recipes.RECIPES, "cifar10", "socofing"))
    assert cli.main(["data", "cifar10"]) == 0
    assert "https://www.cs.toronto.edu/~kriz/cifar.html" in capsys.readouterr().out
    (tmp_path / "Real").mkdir()
    assert cli.main(["data", "socofing", str(tmp_path)]) == 1
    assert "https://" in capsys.readouterr().err
    assert cli.main(["data", "imagenet"]) == 1
    assert "imagenet" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["fingerprints-32", "orientations", "digits-16", "terrain-32"])
def test_every_recipe_trains_and_samples_by_class(capsys, tmp_path, monkeypatch, name):
    monkeypatch.setitem(recipes.images.SIZES, "small", TINY)
    monkeypatch.setattr(recipes.data_sets, "VALIDATION_IMAGES", 4)
    few = {"fingerprints-32": ["--prints", "8"], "orientations": ["--prints", "8"], "terrain-32": ["--crops", "8"]}
    words = ["train", name, "--out", str(tmp_path / "run"), *few.get(name, []), "--steps", "2", "--batch-size", "4"]
    assert cli.main([*words, "--sample-every", "2"]) == 0
    assert (tmp_path / "run" / "samples" / "step_000002.png").is_file()
    card = checkpoints.read_header(tmp_path / "run" / "model.safetensors")["card"]
    assert card["licence"] and (card["classes"] or name == "terrain-32")
    by_class = ["--class", card["classes"][1], "--guidance", "2"] if card["classes"] else []
    words = ["sample", str(tmp_path / "run"), "-n", "2", *QUICK, "--out", str(tmp_path / "a.npz"), *by_class]
    assert cli.main(words) == 0
    with np.load(tmp_path / "a.npz", allow_pickle=False) as archive:
        header = json.loads(str(archive["header"]))
    assert header["guidance"] == (2 if by_class else 1)


def test_the_baseline_trains_and_samples_with_the_same_commands(capsys, tmp_path, monkeypatch):
    monkeypatch.setitem(recipes.images.SIZES, "small", TINY)
    run = str(tmp_path / "run")
    train = ["train", "digits-16", "--diffusion", "euclidean", "--out", run, "--steps", "2"]
    assert cli.main([*train, "--batch-size", "4", "--sample-every", "2"]) == 0
    model = checkpoints.load(tmp_path / "run" / "model.safetensors")
    assert type(model.network).__name__ == "EuclideanUNet" and model.calibration is None
    for method in ("ode", "sde", "ancestral"):
        out = tmp_path / f"{method}.png"
        words = ["sample", run, "-n", "2", *QUICK, "--method", method, "--out", str(out)]
        assert cli.main(words) == 0
    capsys.readouterr()
    assert cli.main(["sample", run, *QUICK, "--method", "euler", "--out", str(tmp_path / "e.png")]) == 1
    assert "method: got 'euler', expected one of ode, sde, ancestral" in capsys.readouterr().err
    assert cli.main([*train, "--radius", "2"]) == 1
    assert "radius" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--radius", "2", "--no-coupled"], "radius: got one, expected none for pixels"),
        (["--diffusion", "euclidean", "--no-coupled"], "coupled: got False"),
        (["--diffusion", "euclidean", "--published"], "published: got True"),
        (["--diffusion", "euclidean", "--weighting", "early"], "weighting: got a value, expected none"),
        (["--start"], "start: got no model, expected at least one"),
    ],
)
def test_options_that_do_not_fit_are_refused_before_data_are_read(capsys, tmp_path, monkeypatch, options, message):
    monkeypatch.setattr(recipes.images.ImageRecipe, "images", None)
    assert cli.main(["train", "digits-16", "--out", str(tmp_path / "out"), *options]) == 1
    out, err = capsys.readouterr()
    assert out == "" and message in err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("words", [["."], [".", "--out", "model"], ["..", "--out", "model"], [".", "--out", "."]])
def test_a_training_does_not_learn_its_own_pictures(capsys, photographs, monkeypatch, words):
    monkeypatch.chdir(photographs / "cats")
    monkeypatch.setattr(recipes.FolderRecipe, "images", None)  # refused before it reads
    fails(capsys, ["train", "folder", *words], "in the folder of the images, expected another place")
    assert not list(photographs.rglob("*.safetensors"))


def test_a_folder_is_called_by_its_name(photographs, monkeypatch):
    monkeypatch.chdir(photographs / "cats")
    assert recipes.FolderRecipe(path=Path("..")).name == photographs.name


def test_kept_models_know_their_classes(capsys, photographs, tmp_path, tiny_recipes):
    run = tmp_path / "run"
    assert train_folder(photographs, run, "--classes", "--keep-models", *QUICK) == 0
    card = checkpoints.load(run / "models" / "step_000003.safetensors").card
    assert card["classes"] == ["cats", "dogs"] and card["licence"]


def test_too_little_memory_is_said(capsys, monkeypatch):
    def run(self):
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory: 3 bytes")

    monkeypatch.setattr(cli.Info, "run", run)
    fails(capsys, ["info"], "not enough memory; try a smaller --chunk")


def test_reproduce_goes_on_where_it_stopped(capsys, tmp_path, monkeypatch):
    monkeypatch.setitem(recipes.images.SIZES, "small", TINY)
    words = ["reproduce", "--data", "digits-16", "--methods", "sgm", "sgm-flow", "kodm-global", "mean-field"]
    words += ["--budgets", "8", "16", "--train-steps", "2", "--batch-size", "8", "--images", "20"]
    words += ["--out", str(tmp_path)]
    assert cli.main(words) == 0
    printed = capsys.readouterr().out
    cells = sorted(path.name for path in (tmp_path / "cells").glob("*.json"))
    assert all((tmp_path / "cells" / name).with_suffix(".png").is_file() for name in cells)
    assert len(cells) == 8 and "digits-16.mean-field.16.0.json" in cells
    models = sorted(path.parent.name for path in (tmp_path / "models" / "digits-16").glob("*/seed-0"))
    assert models == ["kodm-global-16", "kodm-global-8", "mean-field", "sgm"], "methods that train alike share a model"
    lines = summary(json.loads((tmp_path / "results.json").read_text()))
    for line in lines:
        cell = json.loads((tmp_path / "cells" / f"digits-16.{line['method']}.{line['budget']}.0.json").read_text())
        row = next(x for x in cell["evaluation"]["rows"] if x["metric"] == "Fréchet texture distance")
        assert (line["value"], line["error"], line["seeds"]) == (row["value"], row["error"], 1)
        assert f"{line['value']:.2f} ± {line['error']:.2f}" in printed
    assert "SOCOFing, 100 steps: SGM 104.92, KODM global 74.41, KODM local 67.49" in printed
    assert "Not run: cifar10. With --cifar10 PATH it is." in printed and "https://www.cs.toronto.edu" in printed
    assert all((tmp_path / name).stat().st_size > 1000 for name in ("table.png", "samples.png"))

    changed = tmp_path / "cells" / "digits-16.sgm.8.0.json"
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.json") if path.parent.name == "cells"}
    weights = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("model.safetensors")}
    changed.unlink()
    assert cli.main(words) == 0
    assert {path: path.stat().st_mtime_ns for path in weights} == weights, "no model is trained again"
    assert [path for path in times if path.stat().st_mtime_ns != times[path]] == [changed]
    assert summary(json.loads((tmp_path / "results.json").read_text())) == lines
    capsys.readouterr()
    assert cli.main([*words, "--train-steps", "3"]) == 1
    assert "try another folder" in capsys.readouterr().err


def test_the_error_over_seeds_is_that_of_their_mean():
    def result(seed, value):
        row = {"metric": "Fréchet texture distance", "value": value, "error": 0.3, "floor": 0.1}
        cell = {"data": "d", "method": "sgm", "budget": 25, "seed": seed, "title": "SGM"}
        return {**cell, "evaluation": {"rows": [row], "images": 20}}

    (line,) = summary([result(0, 1.0), result(1, 2.0), result(2, 4.5)])
    assert line["value"] == pytest.approx(2.5) and line["seeds"] == 3
    assert line["error"] == pytest.approx(np.std([1.0, 2.0, 4.5], ddof=1) / 3**0.5)
    assert table([line]).splitlines()[2].split() == ["SGM", "2.50", "±", f"{line['error']:.2f}"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--images", "10"], "images: got 10, expected at least 20"),
        (["--methods", "sgm-flow", "--budgets", "1"], "budgets: got (1,), expected numbers from 2"),
        (["--methods", "gan"], "methods: got ['gan']"),
        (["--methods", "kodm-local", "--budgets", "5", "50"], "budgets: got 5, which are the published methods' steps"),
        (["--seeds", "0"], "seeds: got 0"),
        (["--data", "nowhere"], "data: got 'nowhere'"),
    ],
)
def test_reproduce_refuses_before_it_trains(capsys, tmp_path, options, message):
    words = ["reproduce", "--data", "digits-16", "--methods", "sgm", "--out", str(tmp_path / "out"), *options]
    assert cli.main(words) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_reproduce_takes_no_model_of_another_training(capsys, tmp_path, monkeypatch):
    monkeypatch.setitem(recipes.images.SIZES, "small", TINY)
    words = ["reproduce", "--data", "digits-16", "--methods", "sgm", "--batch-size", "4", "--images", "20"]
    words += ["--out", str(tmp_path)]
    assert cli.main([*words, "--train-steps", "1", "--budgets", "2"]) == 0
    assert cli.main([*words, "--train-steps", "2", "--budgets", "3"]) == 1
    assert "got a model of another training" in capsys.readouterr().err
    (tmp_path / "cells" / "digits-16.sgm.2.0.json").write_text("[1]")
    assert cli.main([*words, "--train-steps", "1", "--budgets", "2"]) == 1
    assert "which is no cell of a table" in capsys.readouterr().err


def test_evaluate_measures_inception_distances_with_any_network(capsys, textured, tmp_path, monkeypatch):
    class Means(torch.nn.Module):
        def forward(self, x):
            return x.float().mean((2, 3))[:, :2] / 255

    for module in (cli.evaluation, sys.modules["kodm_lite.metrics.inception"]):
        monkeypatch.setattr(module, "inception_network", Means)
    out = tmp_path / "numbers.json"
    words = ["evaluate", str(textured), "--data", "textures-32", "-n", "24", "--steps", "2", "--inception"]
    assert cli.main([*words, "--out", str(out)]) == 0
    found = json.loads(out.read_text())["inception"]
    assert (found["generated"], found["real"], found["split"]) == (24, 48, "test")
    assert f"FID {found['fid']:.3f}, KID {found['kid']:.5f}: 24 samples, 48 real images" in capsys.readouterr().out


def test_evaluate_says_before_it_draws_that_inception_is_missing(capsys, textured, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    monkeypatch.setattr(Model, "sample", lambda *args, **kwargs: pytest.fail("drew samples"))
    assert cli.main(["evaluate", str(textured), "--data", "textures-32", "-n", "24", "--inception"]) == 1
    assert 'pip install ".[fid]"' in capsys.readouterr().err


def test_evaluate_refuses_images_on_another_scale(capsys, tmp_path):
    checkpoints.save(tmp_path / "m.safetensors", Model(unet(), PROCESS, (1, 32, 32), GreyLevels(0.9), None, {}))
    assert cli.main(["evaluate", str(tmp_path / "m.safetensors"), "--data", "fingerprints-32", "-n", "20"]) == 1
    assert "data: got images with GreyLevels(scale=0.5), expected GreyLevels(scale=0.9)" in capsys.readouterr().err


def test_evaluate_refuses_a_folder_of_images_for_a_model_of_angles(capsys, photographs, tmp_path):
    checkpoints.save(tmp_path / "m.safetensors", Model(unet(), PROCESS, (1, 8, 8), Angles(), None, {}))
    fails(
        capsys,
        ["evaluate", tmp_path / "m.safetensors", "--data", photographs, "-n", "2"],
        "data: got images with GreyLevels(scale=0.9), expected Angles()",
    )


@pytest.mark.parametrize(
    "learned, noted", [("fingerprints made by kodm_lite, ridges 9 pixels apart", True), (None, False)]
)
def test_evaluate_notes_that_a_model_has_learned_from_other_images(capsys, tmp_path, monkeypatch, learned, noted):
    card = {} if learned is None else {"data": learned}
    checkpoints.save(tmp_path / "m.safetensors", Model(unet(), PROCESS, (1, 32, 32), GreyLevels(0.5), None, card))
    few = recipes.FingerprintRecipe(size=32, period=5.0, prints=40)
    monkeypatch.setitem(recipes.RECIPES, "fingerprints-32", (few, ""))
    words = ["evaluate", str(tmp_path / "m.safetensors"), "--data", "fingerprints-32", "-n", "20", "--steps", "1"]
    assert cli.main(words) == 0
    printed = capsys.readouterr().out
    assert ("Note: the model has learned from fingerprints made by kodm_lite, ridges 9 pixels" in printed) is noted
    assert ("it is measured against fingerprints made by kodm_lite, ridges 5 pixels apart" in printed) is noted


def test_guidance_needs_a_class(capsys, grey, tmp_path):
    assert cli.main(["sample", grey, *QUICK, "--guidance", "3", "--out", str(tmp_path / "a.npz")]) == 1
    assert "guidance: got 3.0 without a class" in capsys.readouterr().err


def test_copies_are_looked_for_among_all_training_images(capsys, textured, monkeypatch):
    def stop(samples, real, train, seed):
        raise ValueError(f"{len(train)} images, the last at {float(nearest_distances(last, train.theta)):.3f}")

    last = recipes.recipe_of("textures-32").images("train").theta[-1:]
    monkeypatch.setattr(cli.evaluation, "evaluate", stop)
    words = ["evaluate", str(textured), "--data", "textures-32", "-n", "24", "--steps", "1"]
    assert cli.main(words) == 1
    assert "32768 images, the last at 0.000" in capsys.readouterr().err
