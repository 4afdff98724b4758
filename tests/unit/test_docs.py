"""The docs and the README: links lead somewhere, commands and options exist, quoted messages are the product's."""

import ast
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import click
import pytest

from run_batch.jobs.cli import main

ROOT = Path(__file__).parents[2]
PAGES = sorted([*(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md"), *(ROOT / "configs").rglob("*.md")])
_FENCED = re.compile(r"^( *)```(\w*).*?\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
_VALUE = "…"


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def prose(page: Path) -> str:
    """A page without its blocks of code."""
    return re.sub(r"^    .*$", "", _FENCED.sub("", page.read_text()), flags=re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """The headings of a page as links name them."""
    headings = re.findall(r"^#+ (.+)$", _FENCED.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_link_leads_to_a_file_and_to_a_heading_of_it(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"https?://", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists() and file.is_relative_to(ROOT), target
        assert not anchor or anchor in anchors(file), target


def test_every_page_is_in_the_navigation() -> None:
    listed = set(re.findall(r"[\w/-]+\.md", (ROOT / "mkdocs.yml").read_text()))
    assert listed == {str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md")}


def commands(text: str) -> Iterator[str]:
    """The calls of run-batch in a page's blocks and in its text."""
    for _, language, block in _FENCED.findall(text):
        if language in ("", "bash", "console"):
            yield from re.findall(r"^ *(?:\.venv/bin/)?(run-batch(?: .*)?)$", block.replace("\\\n", " "), re.MULTILINE)
    yield from re.findall(r"^    (?:\.venv/bin/)?(run-batch(?: .*)?)$", _FENCED.sub("", text), re.MULTILINE)
    yield from re.findall(r"`(run-batch(?: [^`]*)?)`", _FENCED.sub("", text))


# What the changelog names may be gone.
@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "CHANGELOG.md"], ids=name)
def test_commands_and_their_options_exist(page: Path) -> None:
    for line in commands(page.read_text()):
        words = shlex.split(re.sub(r"\b[IN]\b", "1", line.partition(" > ")[0]), comments=True)[1:]
        parse([word for word in words if word not in ("…", "...")])


def parse(words: list[str]) -> None:
    """Read the words of a call as the command line does, and do nothing; what a text leaves out may be missing.

    Raises:
        click.UsageError: there is no such command or option.
    """
    try:
        context = main.make_context("run-batch", list(words))
        rest = [*context._protected_args, *context.args]
        if rest:
            found, command, rest = main.resolve_command(context, rest)
            assert command is not None
            command.make_context(found, rest, parent=context)
    except (click.exceptions.Exit, click.MissingParameter):  # the former of --help and --version
        return


@pytest.mark.parametrize("wrong", ["stauts", "status --wtach", "--retry", "report --rows many", "submit --tasks 0"])
def test_a_command_or_option_that_does_not_exist_is_found(wrong: str) -> None:
    with pytest.raises(click.UsageError):
        parse(wrong.split())


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_targets_of_make_exist(page: Path) -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    text = page.read_text()
    blocks = "\n".join(block for _, _, block in _FENCED.findall(text))
    named = re.findall(r"`make ([a-z][\w-]*)", text) + re.findall(r"^(?:    )?make ([a-z][\w-]*)", text + blocks, re.M)
    assert set(named) <= targets


def test_the_overview_names_every_command() -> None:
    text = (ROOT / "docs" / "index.md").read_text()
    assert set(re.findall(r"`run-batch (\w[\w-]*)", text)) == set(main.commands)


def _template(node: ast.AST) -> str | None:
    """A text of the code, with `…` where it holds a value."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(_template(value) or _VALUE for value in node.values)
    return None


@cache
def texts_of_the_code() -> set[str]:
    files = [file for room in ("io", "model", "jobs") for file in (ROOT / room).rglob("*.py")]
    nodes = (node for file in files for node in ast.walk(ast.parse(file.read_text())))
    return {text for node in nodes if (text := _template(node)) and len(text) > 15}


def messages() -> list[str]:
    return re.findall(r"^### `(.+)`$", (ROOT / "docs" / "troubleshooting.md").read_text(), re.MULTILINE)


def is_said(message: str) -> bool:
    """Whether a text of the code has all parts of a message, in this order; or is the message, with values in it."""
    return any(_has_in_order(message, text) or _has_in_order(text, message) for text in texts_of_the_code())


def _has_in_order(parts: str, text: str) -> bool:
    """Whether a text has what stands between the values of another one, most of it."""
    at, found = 0, 0
    for part in parts.split(_VALUE):
        at = text.find(part, at)
        if at < 0:
            return False
        at, found = at + len(part), found + len(part)
    return found > len(parts) / 2 and found > 10


@pytest.mark.parametrize("message", messages())
def test_every_message_that_is_explained_is_one_that_the_product_says(message: str) -> None:
    assert is_said(message)


def test_a_message_that_the_product_does_not_say_is_found() -> None:
    assert len(messages()) > 25 and not is_said("the engine dies whatever row it sees: …")
