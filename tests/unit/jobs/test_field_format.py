"""Formats of template fields: what a value looks like, and which formats a column takes."""

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from run_batch.jobs.job.errors import JobError
from run_batch.jobs.job.prompt_template import parse_template

TYPES: dict[pa.DataType, st.SearchStrategy[Any]] = {
    pa.string(): st.text(),
    pa.dictionary(pa.int32(), pa.large_string()): st.text(),
    pa.int8(): st.integers(-128, 127),
    pa.uint64(): st.integers(0, 2**64 - 1),
    pa.float64(): st.floats(),
    pa.float32(): st.floats(width=32),
    pa.float16(): st.floats(width=16).map(np.float16),
    pa.bool_(): st.booleans(),
    pa.decimal128(38, 9): st.decimals(-(10**28), 10**28, places=9),
    pa.decimal256(70, 2): st.decimals(-(10**60), 10**60, places=2),
    pa.date32(): st.dates(),
    pa.timestamp("us"): st.datetimes(),
    pa.timestamp("ns", "Europe/Berlin"): st.datetimes(datetime(1700, 1, 1), datetime(2200, 1, 1)),
}
SPECS = (
    *("", "d", "x", "b", "+d", ",", "_d", "05", ">30", "*^9", ".1f", "+.3e", "g", "%", "08.2f", ",.2f", "z.1f", "#x"),
    *(".3", "s", "<7.2s", "=+9", "%Y-%m-%d", "%-d %B %Y, %H:%M", "100%%", "%a %f %z", " d", "1000", ".1000f"),
)


def filled(kind: pa.DataType, value: object, spec: str) -> str:
    """The value as a column and as a field of a struct, which are written alike."""
    schema = pa.schema([("value", kind), ("outer", pa.struct([("value", kind)]))])
    values = pa.array([value], kind)
    inner = pa.StructArray.from_arrays([values], ["value"])
    (row,) = pa.table([values, inner], schema).to_pylist()
    template = parse_template(f"{{value:{spec}}}\0{{outer.value:{spec}}}", "value", schema)
    (text, _), _, (in_struct, _) = template.fill(row)
    assert text == in_struct
    return text


def shortest(value: Any, kind: pa.DataType) -> Any:
    """A value as Arrow gives it; floats that it has widened as the number with the fewest digits that is the same."""
    narrow = {pa.float32(): np.float32, pa.float16(): np.float16}.get(kind)
    return value if narrow is None or value.is_integer() else float(str(narrow(value)))


@pytest.mark.parametrize("kind", TYPES, ids=str)
@settings(deadline=None)
@given(data=st.data(), spec=st.sampled_from(SPECS))
def test_a_value_is_written_as_python_formats_it(kind: pa.DataType, data: st.DataObject, spec: str) -> None:
    value = data.draw(TYPES[kind])
    try:
        text = filled(kind, value, spec)
    except JobError as error:
        assert "field {value:" in str(error) and "column value is " in str(error)
        return
    # Python writes a decimal zero of many digits as 0E-18.
    spec = spec or ("f" if pa.types.is_decimal(kind) else "")
    assert text == format(shortest(pa.array([value], kind).to_pylist()[0], kind), spec)


