"""Every kind of trouble that a row can hold, without an engine: what each one gives, and that it stays alone."""

import random
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
from bad_rows import CASES, BadRow, columns, make_media, of_bytes
from pictures import encoded, picture

import jobs
import run_batch.model.rendering.vllm_processor
from run_batch.io.inputs.source import RowBatch
from run_batch.jobs.job.config import load_config
from run_batch.jobs.job.rows import MappedRow, RowFailure
from run_batch.jobs.mapping.row_mapper import RowMapper
from run_batch.model.images.row_image import EncodedImage
from run_batch.model.plugin import announce_plugins, register
from run_batch.model.rendering.vllm_renderer import VllmRenderer

MADE = {name: make(random.Random(name)) for name, make in CASES.items()}
GOOD = BadRow((), of_bytes(encoded(picture(77))), same_as=picture(77))


@pytest.fixture(scope="module")
def mapper(tmp_path_factory: pytest.TempPathFactory) -> RowMapper:
    """Of a job of the demo's model, over a media root with every kind of file in it."""
    folder = tmp_path_factory.mktemp("job")
    announce_plugins([], folder)
    register()
    make_media(folder / "media")
    path = jobs.write_job(folder, None, input={"id_column": None, "sampling_column": "own", "media_root": "media"})
    return RowMapper(load_config(path), columns([GOOD]).schema, folder / "media")


def mapped(mapper: RowMapper, *rows: BadRow) -> list[MappedRow | RowFailure]:
    records = columns(rows).to_batches()[0]
    return list(mapper.map(RowBatch(0, records, [f"rows:{i}" for i in range(len(rows))])))


def pixels(row: MappedRow | RowFailure) -> Any:
    """Pixel values from 0 to 1."""
    assert isinstance(row, MappedRow), row
    values = row.engine_input["mm_kwargs"]["image"][0]["pixel_values"].data
    return (values.float() + 1) / 2 if values.is_floating_point() else values.float() / 255


def test_there_are_at_least_forty_kinds_of_bad_rows() -> None:
    assert sum(bool(row.kinds) for row in MADE.values()) >= 40


@pytest.mark.parametrize("name", CASES)
def test_a_bad_row_gives_its_error_and_its_neighbours_nothing(name: str, mapper: RowMapper) -> None:
    row = MADE[name]
    before, found, after = mapped(mapper, GOOD, row, GOOD)
    expected = pixels(mapped(mapper, GOOD)[0])
    assert (pixels(before) == expected).all() and (pixels(after) == expected).all()
    if row.kinds in ((), ("refused",)):
        assert isinstance(found, MappedRow), found
        return
    assert isinstance(found, RowFailure), "it was taken for a good row"
    kind, _, message = found.error.partition(": ")
    assert kind in row.kinds and message, found.error
    assert len(found.error) < 520 and found.error.isprintable() and "s3cret" not in found.error


def test_a_prompt_of_megabytes_is_refused_before_it_is_tokenized(mapper: RowMapper) -> None:
    (found,) = mapped(mapper, MADE["prompt of megabytes"])
    assert isinstance(found, RowFailure) and "2,400,025 characters; the limit" in found.error


@pytest.mark.parametrize("name", [name for name, row in MADE.items() if row.same_as])
def test_an_image_of_rare_looks_is_seen_as_people_see_it(name: str, mapper: RowMapper) -> None:
    row = MADE[name]
    assert row.same_as is not None
    plain = BadRow((), of_bytes(encoded(row.same_as)))
    seen, expected = (pixels(result) for result in mapped(mapper, row, plain))
    assert (seen - expected).abs().mean() < 0.015


@pytest.mark.parametrize(
    ("name", "cell"),
    [
        ("NaN", [[0.5] * 95 + [float("nan")]] * 16),
        ("another width", [[0.5] * 95] * 16),
        ("ragged", [[0.5] * 96] * 15 + [[0.5] * 95]),
        ("null in a row", [[0.5] * 95 + [None]] * 16),
        ("null row", [[0.5] * 96] * 15 + [None]),
        ("empty", []),
        ("empty rows", [[]] * 16),
    ],
)
def test_nested_lists_that_are_no_features_fail_their_row_alone(name: str, cell: Any, mapper: RowMapper) -> None:
    good = [[0.25] * 96] * 16
    images = pa.array([good, cell, good, None], pa.list_(pa.list_(pa.float32())))
    records = pa.record_batch({"image": images, "prompt": ["is it even?"] * 4, "own": pa.nulls(4, pa.string())})
    first, bad, second, without = mapper.map(RowBatch(0, records, [f"rows:{i}" for i in range(4)]))
    assert isinstance(first, MappedRow) and isinstance(second, MappedRow) and isinstance(without, MappedRow)
    assert isinstance(bad, RowFailure) and bad.error.startswith("features: "), bad


def test_images_of_hostile_size_are_refused_before_vllms_own_processors_see_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(run_batch.model.rendering.vllm_processor, "_ROW_PIXELS", 3 * 160 * 120)

    class Processor:
        class info:
            default_tok_params = SimpleNamespace(add_special_tokens=True)
            get_tokenizer = staticmethod(lambda: None)

            @staticmethod
            def parse_mm_data(data: Any) -> Any:
                raise KeyError("what only this processor knows")

    placeholders: Any = SimpleNamespace(check=lambda token_ids, images: None)
    image = EncodedImage(encoded(picture(1)), b"1")
    fits, too_many = VllmRenderer(Processor(), placeholders).render([[1], [1]], [[image] * 3, [image] * 4])
    assert str(fits) == "image_processing: KeyError: 'what only this processor knows'"
    assert str(too_many).startswith("image_too_large: 76,800 pixels in all images of the row")
