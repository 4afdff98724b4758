"""prompt.template: fields from columns and from structs in them, literal text from the author."""

from pathlib import Path

import pyarrow as pa
import pytest

import jobs
from run_batch.io.inputs.source import RowBatch
from run_batch.jobs.job.columns import needed_columns
from run_batch.jobs.job.config import load_config
from run_batch.jobs.job.errors import JobError
from run_batch.jobs.job.prompt_template import parse_template, require_column
from run_batch.jobs.job.rows import MappedRow, RowFailure
from run_batch.jobs.mapping.row_mapper import RowMapper
from run_batch.model.plugin import announce_plugins, register

SCHEMA = pa.schema([("question", pa.string()), ("year", pa.int32()), ("image", pa.binary())])
INNER = pa.struct([("title", pa.string()), ("size", pa.struct([("width", pa.float32()), ("in.px", pa.int16())]))])
STRUCTS = pa.schema(
    [
        ("meta", INNER),
        ("coded", pa.dictionary(pa.int8(), pa.string())),
        ("tags", pa.list_(pa.string())),
        ("pages", pa.list_(INNER)),
        ("a.b", pa.string()),
        ("c", pa.struct([("d", pa.string()), ("d.e", pa.string())])),
        ("c.d", pa.struct([("f", pa.string())])),
        ("c.d.g", pa.string()),
    ]
)


def filled(template: str, row: dict[str, object], prompt_column: str = "meta", schema: pa.Schema = STRUCTS) -> str:
    """A template, filled with a row that has been in Arrow."""
    (back,) = pa.Table.from_pylist([row], schema).to_pylist()
    return "".join(text for text, _ in parse_template(template, prompt_column, schema).fill(back))


def test_fields_are_filled_from_their_columns() -> None:
    template = parse_template("USER: <image>\n{prompt} in {year}?", "question", SCHEMA)
    filled = template.fill({"question": "what", "year": 1999})
    assert "".join(text for text, _ in filled) == "USER: <image>\nwhat in 1999?"
    assert [text for text, trusted in filled if not trusted] == ["what", "1999"]
    assert [field.column for field in template.fields] == ["question", "year"]


def test_values_are_never_read_as_template() -> None:
    template = parse_template("{prompt}{{}}", "question", SCHEMA)
    assert template.fill({"question": "{year}"}) == [("{year}", False), ("{}", True)]


def test_a_dot_reads_a_field_of_a_struct() -> None:
    row = {"meta": {"title": "T {year}", "size": {"width": 0.1, "in.px": 7}}, "coded": "x", "a.b": "AB"}
    assert (
        filled("{meta.title}|{prompt.size.width}|{meta.size.in.px:03}|{coded:>2}|{a.b}", row)
        == "T {year}|0.1|007| x|AB"
    )
    template = parse_template("{prompt.title} {meta.size.width} {coded}", "meta", STRUCTS)
    assert [field.column for field in template.fields] == ["meta", "meta", "coded"], "the columns to read"
    dictionary = pa.DictionaryArray.from_arrays(pa.array([0], pa.int8()), pa.array([row["meta"]], INNER))
    template = parse_template("{prompt.size.width:.2f}", "m", pa.schema([("m", dictionary.type)]))
    assert template.fill({"m": dictionary.to_pylist()[0]}) == [("0.10", False)]