NOON = datetime(2024, 2, 3, 12, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    ("kind", "value", "spec", "text"),
    [
        (pa.float32(), 0.1, "", "0.1"),
        (pa.float32(), 16777216.0, "", "16777216.0"),
        (pa.float32(), 123456792.0, "", "123456792.0"),
        (pa.float16(), np.float16(65504), ".1f", "65504.0"),
        (pa.decimal128(38, 18), Decimal(0), "", "0.000000000000000000"),
        (pa.decimal128(38, 18), Decimal("0.000000001"), "", "0.000000001000000000"),
        (pa.float32(), 1e-7, "", "1e-07"),
        (pa.float16(), np.float16(0.1), "", "0.1"),
        (pa.float64(), 0.1, "", "0.1"),
        (pa.float64(), 0.1 + 0.2, ".2f", "0.30"),
        (pa.float32(), 0.1, ".10f", "0.1000000000"),
        (pa.float32(), float("nan"), ".1f", "nan"),
        (pa.float32(), -0.0, "", "-0.0"),
        (pa.dictionary(pa.int8(), pa.float32()), 0.1, "", "0.1"),
        (pa.int64(), 1234567, ",", "1,234,567"),
        (pa.int16(), 7, "03", "007"),
        (pa.int16(), 7, ".1f", "7.0"),
        (pa.bool_(), True, "", "True"),
        (pa.bool_(), True, "d", "1"),
        (pa.decimal128(9, 3), Decimal("1234.500"), "", "1234.500"),
        (pa.decimal128(9, 3), Decimal("1234.5"), ",.1f", "1,234.5"),
        (pa.string(), "{year:x} long", ".9", "{year:x} "),
        (pa.string_view(), "a", "->4", "---a"),
        (pa.date32(), date(2024, 2, 3), "", "2024-02-03"),
        (pa.date64(), date(2024, 2, 3), "%-d.%-m.%y", "3.2.24"),
        (pa.timestamp("s"), NOON, "", "2024-02-03 12:05:00"),
        (pa.timestamp("ms", "Asia/Tokyo"), NOON, "%H:%M %z", "21:05 +0900"),
        (pa.timestamp("ns"), NOON, "%B %d, %Y", "February 03, 2024"),
    ],
    ids=str,
)
def test_a_value_is_written_as_people_write_it(kind: pa.DataType, value: Any, spec: str, text: str) -> None:
    if pa.types.is_timestamp(kind) and kind.tz is None:
        value = value.replace(tzinfo=None)
    assert filled(kind, value, spec) == text


@pytest.mark.parametrize(
    ("kind", "spec", "said"),
    [
        (pa.string(), ".1f", "'f'"),
        (pa.string(), "d", "'d'"),
        (pa.string(), "=9", "'='"),
        (pa.string(), ",", "','"),
        (pa.float32(), "d", "'d'"),
        (pa.int32(), "s", "'s'"),
        (pa.int32(), ".1", "recision"),
        (pa.decimal128(5, 2), "x", ""),
        (pa.int32(), "c", "type c is not taken"),
        (pa.float64(), "n", "type n is not taken"),
        (pa.int32(), "{0}", "as in Python"),
        (pa.float64(), "%Y", "as in Python"),
        (pa.float64(), "1.f2", "as in Python"),
        (pa.int32(), "٣", "as in Python"),
        (pa.bool_(), ">6", "d for 1 and 0"),
        (pa.bool_(), "s", "'s'"),
        (pa.date32(), ".1f", "strftime"),
        (pa.date32(), ">20", "strftime"),
        (pa.timestamp("ns"), "{x}%Y", "braces"),
        (pa.date32(), "%Y %", "directives"),
        (pa.date32(), "%99999999d", "directives"),
        (pa.date32(), "%c", "directives"),
        (pa.float64(), "9999999999", "up to 1000"),
        (pa.float64(), ".9999999999f", "up to 1000"),
        (pa.int8(), "01001", "up to 1000"),
        (pa.string(), "*<" + "9" * 5000, "up to 1000"),
        (pa.decimal256(9, 2), ".1001f", "up to 1000"),
        (pa.string(), "." + "9" * 30, "oo many"),
    ],
    ids=str,
)
def test_a_format_that_does_not_fit_is_refused_with_key_field_and_type(kind: pa.DataType, spec: str, said: str) -> None:
    with pytest.raises(JobError, match=r"prompt\.template: field \{prompt:") as caught:
        parse_template(f"{{prompt:{spec}}}", "value", pa.schema([("value", kind)]))
    assert f"column value is {kind}" in str(caught.value) and said in str(caught.value)
    assert spec[:100] in str(caught.value) and len(str(caught.value)) < 500


def test_a_format_can_cut_text_of_any_length() -> None:
    assert filled(pa.string(), "x" * 5000, ".4000") == "x" * 4000
