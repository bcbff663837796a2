"""Published data sets, made small and false: what is read, that persons stay in one split, and what is said if not."""

import hashlib
import math
import struct
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import HELPFUL
from PIL import Image

import kodm_lite.data.published
from kodm_lite import phase_to_image
from kodm_lite.data import SOURCES, brodatz, check, ground_terrain, image_folder, instructions, socofing

PI = math.pi
FINGERS = [f"{hand} {name}" for hand in ("Left", "Right") for name in ("index", "little", "middle", "ring", "thumb")]


def position(name: str) -> float:
    return int.from_bytes(hashlib.sha256(name.encode("utf8")).digest()[:8], "big") / 2**64


def save(path: Path, pixels) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels, np.uint8)).save(path)
    return path


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)


def name_of(subject: int, finger: str) -> str:
    return f"{subject}__{'MF'[subject % 2]}_{finger.replace(' ', '_')}_finger.BMP"


def prints(folder: Path, subjects=range(1, 21)) -> Path:
    """Ten flat prints of each subject, whose grey value is the subject's number."""
    for subject in subjects:
        for finger in FINGERS:
            save(folder / "Real" / name_of(subject, finger), np.full((103, 96), subject))
    return folder


def grey(data) -> np.ndarray:
    """Images in bytes."""
    return 255 * (phase_to_image(data.theta, data.encoding.scale).double().numpy() + 1) / 2


def levels(data) -> list[int]:
    """Which flat images these are."""
    return [round(float(x.mean())) for x in grey(data)]


def refused(call) -> str:
    with pytest.raises(ValueError, match=HELPFUL) as error:
        call()
    return str(error.value)


def test_no_person_is_in_both_splits_of_the_prints(tmp_path):
    prints(tmp_path)
    train, test, every = (levels(socofing(tmp_path, split=split)) for split in ("train", "test", "all"))
    expected = [subject for subject in range(1, 21) if position(str(subject)) < 0.2]
    assert 1 <= len(expected) <= 8
    assert sorted(test) == sorted(10 * expected)
    assert sorted(train) == sorted(10 * [subject for subject in range(1, 21) if subject not in expected])
    assert sorted(every) == sorted(train + test)


def test_added_persons_move_no_other_person(tmp_path):
    prints(tmp_path, range(1, 21))
    before = set(levels(socofing(tmp_path, split="test")))
    prints(tmp_path, range(21, 30))
    assert {subject for subject in levels(socofing(tmp_path, split="test")) if subject <= 20} == before


def test_prints_are_labelled_with_their_fingers(tmp_path):
    for k, finger in enumerate(FINGERS):
        save(tmp_path / "Real" / name_of(3 + k, finger), np.full((103, 96), 10 * k))
    data = socofing(tmp_path, split="all")
    assert data.names == tuple(finger.lower() for finger in FINGERS) and data.encoding.scale == 0.9
    found = {level: data.names[label] for level, label in zip(levels(data), data.labels, strict=True)}
    assert found == {10 * k: finger.lower() for k, finger in enumerate(FINGERS)}
    assert "SOCOFing" in data.source and "non-commercial" in data.licence


@pytest.mark.parametrize("size", [64, 96])
def test_the_middle_of_a_print_is_kept(tmp_path, size):
    pixels = noise(103, 96)
    save(tmp_path / "Real" / name_of(5, "Left thumb"), pixels)
    data = socofing(tmp_path, size=size)
    assert data.theta.shape == (1, 1, size, size) and data.theta.dtype == torch.float32
    middle = Image.fromarray(pixels[3:99].astype(np.float32))
    expected = np.asarray(middle.resize((size, size), Image.Resampling.BILINEAR))
    np.testing.assert_allclose(grey(data)[0, 0], expected, atol=0.01)


@pytest.mark.parametrize("inner", ["SOCOFing", "socofing"])
def test_the_folder_of_prints_may_lie_in_another(tmp_path, inner):
    prints(tmp_path / inner, range(1, 4))
    save(tmp_path / inner / "Altered" / "Altered-Easy" / "1__M_Left_index_finger_CR.BMP", noise(103, 96))
    assert len(socofing(tmp_path, split="all")) == len(socofing(tmp_path / inner, split="all")) == 30


def test_a_broken_print_is_named_or_left_out(tmp_path):
    prints(tmp_path, range(1, 7))
    broken = tmp_path / "Real" / name_of(2, "Right ring")
    broken.write_bytes(broken.read_bytes()[:500])
    split = "test" if position("2") < 0.2 else "train"
    assert broken.name in refused(lambda: socofing(tmp_path, split="all"))
    assert broken.name in refused(lambda: socofing(tmp_path, split=split))
    with pytest.warns(UserWarning, match=broken.name):
        data = socofing(tmp_path, split="all", skip_broken=True)
    assert len(data) == 59 and levels(data).count(2) == 9
    assert len(data.of_class("right ring")) == 5 and len(data.of_class("left ring")) == 6


