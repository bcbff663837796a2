"""A folder of images: what is read, how it is resized and cut, and that no image is both in training and in test."""

import hashlib
import math
import os
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import HELPFUL
from PIL import Image, PngImagePlugin

import kodm_lite.data.folder
from kodm_lite import phase_to_image
from kodm_lite.data import image_folder

PI = math.pi


def save(path: Path, pixels, **options) -> Path:
    """An image file of bytes (h, w) or (h, w, 3), or of a Pillow image."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(np.asarray(pixels))
    image.save(path, **options)
    return path


def flat(value: int, height: int = 6, width: int = 6) -> np.ndarray:
    return np.full((height, width), value, np.uint8)


def photograph(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Noise: every window of it is another one."""
    return np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)


def grey(data) -> np.ndarray:
    """Images in [0, 1]."""
    return (phase_to_image(data.theta, data.encoding.scale).double().numpy() + 1) / 2


def levels(data) -> list[int]:
    """Which flat images these are."""
    return [round(255 * float(x.mean())) for x in grey(data)]


def position(name: str) -> float:
    return int.from_bytes(hashlib.sha256(name.encode("utf8")).digest()[:8], "big") / 2**64


def numbered(folder: Path, numbers) -> None:
    for k in numbers:
        save(folder / f"image{k:03}.png", flat(k))


def test_images_come_in_the_order_of_their_names(tmp_path):
    for k, name in enumerate(["b.png", "a.PNG", "c.bmp", "A.tiff", "d.JPEG", "e.webp", "f.gif", "g.ppm"]):
        save(tmp_path / name, flat(20 * k + 10))
    (tmp_path / "notes.txt").write_text("no image")
    save(tmp_path / ".hidden.png", flat(255))
    save(tmp_path / ".thumbnails/a.png", flat(255))
    save(tmp_path / "__MACOSX/a.png", flat(255))
    data = image_folder(str(tmp_path), size=4, split="all", scale=0.9)
    assert data.theta.shape == (8, 1, 4, 4) and data.theta.dtype == torch.float32
    expected = [70, 30, 10, 50, 90, 110, 130, 150]
    assert max(abs(a - b) for a, b in zip(levels(data), expected, strict=True)) <= 2  # JPEG and WebP lose a little
    assert data.labels is None and data.names == () and data.encoding.scale == 0.9 and str(tmp_path) in data.source


def test_sub_folders_are_classes(tmp_path):
    for k, name in enumerate(["wood/b.png", "wood/a/z.png", "sand/c.png", "wood/c.png", "sand/old/new/x.png"]):
        save(tmp_path / name, flat(10 * k + 10))
    data = image_folder(tmp_path, size=4, split="all", scale=0.9)
    assert data.names == ("sand", "wood") and data.labels.dtype == torch.int64
    assert list(zip(levels(data), data.labels.tolist(), strict=True)) == [(30, 0), (50, 0), (20, 1), (10, 1), (40, 1)]
    several = image_folder(tmp_path, size=4, split="all", crops=2, scale=0.9)
    assert several.labels.tolist() == [0] * 4 + [1] * 6
    for split in ("train", "test"):
        part = image_folder(tmp_path, size=4, split=split, test_share=0.4, scale=0.9)
        assert part.names == data.names
        expected = dict(zip(levels(data), data.labels.tolist(), strict=True))
        assert part.labels.tolist() == [expected[level] for level in levels(part)]


def test_the_split_is_that_of_the_hashes_whatever_the_seed(tmp_path):
    numbered(tmp_path, range(100))
    for share in (0.1, 0.5):
        expected = [k for k in range(100) if position(f"image{k:03}.png") < share]
        assert 0.5 * share < len(expected) / 100 < 1.5 * share
        test = levels(image_folder(tmp_path, size=4, split="test", test_share=share, seed=int(share > 0.3), scale=0.9))
        train = levels(image_folder(tmp_path, size=4, split="train", test_share=share, scale=0.9))
        assert test == expected and train == [k for k in range(100) if k not in expected]
        assert levels(image_folder(tmp_path, size=4, split="all", test_share=share, scale=0.9)) == list(range(100))


