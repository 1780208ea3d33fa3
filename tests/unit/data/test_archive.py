"""A data set inside an archive, and archives that mean harm."""

from __future__ import annotations

import gzip
import io
import stat
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image

from distill.data import archive as archive_module
from distill.data.datasets import load_dataset, num_classes
from distill.errors import DataError
from distill.recipe.schema import DataSpec


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILL_CACHE", str(tmp_path / "cache"))


def png(*key):
    seed = int.from_bytes("".join(map(str, key)).encode(), "little")
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def images(prefix=""):
    """name -> content, in an order unlike the sorted one."""
    names = [(s, c, i) for i in (1, 0) for c in ("dog", "cat") for s in ("test", "train")]
    return {f"{prefix}{s}/{c}/{i}.png": png(s, c, i) for s, c, i in names}


def write_tar(path, members, mode="w:gz"):
    """Members are contents, or TarInfo objects without content."""
    with tarfile.open(path, mode) as tar:
        for name, content in members.items():
            info = content if isinstance(content, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.size = 0 if isinstance(content, tarfile.TarInfo) else len(content)
            tar.addfile(info, None if isinstance(content, tarfile.TarInfo) else io.BytesIO(content))
    return path


def write_zip(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def load(path, **changes):
    return load_dataset(DataSpec(name="folder", root=str(path), image_size=8, **changes))


@pytest.fixture
def as_folder(tmp_path):
    for name, content in images().items():
        (tmp_path / "pets" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "pets" / name).write_bytes(content)
    return load(tmp_path / "pets")


@pytest.mark.parametrize("prefix", ["", "./", "pets/", "./pets/"])
@pytest.mark.parametrize("name", ["pets.tgz", "pets.tar.gz", "pets.tar", "pets.zip", "pets.tar.bz2", "pets.txz"])
def test_an_archive_holds_the_same_data_as_its_folder(tmp_path, as_folder, name, prefix):
    write = write_zip if name.endswith("zip") else write_tar
    modes = {"tar": "w", "bz2": "w:bz2", "txz": "w:xz"}
    mode = {} if name.endswith("zip") else {"mode": modes.get(name[-3:], "w:gz")}
    path = write(tmp_path / name, images(prefix), **mode)
    before = sorted(p for p in tmp_path.rglob("*") if "cache" not in p.parts)
    data = load(path)
    assert data.fingerprint == as_folder.fingerprint
    assert data.train.files == as_folder.train.files
    assert np.array_equal(data.test.take(slice(None)), as_folder.test.take(slice(None)))
    assert sorted(p for p in tmp_path.rglob("*") if "cache" not in p.parts) == before  # nothing was unpacked


def test_the_second_time_the_archive_is_not_read(tmp_path, monkeypatch):
    path = write_tar(tmp_path / "pets.tgz", images())
    spec = DataSpec(name="folder", root=str(path), image_size=8)
    assert num_classes(spec) == 2
    first = load_dataset(spec)
    monkeypatch.setattr(tarfile, "open", lambda *_, **__: pytest.fail("read again"))
    assert load_dataset(spec).fingerprint == first.fingerprint
    assert num_classes(spec) == 2


def test_what_packers_add_is_passed_over(tmp_path, as_folder):
    extra = {"__MACOSX/pets/train/cat/._0.png": b"x", "pets/train/cat/.DS_Store": b"x", "pets/README.txt": b"x"}
    data = load(write_zip(tmp_path / "pets.zip", {**extra, **images("pets/")}))
    assert data.fingerprint == as_folder.fingerprint
    assert data.ignored == 0


def test_other_files_and_deeper_folders_are_counted(tmp_path):
    extra = {
        "train/cat/notes.txt": b"x",
        "train/cat/more/5.png": b"x",
        "train/cat/more/6.png": b"x",
        "test/x.png": b"x",
    }
    data = load(write_zip(tmp_path / "pets.zip", {**images(), **extra}))
    assert (len(data.train), data.ignored) == (4, 3)


def test_bad_images_in_an_archive_are_listed_and_can_be_skipped(tmp_path):
    path = write_tar(tmp_path / "pets.tgz", {**images(), "train/cat/empty.png": b"", "test/dog/text.png": b"text"})
    with pytest.raises(DataError, match=r"2 of 10 images(.|\n)*train/cat/empty\.png: empty file\n.*test/dog/text\.png"):
        load(path)
    assert load(path, skip_bad=True).skipped == 2


def special(name, kind, target=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


HOSTILE = {
    "../../etc/evil.png": b"x",
    "train/../../evil.png": b"x",
    "/etc/evil.png": b"x",
    "C:\\evil.png": b"x",
    "..\\evil.png": b"x",
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("write", [write_tar, write_zip])
def test_paths_that_lead_out_are_refused_by_name(tmp_path, name, write):
    path = write(tmp_path / "evil.archive", {**images(), name: b"x"})
    with pytest.raises(DataError, match=r"evil\.png.* (is an absolute path|leads out of the archive)"):
        load(path, skip_bad=True)


@pytest.mark.parametrize(
    ("member", "what"),
    [
        (special("train/cat/link.png", tarfile.SYMTYPE, "/etc/passwd"), "is a link"),
        (special("train/cat/hard.png", tarfile.LNKTYPE, "train/cat/0.png"), "is a link"),
        (special("train/cat/device.png", tarfile.CHRTYPE), "is a device"),
        (special("train/cat/pipe.png", tarfile.FIFOTYPE), "is a device or another special file"),
    ],
)
def test_links_and_devices_are_refused_by_name(tmp_path, member, what):
    with pytest.raises(DataError, match=f"{member.name}.* {what}"):
        load(write_tar(tmp_path / "evil.tgz", {**images(), member.name: member}), skip_bad=True)


def test_a_link_in_a_zip_is_refused_by_name(tmp_path):
    info = zipfile.ZipInfo("train/cat/link.png")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    path = write_zip(tmp_path / "evil.zip", images())
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(DataError, match=r"link\.png' is a link"):
        load(path)


def test_an_encrypted_zip_is_named(tmp_path):
    path = write_zip(tmp_path / "secret.zip", images())
    content = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):  # the flags of every header
        start = -1
        while (start := content.find(signature, start + 1)) >= 0:
            content[start + offset] |= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"secret\.zip: 'test/dog/1\.png' is encrypted"):
        load(path)


def test_a_bomb_of_zeros_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archive_module, "_FREE_BYTES", 100_000)
    monkeypatch.setattr(archive_module, "_MAX_RATIO", 10)
    members = {**images(), "train/cat/bomb.png": bytes(5_000_000)}
    for path in (write_tar(tmp_path / "bomb.tgz", members), write_zip(tmp_path / "bomb.zip", members)):
        with pytest.raises(DataError, match=r"bomb\.png': a decompression bomb|at .*: a decompression bomb"):
            load(path)


def test_a_file_of_absurd_size_is_one_bad_image(tmp_path, monkeypatch):
    monkeypatch.setattr(archive_module, "MAX_FILE_BYTES", 1 << 20)
    path = write_zip(tmp_path / "pets.zip", {**images(), "train/cat/big.png": bytes(2 << 20)})
    with pytest.raises(DataError, match=r"big\.png: larger than"):
        load(path)


@pytest.mark.parametrize("name", ["pets.tgz", "pets.tar", "pets.zip"])
@pytest.mark.parametrize("share", [0.2, 0.5, 0.9, 0.99])
def test_a_half_copied_archive_is_an_error(tmp_path, name, share):
    members = images()
    path = tmp_path / name
    write_zip(path, members) if name.endswith("zip") else write_tar(path, members, "w:gz" if "tgz" in name else "w")
    content = path.read_bytes().rstrip(b"\0")  # a .tar is padded with zeros, which nobody misses
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(DataError, match=r"cannot be read, it may be damaged or half copied|is neither a folder"):
        load(path, skip_bad=True)


def test_a_tar_cut_between_two_members_is_an_error(tmp_path):
    path = write_tar(tmp_path / "pets.tar", images(), "w")
    path.write_bytes(path.read_bytes()[: 1024 * 5])  # every member is a header and one block
    with pytest.raises(DataError, match="half copied"):
        load(path)


def test_a_damaged_header_does_not_hide_what_follows(tmp_path):
    path = write_tar(tmp_path / "pets.tar", images(), "w")
    content = bytearray(path.read_bytes())
    content[1024 * 5 + 150] ^= 0xFF  # the checksum of the sixth header
    path.write_bytes(content)
    with pytest.raises(DataError, match="half copied"):
        load(path)


def test_a_flipped_bit_in_a_zipped_image_makes_it_bad(tmp_path):
    path = write_zip(tmp_path / "pets.zip", images())
    content = bytearray(path.read_bytes())
    content[100] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"1 of 8 images(.|\n)*test/dog/1\.png: damaged in the archive"):
        load(path)


