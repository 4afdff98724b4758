"""The types of values in job.toml, each with the check that its value has to pass and what it says of others."""

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from run_batch.io.media.allowed_hosts import is_host_entry
from run_batch.io.object_stores import is_object_url


def _check_path(value: str) -> str:
    if not value or "\0" in value:
        raise ValueError("a path, neither empty nor with a NUL character")
    parts = [] if "://" in value else value.encode(errors="surrogatepass").split(b"/")
    if len(value) > 4000 or any(len(part) > 255 for part in parts):
        raise ValueError("a path that a file system can take: 255 bytes a name, 4000 characters in all")
    return value


def _check_paths(value: Any) -> Any:
    accepted = "a path, or a list of paths"
    if isinstance(value, str):
        return _check_path(value)
    if not isinstance(value, list) or not value or not all(isinstance(path, str) for path in value):
        raise ValueError(accepted)
    return [_check_path(path) for path in value]


def _check_local_path(value: str) -> str:
    if _is_url(_check_path(value)):
        raise ValueError(
            "a path on a local or shared file system, not a URL: mount the storage, or copy the files before or after "
            "the run"
        )
    return value


def _check_media_root(value: str) -> str:
    if is_object_url(value) and is_host_entry(value):
        return _check_path(value)
    if _is_url(_check_path(value)):
        raise ValueError(
            'a folder on a local or shared file system, or in a store of objects, such as "s3://photos/2024"'
        )
    return value


def _check_output_path(value: str) -> str:
    if _is_url(_check_path(value)):
        raise ValueError(
            "a path on a local or shared file system, not a URL: mount the storage, or have output.upload copy shards"
        )
    return value


def _is_url(path: str) -> bool:
    scheme, colon, rest = path.partition(":")
    if not colon or "/" in scheme:
        return "://" in path
    if re.fullmatch(r"[\w.+-]*", scheme) and rest.startswith(("/", ":")):
        return True
    import fsspec

    return scheme.lower() in fsspec.available_protocols()


def _check_hosts(values: list[str]) -> list[str]:
    if not all(map(is_host_entry, values)):
        raise ValueError('hosts such as "images.example.org" or "localhost:8000", or buckets such as "s3://photos"')
    return values


def _check_tools(value: Any) -> Any:
    if isinstance(value, str):
        return _check_path(value)
    if not isinstance(value, list) or not all(isinstance(tool, dict) for tool in value):
        raise ValueError("a list of JSON objects, or the path of a JSON file of them")
    return value


def _check_examples(value: Any) -> Any:
    accepted = "tables of text and answer, both text, and image: the path of a file, or a list of paths"
    if not isinstance(value, list) or not all(isinstance(example, dict) for example in value):
        raise ValueError(f"a list of {accepted}")
    for example in value:
        image = example.get("image", [])
        paths = [image] if isinstance(image, str) else image
        texts = [example.get("text"), example.get("answer"), *(paths if isinstance(paths, list) else [None])]
        if not set(example) <= {"image", "text", "answer"} or not all(isinstance(text, str) for text in texts):
            raise ValueError(f"{accepted}")
        for path in paths:
            _check_local_path(path)
    return value


# Less would not hold a single row: its encoded images take up to 128 MiB, and are at its worker besides.
LEAST_MEMORY = 256_000_000
# More than any machine has; how much the one has that a run is on, it looks at when it starts.
_MOST_MEMORY = 64 << 40
# Within less, nothing is done on a busy machine; for longer than a month, 0 says it.
_LEAST_SECONDS, _MOST_SECONDS = 0.1, 30 * 24 * 3600.0


def bytes_of(value: int | str) -> int | None:
    """The number that a value of type Memory stands for; None if it stands for none."""
    if not isinstance(value, str):
        return value if type(value) is int else None
    found = re.fullmatch(r"([0-9]{1,20}(?:\.[0-9]{1,20})?) ?([kmgt]?)(i?)b?", value.strip().lower())
    if found is None:
        return None
    number, prefix, binary = found.groups()
    return int(float(number) * (1024 if binary else 1000) ** " kmgt".index(prefix or " "))


def _check_memory(value: Any) -> Any:
    accepted = (
        f'bytes, from {LEAST_MEMORY} to {_MOST_MEMORY}, as a whole number or as text such as "16 GiB" or "500 MB"'
    )
    number = bytes_of(value)
    if number is None or number > _MOST_MEMORY:
        raise ValueError(accepted)
    if number < LEAST_MEMORY:
        raise ValueError(f"{accepted}; the images of a single row may take half of the least")
    return value


def _check_seconds(value: float) -> float:
    if 0 < value < _LEAST_SECONDS:
        raise ValueError(f"0 for no limit, or a number from {_LEAST_SECONDS} to {_MOST_SECONDS:,.0f}")
    return value


def _check_non_empty(value: str) -> str:
    if not value.strip():
        raise ValueError("text that is not empty")
    return value


# In output.columns, stands for all columns of the input that are not named.
ALL_COLUMNS = "*"


def _check_carried_names(value: Any) -> Any:
    names = value if isinstance(value, list) else [*value, *value.values()] if isinstance(value, dict) else [None]
    if not all(isinstance(name, str) and name for name in names):
        raise ValueError('a list of strings, ["*"], or a table such as { column = "new name" }')
    if isinstance(value, dict):
        if any((column == ALL_COLUMNS) != (name == ALL_COLUMNS) for column, name in value.items()):
            raise ValueError('"*" = "*" for all columns that the table does not rename')
    elif len(set(value)) < len(value):
        raise ValueError("each column once: a column is named twice")
    elif ALL_COLUMNS in value and len(value) > 1:
        raise ValueError('"*" alone, which stands for all columns')
    return value


_NOT_REMOTE = {"file", "local", "memory", "http", "https", "data"}


def _check_upload(value: str) -> str:
    scheme, separator, rest = value.partition("://")
    if not separator or not rest.strip("/") or "::" in value or scheme in _NOT_REMOTE:
        raise ValueError('the URL of a folder in a store of objects, such as "s3://bucket/results"')
    return value


PathTexts = Annotated[str | list[str], BeforeValidator(_check_paths)]
MediaRootText = Annotated[str, AfterValidator(_check_media_root)]
LocalPath = Annotated[str, AfterValidator(_check_local_path)]
OutputPath = Annotated[str, AfterValidator(_check_output_path)]
Hosts = Annotated[list[str], AfterValidator(_check_hosts)]
Tools = Annotated[Any, AfterValidator(_check_tools)]
Examples = Annotated[Any, AfterValidator(_check_examples)]
UploadUrl = Annotated[str, AfterValidator(_check_upload)]
NonEmpty = Annotated[str, AfterValidator(_check_non_empty)]
Count = Annotated[int, Field(ge=1, le=10**12)]
Workers = Annotated[int, Field(ge=1, le=1024)]
# The finished rows of a shard are in memory until it is whole, and the failed ones until they are judged.
ShardRows = Annotated[int, Field(ge=1, le=10_000_000)]
JudgedRows = Annotated[int, Field(ge=1, le=1_000_000)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Seconds = Annotated[float, Field(ge=0, le=_MOST_SECONDS), AfterValidator(_check_seconds)]
Memory = Annotated[int | str, BeforeValidator(_check_memory)]
CarriedNames = Annotated[list[str] | dict[str, str], BeforeValidator(_check_carried_names)]
