"""The page of `run-batch report` with whatever data: it stays within the window, and the data does nothing."""

from pathlib import Path
from typing import Any

import pytest
from eight_rows import SIZES, plain_report, report
from keys import RIGHT

from run_batch.jobs.job.rows import Generation
from run_batch.jobs.watch.page import page as whole_page
from run_batch.jobs.watch.page import section, table

HOSTILE = [
    "</script><script>window.hacked = 1</script>",
    '"><img src=x onerror="window.hacked = 1">',
    "<style>* { display: none }</style>\x00\x1b[2J",
    "\u202eevil\u2066 \u200f",
    "</pre></dd></article><h1>hacked</h1>",
    "x" * 1_000_000,
    "W" * 300 + "\u200b" + "'; window.hacked = 1; '",
    "{{constructor.constructor('window.hacked=1')()}}",
]


@pytest.fixture(scope="module")
def page(tmp_path_factory: Any) -> Path:
    return plain_report(tmp_path_factory.mktemp("job"))


@pytest.fixture(scope="module")
def hostile_page(tmp_path_factory: Any) -> Path:
    folder = tmp_path_factory.mktemp("hostile")
    texts = [text.replace("\x00", "\\0") if row == 5 else text for row, text in enumerate(HOSTILE)]
    ids = [f"{row} {text[:5000]}" for row, text in enumerate(HOSTILE)]
    return report(folder, ids, lambda row: Generation(row, (texts[row],), "stop", 1, 1), prompt=HOSTILE, label=texts)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", ["page", "hostile_page"])
def test_nothing_is_wider_than_the_window(quiet: Any, request: Any, kind: str, size: str) -> None:
    quiet.open(request.getfixturevalue(kind), SIZES[size])
    widths = "return [document.documentElement.scrollWidth, document.documentElement.clientWidth]"
    page_width, window_width = quiet.run(widths)
    assert page_width <= window_width == SIZES[size][0]
    for row in range(8):
        quiet.run("document.querySelectorAll('.enlarge')[arguments[0]].click()", row)
        width, room = quiet.run("const d = document.getElementById('large'); return [d.scrollWidth, d.clientWidth]")
        assert width <= room <= SIZES[size][0]
        quiet.run("document.getElementById('large').close()")


CURVE = "\u2581\u2582\u2583\u2584\u2585\u2586\u2587\u2588" * 2


@pytest.fixture(scope="module")
def page_of_tables(tmp_path_factory: Any) -> Path:
    """A page with tables of many columns, and with all that a cell may hold."""
    when = f"{CURVE}\n2026-11-26 08:00:00 to 2026-11-27 09:00:00"
    errors = [("image_decode", "12", text[:50], text, when) for text in HOSTILE]
    classes = [(f"class {row}", *map(str, range(24))) for row in range(24)]
    file = tmp_path_factory.mktemp("tables") / "page.html"
    content = [
        section("Errors", table(errors, ("kind", "rows", "such as row", "which says", "when"))),
        section("Confusion", table(classes, ("expected", *(f"answer {number}" for number in range(23)), HOSTILE[6]))),
        section("Rows", table([("done", "3"), ("a" * 500, "b" * 500)])),
    ]
    file.write_text(whole_page("tables", content))
    return file


@pytest.mark.parametrize("size", SIZES)
def test_tables_of_many_columns_move_sideways_by_themselves(quiet: Any, page_of_tables: Path, size: str) -> None:
    quiet.open(page_of_tables, SIZES[size])
    assert quiet.run("return document.documentElement.scrollWidth") == SIZES[size][0]
    assert quiet.run("return document.querySelector('td:nth-child(5) pre').clientHeight") < 80, "a curve is on one line"
    quiet.run("document.querySelectorAll('.scroll')[1].focus()")
    if quiet.run("const box = document.activeElement; return box.scrollWidth <= box.clientWidth"):
        assert size == "wide", "elsewhere, the table has more columns than the window has room for"
        return
    for _ in range(100):
        quiet.press(RIGHT)
        if quiet.run("return document.activeElement.scrollLeft"):
            return
    raise AssertionError("the last columns cannot be reached by keys")


def test_texts_of_the_data_do_nothing(quiet: Any, hostile_page: Path) -> None:
    quiet.open(hostile_page)
    for row in range(8):
        quiet.run("document.querySelectorAll('.enlarge')[arguments[0]].click()", row)
        quiet.run("document.getElementById('large').close()")
    quiet.one("#find").send_keys("</script>")
    quiet.choose("#where", "in prompt")
    assert quiet.one("#count").text == "1 of 8 rows shown"
    assert quiet.run("return [typeof window.hacked, document.scripts.length]") == ["undefined", 1]
    assert quiet.run(
        "return [...document.images].every(image => image.src.startsWith('data:image/jpeg') && image.naturalWidth)"
    )
    assert [heading.text for heading in quiet.all("h1")] == ["run-batch: hostile0/test"]
    prompt = quiet.run("return document.querySelector('.row:not([hidden]) dt + dd').parentElement.textContent")
    assert HOSTILE[0] in prompt
    assert quiet.run("return document.documentElement.outerHTML.length") < 400_000


# What an attacker would add to the page.
ADDED = """
  const script = Object.assign(document.createElement("script"), { textContent: "window.hacked = 1" });
  const image = Object.assign(document.createElement("img"), { src: "https://example.org/x.png" });
  document.body.append(script, image);
  document.body.insertAdjacentHTML("beforeend", "<b onclick='window.hacked = 1'>x</b>");
  document.body.lastElementChild.click();
"""


def test_a_script_that_got_in_would_not_run(window: Any, hostile_page: Path) -> None:
    window.open(hostile_page)
    window.run(ADDED)
    assert window.run("return typeof window.hacked") == "undefined"
    assert sum("Content Security Policy" in said for said in window.complaints()) >= 3
