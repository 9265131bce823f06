"""Image files: every kind that becomes RGB, and every kind that is refused."""

import os
import pickle
import shutil

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ltbench.datasets.images.decoding import read_image
from ltbench.datasets.images.store import StoreBuilder
from ltbench.datasets.sources._image_files import FileSource, locate
from ltbench.datasets.tables import read_image_table
from ltbench.errors import UserError

RED, GREEN = (200, 40, 20), (10, 180, 60)


class _Files(FileSource):
    """The images of one folder."""

    name = "files"

    remedy = "get it again"

    def __init__(self, folder, *names):
        super().__init__(folder)
        self.folder, self.files, self.ids = folder, np.array(names), np.array(names)
        self.present = np.array([(folder / name).exists() for name in names])


def _halves(width=40, height=20):
    """Return a picture whose left half is red and right half green, uint8 [height, width, 3]."""
    pixels = np.empty((height, width, 3), dtype=np.uint8)
    pixels[:, : width // 2], pixels[:, width // 2 :] = RED, GREEN
    return pixels


def _is_halves(image):
    left, right = image[:, :, :6].mean((1, 2)), image[:, :, -6:].mean((1, 2))
    return np.abs(left - RED).max() < 8 and np.abs(right - GREEN).max() < 8


@pytest.mark.parametrize("name", ["a.png", "a.JPG", "a.jpeg", "a.bmp", "a.tif", "a.webp", "größe 中 é.png", "a,b.tiff"])
def test_every_format_is_read(name, tmp_path):
    Image.fromarray(_halves()).save(tmp_path / name, quality=95)
    image = pickle.loads(pickle.dumps(_Files(tmp_path, name))).read(0, 16)
    assert image.shape == (3, 16, 16) and image.dtype == np.uint8 and image.flags.c_contiguous
    assert _is_halves(image)


@pytest.mark.parametrize(("mode", "suffix"), [("P", "png"), ("CMYK", "jpg"), ("CMYK", "tif"), ("RGBA", "png")])
def test_modes_of_colour_become_rgb(mode, suffix, tmp_path):
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(_halves()).convert(mode).save(path, quality=100)
    assert _is_halves(read_image(str(path), 16))


@pytest.mark.parametrize(
    ("pixels", "value"),
    [
        (np.full((8, 8), 77, dtype=np.uint8), 77),
        (np.full((8, 8), 77 * 256 + 200, dtype=np.uint16), 77),
        (np.full((8, 8), True), 255),
        (np.full((8, 8), 4095, dtype=np.uint16), 15),
        (np.full((8, 8), 200, dtype=np.uint16), 0),
    ],
)
def test_grey_of_any_depth_keeps_its_upper_bits(pixels, value, tmp_path, capsys):
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert (read_image(str(tmp_path / "a.png"), 4) == value).all()
    StoreBuilder(_Files(tmp_path, "a.png"), 4, tmp_path).build(np.arange(1))
    assert ("nearly black" in capsys.readouterr().err) == (value < 16)


def test_odd_metadata_spoil_nothing(tmp_path):
    text = PngInfo()
    text.add_itxt("notes", "x" * 3_000_000, zip=True)
    Image.fromarray(_halves()).save(tmp_path / "a.png", pnginfo=text)
    assert _is_halves(read_image(str(tmp_path / "a.png"), 16))
    Image.fromarray(_halves()).save(tmp_path / "a.jpg", exif=b"Exif\0\0no exif at all", quality=95)
    assert _is_halves(read_image(str(tmp_path / "a.jpg"), 16))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_is_white(mode, tmp_path):
    picture = Image.new("RGBA", (8, 8), (0, 0, 0, 0)).convert(mode)
    picture.save(tmp_path / "a.png", **({"transparency": picture.getpixel((0, 0))} if mode == "P" else {}))
    assert (read_image(str(tmp_path / "a.png"), 4) == 255).all()


def test_a_transparent_grey_of_16_bits_is_white(tmp_path):
    pixels = np.full((8, 8), 77 * 256, dtype=np.uint16)
    pixels[:4] = 5
    Image.fromarray(pixels).save(tmp_path / "a.png", transparency=5)
    found = read_image(str(tmp_path / "a.png"), 8)
    assert (found[:, 0] == 255).all() and (found[:, 7] == 77).all()


@pytest.mark.parametrize(("dtype", "value"), [(np.int32, 70_000), (np.int32, 200), (np.float32, 70_000)])
def test_channels_of_unknown_range_are_refused(dtype, value, tmp_path):
    Image.fromarray(np.full((8, 8), value, dtype=dtype)).save(tmp_path / "a.tif")
    with pytest.raises(UserError, match=r"a\.tif: its channels have 32 bits; save it with 8 or 16"):
        _Files(tmp_path, "a.tif").read(0, 4)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
def test_an_image_is_turned_as_its_exif_data_say(orientation, suffix, tmp_path):
    pixels = np.random.default_rng(orientation).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    upright = Image.fromarray(pixels.repeat(40, 0).repeat(40, 1))
    undo = ["FLIP_LEFT_RIGHT", "ROTATE_180", "FLIP_TOP_BOTTOM", "TRANSPOSE", "ROTATE_90", "TRANSVERSE", "ROTATE_270"]
    stored = upright.transpose(Image.Transpose[undo[orientation - 2]]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright.save(tmp_path / f"upright.{suffix}", quality=95)
    stored.save(tmp_path / f"turned.{suffix}", exif=exif, quality=95)
    want, got = (read_image(str(tmp_path / f"{name}.{suffix}"), 12).astype(int) for name in ("upright", "turned"))
    assert np.abs(want - got).max() < 40 and np.abs(want - got).mean() < 4


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "tif", "webp"])
@pytest.mark.parametrize("kept", [0.0, 0.3, 0.9])
def test_a_truncated_image_is_refused_by_name(suffix, kept, tmp_path):
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)).save(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(UserError, match=rf"cannot read the image .*a\.{suffix}: .*; get it again") as error:
        _Files(tmp_path, path.name).read(0, 16)
    assert "\n" not in str(error.value)


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path):
    def chunk(kind, data):
        import zlib

        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    side = (30_000).to_bytes(4, "big")
    header = chunk(b"IHDR", side + side + bytes([8, 2, 0, 0, 0]))
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", b"") + chunk(b"IEND", b""))
    with pytest.raises(UserError, match=r"a\.png: Image size \(900000000 pixels\) exceeds"):
        _Files(tmp_path, "a.png").read(0, 4)