def test_added_images_move_no_other_image(tmp_path):
    numbered(tmp_path, range(40, 70))
    before = levels(image_folder(tmp_path, size=4, split="test", scale=0.9))
    numbered(tmp_path, [*range(40), *range(70, 100)])
    after = levels(image_folder(tmp_path, size=4, split="test", scale=0.9))
    assert before == [k for k in after if 40 <= k < 70] and len(after) > len(before) > 0


@pytest.mark.parametrize("share", [1e-6, 1 - 1e-6])
def test_no_split_of_two_images_or_more_is_empty(tmp_path, share):
    names = [f"image{k:03}.png" for k in range(5)]
    numbered(tmp_path, range(5))
    test, train = (
        levels(image_folder(tmp_path, size=4, split=split, test_share=share, scale=0.9)) for split in ("test", "train")
    )
    assert sorted(test + train) == list(range(5))
    nearest = min(range(5), key=lambda k: position(names[k])) if share < 0.5 else None
    farthest = max(range(5), key=lambda k: position(names[k])) if share > 0.5 else None
    assert test == [nearest] or train == [farthest]


def test_one_image_is_for_training(tmp_path):
    numbered(tmp_path, [7])
    assert (
        levels(image_folder(tmp_path, size=4, scale=0.9))
        == levels(image_folder(tmp_path, size=4, split="all", scale=0.9))
        == [7]
    )
    with pytest.raises(ValueError, match=HELPFUL):
        image_folder(tmp_path, split="test", scale=0.9)


def test_accents_are_hashed_alike_on_every_machine(tmp_path):
    """Some file systems write é as two characters."""
    for k in range(12):
        save(tmp_path / "one" / f"caf\u00e9{k}.png", flat(k))
        save(tmp_path / "two" / f"cafe\u0301{k}.png", flat(k))
    splits = [
        levels(image_folder(tmp_path / folder, size=4, split="test", test_share=0.4, scale=0.9))
        for folder in ("one", "two")
    ]
    assert splits[0] == splits[1] != []
    crops = [
        image_folder(tmp_path / folder, size=4, split="all", crops=1, scale=0.9).theta for folder in ("one", "two")
    ]
    assert torch.equal(*crops)


@pytest.mark.parametrize(("height", "width"), [(64, 64), (90, 37), (20, 31), (5, 7), (16, 16), (1, 3)])
def test_images_are_cut_to_their_centre_and_resized_as_pillow_does(tmp_path, height, width):
    pixels = photograph(height, width)
    save(tmp_path / "a.png", pixels)
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = Image.fromarray(pixels[top : top + side, left : left + side].astype(np.float32) / 255)
    expected = np.asarray(square.resize((16, 16), Image.Resampling.BILINEAR))
    np.testing.assert_allclose(grey(image_folder(tmp_path, size=16, scale=0.9))[0, 0], expected, atol=2e-5)


def test_patterns_finer_than_a_pixel_become_grey(tmp_path):
    save(tmp_path / "board.png", 255 * (np.indices((128, 128)).sum(0) % 2).astype(np.uint8))
    assert np.abs(grey(image_folder(tmp_path, size=16, scale=0.9)) - 0.5).max() < 0.01


def places(crop: np.ndarray, image: np.ndarray) -> list[tuple[int, int]]:
    windows = np.lib.stride_tricks.sliding_window_view(image, crop.shape)
    return [(int(i), int(j)) for i, j in np.argwhere(np.abs(windows - crop).max((2, 3)) < 1e-5)]


def test_crops_are_windows_at_random_places(tmp_path):
    images = [photograph(40, 23), photograph(12, 50, seed=1)]
    for k, pixels in enumerate(images):
        save(tmp_path / f"{k}.png", pixels)
    crops = grey(image_folder(tmp_path, size=8, split="all", crops=60, scale=0.9))[:, 0]
    assert crops.shape == (120, 8, 8)
    for k, pixels in enumerate(images):
        found = [places(crop, pixels / 255) for crop in crops[60 * k : 60 * k + 60]]
        assert all(len(where) == 1 for where in found)
        where = np.array([at for (at,) in found])
        room = np.array(pixels.shape) - 8
        assert (where.min(0) <= 0.15 * room).all() and (where.max(0) >= 0.85 * room).all()


