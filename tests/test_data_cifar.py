"""CIFAR-10: every byte lands where the format says, from the folder and from the archive, and damage is named."""

import gzip
import io
import math
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import HELPFUL

import kodm_lite.data.cifar
from kodm_lite import to_uint8
from kodm_lite.data import cifar10

PI = math.pi
RECORDS = 20  # instead of the 10000 of a real file
TRAIN = [f"data_batch_{k}.bin" for k in range(1, 6)]
NAMES = "airplane automobile bird cat deer dog frog horse ship truck".split()


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(kodm_lite.data.cifar, "_RECORDS", RECORDS)


def contents(names=None) -> dict[str, bytes]:
    """The files of the binary version, of noise."""
    random, files = np.random.default_rng(0), {}
    for name in [*TRAIN, "test_batch.bin"]:
        records = random.integers(0, 256, (RECORDS, 3073), dtype=np.uint8)
        records[:, 0] = random.integers(0, 10, RECORDS)
        files[name] = records.tobytes()
    files["batches.meta.txt"] = ("\n".join(names or NAMES) + "\n\n").encode()
    files["readme.html"] = b"<html>"
    return files


def folder(path: Path, files: dict[str, bytes]) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (path / name).write_bytes(content)
    return path


def archive(path: Path, files: dict[str, bytes], level: int = 1) -> Path:
    with tarfile.open(path, "w:gz", compresslevel=level) as packed:
        packed.addfile(tarfile.TarInfo("cifar-10-batches-bin"))
        for name, content in files.items():
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = len(content)
            packed.addfile(member, io.BytesIO(content))
    return path


def refused(path: Path, split: str = "train") -> str:
    with pytest.raises(ValueError, match=HELPFUL) as error:
        cifar10(path, split)
    return str(error.value)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("split", ["train", "test"])
def test_every_byte_is_where_the_format_says(tmp_path, small, packed, split):
    files = contents()
    place = archive(tmp_path / "c.tar.gz", files) if packed else folder(tmp_path / "c", files)
    before = sorted(tmp_path.rglob("*"))
    data = cifar10(str(place), split)
    assert sorted(tmp_path.rglob("*")) == before, "nothing is unpacked"
    wanted = TRAIN if split == "train" else ["test_batch.bin"]
    assert data.theta.shape == (len(wanted) * RECORDS, 3, 32, 32) and data.theta.dtype == torch.float32
    assert data.labels.dtype == torch.int64 and data.names == tuple(NAMES) and data.encoding.scale == 0.9
    assert float(data.theta.max()) <= 0.9 * PI + 1e-6 and float(data.theta.min()) >= -0.9 * PI - 1e-6
    for k, name in enumerate(wanted):
        for image in (0, 7, RECORDS - 1):
            record = files[name][3073 * image : 3073 * (image + 1)]
            assert int(data.labels[k * RECORDS + image]) == record[0]
            for channel, row, column in ((0, 0, 0), (0, 3, 30), (1, 31, 2), (2, 17, 18), (2, 31, 31)):
                value = record[1 + 1024 * channel + 32 * row + column]
                theta = float(data.theta[k * RECORDS + image, channel, row, column])
                assert abs(theta - 0.9 * PI * (2 * value / 255 - 1)) < 1e-5
    stored = np.frombuffer(b"".join(files[name] for name in wanted), np.uint8).reshape(-1, 3073)[:, 1:]
    found = to_uint8(data.theta, 0.9).numpy().reshape(len(stored), -1).astype(int)
    assert np.abs(found - stored).max() <= 1


def test_files_of_the_real_size_are_read(tmp_path):
    records = np.zeros((10_000, 3073), np.uint8)
    records[:, 0] = np.arange(10_000) % 10
    records[-1, 1:] = 255
    data = cifar10(folder(tmp_path, {"test_batch.bin": records.tobytes()}), "test")
    assert data.theta.shape == (10_000, 3, 32, 32) and data.labels.bincount().tolist() == [1000] * 10
    assert float(data.theta[-1].min()) > 0.89 * PI and float(data.theta[-2].max()) < -0.89 * PI
    assert data.names == tuple(NAMES), "built in"


def test_the_folder_may_lie_in_another(tmp_path, small):
    inner = folder(tmp_path / "cifar-10-batches-bin", contents())
    folder(tmp_path / "cifar-10-batches-py", {"data_batch_1": b"pickled"})
    assert torch.equal(cifar10(tmp_path).theta, cifar10(inner).theta)


