"""Takes the picture of the demo's report that the README shows, docs/report.png; run `make demo` before.

Needs Debian's chromium. The picture has few colors, so that it stays small.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "docs" / "report.png"
SIZE, SCALE, COLORS, MOST_BYTES = (1600, 1560), 1, 160, 300_000


def take(page: Path, picture: Path) -> None:
    """Have Chromium show a page, and keep what is seen of it."""
    program = shutil.which("chromium") or sys.exit("chromium is not installed: apt install chromium")
    window = f"--window-size={SIZE[0]},{SIZE[1]}"
    look = ("--headless=new", "--no-sandbox", "--hide-scrollbars", window, f"--force-device-scale-factor={SCALE}")
    command = [program, *look, f"--screenshot={picture}", page.as_uri()]
    subprocess.run(command, check=True, capture_output=True, timeout=120)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        page, shot = Path(folder, "report.html"), Path(folder, "shot.png")
        report = [Path(sys.executable).with_name("run-batch"), "report", ROOT / "results" / "demo", "--output", page]
        subprocess.run(report, check=True, stdout=subprocess.DEVNULL)
        take(page, shot)
        Image.open(shot).convert("RGB").quantize(COLORS, dither=Image.Dither.NONE).save(PICTURE, optimize=True)
    size = PICTURE.stat().st_size
    print(f"{PICTURE}: {size:,} bytes")
    if size > MOST_BYTES:
        sys.exit(f"more than {MOST_BYTES:,} bytes; take fewer COLORS, or a smaller SCALE")


if __name__ == "__main__":
    main()
