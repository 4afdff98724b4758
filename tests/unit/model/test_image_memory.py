"""What decoding takes of memory: little more than an image's pixels, and for the largest images in turns."""

import io
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from pictures import encoded, picture
from PIL import Image

from run_batch.model.images import image_memory, rgb
from run_batch.model.images.decode import decode_image
from run_batch.model.images.image_memory import DecodeTurns, cache_bytes, drop_decoded, use_memory
from run_batch.model.images.rgb import rgb_pixels

DECODES = """
import sys
from run_batch.model.images.decode import decode_image
from run_batch.model.images.image_memory import drop_decoded, use_memory
use_memory(0, 1_000_000, sys.argv[1])
image = open(sys.argv[2], "rb").read()
print("begins", flush=True)
decode_image(image)
print("decoded", flush=True)
sys.stdin.readline()
drop_decoded()
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def _no_limits() -> Iterator[None]:
    yield
    image_memory._memory = image_memory._ImageMemory()


def decoding(turns: DecodeTurns, file: Path) -> subprocess.Popen[str]:
    """A process that decodes an image, and uses it until it gets a line."""
    command = [sys.executable, "-c", DECODES, turns.path, str(file)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "begins\n"
    return process


def next_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def test_large_images_are_decoded_by_one_process_at_a_time_and_a_dead_one_holds_up_none(tmp_path: Path) -> None:
    turns = DecodeTurns()
    large, small = tmp_path / "large.png", tmp_path / "small.png"
    large.write_bytes(encoded(Image.new("RGB", (1000, 1000)), "PNG"))
    small.write_bytes(encoded(Image.new("RGB", (100, 100)), "PNG"))
    first = decoding(turns, large)
    assert next_line(first) == "decoded\n"
    beside, second = decoding(turns, small), decoding(turns, large)
    assert next_line(beside) == "decoded\n", "it takes no turn"
    with pytest.raises(subprocess.TimeoutExpired):
        second.wait(0.3)
    first.kill()
    assert next_line(second) == "decoded\n"
    third = decoding(turns, large)
    assert second.stdin is not None
    second.stdin.write("\n")
    second.stdin.flush()
    assert next_line(third) == "decoded\n", "it is told when the image is not used any more"
    for process in (first, beside, second, third):
        process.kill()
        process.wait()
    turns.close()


def test_images_that_are_in_use_together_count_together(tmp_path: Path) -> None:
    turns = DecodeTurns()
    image = encoded(picture(1, (100, 100)), "PNG")  # 80,000 bytes while it is decoded
    use_memory(0, 200_000, turns.path)
    for _ in range(10):
        decode_image(image)
        drop_decoded()
        assert not image_memory._memory.has_turn
    for _ in range(3):
        decode_image(image)
    assert image_memory._memory.has_turn
    drop_decoded()
    assert not image_memory._memory.has_turn
    turns.close()


def test_caches_take_no_more_than_the_share_of_the_process() -> None:
    assert cache_bytes(1000) == 1000
    use_memory(300, 0, None)
    assert cache_bytes(1000) == 300 and cache_bytes(100) == 100


def deep(mode: str) -> Image.Image:
    values = np.arange(60 * 50).reshape(60, 50) * 20
    if mode == "I;16":
        return Image.fromarray(values.astype(np.uint16))
    return Image.fromarray(values.astype(np.int32 if mode == "I" else np.float32) - 5000)


@pytest.mark.parametrize(
    "mode", ["1", "L", "P", "RGB", "RGBA", "LA", "PA", "La", "RGBa", "CMYK", "YCbCr", "HSV", "I;16", "I", "F"]
)
@pytest.mark.parametrize("transparency", [None, 7])
def test_an_image_is_the_same_in_strips_and_as_a_whole(
    mode: str, transparency: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if mode in ("I;16", "I", "F"):
        image = deep(mode)
    else:
        image = picture(3, (50, 60)).convert("RGBA")
        image.putalpha(picture(4, (50, 60)).convert("L"))
        between = {"La": "LA", "RGBa": "RGBA", "PA": "P", "RGBA": "RGBA", "LA": "LA"}.get(mode, "RGB")
        image = image.convert(between).convert(mode)
    if transparency is not None and mode in ("L", "P", "I;16", "I", "F"):
        image.info["transparency"] = transparency
    whole = rgb_pixels(image)
    monkeypatch.setattr(rgb, "_STRIP_PIXELS", 150)
    assert whole.shape == (60, 50, 3) and np.array_equal(rgb_pixels(image), whole)


PEAK = """
import sys
from pathlib import Path
from run_batch.model.images.decode import decode_image
def memory(name):
    return next(int(line.split()[1]) << 10 for line in open("/proc/self/status") if line.startswith(name))
for file in sys.argv[1:]:
    image = Path(file).read_bytes()
    before = memory("VmRSS")
    open("/proc/self/clear_refs", "w").write("5")
    pixels = decode_image(image).pixels
    print((memory("VmHWM") - before) / (pixels.shape[0] * pixels.shape[1]))
    del pixels
"""


def test_decoding_takes_no_more_memory_than_the_turns_count(tmp_path: Path) -> None:
    side = 3000
    plain = Image.new("RGB", (side, side), (9, 99, 199))
    files = {}
    for name, image, form, most in (
        ("rgba.png", plain.convert("RGBA"), "PNG", 8),
        ("la.png", plain.convert("LA"), "PNG", 8),
        ("16.png", Image.fromarray(np.full((side, side), 999, np.uint16)), "PNG", 8),
        ("rgb.jpg", plain, "JPEG", 6),
        ("cmyk.jpg", plain.convert("CMYK"), "JPEG", 12),
        ("rgba.webp", plain.convert("RGBA"), "WEBP", 17),
        ("float.tiff", Image.fromarray(np.full((side, side), 9.0, np.float32)), "TIFF", 10),
    ):
        sink = io.BytesIO()
        image.save(sink, form, **({"compress_level": 1} if form == "PNG" else {}))
        (tmp_path / name).write_bytes(sink.getvalue())
        files[tmp_path / name] = most
    # As worker processes are started: freed memory does not stay.
    environment = {"MALLOC_TRIM_THRESHOLD_": "1000000", "MALLOC_MMAP_THRESHOLD_": "1000000", "PATH": ""}
    command = [sys.executable, "-c", PEAK, *map(str, [next(iter(files)), *files])]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    _, *peaks = map(float, done.stdout.split())  # the first time, libraries are loaded
    for (file, most), found in zip(files.items(), peaks, strict=True):
        assert found <= most + 1.5, f"{file.name}: {found:.1f} bytes a pixel"