def test_names_come_from_their_file(tmp_path, small):
    names = [f"class{k}" for k in range(10)]
    assert cifar10(folder(tmp_path / "c", contents(names)), "test").names == tuple(names)
    assert cifar10(archive(tmp_path / "c.tar.gz", contents(names)), "test").names == tuple(names)
    for wrong in (names[:9], [*names[:9], "class0"], [*names, "class10"]):
        assert "batches.meta.txt" in refused(folder(tmp_path / "c", contents(wrong)))


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    "damage",
    [lambda x: x[:-1], lambda x: x + b"\0", lambda x: b"", lambda x: x[:-3073], lambda x: x * 2],
    ids=["short", "long", "empty", "one image less", "twice"],
)
def test_files_of_another_size_are_named(tmp_path, small, packed, damage):
    files = contents()
    files["data_batch_3.bin"] = damage(files["data_batch_3.bin"])
    place = archive(tmp_path / "c.tar.gz", files) if packed else folder(tmp_path, files)
    assert "data_batch_3.bin" in refused(place)
    assert len(cifar10(place, "test")) == RECORDS, "the other split is whole"


@pytest.mark.parametrize("label", [10, 255])
def test_a_class_that_is_none_is_named(tmp_path, small, label):
    files = contents()
    records = bytearray(files["data_batch_5.bin"])
    records[3073 * 4] = label
    message = refused(folder(tmp_path, {**files, "data_batch_5.bin": bytes(records)}))
    assert "data_batch_5.bin" in message and f"class {label}" in message and "image 4" in message


def test_an_archive_that_is_cut_short_is_named(tmp_path, small):
    whole = archive(tmp_path / "c.tar.gz", contents()).read_bytes()
    for length in (0, 5, 100, len(whole) // 2, len(whole) - 100, len(whole) - 9, len(whole) - 1):
        (tmp_path / "cut.tar.gz").write_bytes(whole[:length])
        for split in ("train", "test"):
            message = refused(tmp_path / "cut.tar.gz", split)
            assert "cut.tar.gz" in message and "https://www.cs.toronto.edu" in message


def test_a_flipped_bit_is_found_by_the_checksum(tmp_path, small):
    files = contents()
    whole = bytearray(archive(tmp_path / "c.tar.gz", files, level=0).read_bytes())
    whole[bytes(whole).index(files["data_batch_2.bin"][1000:1020])] ^= 4
    (tmp_path / "c.tar.gz").write_bytes(whole)
    for split in ("train", "test"):
        assert "damaged" in refused(tmp_path / "c.tar.gz", split)


def test_a_member_that_claims_to_be_huge_is_not_read(tmp_path, small):
    for name in ("data_batch_1.bin", "batches.meta.txt"):
        member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
        member.size = 10**12
        (tmp_path / "c.tar.gz").write_bytes(gzip.compress(member.tobuf() + bytes(10_240)))
        message = refused(tmp_path / "c.tar.gz")
        assert name in message and "1,000,000,000,000 bytes" in message


def test_what_is_no_archive_is_named(tmp_path, small):
    (tmp_path / "letter.txt").write_text("Dear reader")
    (tmp_path / "letter.tar.gz").write_bytes(gzip.compress(b"Dear reader" * 100))
    with tarfile.open(tmp_path / "plain.tar", "w") as packed:
        packed.addfile(tarfile.TarInfo("a"))
    for name in ("letter.txt", "letter.tar.gz", "plain.tar"):
        assert name in refused(tmp_path / name)


@pytest.mark.parametrize("packed", [False, True])
def test_of_the_python_version_it_is_said_which_to_take_instead(tmp_path, small, packed):
    files = {"data_batch_1": b"pickled", "test_batch": b"pickled", "batches.meta": b"pickled"}
    place = archive(tmp_path / "c.tar.gz", files) if packed else folder(tmp_path / "cifar-10-batches-py", files)
    for path in (place,) if packed else (place, tmp_path):
        message = refused(path)
        assert "for Python" in message and "cifar-10-binary.tar.gz" in message


@pytest.mark.parametrize("packed", [False, True])
def test_missing_files_are_named_with_the_instructions(tmp_path, small, packed):
    files = contents()
    del files["data_batch_4.bin"]
    place = archive(tmp_path / "c.tar.gz", files) if packed else folder(tmp_path, files)
    message = refused(place)
    assert "without data_batch_4.bin," in message and "https://www.cs.toronto.edu/~kriz/cifar.html" in message


def test_a_link_in_place_of_a_file_is_refused(tmp_path, small):
    with tarfile.open(tmp_path / "c.tar.gz", "w:gz") as packed:
        link = tarfile.TarInfo("cifar-10-batches-bin/test_batch.bin")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
        packed.addfile(link)
    refused(tmp_path / "c.tar.gz", "test")


def test_what_is_not_there_is_refused_with_the_instructions(tmp_path):
    assert "https://www.cs.toronto.edu/~kriz/cifar.html" in refused(tmp_path / "nowhere")
    assert "https://www.cs.toronto.edu/~kriz/cifar.html" in refused(folder(tmp_path / "empty", {}))
    assert "split" in refused(tmp_path, "all")
