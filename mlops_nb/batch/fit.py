"""Fit a table to the model's signature, column by column in Arrow, and hand it to the model without copies.

The rules are the endpoint's: required columns must be there, others are passed over, whole numbers may come as 3.0, times as text.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pyarrow

    from mlops_nb.scoring.fitting import Column


class Unfit(ValueError):
    """A file is not what the model takes; trying again would not help."""


def check_columns(names: Sequence[str], signature: "Sequence[Column]") -> None:
    """Raise `Unfit` where required columns are missing."""
    if missing := [column for column in signature if column.required and column.name not in names]:
        told = ", ".join(f"{column.name} ({column.type})" for column in missing[:10])
        more = f", and {len(missing) - 10} more" if len(missing) > 10 else ""
        raise Unfit(f"columns are missing: {told}{more} (there are: {', '.join(list(names)[:10]) or 'none'})")


def arrow_type(kind: str, lenient: bool = False) -> Any:
    """Say as which Arrow type a CSV's values of an MLflow type are read; None: as they look."""
    import pyarrow as pa

    if kind in ("integer", "long") and lenient:
        return pa.float64()
    types = {"integer": pa.int64(), "long": pa.int64(), "float": pa.float64(), "double": pa.float64(), "string": pa.string(),
             "boolean": pa.bool_()}
    return types.get(kind)


def fit(table: "pyarrow.Table", signature: "Sequence[Column]") -> "pyarrow.Table":
    """Order and cast the columns as the signature says; raises `Unfit` with every column that does not."""
    import pyarrow as pa

    check_columns(table.column_names, signature)
    columns, faults = {}, []
    for column in signature:
        given = table[column.name] if column.name in table.column_names else pa.nulls(table.num_rows)
        try:
            columns[column.name] = _cast(given, column)
        except (Unfit, pa.ArrowException) as problem:
            reason = str(problem) if isinstance(problem, Unfit) else f"{given.type} does not become {column.type}: {problem}"
            faults.append(f"column '{column.name}': {reason}")
    if faults:
        raise Unfit("; ".join(faults[:10]))
    return pa.table(columns)


def _cast(given: Any, column: "Column") -> Any:
    import pyarrow as pa

    kind, types = given.type, pa.types
    if types.is_dictionary(kind):
        given, kind = given.cast(kind.value_type), kind.value_type
    if types.is_null(kind):
        kind = None
    elif column.type in ("integer", "long"):
        return _whole(given, column)
    if column.type in ("float", "double"):
        if kind is None or types.is_floating(kind) or types.is_integer(kind) or types.is_decimal(kind):
            return given.cast(pa.float32() if column.type == "float" else pa.float64(), safe=False)
        raise Unfit(f"{kind}, the model needs {column.type}")
    if column.type == "string":
        if kind is None or types.is_string(kind) or types.is_large_string(kind):
            return given.cast(pa.string())
        raise Unfit(f"{kind}, the model needs string")
    if column.type == "boolean":
        if kind is not None and not types.is_boolean(kind):
            raise Unfit(f"{kind}, the model needs boolean")
        if column.required and given.null_count:
            raise Unfit(_null(given, column))
        return given.cast(pa.bool_())
    if column.type == "datetime":
        zoned = kind is not None and types.is_timestamp(kind) and kind.tz
        return (given.cast(pa.timestamp("ns", "UTC")) if zoned else given).cast(pa.timestamp("ns"))
    if kind is None and column.type in ("integer", "long"):
        return _whole(given.cast(pa.float64()), column)
    return given  # binary and nested ones go to the model as they are


def _whole(given: Any, column: "Column") -> Any:
    """Cast to whole numbers; an optional column with nulls is one of doubles, as pandas reads it."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_floating(given.type):
        given = pc.if_else(pc.is_nan(given), pa.scalar(None, given.type), given)
    elif not pa.types.is_integer(given.type):
        raise Unfit(f"{given.type}, the model needs {column.type}")
    if column.required and given.null_count:
        raise Unfit(_null(given, column))
    whole = given.cast(pa.int32() if column.type == "integer" else pa.int64())
    return whole.cast(pa.float64(), safe=False) if whole.null_count else whole


def _null(given: Any, column: "Column") -> str:
    import pyarrow.compute as pc

    row = pc.index(pc.is_null(given), True).as_py()
    return f"null in row {row} of these, but the model requires it ({column.type})"


def to_model(table: "pyarrow.Table", tensor: str = "") -> Any:
    """Turn a fitted table into what the model takes: a data frame, or an array where it takes one."""
    import pandas as pd
    import pyarrow as pa

    doubles = all(pa.types.is_float64(kind) for kind in table.schema.types)
    if tensor or (doubles and table.num_columns):
        array = _to_array(table, tensor or "float64")
        return array if tensor else pd.DataFrame(array, columns=table.column_names, copy=False)
    return table.to_pandas()


def _to_array(table: "pyarrow.Table", kind: str) -> Any:
    """Lay the columns side by side, row after row in memory, as tree models read them fastest."""
    array = np.empty((table.num_rows, table.num_columns), kind)
    for position, column in enumerate(table.columns):
        array[:, position] = column.to_numpy()
    return array