@pytest.mark.parametrize("content", [b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", b"GIF89a", b"<svg/>"])
def test_a_format_that_is_not_asked_for_is_refused_whatever_its_suffix(content, tmp_path):
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.jpg: cannot identify image file"):
        _Files(tmp_path, "a.jpg").read(0, 4)


def test_a_pipe_is_no_image_and_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.jpg")
    source = _Files(tmp_path, "a.jpg")
    for fails in (lambda: source.read(0, 4), lambda: source.fingerprints(np.array([0]))):
        with pytest.raises(UserError, match=r"a\.jpg: it is not a file; get it again"):
            fails()


def test_fingerprints_change_with_the_file(tmp_path):
    for name in ("a.png", "b.png"):
        Image.fromarray(_halves()).save(tmp_path / name)
    source = _Files(tmp_path, "a.png", "b.png")
    before = source.fingerprints(np.array([1, 0]))
    assert before.dtype == np.int64 and before.all()
    os.utime(tmp_path / "a.png", ns=(0, 1))
    assert (source.fingerprints(np.array([1, 0])) != before).tolist() == [False, True]


def test_another_file_of_the_same_size_and_time_is_another_image(tmp_path):
    """As `cp -p` leaves it; the same bytes in a new file are the same image."""
    for name, colour in (("a.bmp", RED), ("b.bmp", RED), ("other.bmp", GREEN)):
        Image.new("RGB", (8, 8), colour).save(tmp_path / name)
    source, both = _Files(tmp_path, "a.bmp", "b.bmp"), np.arange(2)
    store = StoreBuilder(source, 4, tmp_path).build(both, quiet=True)
    for name, replacement in (("a.bmp", "other.bmp"), ("b.bmp", "b.bmp")):
        shutil.copy2(tmp_path / replacement, tmp_path / "new")
        shutil.copystat(tmp_path / name, tmp_path / "new")
        (tmp_path / "new").replace(tmp_path / name)
    stamps, contents = source.fingerprints(both), source.contents(both)
    again = StoreBuilder(source, 4, tmp_path).build(both, quiet=True)
    assert again.pixels[:, :, 0, 0].tolist() == [list(GREEN), list(RED)]
    assert (np.fromfile(store.folder / "stamps.i64", dtype="<i8") == stamps).all() and len(set(contents)) == 2


def test_missing_images_are_counted_among_those_needed(tmp_path):
    Image.fromarray(_halves()).save(tmp_path / "a.png")
    source = _Files(tmp_path, "a.png", "b.png", "c.png")
    assert source.describe_missing() == f"2 of 3 images missing under {tmp_path} (first: b.png)"
    assert source.describe_missing(np.array([True, False, True])).startswith("1 of 2 images missing")
    assert source.describe_missing(np.array([True, False, False])) is None
    assert source.path(1) == tmp_path / "b.png"
    with pytest.raises(UserError, match=r"b\.png is missing; get it again"):
        source.read(1, 4)
    (tmp_path / "a.png").unlink()
    for fails in (lambda: source.read(0, 4), lambda: source.fingerprints(np.array([0]))):
        with pytest.raises(UserError, match=r"a\.png: No such file"):
            fails()


def _touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).touch()


def test_images_of_preferred_folders_come_first_and_are_joined(tmp_path):
    ids, preferred = np.array(["a", "b", "c", "d"]), (("one", "two"), ("three",))
    files, present = locate(tmp_path, ids, preferred)
    assert files.tolist() == [f"one/{image}.jpg" for image in "abcd"] and not present.any()
    _touch(tmp_path, "rest/d.jpg", "more/a.jpg", "more/x.jpg", ".hidden")
    assert locate(tmp_path, ids, preferred)[1].tolist() == [True, False, False, True]
    _touch(tmp_path, "a.jpg", "b.PNG")
    assert locate(tmp_path, ids, preferred)[0].tolist() == ["a.jpg", "b.PNG", "one/c.jpg", "one/d.jpg"]
    _touch(tmp_path, "three/c.jpg")
    assert locate(tmp_path, ids, preferred)[0].tolist() == ["one/a.jpg", "one/b.jpg", "three/c.jpg", "one/d.jpg"]
    _touch(tmp_path, "two/a.jpg", "two/a.bmp", "one/b.txt", "one/d.jpeg")
    assert locate(tmp_path, ids, preferred)[0].tolist() == ["two/a.bmp", "one/b.jpg", "one/c.jpg", "one/d.jpeg"]


def test_images_found_twice_or_never_are_refused(tmp_path):
    _touch(tmp_path, "large/a.jpg", "small/a.jpg")
    with pytest.raises(UserError, match=r"has the image a in several folders \(large, small\)"):
        locate(tmp_path, np.array(["a"]), (("official",),))
    (tmp_path / "t.csv").write_text("id,x\n")
    with pytest.raises(UserError, match=r"t\.csv lists no image; do this"):
        read_image_table(tmp_path / "t.csv", ("id",), "do this")
