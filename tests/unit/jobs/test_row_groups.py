"""Rows are mapped together while they take little memory; those of one image take the memory of one."""

from run_batch.jobs.mapping.row_groups import RowGroups
from run_batch.model.images.row_image import EncodedImage

LARGE = 31 << 20


def image(number: int, size: int = 1000) -> EncodedImage:
    return EncodedImage.of(number.to_bytes(4, "little") + bytes(size - 4))


def group_sizes(groups: RowGroups, rows: list[list[EncodedImage]], tensor_bytes: int) -> list[int]:
    sizes = [0]
    groups.begin()
    for images in rows:
        if groups.ends_before(images):
            groups.mapped([tensor_bytes] * sizes[-1])
            sizes.append(0)
        groups.add(images)
        sizes[-1] += 1
    groups.mapped([tensor_bytes] * sizes[-1])
    return sizes


def test_questions_about_one_large_image_are_mapped_together() -> None:
    rows = [[image(number)] for number in range(3) for _ in range(8)]
    assert group_sizes(RowGroups(1 << 20), rows, LARGE) == [8, 8, 8]


def test_large_images_that_differ_are_mapped_one_by_one() -> None:
    assert group_sizes(RowGroups(1 << 20), [[image(number)] for number in range(4)], LARGE) == [1, 1, 1, 1]
    both = [[image(0), image(1)], [image(1), image(0)], [image(1), image(2)]]
    assert group_sizes(RowGroups(1 << 20), both, LARGE) == [2, 1]


def test_encoded_files_count_for_each_row_that_brings_them() -> None:
    assert group_sizes(RowGroups(5000), [[image(0)]] * 12, LARGE) == [5, 5, 2]


def test_rows_without_images_are_mapped_together() -> None:
    assert group_sizes(RowGroups(5000), [[]] * 12, 0) == [1, 11]