def test_crops_of_the_exact_size_and_of_small_images(tmp_path):
    save(tmp_path / "exact.png", photograph(8, 8))
    np.testing.assert_allclose(
        grey(image_folder(tmp_path, size=8, crops=1, scale=0.9))[0, 0], photograph(8, 8) / 255, atol=1e-6
    )
    save(tmp_path / "exact.png", np.repeat(np.linspace(0, 255, 12).astype(np.uint8)[:, None], 4, 1))
    crops = grey(image_folder(tmp_path, size=8, crops=9, scale=0.9))
    rise = np.diff(crops, axis=2)[:, :, 2:-2]
    assert crops.shape == (9, 1, 8, 8) and np.abs(rise - 1 / 22).max() < 0.01, "enlarged twice: half the slope"
    assert np.ptp(crops, axis=3).max() < 1e-5


def test_crops_depend_on_the_seed_and_the_name_only(tmp_path):
    save(tmp_path / "m.png", photograph(30, 30))
    state = torch.get_rng_state()
    first = image_folder(tmp_path, size=4, split="all", crops=5, seed=1, scale=0.9).theta
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(first, image_folder(tmp_path, size=4, split="all", crops=5, seed=2, scale=0.9).theta)
    for name in ("a.png", "z.png"):
        save(tmp_path / name, photograph(30, 30))
    again = image_folder(tmp_path, size=4, split="all", crops=5, seed=1, scale=0.9).theta
    assert torch.equal(again[5:10], first)
    assert not torch.equal(again[:5], first), "two images are not cut at the same places"


def test_crops_do_not_keep_their_photographs_in_memory(tmp_path, monkeypatch):
    save(tmp_path / "a.png", photograph(64, 64))
    kept = []
    stack = torch.stack
    monkeypatch.setattr(torch, "stack", lambda images: kept.extend(images) or stack(images))
    image_folder(tmp_path, size=8, crops=3, scale=0.9)
    assert len(kept) == 3 and all(image.untyped_storage().nbytes() == 4 * 64 for image in kept)


def coloured() -> Image.Image:
    return Image.new("RGB", (8, 8), (200, 100, 50))