def test_a_flipped_bit_in_a_tgz_is_an_error(tmp_path):
    path = tmp_path / "pets.tgz"
    content = bytearray(gzip.compress(write_tar(tmp_path / "pets.tar", images(), "w").read_bytes()))
    content[-8] ^= 0xFF  # the checksum at the end
    path.write_bytes(content)
    with pytest.raises(DataError, match="half copied"):
        load(path)


def test_a_name_held_twice_is_an_error(tmp_path):
    path = write_tar(tmp_path / "pets.tar", {**images(), "./train/cat/0.png": png("again")}, "w")
    with pytest.raises(DataError, match=r"holds 'train/cat/0\.png' twice"):
        load(path)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"a/b/train/cat/0.png": b"x"}, "has no train/ folder and no class folders"),
        ({**images("one/"), **images("two/")}, "holds several data sets: 'one', 'two'"),
        ({**images(), "train/eel/": b"", "test/eel/": b""}, "no images in train/eel, test/eel"),
    ],
)
def test_a_wrong_layout_is_named(tmp_path, members, message):
    with pytest.raises(DataError, match=message):
        load(write_zip(tmp_path / "pets.zip", members))


def test_a_file_that_is_no_archive_is_named(tmp_path):
    (tmp_path / "pets.rar").write_bytes(b"Rar!" + bytes(2000))
    with pytest.raises(DataError, match=r"pets\.rar is neither a folder nor an archive: \.zip, \.tar"):
        load(tmp_path / "pets.rar")


