"""From a request's bytes to the model's input, and from its predictions to the answer's bytes: the three steps by one name."""

from mlops_nb.serving.arrays import Tensor
from mlops_nb.serving.fitting import Column, fit_table
from mlops_nb.serving.reading import (
           FORMATS,
           BadPayload,
           Content,
           Table,
           Unsupported,
           as_table,
           read_content,
           read_table,
)
from mlops_nb.serving.writing import as_json, as_rows

__all__ = ["FORMATS", "BadPayload", "Column", "Content", "Table", "Tensor", "Unsupported", "as_json", "as_rows", "as_table",
           "fit_table", "read_content", "read_table"]