LUMA = (0.299 * 200 + 0.587 * 100 + 0.114 * 50) / 255
CMYK = Image.new("CMYK", (8, 8), (55, 155, 205, 0))  # 255 minus the colours above
RED_INVISIBLE = Image.new("P", (8, 8), 1)
RED_INVISIBLE.putpalette([0, 0, 0, 255, 0, 0])
KINDS = {
    "grey.png": (Image.new("L", (8, 8), 51), {}, [0.2], 0.2),
    "bits.png": (Image.new("1", (8, 8), 1), {}, [1], 1),
    "colour.png": (coloured(), {}, [200 / 255, 100 / 255, 50 / 255], LUMA),
    "palette.png": (coloured().quantize(8), {}, [200 / 255, 100 / 255, 50 / 255], LUMA),
    "palette.gif": (coloured().quantize(8), {}, [200 / 255, 100 / 255, 50 / 255], LUMA),
    "invisible.png": (RED_INVISIBLE, {"transparency": 1}, [1, 1, 1], 1),
    "half.png": (Image.new("RGBA", (8, 8), (0, 0, 0, 127)), {}, [128 / 255] * 3, 128 / 255),
    "pale.png": (Image.new("LA", (8, 8), (100, 0)), {}, [1], 1),
    "half.webp": (Image.new("RGBA", (8, 8), (255, 0, 0, 0)), {"lossless": True}, [1, 1, 1], 1),
    "deep.png": (Image.fromarray(np.full((8, 8), 13107, np.uint16)), {}, [0.2], 0.2),
    "deep.tif": (Image.fromarray(np.full((8, 8), 13107, np.uint16)), {}, [0.2], 0.2),
    "deep.pgm": (Image.fromarray(np.full((8, 8), 13107, np.uint16)), {}, [0.2], 0.2),
    "float.tif": (Image.fromarray(np.full((8, 8), 0.2, np.float32)), {}, [0.2], 0.2),
    "print.jpg": (CMYK, {"quality": 100}, [200 / 255, 100 / 255, 50 / 255], LUMA),
    "moving.gif": (Image.new("L", (8, 8), 51), {"save_all": True, "append_images": [Image.new("L", (8, 8))]},
                   [0.2], 0.2),
    "moving.webp": (coloured(), {"save_all": True, "append_images": [Image.new("RGB", (8, 8))], "lossless": True},
                    [200 / 255, 100 / 255, 50 / 255], LUMA),
}  # fmt: skip


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_image_is_read(tmp_path, name):
    image, options, colours, brightness = KINDS[name]
    save(tmp_path / name, image, **options)
    tolerance = 0.012 if name == "print.jpg" else 1e-5
    in_colour = grey(image_folder(tmp_path, size=4, channels=3, scale=0.9))
    assert in_colour.shape == (1, 3, 4, 4)
    for found, expected in zip(in_colour[0], colours * (3 // len(colours)), strict=True):
        np.testing.assert_allclose(found, expected, atol=tolerance)
    in_grey = grey(image_folder(tmp_path, size=4, channels=1, scale=0.9))
    assert in_grey.shape == (1, 1, 4, 4)
    np.testing.assert_allclose(in_grey, brightness, atol=tolerance)


def test_photographs_are_turned_upright(tmp_path):
    upright = np.zeros((8, 8), np.uint8)
    upright[:2] = 255  # a sky
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held on its side: turn by 90 degrees clockwise
    save(tmp_path / "a.png", np.rot90(upright), exif=exif)
    np.testing.assert_allclose(grey(image_folder(tmp_path, size=8, scale=0.9))[0, 0], upright / 255, atol=1e-5)


def test_white_and_black_are_the_ends_of_the_range(tmp_path):
    save(tmp_path / "a.png", np.repeat(np.array([[0, 255]], np.uint8), 8, 0).repeat(4, 1))
    for options, scale in (({}, 0.5), ({"scale": 0.9}, 0.9)):
        data = image_folder(tmp_path, size=8, **options)
        assert data.encoding.scale == scale
        assert abs(float(data.theta.max()) - scale * PI) < 1e-6 and abs(float(data.theta.min()) + scale * PI) < 1e-6
    with pytest.raises(ValueError, match="scale: got 1.0, expected a number above 0 and below 1"):
        image_folder(tmp_path, size=8, scale=1.0)


def damaged(folder: Path) -> None:
    """Good images a and z between files that are none."""
    save(folder / "a.png", flat(10))
    save(folder / "z.png", flat(20))
    whole = save(folder / "whole.jpg", photograph(64, 64)).read_bytes()
    (folder / "whole.jpg").unlink()
    (folder / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.png").write_bytes(b"")
    (folder / "letter.tif").write_text("Dear reader")
    (folder / "words.gif").write_text("GIF89a and no more")


def test_broken_files_are_counted_and_named(tmp_path):
    damaged(tmp_path)
    with pytest.raises(ValueError, match=HELPFUL) as refused:
        image_folder(tmp_path, size=4, split="all", scale=0.9)
    for words in ("4 of 6 files", "cut.jpg", "empty.png", "letter.tif", "and 1 more", "skip_broken=True"):
        assert words in str(refused.value)


def test_broken_files_can_be_left_out_with_a_warning(tmp_path):
    damaged(tmp_path)
    with pytest.warns(UserWarning, match="4 of 6 files.*cut.jpg") as warned:
        data = image_folder(tmp_path, size=4, split="all", skip_broken=True, scale=0.9)
    assert levels(data) == [10, 20] and Path(warned[0].filename) == Path(__file__)
    for name in ("a.png", "z.png"):
        (tmp_path / name).unlink()
    with pytest.raises(ValueError, match=HELPFUL):
        image_folder(tmp_path, size=4, split="all", skip_broken=True, scale=0.9)


@pytest.mark.parametrize("values", [[-0.5, 1.0], [0.0, 255.0], [0.0, math.nan]])
def test_numbers_without_a_white_are_refused(tmp_path, values):
    save(tmp_path / "a.tif", np.array([values] * 2, np.float32))
    with pytest.raises(ValueError, match=HELPFUL):
        image_folder(tmp_path, size=4, scale=0.9)


def claim(path: Path, width: int, height: int) -> None:
    """A PNG of a few bytes that claims to be large."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = zlib.compress(bytes(1000))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b""))


@pytest.mark.parametrize("limit", [None, 89_478_485])
@pytest.mark.parametrize(("width", "height"), [(10_001, 10_000), (14_000, 12_000), (60_000, 60_000)])
def test_files_that_claim_huge_images_are_refused_unread(tmp_path, monkeypatch, width, height, limit):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    monkeypatch.setattr(Image.Image, "load", lambda image: pytest.fail("pixels were read"))
    claim(tmp_path / "bomb.png", width, height)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match=HELPFUL) as refused:
            image_folder(tmp_path, split="all", scale=0.9)
    assert "bomb.png" in str(refused.value) and "pixels" in str(refused.value)


def test_large_photographs_are_no_bombs(tmp_path, monkeypatch):
    save(tmp_path / "a.png", flat(77, 30, 50))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # from here to twice as many Pillow warns
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert levels(image_folder(tmp_path, size=8, crops=1, scale=0.9)) == [77]


def test_a_progress_bar_appears_only_when_it_takes_long(tmp_path, capsys, monkeypatch):
    numbered(tmp_path, range(5))
    image_folder(tmp_path, size=4, scale=0.9)
    assert capsys.readouterr() == ("", "")
    seen = []
    monkeypatch.setattr(kodm_lite.data.folder, "tqdm", lambda files, **options: seen.append(options) or files)
    image_folder(tmp_path, size=4, scale=0.9)
    assert seen[0]["delay"] == 2


@pytest.mark.parametrize(
    "arguments",
    [
        {"size": 3},
        {"size": 32.0},
        {"size": "32"},
        {"split": "valid"},
        {"channels": 2},
        {"channels": "RGB"},
        {"crops": 0},
        {"crops": 2.5},
        {"test_share": 0},
        {"test_share": 1},
        {"test_share": math.nan},
    ],
    ids=repr,
)
def test_impossible_options_are_refused_with_a_hint(tmp_path, arguments):
    numbered(tmp_path, range(3))
    with pytest.raises(ValueError, match=HELPFUL):
        image_folder(tmp_path, **arguments)


def test_what_is_no_folder_of_images_is_refused_with_a_hint(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "notes.txt").write_text("no image")
    save(tmp_path / "mixed" / "a.png", flat(1))
    save(tmp_path / "mixed" / "class" / "b.png", flat(1))
    for path, words in {
        "nowhere": "does not exist",
        "mixed/a.png": "the file",
        "empty": "no files",
        "texts": ".txt",
        "mixed": "a.png",
    }.items():
        with pytest.raises(ValueError, match=HELPFUL) as refused:
            image_folder(tmp_path / path, scale=0.9)
        assert words in str(refused.value)


def test_a_thin_image_is_not_enlarged_beyond_all_bounds(tmp_path):
    Image.fromarray(np.zeros((1, 1_000_000), np.uint8)).save(tmp_path / "thin.png")
    with pytest.raises(ValueError, match=r"thin.png .* 16000000 x 16 pixels when enlarged, expected at most"):
        image_folder(tmp_path, 16, "all", crops=1, scale=0.9)


def warned(path: Path, **options) -> tuple[object, str]:
    """The images, and the one thing that is said about them."""
    with pytest.warns(UserWarning) as said:
        data = image_folder(path, size=4, **{"split": "all", **options})
    assert len(said) == 1
    return data, str(said[0].message)


def test_what_is_left_out_is_said_once_with_reasons(tmp_path):
    save(tmp_path / "pictures" / "a.png", flat(200))
    for name in ("b.txt", "c.docx", ".d.png", "._a.png", ".DS_Store", "Thumbs.db", "without"):
        (tmp_path / "pictures" / name).write_bytes(b"no image")
    (tmp_path / "pictures" / "gone.png").symlink_to(tmp_path / "nowhere")
    data, said = warned(tmp_path / "pictures")
    assert levels(data) == [200]
    assert said == (
        "image_folder: left out 3 files ending in .docx, .txt, without; 1 hidden images or folders: .d.png; "
        "1 links that lead nowhere, or no files: gone.png"
    )


@pytest.mark.parametrize("suffix", ["jfif", "jpe", "bmp", "dib", "ppm", "pcx", "tga", "apng", "webp", "jp2", "avif"])
def test_every_ending_that_pillow_opens_is_read(tmp_path, suffix):
    formats = {"jfif": "JPEG", "jpe": "JPEG", "apng": "PNG"}
    if f".{suffix}" not in Image.registered_extensions():
        pytest.skip("a Pillow without it")
    save(tmp_path / f"a.{suffix.upper()}", Image.new("RGB", (16, 16), (200, 200, 200)), format=formats.get(suffix))
    assert abs(levels(image_folder(tmp_path, size=4))[0] - 200) <= 2


def test_what_needs_a_plug_in_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("kodm_lite.data.listing.readable_suffixes", lambda: (".png",))
    save(tmp_path / "a.png", flat(200))
    (tmp_path / "b.heic").write_bytes(b"a photograph")
    assert "left out 1 files ending in .heic (Pillow needs a plug-in" in warned(tmp_path)[1]


def test_links_are_followed_but_not_in_circles(tmp_path):
    save(tmp_path / "elsewhere" / "deep" / "x.png", flat(70))
    save(tmp_path / "root" / "real" / "a.png", flat(200))
    (tmp_path / "root" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "root" / "also").symlink_to(tmp_path / "root" / "real")
    (tmp_path / "root" / "real" / "up").symlink_to(tmp_path / "root")
    (tmp_path / "root" / "real" / "higher").symlink_to(tmp_path)
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "elsewhere")
    data, said = warned(tmp_path / "root")
    assert data.names == ("linked", "real") and levels(data) == [70, 200]
    assert "5 links" not in said and "4 links to folders that are read anyway: also, real/higher, real/up" in said


def test_folders_that_cannot_be_opened_are_said(tmp_path, monkeypatch):
    save(tmp_path / "a" / "a.png", flat(200))
    save(tmp_path / "closed" / "a.png", flat(200))
    scandir = os.scandir

    def refuse(path):
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    data, said = warned(tmp_path)
    assert data.names == ("a",) and "1 folders that cannot be opened: closed" in said


def test_names_that_are_no_text_survive(tmp_path):
    name = os.fsdecode(b"caf\xe9")
    try:
        save(tmp_path / name / f"{name}.png", flat(200))
    except OSError:
        pytest.skip("a file system with names in UTF-8 only")
    (tmp_path / name / f"{name}.txt").write_text("no image")
    data, said = warned(tmp_path / name)
    assert levels(data) == [200] and data.source.isprintable() and said.isprintable()
    assert image_folder(tmp_path, size=4, split="train", crops=1).names == (name,)
    (tmp_path / name / "broken.png").write_bytes(b"")
    stored = warned(tmp_path, cache=tmp_path / "cache.f32", skip_broken=True)[0]
    assert torch.equal(stored.theta, data.theta)


@pytest.mark.parametrize("names", [("train", "val", "test"), ("Training", "Testing"), ("train_set", "valid")])
def test_sub_folders_that_are_splits_are_taken_for_these(tmp_path, names):
    for k, split in enumerate(names):
        save(tmp_path / split / "cat" / "a.png", flat(200 + 10 * k))
        save(tmp_path / split / "dog" / "a.png", flat(200 + 10 * k))
    train, said = warned(tmp_path, split="train")
    assert train.names == ("cat", "dog") and levels(train) == [200, 200] and f"only {names[0]} is read" in said
    test, said = warned(tmp_path, split="test")
    assert levels(test) == 2 * [200 + 10 * (len(names) - 1)] and f"only {names[-1]} is read" in said
    with pytest.raises(ValueError, match=r"(?s)which look like splits, expected .*; try .* with split='all'"):
        image_folder(tmp_path, size=4, split="all")
    chosen = image_folder(tmp_path, size=4, split="all", label=lambda name: name.split("/")[1])
    assert chosen.names == ("cat", "dog") and len(chosen) == 2 * len(names)


@pytest.mark.parametrize("names", [("train",), ("cat/train", "cat/test"), ("train", "test", "other"), ("val", "test")])
def test_other_splits_in_sub_folders_are_no_classes(tmp_path, names):
    for name in names:
        save(tmp_path / name / "a.png", flat(200))
    with pytest.raises(ValueError, match=r"(?s)which look like splits, expected .*; try "):
        image_folder(tmp_path, size=4)


def test_a_class_may_be_called_like_a_split(tmp_path):
    for name in ("train", "car", "testudo"):
        save(tmp_path / name / "a.png", flat(200))
    assert image_folder(tmp_path, size=4, split="all").names == ("car", "testudo", "train")


@pytest.mark.parametrize(("megabytes", "read"), [(2, True), (65, False)])
def test_a_text_in_a_png_is_no_reason_to_refuse_it(tmp_path, megabytes, read):
    info = PngImagePlugin.PngInfo()
    info.add_text("workflow", "x" * (megabytes * 2**20), zip=True)
    save(tmp_path / "a.png", flat(200), pnginfo=info)
    before = PngImagePlugin.MAX_TEXT_CHUNK
    if read:
        assert levels(image_folder(tmp_path, size=4)) == [200]
    else:
        with pytest.raises(ValueError, match="strip the metadata"):
            image_folder(tmp_path, size=4)
    assert PngImagePlugin.MAX_TEXT_CHUNK == before


def test_stacks_and_dark_images_are_said(tmp_path):
    pages = [Image.fromarray(flat(200 + k)) for k in range(50)]
    save(tmp_path / "b" / "s.tif", pages[0], save_all=True, append_images=pages[1:])
    data, said = warned(tmp_path / "b")
    assert levels(data) == [200] and said == "image_folder: only the first of 50 pages of s.tif is read"
    save(tmp_path / "a" / "x.tif", np.full((8, 8), 4095, np.uint16))
    assert "4095 of 65535" in warned(tmp_path / "a")[1]
    save(tmp_path / "a" / "bright.tif", np.full((8, 8), 2**14, np.uint16))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(image_folder(tmp_path / "a", size=4, split="all")) == 2
    both, said = warned(tmp_path / "b", cache=tmp_path / "cache.f32")
    again, repeated = warned(tmp_path / "b", cache=tmp_path / "cache.f32")
    assert said == repeated and torch.equal(both.theta, again.theta)


def test_mirror_images_follow(tmp_path):
    save(tmp_path / "c" / "a.png", photograph(8, 8))
    save(tmp_path / "d" / "a.png", photograph(8, 8, 1))
    plain, flipped = (image_folder(tmp_path, 8, "all", flips=flips) for flips in (False, True))
    assert torch.equal(flipped.theta[::2], plain.theta) and torch.equal(flipped.theta[1::2], plain.theta.flip(-1))
    assert flipped.labels.tolist() == [0, 0, 1, 1]


def test_a_tilde_is_the_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    save(tmp_path / "pictures" / "a.png", flat(200))
    assert len(image_folder("~/pictures", size=4, cache="~/cache.f32")) == 1 and (tmp_path / "cache.f32").exists()


def test_numbers_of_numpy_are_numbers(tmp_path):
    numbered(tmp_path, [200])
    assert image_folder(tmp_path, np.int64(4), crops=np.int32(2), seed=np.int64(1)).theta.shape == (2, 1, 4, 4)


@pytest.mark.parametrize(
    "said, kind, expected",
    [
        ("DataLoader worker (pid(s) 7) exited unexpectedly", ValueError, r"workers: got 2 .*__main__.*; try workers=0"),
        ("before the current process has finished its bootstrapping phase", ValueError, "try workers=0"),
        ("something else", RuntimeError, "something else"),
    ],
)
def test_workers_that_die_are_named(tmp_path, monkeypatch, said, kind, expected):
    def die(self):
        raise RuntimeError(said)

    save(tmp_path / "a.png", flat(200))
    monkeypatch.setattr(torch.utils.data.DataLoader, "__iter__", die)
    with pytest.raises(kind, match=expected):
        image_folder(tmp_path, size=8, split="all", workers=2)
