"""prompt.template: fields from columns, literal text from the author."""

import pyarrow as pa
import pytest

from run_batch.jobs.job.errors import JobError
from run_batch.jobs.job.prompt_template import parse_template

SCHEMA = pa.schema([("question", pa.string()), ("year", pa.int32()), ("image", pa.binary())])


def test_fields_are_filled_from_their_columns() -> None:
    template = parse_template("USER: <image>\n{prompt} in {year}?", "question", SCHEMA)
    filled = template.fill({"question": "what", "year": 1999})
    assert "".join(text for text, _ in filled) == "USER: <image>\nwhat in 1999?"
    assert [text for text, trusted in filled if not trusted] == ["what", "1999"]
    assert template.columns == ["question", "year"]


def test_values_are_never_read_as_template() -> None:
    template = parse_template("{prompt}{{}}", "question", SCHEMA)
    assert template.fill({"question": "{year}"}) == [("{year}", False), ("{}", True)]


def test_the_template_without_images_has_no_placeholder() -> None:
    template = parse_template("<image>\n{prompt}", "question", SCHEMA).without("<image>")
    assert template.fill({"question": "<image>"}) == [("\n", True), ("<image>", False)]


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{questoin}", "did you mean question"),
        ("{question.upper}", "question.upper"),
        ("{question!r}", "no format or conversion"),
        ("{question:>9}", "no format or conversion"),
        ("{question", "prompt.template"),
        ("{image}", "binary"),
    ],
)
def test_a_template_that_does_not_hold_is_refused(template: str, said: str) -> None:
    with pytest.raises(JobError, match=r"prompt\.template") as caught:
        parse_template(template, "question", SCHEMA)
    assert said in str(caught.value)


def test_a_null_value_is_told_by_its_column() -> None:
    template = parse_template("{prompt}", "question", SCHEMA)
    with pytest.raises(ValueError, match="question is null"):
        template.fill({"question": None})
