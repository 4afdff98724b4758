"""Whether a video file is whole, by what its container says of itself."""

import io

import pytest
from pictures import picture
from videos import as_stream, video

from run_batch.model import RowError
from run_batch.model.rendering.video_container import check_container

# Odd, so that none of them is where packets of an even size end.
_CUTS = [*range(101, 1000, 89)]


def gif() -> bytes:
    frames = [picture(number, (40, 30)) for number in range(12)]
    sink = io.BytesIO()
    frames[0].save(sink, "GIF", save_all=True, append_images=frames[1:], duration=40)
    return sink.getvalue()


def ogg() -> bytes:
    """Pages of what is no video."""
    return b"".join(b"OggS" + bytes(22) + b"\x03\xff\xff" + bytes([n]) + bytes([n]) * (510 + n) for n in range(40))


def whole(form: str) -> bytes:
    made = {"gif": gif, "ogg": ogg}.get(form)
    return made() if made is not None else video(1, frames=40, form=form)


@pytest.mark.parametrize("form", ["mp4", "avi", "mkv", "webm", "flv", "mpg", "ts", "gif", "ogg"])
def test_a_file_that_is_cut_off_is_told_wherever_it_is_cut(form: str) -> None:
    encoded = whole(form)
    check_container(encoded)
    for share in _CUTS:
        cut = len(encoded) * share // 1000 | 1
        with pytest.raises(RowError, match="video_decode: the file is cut off: it has ") as caught:
            check_container(encoded[:cut])
        assert f"it has {cut:,} of " in str(caught.value)


@pytest.mark.parametrize("place", [b"", b"AVI ", b"#" * 180 + b"G"], ids=str)
def test_a_playlist_is_no_video(place: bytes) -> None:
    """It would make FFmpeg read what it names."""
    playlist = b"#EXTM3U\n" + place + b"\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n"
    with pytest.raises(RowError, match="video_decode: no video that is known by its first bytes"):
        check_container(playlist)


def test_a_file_without_sizes_is_taken_as_it_is() -> None:
    """That is left to who counts its frames."""
    encoded = as_stream(video(1, form="webm"))
    check_container(encoded)
    check_container(encoded[: len(encoded) // 2])


@pytest.mark.parametrize(
    "first", [b"FLV", b"OggS", b"GIF8", b"\x1aE\xdf\xa3", b"\0\0\1\xba", b"RIFF\0\0\0\0AVI ", b"1234ftyp"]
)
@pytest.mark.parametrize("rest", [b"", b"\0", b"\xff", b"!", b",", b"\0\0\1"], ids=str)
def test_any_bytes_are_a_video_or_an_error_of_the_row(first: bytes, rest: bytes) -> None:
    for length in (0, 1, 5, 20, 300):
        try:
            check_container(first + (rest * length)[:length])
        except RowError as error:
            assert error.kind == "video_decode"
