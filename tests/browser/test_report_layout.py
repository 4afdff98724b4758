"""The layout of the page of `run-batch report`, and its ways to rows: where things stand, where links and keys lead."""

import io
import json
import re
from pathlib import Path
from typing import Any

import committed_jobs
import pytest
from pictures import encoded, picture
from PIL import Image

from run_batch.jobs.job.rows import Generation, RowFailure, RowResult, TokenLogprob
from run_batch.jobs.watch.job_folder import JobFolder
from run_batch.jobs.watch.report import ReportOptions, write_report

PHONE, TABLET, DESK, WIDE = (360, 740), (900, 1100), (1280, 900), (1600, 1000)
SIZES = [(390, 800), (1400, 900), (1900, 1000)]
ROWS = 60
DIGITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


def answer(row: int) -> RowResult:
    if row % 20 == 3:
        return RowFailure(row, "image_decode" if row < 30 else "prompt_too_long", f"row {row}")
    text = "nine" if row % 20 == 4 else DIGITS[row % 10]
    position = (TokenLogprob(1, text, -0.01 * row, 1),)
    return Generation(row, (text,), "length" if row == 7 else "stop", 10, 1 + row % 7, logprobs=((position,),))


@pytest.fixture(scope="module")
def page(tmp_path_factory: Any) -> Path:
    folder = tmp_path_factory.mktemp("job")
    rows = {
        "id": [f"row-{row}" for row in range(ROWS)],
        "prompt": [f"what is in picture {row}?" for row in range(ROWS)],
        "image": [encoded(picture(row, (40 + 5 * row, 60)), "PNG") for row in range(ROWS)],
        "label": [DIGITS[row % 10] for row in range(ROWS)],
    }
    settings = {"input": {"path": str(folder / "rows.parquet"), "id_column": "id"}, "sampling": {"logprobs": 0}}
    settings["errors"] = {"expected_column": "label", "max_fraction": 1.0}
    job = committed_jobs.prepared(folder, rows, output={"rows_per_shard": 20}, **settings)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(committed_jobs, "result", answer)
        committed_jobs.commit(job, range(ROWS))
    return write_report(JobFolder.at(job.store.folder), ReportOptions(rows=ROWS))[0]


