"""Images on disk: the same ones as in memory, found again, refused when damaged, and trained on under a memory cap."""

import errno
import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from helpers import PATIENCE
from PIL import Image

from kodm_lite.data import folder as folder_module
from kodm_lite.data import image_folder
from kodm_lite.data.cache import map_cache, write_cache


def photographs(folder, n=6, side=20):
    generator = np.random.default_rng(0)
    for k in range(n):
        (folder / "ab"[k % 2]).mkdir(parents=True, exist_ok=True)
        pixels = generator.integers(0, 256, (side, side), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "ab"[k % 2] / f"{k}.png")
    return folder


@pytest.mark.parametrize("crops", [None, 3])
@pytest.mark.parametrize("workers", [0, 2])
def test_images_on_disk_are_those_in_memory(tmp_path, crops, workers):
    folder = photographs(tmp_path / "photos")
    plain = image_folder(folder, 8, "all", crops=crops, scale=0.9)
    for _ in range(2):  # made, then found
        stored = image_folder(folder, 8, "all", crops=crops, cache=tmp_path / "images.f32", workers=workers, scale=0.9)
        assert torch.equal(stored.theta, plain.theta) and torch.equal(stored.labels, plain.labels)
        assert stored.names == plain.names and stored.encoding == plain.encoding


def test_the_second_call_reads_no_images(tmp_path, monkeypatch):
    folder = photographs(tmp_path / "photos")
    (folder / "a" / "broken.png").write_text("no image")
    options = {"size": 8, "split": "all", "cache": tmp_path / "images.f32", "skip_broken": True}
    with pytest.warns(UserWarning, match=r"left out 1 of 7 .*broken.png"):
        first = image_folder(folder, **options)
    monkeypatch.setattr("kodm_lite.data.folder.read_image", None)
    with pytest.warns(UserWarning, match=r"left out 1 of 7 .*broken.png"):
        again = image_folder(folder, **options)
    assert torch.equal(first.theta, again.theta)
    assert first.labels.tolist() == again.labels.tolist() == [0, 0, 0, 1, 1, 1]
    with pytest.raises(ValueError, match=r"got 1 of 7 files that cannot be read"):
        image_folder(folder, **{**options, "skip_broken": False})


def test_a_cache_of_other_images_is_refused(tmp_path):
    folder, cache = photographs(tmp_path / "photos"), tmp_path / "images.f32"
    image_folder(folder, 8, "all", cache=cache, scale=0.9)
    with pytest.raises(ValueError, match=r"cache: got images of other files or options .* try another name"):
        image_folder(folder, 12, "all", cache=cache, scale=0.9)
    Image.new("L", (9, 9)).save(folder / "a" / "0.png")
    with pytest.raises(ValueError, match=r"cache: got images of other files or options"):
        image_folder(folder, 8, "all", cache=cache, scale=0.9)


@pytest.mark.parametrize("damage", ["short", "notes", "empty"])
def test_a_damaged_cache_is_refused(tmp_path, damage):
    path = tmp_path / "images.f32"
    write_cache(path, "key", [torch.zeros(2, 1, 4, 4), torch.ones(1, 1, 4, 4)], {"n": 1})
    theta, notes = map_cache(path, "key")
    assert theta.shape == (3, 1, 4, 4) and theta.sum() == 16 and notes == {"n": 1}
    beside = path.with_name("images.f32.json")
    if damage == "short":
        path.write_bytes(path.read_bytes()[:-4])
    else:
        beside.write_text("{}" if damage == "notes" else "")
    with pytest.raises(ValueError, match="got a damaged file"):
        map_cache(path, "key")


def test_what_was_not_finished_is_not_found(tmp_path):
    path = tmp_path / "images.f32"

    def parts():
        yield torch.zeros(2, 1, 4, 4)
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match=r"cannot be written \(No space left on device\)"):
        write_cache(path, "key", parts(), {})
    assert map_cache(path, "key") is None and not list(tmp_path.iterdir())


CAPPED = """
import resource, sys
import torch
from kodm_lite import KuramotoProcess
from kodm_lite.data import folder as folder_module
from kodm_lite.data import image_folder
from kodm_lite.networks import PeriodicUNet
from kodm_lite.training import TrainingOptions, fit, run

torch.set_num_threads(1)
run.Training.calibrate = lambda *_: None  # after a training; takes memory for 64 images, however many there are
process = KuramotoProcess()
network = PeriodicUNet(1, process, width=8, multipliers=(1, 2), patch=4, attention=())
small = torch.zeros(2, 1, 128, 128)
options = dict(steps=2, batch_size=2, warmup=0, validate_every=0)
fit(network, process, small, TrainingOptions(**options), progress=False)  # whatever is loaded on the way
used = int(next(line for line in open("/proc/self/status") if line.startswith("VmData")).split()[1]) * 1024
resource.setrlimit(resource.RLIMIT_DATA, (used + 64 * 2**20, -1))
try:
    torch.zeros(100 * 2**20 // 4).fill_(1)
    print("no cap")
except RuntimeError:
    print("capped")
data = image_folder(sys.argv[1], 128, "all", crops=50, cache=sys.argv[2], scale=0.9)
print(data.theta.nbytes // 2**20)
fit(network, process, data, TrainingOptions(**options), out=sys.argv[3], progress=False)
print("trained")
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the memory of a process can be capped on Linux only")
def test_more_images_than_memory_can_be_trained_on(tmp_path):
    """128 MB of images in a process that may take 64 MB more than it has."""
    folder = photographs(tmp_path / "photos", n=40, side=140)
    command = [sys.executable, "-c", CAPPED, folder, tmp_path / "images.f32", tmp_path / "run"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    assert done.stdout.split() == ["capped", "125", "trained"], done.stderr[-2000:]
    notes = json.loads((tmp_path / "images.f32.json").read_text())
    assert notes["shape"] == [2000, 1, 128, 128]


def test_ctrl_c_does_not_reach_the_processes_that_read(tmp_path, monkeypatch):
    """It goes to all processes of a terminal; the main one stops the others."""
    folder = photographs(tmp_path / "photos")
    expected = image_folder(folder, 8, "all", scale=0.9).theta
    read = folder_module.read_image

    def interrupted(*args):
        assert torch.utils.data.get_worker_info() is not None
        os.kill(os.getpid(), signal.SIGINT)
        return read(*args)

    monkeypatch.setattr(folder_module, "read_image", interrupted)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # tests in the background start deaf
    try:
        assert torch.equal(image_folder(folder, 8, "all", workers=2, scale=0.9).theta, expected)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler, "the main process hears it"
    finally:
        signal.signal(signal.SIGINT, before)


def test_every_flipped_bit_of_a_cache_is_found(tmp_path):
    path = tmp_path / "images.f32"
    write_cache(path, "key", [torch.arange(4.0).reshape(1, 1, 2, 2)], {"n": 1})
    for file in (path, path.with_name("images.f32.json")):
        content = file.read_bytes()
        for k in range(8 * len(content)):
            changed = bytearray(content)
            changed[k // 8] ^= 1 << k % 8
            file.write_bytes(changed)
            with pytest.raises(ValueError, match=r"cache: .*images.f32.* try another name, or delete it"):
                map_cache(path, "key")
        file.write_bytes(content)
    assert map_cache(path, "key")[1] == {"n": 1}


def test_a_pipe_is_no_cache(tmp_path):
    path = tmp_path / "images.f32"
    write_cache(path, "key", [torch.zeros(1, 1, 2, 2)], {})
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(ValueError, match=r"cache: .*images.f32"):
        map_cache(path, "key")
