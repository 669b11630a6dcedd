"""Pictures and films that claim, or unfold to, more than can be read; each is refused in one line and little memory."""

from __future__ import annotations

import io
import os
import struct
import tracemalloc
import warnings
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from rollflow.cli import main
from rollflow.errors import RollflowError
from rollflow.files import media
from rollflow.files.media import BadPicture, PictureTooLarge, open_picture, read_frames, read_picture


def encoded(*frames: Image.Image, kind: str = "PNG", **how: Any) -> bytes:
    file = io.BytesIO()
    first, *others = frames
    if others:
        how |= {"save_all": True, "append_images": others}
    first.save(file, kind, **how)
    return file.getvalue()


def claiming(width: int, height: int) -> bytes:
    """A PNG whose header says so, and whose content is a few bytes."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def grey(level: int, size: tuple[int, int] = (8, 6)) -> Image.Image:
    return Image.new("RGB", size, (level, level, level))


def levels(frames: list[Image.Image]) -> list[int]:
    return [frame.getpixel((0, 0))[0] for frame in frames]  # type: ignore[index]


def refused(read: Any, *arguments: Any, **settings: Any) -> str:
    with pytest.raises(BadPicture) as raised:
        read(*arguments, **settings)
    [line] = str(raised.value).splitlines()
    assert "0x" not in line
    return line


@pytest.mark.parametrize("size", [(8193, 8192), (10_000, 9_000), (20_000, 20_000), (2**31 - 1, 1)])
def test_sizes_are_judged_before_anything_is_decoded(size: tuple[int, int]) -> None:
    """Below, within and beyond what Pillow warns of and refuses itself."""
    for read in (read_picture, read_frames):
        tracemalloc.start()
        with pytest.raises(PictureTooLarge, match=f"at most {media.MAX_PIXELS} pixels, got"):
            read(claiming(*size))
        assert tracemalloc.get_traced_memory()[1] < 10**6
        tracemalloc.stop()


def test_the_largest_picture_is_read_and_one_pixel_more_is_not() -> None:
    assert read_picture(encoded(grey(7, (10, 10))), max_pixels=100).size == (10, 10)
    assert "got 101 x 1 = 101; make it smaller" in refused(read_picture, encoded(grey(7, (101, 1))), max_pixels=100)


@pytest.mark.parametrize(
    ("kind", "how"),
    [
        ("WEBP", {"duration": [1, 16_000_000], "lossless": True}),
        ("GIF", {"duration": [10, 600_000]}),
        ("PNG", {"duration": [1, 65_535_000]}),
    ],
)
def test_long_frames_are_not_unrolled_without_end(kind: str, how: dict[str, Any]) -> None:
    film = encoded(grey(0), grey(99), kind=kind, **how)
    assert len(film) < 1000
    assert "once frames that are shown longer are repeated" in refused(read_frames, film)


@pytest.mark.parametrize("kind", ["WEBP", "GIF", "PNG"])
def test_a_frame_stands_as_often_as_the_shortest_goes_into_it(kind: str) -> None:
    film = encoded(grey(0), grey(99), grey(50), kind=kind, duration=[20, 60, 20])
    assert len(read_frames(film)) == 5
    assert len({id(frame) for frame in read_frames(film)}) == 3


def test_frames_and_their_pixels_are_counted_while_they_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    film = encoded(*(grey(level) for level in range(0, 250, 10)), kind="WEBP", lossless=True, duration=50)
    assert levels(read_frames(film)) == list(range(0, 250, 10))
    monkeypatch.setattr(media, "MAX_FRAMES", 24)
    assert "at most 24 frames" in refused(read_frames, film)
    monkeypatch.setattr(media, "MAX_FRAMES", 25)
    monkeypatch.setattr(media, "MAX_FILM_PIXELS", 25 * 48 - 1)
    assert "1199 pixels together" in refused(read_frames, film)


def test_views_of_one_photograph_are_no_film() -> None:
    photograph = encoded(grey(7, (16, 16)), grey(9, (8, 8)), kind="MPO")
    assert [frame.size for frame in read_frames(photograph)] == [(16, 16)]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "not a picture in a supported format"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n", "not a picture in a supported format"),
        (encoded(Image.effect_noise((40, 40), 90))[:500], "truncated"),
        (encoded(grey(7), kind="JPEG")[:-200], ""),
    ],
    ids=["empty", "a program", "cut PNG", "cut JPEG"],
)
def test_what_is_no_picture_is_one_line(content: bytes, why: str) -> None:
    assert why in refused(read_picture, content)


def test_what_a_decoder_raises_within_the_block_is_the_fault_of_the_file() -> None:
    def load(error: Exception) -> None:
        with open_picture(encoded(grey(7))):
            raise error

    for error, told in ((IndexError("index 7"), "index 7"), (MemoryError(), "memory"), (KeyError(), "KeyError")):
        assert told in refused(load, error)
    with pytest.raises(RollflowError, match=r"^mine$"):
        load(RollflowError("mine"))


def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    assert "not a regular file" in refused(read_picture, tmp_path / "pipe.png")
    assert "not a regular file" in refused(read_picture, "/dev/zero")
    assert "not a regular file" in refused(read_picture, tmp_path)
    assert "No such file" in refused(read_picture, tmp_path / "none.png")
    assert "null byte" in refused(read_picture, "a\0b.png")
    with (tmp_path / "sparse.png").open("wb") as file:
        file.truncate(media.MAX_BYTES + 1)
    assert "bytes, got" in refused(read_frames, tmp_path / "sparse.png")


WHOLE = [
    encoded(grey(7)),
    encoded(grey(7), kind="JPEG"),
    encoded(grey(7), grey(90), kind="GIF", duration=[50, 100]),
    encoded(grey(7), grey(90), kind="WEBP", duration=[50, 100]),
    encoded(grey(7), grey(90), kind="PNG", duration=[50, 100]),
    encoded(grey(7), kind="BMP"),
    encoded(grey(7), grey(90), kind="TIFF"),
]


@settings(max_examples=300)
@given(
    whole=st.sampled_from(WHOLE),
    at=st.integers(0, 10**6),
    new=st.binary(max_size=8),
    cut=st.integers(0, 8),
)
@pytest.mark.slow
def test_damaged_files_are_read_or_refused(whole: bytes, at: int, new: bytes, cut: int) -> None:
    at %= len(whole)
    damaged = whole[:at] + new + whole[at + cut :]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            frames = read_frames(damaged)
        except BadPicture:
            return
    assert 1 <= len(frames) <= media.MAX_FRAMES
    assert all(frame.mode == "RGB" for frame in frames)


@pytest.mark.parametrize("name", ["bomb.png", "film.webp"])
def test_the_command_ends_in_one_line(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / name
    content = (
        claiming(13_000, 13_000)
        if name == "bomb.png"
        else encoded(grey(0), grey(99), kind="WEBP", duration=[1, 16_000_000], lossless=True)
    )
    path.write_bytes(content)
    assert main(["score", "colorfulness", str(path), "--prompt", "x"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    [line] = err.splitlines()
    assert line.startswith(f"error: cannot read '{path}': expected ")
