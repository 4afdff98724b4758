"""Hugging Face features of columns: what a column's values mean beyond their Arrow types, an image or a class label.

`datasets` keeps them as JSON in the metadata of Arrow and Parquet schemas, and opens files by them. They are handed on
as they are: nothing here needs the library.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa

_KEY = b"huggingface"

# By the name of a column, its feature as JSON has it.
Features = Mapping[str, Any]


def features_of(schema: pa.Schema) -> Features:
    """The features that a schema's metadata tells; none where it has none, or something else under their key."""
    return _decode((schema.metadata or {}).get(_KEY, b""))


def features_metadata(features: Features) -> dict[bytes, bytes]:
    """The metadata of a schema whose columns have these features; empty without any."""
    return {_KEY: json.dumps({"info": {"features": dict(features)}}).encode()} if features else {}


def common_features(schemas: Iterable[pa.Schema]) -> Features:
    """The features that schemas of several files tell of their columns, as far as no two of them contradict."""
    # Files of one data set have the same bytes: they are decoded once.
    told = dict.fromkeys((schema.metadata or {}).get(_KEY, b"") for schema in schemas)
    common: dict[str, Any] = {}
    contradicted = set()
    for features in map(_decode, told):
        for name, feature in features.items():
            if common.setdefault(name, feature) != feature:
                contradicted.add(name)
    return {name: feature for name, feature in common.items() if name not in contradicted}


def classes_at(features: Features, column: str, names: Iterable[str]) -> tuple[str, ...]:
    """The names of the classes that the numbers of a column stand for, or of a field inside it; none of other values.

    Args:
        names: of the fields that lead to the value, from a struct to what is in it.
    """
    feature = features.get(column)
    for name in names:
        feature = feature.get(name) if isinstance(feature, dict) and "_type" not in feature else None
    is_label = isinstance(feature, dict) and feature.get("_type") == "ClassLabel"
    return tuple(map(str, feature.get("names") or ())) if is_label and isinstance(feature, dict) else ()


def class_names(feature: Any) -> list[list[str]]:
    """The names of the classes that the numbers of a feature stand for, of each ClassLabel in it."""
    if isinstance(feature, list):
        return [names for inner in feature for names in class_names(inner)]
    if not isinstance(feature, dict):
        return []
    if feature.get("_type") == "ClassLabel":
        return [[str(name) for name in feature.get("names") or ()]]
    return [names for inner in feature.values() for names in class_names(inner)]


def _decode(metadata: bytes) -> Features:
    try:
        features = json.loads(metadata)["info"]["features"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return {}
    return features if isinstance(features, dict) else {}
