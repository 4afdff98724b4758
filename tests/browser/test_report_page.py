"""The page of `run-batch report` in a browser: what a person finds, and how."""

from pathlib import Path
from typing import Any

import pytest
from eight_rows import DESK, PHONE, plain_report
from keys import BACKSPACE, CONTROL, ENTER, ESCAPE, LEFT, RIGHT, TAB


@pytest.fixture(scope="module")
def page(tmp_path_factory: Any) -> Path:
    return plain_report(tmp_path_factory.mktemp("job"))


def shown(window: Any) -> list[str]:
    """The prompts of the rows that are seen, by their numbers."""
    texts = window.run(
        "return [...document.querySelectorAll('.row')].filter(row => row.checkVisibility()).map(row => "
        "[...row.querySelectorAll('dt')].find(name => name.textContent == 'prompt').nextElementSibling.textContent)"
    )
    return [text[-2] for text in texts]


def test_words_find_rows_wherever_they_stand_or_in_one_field(quiet: Any, page: Path) -> None:
    quiet.open(page)
    assert shown(quiet) == list("01234567") and quiet.one("#count").text == "8 of 8 rows shown"
    quiet.one("#find").send_keys("Cat")
    assert shown(quiet) == list("05") and quiet.one("#count").text == "2 of 8 rows shown"
    quiet.one("#find").clear()
    quiet.one("#find").send_keys("rhea")
    assert shown(quiet) == ["6"]
    quiet.choose("#where", "in answer")
    assert shown(quiet) == []


def test_rows_are_filtered_by_how_they_ended_and_by_why_they_are_shown(quiet: Any, page: Path) -> None:
    quiet.open(page)
    quiet.choose("#finish", "length")
    assert shown(quiet) == ["4"]
    quiet.choose("#finish", "all finish reasons")
    quiet.choose("#kind", "failed")
    assert shown(quiet) == list("23")
    quiet.choose("#kind", "mismatching")
    assert shown(quiet) == ["6"]


def test_rows_are_sorted_by_what_they_took(quiet: Any, page: Path) -> None:
    quiet.open(page)
    quiet.choose("#order", "longest answers first")
    assert shown(quiet)[0] == "4"
    quiet.choose("#order", "longest prompts first")
    assert shown(quiet) == list("01456723"), "those that failed have no tokens"
    quiet.choose("#order", "in order of the input")
    assert shown(quiet) == list("01234567")


def test_a_row_is_enlarged_and_arrows_lead_to_the_others_that_are_shown(quiet: Any, page: Path) -> None:
    quiet.open(page)
    quiet.one("#find").send_keys("cat")
    quiet.all(".enlarge")[0].click()
    assert "picture 0?" in quiet.one("#large").text and "1 of 2" in quiet.one("#large").text
    small, large = (quiet.all(f"{where} img")[0].size["width"] for where in (".row", "#large"))
    assert large > 1.4 * small
    quiet.press(RIGHT)
    assert "picture 5?" in quiet.one("#large").text
    quiet.press(RIGHT, LEFT)
    assert "picture 0?" in quiet.one("#large").text
    quiet.press(ENTER, RIGHT, LEFT, RIGHT, LEFT)
    assert "picture 0?" in quiet.one("#large").text, "the button that was pressed last keeps the focus"
    quiet.all("#large button")[1].click()
    assert "picture 5?" in quiet.one("#large").text
    quiet.press(LEFT)
    quiet.press(ESCAPE)
    assert not quiet.all("#large")
    assert quiet.run("return document.activeElement.closest('.row').textContent").count("picture 0?")


def test_an_image_is_a_way_to_its_row(quiet: Any, page: Path) -> None:
    quiet.open(page)
    quiet.all(".row img")[4].click()
    assert "picture 4?" in quiet.one("#large").text


@pytest.mark.parametrize("place", [".row", "#large"])
def test_an_id_is_copied_as_it_is_in_the_data(quiet: Any, page: Path, place: str) -> None:
    quiet.open(page)
    if place == "#large":
        quiet.all(".enlarge")[0].click()
    copy = next(found for found in quiet.all(f"{place} button") if found.text == "copy id")
    copy.click()
    quiet.until(lambda: copy.text == "copied")
    quiet.press(ESCAPE)
    quiet.one("#find").send_keys(CONTROL + "v")
    assert quiet.run("return document.getElementById('find').value") == "a\u202e\"'<b>"
    assert not quiet.all("textarea")