@pytest.mark.parametrize("prefix", ["", "pets/"])
@pytest.mark.parametrize("write", [write_zip, write_tar])
@pytest.mark.parametrize(
    ("beside", "message"),
    [
        ("test/0.png", "has test/ and no train/ folder"),
        ("val/cat/0.png", "has val/ and no train/ folder"),
        ("Test/cat/0.png", "has Test/, in capitals"),
    ],
)
def test_a_split_beside_classes_is_no_class(tmp_path, prefix, write, beside, message):
    members = {f"{prefix}{label}/{i}.png": png(label, i) for label in ("dog", "cat") for i in range(5)}
    path = write(tmp_path / "pets.archive", {**members, f"{prefix}{beside}": png("t")})
    with pytest.raises(DataError, match=message) as caught:
        load(path)
    assert caught.value.hint


@pytest.mark.parametrize("prefix", ["", "vehicles/"])
def test_a_class_in_an_archive_may_be_called_train_in_capitals(tmp_path, prefix):
    members = {f"{prefix}{label}/{i}.png": png(label, i) for label in ("Bus", "Train") for i in range(5)}
    assert load(write_zip(tmp_path / "v.zip", members)).classes == ("Bus", "Train")


@pytest.mark.parametrize("mode", ["w:bz2", "w:xz"])
def test_a_half_copied_archive_of_other_kinds_is_an_error(tmp_path, mode):
    path = write_tar(tmp_path / "pets.archive", images(), mode=mode)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match="damaged or half copied"):
        load(path)


@pytest.mark.parametrize("prefix", ["", "pets/"])
def test_class_folders_alone_in_an_archive(tmp_path, prefix):
    members = {f"{prefix}{label}/{i}.png": png(label, i) for label in ("dog", "cat") for i in range(5)}
    data = load(write_zip(tmp_path / "pets.zip", {**members, f"{prefix}readme.txt": b"x"}))
    assert data.classes == ("cat", "dog")
    assert (len(data.train), len(data.test)) == (8, 2)
    label, name = data.test.files[0].split("/")
    with Image.open(io.BytesIO(png(label, name[0]))) as image:
        assert np.array_equal(data.test.take(np.array([0]))[0], np.asarray(image).transpose(2, 0, 1))


def test_validation_in_an_archive_may_be_called_valid(tmp_path):
    members = images("pets/") | {f"pets/valid/{label}/0.png": png("v", label) for label in ("cat", "dog")}
    assert load(write_tar(tmp_path / "pets.tgz", members)).val.files == ("valid/cat/0.png", "valid/dog/0.png")


@pytest.mark.parametrize("prefix", ["", "pets/"])
@pytest.mark.parametrize(
    "beside", [{"extra/readme.txt": b"x"}, {"__MACOSX/._0.png": b"x"}, {"owl/deep/0.png": png("o")}]
)
def test_what_lies_beside_classes_is_none_as_in_a_folder(tmp_path, prefix, beside):
    members = {f"{label}/{at}.png": png(label, at) for label in ("cat", "dog") for at in range(4)} | beside
    for name, content in members.items():
        (path := tmp_path / "there" / name).parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    folder = load(tmp_path / "there")
    archive = load(write_zip(tmp_path / "pets.zip", {prefix + name: content for name, content in members.items()}))
    assert archive.classes == folder.classes == ("cat", "dog")
    assert archive.fingerprint == folder.fingerprint
    if (label := next(iter(beside)).split("/")[0]) != "__MACOSX":  # what packers add is passed over
        assert f"{label}/ holds no picture directly: no class" in str(archive.note)
        assert f"{label}/ holds no picture directly: no class" in str(folder.note)
        assert load(tmp_path / "pets.zip").note == archive.note  # and where it is not read again
