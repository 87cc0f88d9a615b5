"""Opens Parquet files: columns are unpacked once, a few rows at a time, to private temporary files that are mapped."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from service.domain.errors import RejectedFile
from service.inspection.arrays import ArrayHeader, label_name
from service.inspection.formats import quoted
from workers.data.array_set import map_array, spool
from workers.data.columns import ColumnKind, kind_of, stored_class_names, tensor_of
from workers.data.decoding import decode_image
from workers.data.labels import as_targets, count_classes
from workers.data.stored import ENCODED_IMAGES, Array, ArraySpec, Indices, RawTensors

ROWS_AT_ONCE = 64
MOST_BYTES = 64 * 2**30
_UNSUITED = (
    "needed are images (struct of bytes and path, or binary) or numbers (lists of one shape, nested or with 'shape' in "
    "the field's metadata), and a column 'label' with the class numbers"
)


@dataclass(frozen=True)
class EncodedColumn:
    """Image files, one after the other. ``ends``: where each one ends, in bytes, after a leading 0."""

    name: str
    data: Array
    ends: Array

    def decode(self, row: int) -> Array:
        """The image in this row; raises RejectedFile where it cannot be decoded."""
        encoded = self.data[int(self.ends[row]) : int(self.ends[row + 1])].tobytes()
        return decode_image(f"in row {row} of column {quoted(self.name)}", encoded)


@dataclass(frozen=True)
class ParquetSet:
    """The columns of a Parquet file that can be inputs, and its labels."""

    samples: int
    arrays: Mapping[str, Array]
    images: Mapping[str, EncodedColumn]
    targets: Array | None
    class_names: tuple[str, ...] | None

    @property
    def specs(self) -> Mapping[str, ArraySpec]:
        """The columns' shapes and dtypes, without the sample axis."""
        numbers = {name: ArraySpec(each.shape[1:], each.dtype) for name, each in self.arrays.items()}
        return {**dict.fromkeys(self.images, ENCODED_IMAGES), **numbers}

    @property
    def class_counts(self) -> Mapping[str, int] | None:
        """How many samples each class has."""
        return count_classes(self.targets, self.class_names)

    def batch(self, indices: Indices) -> RawTensors:
        """Decoded images and copies of the numbers at these positions."""
        images = {name: [each.decode(row) for row in indices.tolist()] for name, each in self.images.items()}
        return {**images, **{name: np.ascontiguousarray(each[indices]) for name, each in self.arrays.items()}}


def open_parquet(path: Path) -> ParquetSet:
    """Unpack all columns that can be used; raises RejectedFile where none can, or one is damaged."""
    with _damage_is_named(), pq.ParquetFile(path, memory_map=True) as file:
        schema, samples = file.schema_arrow, file.metadata.num_rows
        if len(set(schema.names)) != len(schema.names):
            raise RejectedFile("the Parquet file has two columns of the same name", code="parquet-columns")
        if samples == 0:
            raise RejectedFile("the Parquet file holds 0 rows; at least one sample is needed", code="no-samples")
        labels = label_name(schema.names)
        kinds = {field.name: kind_of(field.type) for field in schema if field.name != labels}
        if not any(kinds.values()):
            listed = ", ".join(f"{quoted(field.name)} ({quoted(str(field.type))})" for field in list(schema)[:12])
            raise RejectedFile(f"no column can be an input: {listed}; {_UNSUITED}", code="parquet-columns")
        tensors = [name for name, kind in kinds.items() if kind is ColumnKind.NUMBERS]
        images = [name for name, kind in kinds.items() if kind is ColumnKind.IMAGES]
        return ParquetSet(
            samples=samples,
            arrays={name: _unpack_numbers(file, schema.field(name)) for name in tensors},
            images={name: _unpack_images(file, schema.field(name)) for name in images},
            targets=None if labels is None else _targets(file, schema.field(labels)),
            class_names=None if labels is None else stored_class_names(schema.metadata, labels),
        )


def _targets(file: Any, field: Any) -> Array:
    if kind_of(field.type) is not ColumnKind.NUMBERS:
        message = (
            f"column {quoted(field.name)} holds {quoted(str(field.type))}; labels must be numbers: "
            "store the class's number, as the model counts the classes"
        )
        raise RejectedFile(message, code="label-type")
    return as_targets(np.array(_unpack_numbers(file, field)))


def _unpack_numbers(file: Any, field: Any) -> Array:
    found: list[Array] = []  # one empty array, for shape and dtype, once a row was seen

    def write(out: IO[bytes]) -> None:
        row = written = 0
        for column in _pieces(file, field.name):
            values = tensor_of(column, field, row)
            if not found:
                found.append(values[:0])
            if values.shape[1:] != found[0].shape[1:]:
                raise _ragged(field.name, row, values.shape[1:], found[0].shape[1:])
            written = _within_limit(written + values.nbytes)
            out.write(np.ascontiguousarray(values).data)
            row += len(values)
        _check_rows(file, field.name, row)

    unpacked = spool(write)
    with unpacked:
        shape = (file.metadata.num_rows, *found[0].shape[1:])
        return map_array(unpacked, ArrayHeader(shape, found[0].dtype, 0), 0)


def _unpack_images(file: Any, field: Any) -> EncodedColumn:
    ends = [0]
    nested = pa.types.is_struct(field.type)

    def write(out: IO[bytes]) -> None:
        for column in _pieces(file, field.name, ".bytes" if nested else ""):
            for value in (column.field("bytes") if nested else column).to_pylist():
                if not value:
                    message = (
                        f"row {len(ends) - 1} of column {quoted(field.name)} holds no image bytes; embed the images, "
                        "paths alone are not followed"
                    )
                    raise RejectedFile(message, code="image-missing")
                ends.append(_within_limit(ends[-1] + len(value)))
                out.write(value)
        _check_rows(file, field.name, len(ends) - 1)

    unpacked = spool(write)
    with unpacked:
        data = map_array(unpacked, ArrayHeader((ends[-1],), np.dtype(np.uint8), 0), 0)
    return EncodedColumn(field.name, data, np.array(ends, dtype=np.int64))


def _pieces(file: Any, column: str, part: str = "") -> Iterator[Any]:
    for batch in file.iter_batches(batch_size=ROWS_AT_ONCE, columns=[column + part]):
        yield batch.column(column)  # a column whose own name holds dots may have come along


def _check_rows(file: Any, column: str, rows: int) -> None:
    if rows != file.metadata.num_rows:
        message = f"the Parquet file announces {file.metadata.num_rows} rows, but column {quoted(column)} holds {rows}"
        raise RejectedFile(f"{message}; write it once more", code="parquet-damaged")


def _within_limit(size: int) -> int:
    if size > MOST_BYTES:
        raise RejectedFile(
            f"a column takes more than {MOST_BYTES} bytes when unpacked; send fewer samples", code="parquet-too-large"
        )
    return size


def _ragged(name: str, row: int, shape: tuple[int, ...], first: tuple[int, ...]) -> RejectedFile:
    message = (
        f"the rows of column {quoted(name)} differ in shape: {first} at first, {shape} from row {row} on; "
        "all samples must have one shape"
    )
    return RejectedFile(message, code="different-shapes")


@contextmanager
def _damage_is_named() -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk's trouble, not the file's
        message = f"the Parquet file cannot be read ({quoted(str(error))}); write it once more"
        raise RejectedFile(message, code="parquet-damaged") from error