def test_the_command_that_tries_a_failed_row_again_is_copied(quiet: Any, page: Path) -> None:
    quiet.open(page)
    copies = [found for found in quiet.all(".row button") if found.text == "copy try command"]
    assert len(copies) == 2, "of the rows that failed"
    again = next(found for found in quiet.all("#errors .command button"))
    commands = [
        "run-batch try --config job.toml --row row-2",
        "run-batch try --config job.toml --row row-3",
        "run-batch try --config job.toml --row row-2",
        "run-batch --config job.toml --retry-failed",
    ]
    for button, command in zip([*copies, *quiet.all("#errors .command button")], commands, strict=True):
        named = button.text
        button.click()
        quiet.until(lambda button=button: button.text == "copied")
        quiet.run("document.getElementById('find').focus()")
        quiet.press(CONTROL + "v")
        assert quiet.run("return document.getElementById('find').value") == command
        quiet.press(CONTROL + "a", BACKSPACE)
        button.click()
        quiet.until(lambda button=button, named=named: button.text == named)
    assert "monospace" in again.find_element("xpath", "../pre").value_of_css_property("font-family")


def test_a_menu_that_has_the_focus_keeps_letters_and_gives_the_search_key(quiet: Any, page: Path) -> None:
    quiet.open(page)
    quiet.run("document.getElementById('kind').focus()")
    quiet.press("r")
    assert quiet.run("return document.activeElement.id") == "kind"
    quiet.press("/")
    assert quiet.run("return document.activeElement.id") == "find"
    assert quiet.run("return document.getElementById('find').value") == ""


def test_the_large_view_has_its_image_beside_its_text_on_a_desk_and_above_it_on_a_phone(quiet: Any, page: Path) -> None:
    sides = """const box = name => document.querySelector("#large " + name).getBoundingClientRect();
      const image = box("img"), text = box("dl");
      return [image.right <= text.left, image.bottom <= text.top, image.width]"""
    for size, beside in ((DESK, True), (PHONE, False)):
        quiet.open(page, size)
        quiet.run("document.querySelector('.enlarge').click()")
        is_left, is_above, width = quiet.run(sides)
        assert (is_left, is_above) == (beside, not beside) and width > (500 if beside else 280)


def test_all_of_it_is_done_by_keys_alone(quiet: Any, page: Path) -> None:
    quiet.open(page)
    quiet.press("/")
    quiet.press(*"fox")
    assert shown(quiet) == ["7"]
    quiet.press(TAB, TAB, TAB, TAB, TAB, ENTER)  # past the menus, to the first button of the row
    assert "picture 7?" in quiet.one("#large").text
    quiet.press(ESCAPE, "/", CONTROL + "a", BACKSPACE)
    assert shown(quiet) == list("01234567")
    quiet.press(TAB, TAB, TAB, TAB, TAB, ENTER)
    assert "picture 0?" in quiet.one("#large").text
    quiet.press(ESCAPE, "j", "j", "k", ENTER)
    assert "picture 1?" in quiet.one("#large").text


def test_what_can_be_used_has_a_name_for_screen_readers(quiet: Any, page: Path) -> None:
    quiet.open(page)
    for selector in ("button", "input", "select", "img"):
        found = quiet.all(selector)
        assert found and all(element.accessible_name for element in found), selector
    quiet.all(".enlarge")[0].click()
    for selector in ("#large", "#large button", "#large img"):
        found = quiet.all(selector)
        assert found and all(element.accessible_name for element in found), selector


# The contrast of each text with what is behind it, as WCAG defines it.
CONTRAST = r"""
  const channels = color => color.match(/[\d.]+/g).map(Number);
  const linear = value => value <= .03928 ? value / 12.92 : ((value + .055) / 1.055) ** 2.4;
  const weights = [.2126, .7152, .0722];
  const light = color => weights.reduce((sum, weight, i) => sum + weight * linear(channels(color)[i] / 255), 0);
  function behind(element) {
    const color = getComputedStyle(element).backgroundColor;
    return channels(color)[3] === 0 && element.parentElement ? behind(element.parentElement) : color;
  }
  return [...document.querySelectorAll("h1, h2, p, td, th, dt, dd, pre, button, input, select")]
    .filter(element => element.checkVisibility())
    .map(element => [light(getComputedStyle(element).color), light(behind(element))].sort((a, b) => b - a))
    .map(([high, low]) => (high + .05) / (low + .05));
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_stand_out_in_light_and_dark(quiet: Any, page: Path, scheme: str) -> None:
    quiet.open(page, scheme=scheme)
    assert min(quiet.run(CONTRAST)) >= 4.5
    red = quiet.run("return Number(getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0])")
    assert red > 200 if scheme == "light" else red < 60
