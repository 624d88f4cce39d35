"""The columns of a Parquet file that hold encoded images and their labels. Only the footers of files are read here."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from common.errors import UserError

LABELS = ("label", "labels", "fine_label", "class", "target", "y")  # usual names
IMAGES = ("image", "img", "images")  # usual names, the preferred ones first
BUFFER_BYTES = 2**20  # a row group of any size is read in pieces of this size
POINTER = b"version https://git-lfs"  # how a file begins that git-lfs has not fetched
UNREADABLE = (pa.ArrowException, OSError, ValueError)


class Columns(NamedTuple):
    """Where the images and labels of a set are."""

    image: str
    label: str
    kind: pa.DataType  # of the labels: int64 or string
    names: tuple[str, ...] | None  # of the classes, where the file's metadata have them: integer labels count these


def open_file(path: Path) -> pq.ParquetFile:
    """Raises UserError when it is no Parquet file, or cannot be read."""
    try:
        with path.open("rb") as file:
            if file.read(len(POINTER)) == POINTER:
                raise UserError(f"{path} is a pointer of git-lfs and not the file itself: run `git lfs pull` there.")
        return pq.ParquetFile(path, buffer_size=BUFFER_BYTES, pre_buffer=False)
    except UNREADABLE as error:
        raise UserError(f"{path} cannot be read ({brief(error)}): it is no Parquet file, or truncated.") from None


def find_columns(path: Path, label: str | None) -> Columns:
    """The columns of images and labels, from the first file of a set.

    Args:
      label: name of the column of labels; None: by the file's metadata or the usual names.

    Raises UserError when there are none, or several that might be meant.
    """
    schema = open_file(path).schema_arrow
    features = _features(schema)
    image = _choose(path, schema, "images", [f.name for f in schema if _holds_images(f)], IMAGES)
    classes = {name: names for name, f in features.items() if isinstance(names := f.get("names"), list)}
    if label is None:
        fitting = [f.name for f in schema if label_kind(f)]
        declared = [name for name in fitting if name in classes]
        usual = [name for name in fitting if name in LABELS]
        label = _choose(path, schema, "labels", declared or usual or fitting, LABELS[:1])
    elif label not in schema.names or label_kind(schema.field(label)) is None:
        raise UserError(f"{path} has no column {label} of integers or strings: its columns are {_described(schema)}.")
    kind, names = label_kind(schema.field(label)), classes.get(label)
    return Columns(image, label, kind, tuple(map(str, names)) if names and kind == pa.int64() else None)


def _features(schema: pa.Schema) -> dict[str, dict[str, Any]]:
    """What the library `datasets` writes about columns; empty where there is nothing of the kind."""
    try:
        declared = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        found = declared.get("info", {}).get("features", {})
        return {str(name): feature for name, feature in found.items() if isinstance(feature, dict)}
    except (TypeError, ValueError, AttributeError):
        return {}


def _choose(path: Path, schema: pa.Schema, what: str, names: list[str], preferred: Sequence[str]) -> str:
    for name in preferred:
        if name in names:
            return name
    if len(names) == 1:
        return names[0]
    if names:
        advice = "choose one with --label" if what == "labels" else "keep one of them, or name it `image`"
        raise UserError(f"{path} has several columns that may hold the {what} ({', '.join(names)}): {advice}.")
    raise UserError(
        f"{path} has no column of {what}: its columns are {_described(schema)}, but encoded images (binary, or a struct with "
        "`bytes`) and labels (integers or strings) are needed."
    )


def _holds_images(field: pa.Field) -> bool:
    kind = field.type
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and _binary(kind.field("bytes").type)
    return _binary(kind)


def label_kind(field: pa.Field) -> pa.DataType | None:
    """int64 for integers, string for texts, None for a column that holds no labels."""
    kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
    if pa.types.is_integer(kind):
        return pa.int64()
    return pa.string() if pa.types.is_string(kind) or pa.types.is_large_string(kind) else None


def _binary(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _described(schema: pa.Schema) -> str:
    shown = ", ".join(f"{field.name} ({field.type})" for field in list(schema)[:10])
    return shown + (f" and {len(schema) - 10} more" if len(schema) > 10 else "")


def brief(error: Exception) -> str:
    """The first line of an error."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__