@pytest.fixture(scope="module")
def page_of_processes(tmp_path_factory: Any) -> Path:
    """The page of a job that three processes have worked on, two of them of hosts with long names; of a part of its
    rows.
    """
    folder = tmp_path_factory.mktemp("job")
    rows = {"id": [f"train/{row:07}" for row in range(ROWS)], "prompt": ["p"] * ROWS}
    settings = {"input": {"path": str(folder / "rows.parquet"), "id_column": "id", "image_column": ""}}
    job = committed_jobs.prepared(folder, rows, errors={"max_fraction": 1.0}, **settings)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(committed_jobs, "result", answer)
        committed_jobs.commit(job, range(ROWS))
    for share, code in ((0, 75), (1, 0), (2, None)):
        folder = job.store.run_folder / "shares" / f"{share}-of-3"
        folder.mkdir(parents=True)
        began = {"host": f"gpu-node-{share:03}.cluster.example.org", "began": 1e9 + 1000 * share}
        ended = [{**began, "ended": began["began"] + 40, "exit_code": code}] if code is not None else []
        (folder / "runs.jsonl").write_text("\n".join(map(json.dumps, [began, *ended])) + "\n")
        seconds = range(int(began["began"]) + 20, int(began["began"]) + 40)
        line = {"seconds": 1.0, "rows_finished": 1, "prompt_tokens": 9, "generated_tokens": 9, "bottleneck": "engine"}
        lines = [json.dumps({"time": float(second), **line}) for second in seconds]
        (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    return write_report(JobFolder.at(job.store.folder), ReportOptions(rows=20))[0]


def shown(window: Any) -> list[int]:
    """The numbers of the rows that are seen."""
    ids = window.run(
        "return [...document.querySelectorAll('.row')].filter(row => row.checkVisibility()).map(row => row.dataset.id)"
    )
    return [int(row_id.strip('"').removeprefix("row-")) for row_id in ids]


def focused(window: Any) -> int:
    """The number of the row that has the focus; -1 where none has it."""
    return int(window.run("return document.activeElement.closest('.row')?.dataset.id.match(/\\d+/)[0] ?? -1"))


def top(window: Any, selector: str) -> float:
    """How far below the top of the window an element is, in CSS pixels."""
    return float(window.run("return document.querySelector(arguments[0]).getBoundingClientRect().top", selector))


@pytest.mark.parametrize("size", [PHONE, TABLET, DESK, WIDE])
def test_rows_stand_within_two_screens_below_the_headline(quiet: Any, page: Path, size: tuple[int, int]) -> None:
    quiet.open(page, size)
    assert "as expected" in quiet.one(".tiles").text and "failed" in quiet.one(".tiles").text
    assert top(quiet, ".tiles") < size[1] / 2
    assert top(quiet, ".row") < (size[1] if size[0] > 360 else 2 * size[1])
    assert top(quiet, ".columns") > top(quiet, ".row")


@pytest.mark.parametrize(("size", "columns"), [(PHONE, 1), (TABLET, 2), (WIDE, 3)])
def test_numbers_stand_in_as_many_columns_as_there_is_room(quiet: Any, page: Path, size: Any, columns: int) -> None:
    quiet.open(page, size)
    lefts = (
        "return [...document.querySelectorAll('.columns table, .columns svg')].map(e => e.getBoundingClientRect().left)"
    )
    assert len({round(left / 50) for left in quiet.run(lefts)}) == columns


def test_links_lead_to_each_part_and_one_key_to_the_rows(quiet: Any, page: Path) -> None:
    quiet.open(page)
    names = [link.text for link in quiet.all("nav a")]
    # No process has noted anything of this job.
    assert names == ["Overview", "Rows", "Expected", "Errors", "Answers", "Images", "Counts", "Settings"]
    for name in ("Settings", "Errors"):
        next(link for link in quiet.all("nav a") if link.text == name).click()
        heading = f"#{name.lower()} h2"
        assert 0 <= top(quiet, heading) < DESK[1] and top(quiet, "nav") == 0, "the links stay in sight"
    quiet.press("r")
    assert 0 <= top(quiet, "#find") < 120


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", ["page", "page_of_processes"])
def test_each_link_leads_to_its_own_heading_below_the_bar(quiet: Any, request: Any, kind: str, size: Any) -> None:
    quiet.open(request.getfixturevalue(kind), size)
    places = []
    for link in quiet.all("nav a"):
        quiet.run("arguments[0].click()", link)
        name = f"#{link.get_attribute('href').partition('#')[2]}"
        places.append(quiet.run("return window.scrollY"))
        bar = quiet.run("return document.querySelector('nav').getBoundingClientRect().bottom")
        assert -8 <= top(quiet, name) - bar < 40 or places[-1] == 0, (name, top(quiet, name), bar)
        if name not in ("#overview", "#rows"):  # their headings are not seen
            assert 0 <= top(quiet, f"{name} h2") - bar < 60
    assert places == sorted(places) and len(set(places)) == len(places)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", ["page", "page_of_processes"])
def test_each_heading_stands_with_all_that_it_is_of(quiet: Any, request: Any, kind: str, size: Any) -> None:
    quiet.open(request.getfixturevalue(kind), size)
    torn = """
      const box = element => element.getBoundingClientRect();
      const inside = (a, b) => a.left >= b.left - 1 && a.right <= b.right + 1 && a.top >= b.top - 1
        && a.bottom <= b.bottom + 1;
      const parts = [...document.querySelectorAll(".columns :is(table, svg, .command, p)")];
      return parts.filter(part => part.checkVisibility()).filter(part => {
        const block = part.closest(".block"), outer = part.closest(".scroll") ?? part;
        const heading = block?.querySelector("h3"), title = block?.closest("section").querySelector("h2");
        return !heading || box(heading).bottom > box(outer).top + 1 || !inside(box(outer), box(block))
          || !inside(box(heading), box(block)) || box(title).bottom > box(block).top + 1;
      }).map(part => part.outerHTML.slice(0, 200))"""
    assert quiet.run(torn) == []
    assert len(quiet.all(".block")) >= 10


@pytest.mark.parametrize("size", SIZES[1:])
def test_tables_of_errors_and_processes_show_all_columns_on_a_desk(
    quiet: Any, page_of_processes: Path, size: Any
) -> None:
    quiet.open(page_of_processes, size)
    wide = "return [...document.querySelectorAll('.wide .scroll')].map(box => box.scrollWidth - box.clientWidth)"
    assert quiet.run(wide) == [0] * 4, "of errors, hosts, shares, processes"


@pytest.mark.parametrize("kind", ["page", "page_of_processes"])
def test_labels_are_on_one_line_on_a_phone(quiet: Any, request: Any, kind: str) -> None:
    quiet.open(request.getfixturevalue(kind), SIZES[0])
    broken = """
      const lines = element => { const range = document.createRange(); range.selectNodeContents(element);
        return new Set([...range.getClientRects()].map(box => Math.round(box.top))).size };
      return [...document.querySelectorAll(".row dt, nav a, .columns td:first-child .short")]
        .filter(label => label.checkVisibility() && !label.textContent.includes(" ") && lines(label) > 1)
        .map(label => label.textContent)"""
    assert quiet.run(broken) == []


def test_the_bar_of_links_shows_at_which_end_there_are_more(quiet: Any, page: Path) -> None:
    quiet.open(page, SIZES[0])
    ends = []
    for scrolled in (0, 10_000):
        quiet.run("document.querySelector('nav').scrollLeft = arguments[0]", scrolled)
        picture = Image.open(io.BytesIO(quiet.picture())).convert("L")
        y = int(top(quiet, "nav")) + 3  # above the letters
        ends.append([picture.getpixel((x, y)) < 230 for x in (0, SIZES[0][0] - 1)])
    assert ends == [[False, True], [True, False]]
    quiet.open(page, SIZES[1])
    picture = Image.open(io.BytesIO(quiet.picture())).convert("L")
    assert picture.getpixel((1399, int(top(quiet, "nav")) + 3)) > 250


def test_the_number_of_rows_is_told_beside_that_of_the_job(quiet: Any, page_of_processes: Path) -> None:
    quiet.open(page_of_processes)
    assert quiet.one("#count").text == "20 of 20 sampled rows found, 12 shown, of 60 in the job"
    (one, *_) = [line.text.split("\n") for line in quiet.all("#errors tbody td:nth-child(2)")]
    found = re.fullmatch(r"(\d) look (\d) of the (\d) (is|are) on this page", " ".join(one))
    assert found and found[1] == found[3] and int(found[2]) <= int(found[1])


def test_numbers_of_the_headline_and_cells_of_the_confusion_lead_to_their_rows(quiet: Any, page: Path) -> None:
    quiet.open(page)
    quiet.one("[data-tile='failed'] button").click()
    assert shown(quiet) == [3, 23, 43]
    quiet.run("window.scrollTo(0, 0)")
    quiet.one("[data-tile='as expected'] button").click()
    assert shown(quiet) == [4, 24, 44]
    cell = next(
        found for found in quiet.all("#confusion button") if found.accessible_name.endswith("four answered as nine")
    )
    assert cell.value_of_css_property("cursor") == "pointer"
    assert "underline" in cell.value_of_css_property("text-decoration")
    quiet.one("#only button").click()
    cell.click()
    assert shown(quiet) == [4, 24, 44] and "four answered as nine" in quiet.one("#only").text
    assert "Rows of all prompts are counted together" in quiet.one("#confusion").text


def test_few_rows_are_shown_at_first_and_more_when_asked(quiet: Any, page: Path) -> None:
    quiet.open(page)
    assert shown(quiet) == list(range(12)) and quiet.one("#count").text == "60 of 60 rows found, 12 shown"
    quiet.all("#more button")[0].click()
    assert shown(quiet) == list(range(36))
    assert focused(quiet) == 12
    quiet.all("#more button")[1].click()
    assert shown(quiet) == list(range(60)) and not quiet.all("#more button")
    quiet.one("#find").send_keys("no such row")
    assert shown(quiet) == [] and "run-batch try --config job.toml --row ID" in quiet.one("#count").text
    quiet.one("#find").clear()
    quiet.one("#find").send_keys("row-5")
    assert shown(quiet) == [5, *range(50, 60)]


def test_keys_go_on_beyond_the_rows_that_are_shown(quiet: Any, page: Path) -> None:
    quiet.open(page)
    quiet.run("document.querySelectorAll('.enlarge')[11].focus()")
    quiet.press("j")
    assert focused(quiet) == 12
    quiet.all(".enlarge")[30].click()
    for _ in range(10):
        quiet.press("\ue014")
    quiet.press("\ue00c")
    quiet.until(lambda: focused(quiet) == 40)


def test_rows_are_sorted_by_certainty_and_by_the_size_of_images(quiet: Any, page: Path) -> None:
    quiet.open(page)
    quiet.choose("#order", "least certain answers first")
    assert shown(quiet)[:3] == [59, 58, 57]
    quiet.choose("#order", "most certain answers first")
    assert shown(quiet)[:4] == [0, 1, 2, 4], "row 3 has failed"
    quiet.choose("#order", "largest images first")
    assert shown(quiet)[:2] == [59, 58]
    quiet.choose("#order", "longest answers first")
    quiet.run("document.querySelector('#more button:last-of-type').click()")
    assert shown(quiet)[-3:] == [3, 23, 43], "rows without a number come last"
    assert "-0.040 a token" in quiet.run("return document.querySelector('[data-id=\\'\"row-4\"\\']').textContent")


def test_a_line_of_a_table_leads_to_its_rows(quiet: Any, page: Path) -> None:
    quiet.open(page)
    look = quiet.all("#mistakes button")[0]
    assert look.accessible_name == "look at 3 rows: four answered as nine"
    look.click()
    assert shown(quiet) == [4, 24, 44] and "four answered as nine" in quiet.one("#only").text
    assert quiet.run("return document.activeElement.parentElement.id") == "only"
    quiet.one("#only button").click()
    assert len(shown(quiet)) == 12
    errors = {button.accessible_name: button for button in quiet.all("#errors button")}
    errors["look at 2 rows: error: image_decode"].click()
    assert shown(quiet) == [3, 23]


def test_without_the_script_all_rows_are_there(quiet: Any, page: Path, tmp_path: Path) -> None:
    plain = tmp_path / "plain.html"
    text = page.read_text()
    plain.write_text(text[: text.index("<script>")] + "</body></html>")
    quiet.open(plain)
    assert shown(quiet) == list(range(60))