@pytest.mark.parametrize("name", ["1__M_Left_index_finger_CR.BMP", "M_Left_index_finger.BMP", "1__M_Left_toe.BMP"])
def test_prints_with_other_names_are_named(tmp_path, name):
    prints(tmp_path, [1, 2])
    save(tmp_path / "Real" / name, noise(103, 96))
    assert name in refused(lambda: socofing(tmp_path))


def photographs(folder: Path, numbers, side: int = 24, suffix: str = "gif") -> Path:
    for k in numbers:
        save(folder / f"D{k}.{suffix}", np.full((side, side), 2 * k))
    return folder


def test_photographs_of_brodatz_are_divided_and_labelled(tmp_path):
    photographs(tmp_path, range(1, 113))
    expected = {k for k in range(1, 113) if position(f"D{k}") < 0.2}
    for split, numbers in (("test", expected), ("train", set(range(1, 113)) - expected)):
        data = brodatz(tmp_path, size=8, split=split, crops=3)
        assert data.theta.shape == (3 * len(numbers), 1, 8, 8)
        assert sorted(levels(data)) == sorted(3 * [2 * k for k in numbers])
        assert [f"D{level // 2}" for level in levels(data)] == [data.names[label] for label in data.labels]
    assert "Brodatz" in data.source and "copyright" in data.licence
    whole = brodatz(tmp_path, size=8, split="all", crops=None)
    assert len(whole) == 112 == len(whole.names)


def test_photographs_of_brodatz_may_be_written_otherwise(tmp_path):
    save(tmp_path / "Original Brodatz" / "d007.TIF", np.full((9, 9), 50))
    save(tmp_path / "Original Brodatz" / "D10.png", np.full((9, 9), 60))
    data = brodatz(tmp_path, size=8, split="all", crops=1)
    assert {data.names[label]: level for label, level in zip(data.labels, levels(data), strict=True)} == {
        "D7": 50,
        "D10": 60,
    }
    save(tmp_path / "Original Brodatz" / "D113.png", np.full((9, 9), 60))
    assert "D113.png" in refused(lambda: brodatz(tmp_path))


def test_crops_of_brodatz_depend_on_the_seed(tmp_path):
    save(tmp_path / "D1.png", noise(64, 64))
    first, again, other = (brodatz(tmp_path, size=8, split="all", seed=seed).theta for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other) and first.shape == (20, 1, 8, 8)


def test_materials_are_the_sub_folders(tmp_path):
    materials = ("stone_brick", "asphalt", "dry_leaf", "metal_cover")
    names = [f"{material}/{k:02}.jpg" for material in materials for k in range(12)]
    for k, name in enumerate(names):
        save(tmp_path / name, np.full((20, 30), 4 * k + 60))
    for split in ("train", "test"):
        expected = [(4 * k + 60, name) for k, name in enumerate(names) if (position(name) < 0.2) == (split == "test")]
        data = ground_terrain(tmp_path, size=8, split=split)
        assert data.names == tuple(sorted(materials)) and len(data) == len(expected) > 0
        found = sorted((level, data.names[label]) for level, label in zip(levels(data), data.labels, strict=True))
        for (level, material), (right, name) in zip(found, expected, strict=True):
            assert abs(level - right) <= 2 and name.startswith(material)
    assert len(ground_terrain(tmp_path, size=8, split="all", crops=4)) == 4 * 48
    assert "Ground Terrain" in data.source and data.licence == "not stated"


@pytest.mark.parametrize("name", ["brodatz", "ground_terrain", "socofing"])
def test_a_wrong_folder_is_refused_with_the_instructions(tmp_path, name):
    read = getattr(kodm_lite.data, name)
    (tmp_path / "empty").mkdir()
    save(tmp_path / "other" / "photograph.png", noise(9, 9))
    (tmp_path / "file.zip").write_bytes(b"PK")
    for path in ("nowhere", "empty", "other", "file.zip"):
        message = refused(lambda path=path: read(tmp_path / path))
        assert message.endswith(instructions(name)) and str(tmp_path / path) in message
        assert SOURCES[name].url in message and SOURCES[name].licence in message


def test_instructions_say_where_what_and_how():
    assert sorted(SOURCES) == ["brodatz", "cifar10", "ground_terrain", "socofing"]
    for name, source in SOURCES.items():
        text = instructions(name)
        assert source.name == name and source.url.startswith("https://")
        for words in (source.title, source.url, source.licence, source.expects, f'("{name}", path)', f".{name}(path)"):
            assert words in text
        assert callable(getattr(kodm_lite.data, name))
        assert (source.md5 is None) == (source.bytes is None) == ("no checksum is known" in text)
        with pytest.raises(FrozenInstanceError):
            source.url = ""
    assert "170,052,171 bytes" in instructions("cifar10")


