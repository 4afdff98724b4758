"""Shows the demo's results: a few rows with their images drawn as text, and the accuracy of the answers.

Reads the shards that `run-batch --config configs/demo.toml` wrote, and the images from the demo's input.
"""

import io
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
SHADES = " .:-=+*#%@"
SHOWN = 4


def draw(encoded: bytes) -> list[str]:
    """Draw an image as lines of text, with two characters per pixel to keep its aspect ratio."""
    image = Image.open(io.BytesIO(encoded)).convert("L")
    pixels = image.tobytes()
    rows = [pixels[i : i + image.width] for i in range(0, len(pixels), image.width)]
    return ["".join(SHADES[value * (len(SHADES) - 1) // 255] * 2 for value in row) for row in rows]


def show_row(result: dict[str, str], encoded: bytes) -> None:
    said = [
        result["row_id"],
        "",
        f"question  {result['prompt']}",
        f"answer    {result['text']}",
        f"truth     {result['answer']}",
    ]
    print()
    for line, text in zip(draw(encoded), [*said, *[""] * 8], strict=False):
        print(f"   {line}   {text}")


def main() -> None:
    folder = ROOT / "results" / "demo"
    if not (folder / "_SUCCESS").exists():
        sys.exit(f"{folder} holds no complete results; run: run-batch --config configs/demo.toml")
    results = pa.concat_tables([pq.read_table(path) for path in sorted(folder.glob("part-*.parquet"))]).to_pylist()
    images = pq.read_table(ROOT / "configs" / "demo" / "digits.parquet", columns=["id", "image"]).to_pylist()
    encoded = {row["id"]: row["image"]["bytes"] for row in images}
    step = len(results) // SHOWN
    for index in range(SHOWN):
        # A different question each time: the questions of an image are consecutive rows.
        result = results[index * step + index % 3]
        show_row(result, encoded[result["row_id"]])
    print()
    for question in sorted({result["prompt"] for result in results}):
        print_accuracy(question, [result for result in results if result["prompt"] == question])
    print_accuracy("overall", results)


def print_accuracy(name: str, results: list[dict[str, str]]) -> None:
    right = sum(result["text"] == result["answer"] for result in results)
    print(f"{name:28s}{right} of {len(results)} right ({right / len(results):.1%})")


if __name__ == "__main__":
    main()