def test_a_name_that_can_be_read_in_two_ways_is_refused() -> None:
    assert filled("{c.d}", {"c": {"d": "D"}}, schema=pa.schema([STRUCTS.field("c")])) == "D"
    assert filled("{c.d.f}", {"c.d": {"f": "F"}}) == "F"
    for name, places in {
        "c.d": "field d of column c or column c.d",
        "x.y": "column x.y or field y of column x",
    }.items():
        schema = pa.schema([*STRUCTS, ("x", pa.struct([("y", pa.string())])), ("x.y", pa.string())])
        with pytest.raises(JobError, match="rename one of them") as caught:
            parse_template(f"{{{name}}}", "meta", schema)
        assert all(place in str(caught.value) for place in places.split(" or "))


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"meta": None}, "column meta is null"),
        ({"meta": {"title": "T", "size": None}}, "field size of column meta is null"),
        ({"meta": {"title": "T", "size": {"width": None}}}, "field size.width of column meta is null"),
    ],
)
def test_a_null_anywhere_on_the_way_is_told_by_its_place(row: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError) as caught:
        filled("{prompt.size.width:.1f}", row)
    assert str(caught.value) == said


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{questoin}", "did you mean question"),
        ("{question.upper}", "field {question.upper}: column question is string, which has no fields"),
        ("{question!r}", "{question!r} has a conversion"),
        ("{question!r:>9}", "{question!r} has a conversion"),
        ("{question", "prompt.template"),
        ("{}", "a field without a name"),
        ("{:.1f}", "a field without a name"),
        ("{question[0]}", "names column 'question[0]'"),
        ("{image}", "binary"),
        ("{image:.1f}", "binary"),
        ("{question:{year}}", "field {question:{year}}: column question is string"),
    ],
)
def test_a_template_that_does_not_hold_is_refused(template: str, said: str) -> None:
    with pytest.raises(JobError, match=r"prompt\.template") as caught:
        parse_template(template, "question", SCHEMA)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{meta}", "column meta is a struct; name a field of it: {meta.title}, {meta.size.width}, {meta.size.in.px}"),
        ("{prompt.size}", "is a struct; name a field of it: {prompt.size.width}"),
        ("{meta.titel}", "column meta has no titel; it has: title, size.width, size.in.px; did you mean title?"),
        ("{meta.title.x}", "column meta has no title.x"),
        ("{tags}", "column tags is list<"),
        ("{tags.x}", "which has no fields"),
        ("{pages.title}", "which has no fields"),
        ("{mta.title}", "names column 'mta.title'"),
    ],
)
def test_a_field_of_a_struct_that_is_not_there_is_refused(template: str, said: str) -> None:
    with pytest.raises(JobError) as caught:
        parse_template(template, "meta", STRUCTS, key="prompt.prefill")
    assert str(caught.value).startswith("prompt.prefill") and said in str(caught.value)


def test_a_null_value_is_told_by_its_column() -> None:
    template = parse_template("{prompt}", "question", SCHEMA)
    with pytest.raises(ValueError, match="question is null"):
        template.fill({"question": None})


def test_a_job_reads_the_columns_of_its_fields_and_a_null_field_fails_its_row(tmp_path: Path) -> None:
    announce_plugins([], tmp_path)
    register()
    rows = [{"title": "is it even?", "size": {"width": width}} for width in (0.1, None)]
    records = pa.RecordBatch.from_pylist([{"uid": str(i), "meta": row} for i, row in enumerate(rows)])
    schema = pa.schema([*records.schema, ("unused", pa.string())])
    tables = {"input": {"image_column": ""}, "prompt": {"template": "{meta.title} {meta.size.width:.3f}"}}
    config = load_config(jobs.write_job(tmp_path, None, **tables))
    assert sorted(needed_columns(config, schema)) == ["meta", "uid"]
    plain = load_config(jobs.write_job(tmp_path / "b", None, **{**tables, "prompt": {"template": "is it even? 0.100"}}))
    (expected, _) = RowMapper(plain, schema, None).map(RowBatch(0, records))
    mapped, failed = RowMapper(config, schema, None).map(RowBatch(0, records))
    assert isinstance(mapped, MappedRow) and isinstance(expected, MappedRow)
    assert mapped.engine_input["prompt_token_ids"] == expected.engine_input["prompt_token_ids"]
    assert failed == RowFailure(1, "prompt_null", "field size.width of column meta is null")


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["id", " q"], "has: id, ' q'; write ' q', with its spaces, or take them out of the file"),
        (["id:q"], "has: id:q; if it is CSV, its first line is split at commas, tabs, semicolons"),
        (["id", "qs"], "has: id, qs; did you mean qs?"),
    ],
)
def test_a_column_that_is_not_there_is_said_with_what_may_be_meant(names: list[str], said: str) -> None:
    with pytest.raises(JobError) as refused:
        require_column("input.id_column", "q", pa.schema([(name, pa.string()) for name in names]))
    assert said in str(refused.value)
    nested = pa.schema([("sample", pa.struct([("image", pa.binary())]))])
    with pytest.raises(JobError, match=r"a field in column sample is no column of its own"):
        require_column("input.image_column", "sample.image", nested)