def test_prints_are_counted(tmp_path, monkeypatch):
    prints(tmp_path, [1, 2])
    assert check("socofing", tmp_path).startswith("socofing: partial, 20 of 6000 files Real/")
    assert "partial: 20 of 6000 files" in socofing(tmp_path, split="all").source
    monkeypatch.setitem(kodm_lite.data.published._FILES, "socofing", (("Real/*.[Bb][Mm][Pp]", 20, None),))
    assert check("socofing", tmp_path).startswith("socofing: 20 files Real/")
    assert "partial" not in socofing(tmp_path, split="all").source
    monkeypatch.setitem(kodm_lite.data.published._FILES, "socofing", (("Real/*.[Bb][Mm][Pp]", 19, None),))
    assert "20 files" in refused(lambda: check("socofing", tmp_path))


def test_photographs_are_counted(tmp_path):
    photographs(tmp_path, range(1, 14))
    (tmp_path / "D112.txt").write_text("no image")
    (tmp_path / "._D112.gif").write_bytes(b"of another system")
    assert check("brodatz", tmp_path).startswith("brodatz: partial, 13 of 112 files")
    assert "partial: 13 of 112 files" in brodatz(tmp_path, size=8).source
    for name in ("D113.gif", "D0.gif", "D1234.gif", "D3_holiday.gif"):
        save(tmp_path / "own" / name, noise(9, 9))
    assert "without these files" in refused(lambda: check("brodatz", tmp_path / "own"))
    save(tmp_path / "prints" / "Real" / "scan.bmp", noise(9, 9))
    assert "without these files" in refused(lambda: check("socofing", tmp_path / "prints"))
    photographs(tmp_path, range(14, 113))
    assert check("brodatz", tmp_path).startswith("brodatz: 112 files")


def test_what_is_not_recognised_is_not_certified(tmp_path):
    for material in ("sand", "cat", "dry_leaf", "metal_cover"):
        save(tmp_path / material / "a.png", noise(9, 9))
        (tmp_path / material / "._a.png").write_bytes(b"of another system")
    said = check("ground_terrain", tmp_path)
    assert said.startswith("not recognised as Ground Terrain") and "4 images" in said and "any image folder" in said
    data = ground_terrain(tmp_path, split="all")
    assert len(data) == 4 and "Ground" not in data.source and data.licence == "that of the images"
    save(tmp_path / "stone_brick" / "a.png", noise(9, 9))
    assert check("ground_terrain", tmp_path).startswith("ground_terrain: 5 files")
    assert ground_terrain(tmp_path, split="all").source.startswith("Ground Terrain in Outdoor Scenes")


def test_a_root_of_splits_is_not_read_as_one_of_them(tmp_path):
    for split in ("train", "test"):
        save(tmp_path / split / "sand" / "a.png", noise(9, 9))
    assert "several such folders, test, train" in refused(lambda: ground_terrain(tmp_path))


PRINT = noise(97, 90, seed=4)


def framed(inner: np.ndarray = PRINT) -> np.ndarray:
    """A print (97, 90) in the window of SOCOFing (103, 96)."""
    pixels = np.zeros((103, 96), np.uint8)
    pixels[:-4, :-4] = 105
    pixels[0], pixels[:, 0] = 160, 160
    pixels[-4:], pixels[:, -4:] = 0, 0
    pixels[2:-4, 2:-4] = inner
    return pixels


def save_as_scanner(path: Path, grey: np.ndarray, alpha: np.ndarray) -> Path:
    """A BMP of 32 bits with a header of version 5, bottom row first, blue, green, red, alpha."""
    height, width = grey.shape
    size = 138 + 4 * height * width
    header = struct.pack("<2sIHHI", b"BM", size, 0, 0, 138)
    header += struct.pack("<IiiHHIIiiII", 124, width, height, 1, 32, 3, size - 138, 2835, 2835, 0, 0)
    header += struct.pack("<IIII4s", 0xFF0000, 0xFF00, 0xFF, 0xFF000000, b"BGRs") + bytes(124 - 40 - 20)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(header + np.stack([grey, grey, grey, alpha], 2)[::-1].tobytes())
    return path


def test_the_window_of_a_print_is_cut_off(tmp_path):
    """A file as it is distributed: its frame is opaque above, transparent below, and in no loaded print."""
    alpha = np.full((103, 96), 255, np.uint8)
    alpha[-4:], alpha[:, -4:] = 0, 0
    file = save_as_scanner(tmp_path / "Real" / name_of(5, "Left thumb"), framed(), alpha)
    assert file.stat().st_size == 39_690
    with Image.open(file) as opened:
        assert opened.mode == "RGBA" and opened.size == (96, 103)
        np.testing.assert_array_equal(np.asarray(opened)[:, :, 3], alpha)
    data = socofing(tmp_path, size=64)
    square = Image.fromarray(PRINT[3:93].astype(np.float32))
    expected = np.asarray(square.resize((64, 64), Image.Resampling.BILINEAR))
    np.testing.assert_allclose(grey(data)[0, 0], expected, atol=0.01)
    assert "frame" in instructions("socofing")


def test_an_enlarged_window_is_cut_off_too(tmp_path):
    paper = np.full((97, 90), 255, np.uint8)
    paper[20:80:6, 10:80] = 30
    large = Image.fromarray(framed(paper)).resize((241, 298), Image.Resampling.BICUBIC).convert("RGB")
    path = tmp_path / "Real" / name_of(6, "Left thumb")
    save(path, np.asarray(large))
    pixels = grey(socofing(tmp_path, size=96))[0, 0]
    assert pixels[:, :8].min() > 240 and pixels[:, -6:].min() > 240 and pixels[:6].min() > 240


@pytest.mark.parametrize("change", ["bright", "one", "none"])
def test_what_has_no_window_is_left_whole(tmp_path, change):
    pixels = framed()
    if change == "bright":
        pixels[-4:] = 200
    elif change == "one":
        pixels[50, 0] = 90
    else:
        pixels = noise(103, 96)
    save(tmp_path / "Real" / name_of(5, "Left thumb"), pixels)
    expected = pixels[3:99]
    np.testing.assert_allclose(grey(socofing(tmp_path, size=96))[0, 0], expected, atol=0.01)


def test_sizes_of_files_are_checked(tmp_path):
    for name in (*(f"data_batch_{k}.bin" for k in range(1, 6)), "test_batch.bin"):
        with (tmp_path / name).open("wb") as file:
            file.truncate(30_730_000)  # a hole: no bytes are written
    assert "5 files" in check("cifar10", tmp_path)
    with (tmp_path / "data_batch_4.bin").open("wb") as file:
        file.truncate(30_729_999)
    assert "data_batch_4.bin" in refused(lambda: check("cifar10", tmp_path))
    (tmp_path / "data_batch_4.bin").unlink()
    assert "4 files data_batch_[1-5].bin, expected 5" in refused(lambda: check("cifar10", tmp_path))


def test_size_and_hash_of_an_archive_are_checked(tmp_path, monkeypatch):
    content = b"an archive" * 1000
    (tmp_path / "a.tar.gz").write_bytes(content)
    right = replace(SOURCES["cifar10"], bytes=len(content), md5=hashlib.md5(content).hexdigest())
    monkeypatch.setitem(SOURCES, "cifar10", right)
    assert right.md5 in check("cifar10", tmp_path / "a.tar.gz")
    for wrong in (b"An archive" + content[10:], content[:-1], b""):
        (tmp_path / "b.tar.gz").write_bytes(wrong)
        message = refused(lambda: check("cifar10", tmp_path / "b.tar.gz"))
        assert "b.tar.gz" in message and right.md5 in message and hashlib.md5(wrong).hexdigest() in message
    assert "unpack" in refused(lambda: check("socofing", tmp_path / "a.tar.gz"))


def test_impossible_options_are_refused_with_a_hint(tmp_path):
    prints(tmp_path, [1, 2])
    refused(lambda: socofing(tmp_path, size=32))
    refused(lambda: socofing(tmp_path, split="valid"))
    refused(lambda: instructions("mnist"))
    refused(lambda: check("mnist", tmp_path))
    refused(lambda: check("brodatz", tmp_path / "nowhere"))


def test_one_person_is_for_training(tmp_path):
    prints(tmp_path, [9])
    assert len(socofing(tmp_path)) == 10
    refused(lambda: socofing(tmp_path, split="test"))


def test_groups_and_classes_of_a_folder_can_be_given(tmp_path):
    """Here the group is the first letter, the class the last one before the dot, also across sub-folders."""
    names = ["ax.png", "ay.png", "sub/ax.png", "bx.png", "sub/by.png", "cx.png"]
    for k, name in enumerate(names):
        save(tmp_path / name, np.full((6, 6), 10 * k))
    group, label = (lambda name: name.split("/")[-1][0]), (lambda name: name[-5])
    splits = {}
    for split in ("train", "test"):
        data = image_folder(tmp_path, size=4, split=split, test_share=0.4, group=group, label=label, scale=0.9)
        splits[split] = {group(names[level // 10]) for level in levels(data)}
        assert data.names == ("x", "y")
        assert [data.names[k] for k in data.labels] == [label(names[level // 10]) for level in levels(data)]
    expected = {letter for letter in "abc" if position(letter) < 0.4} or {min("abc", key=position)}
    assert splits == {"test": expected, "train": set("abc") - expected}
