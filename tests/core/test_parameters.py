"""Parameters: what the cell declares is what a value must be, and what the kernel gets."""

import datetime as dt
import json
import math
from pathlib import Path
from typing import Any

import pytest

from mlops_nb.core.notebook import run_notebook
from mlops_nb.core.parameters import (
    bind,
    bind_signature,
    injected_source,
    parameters_source,
    read_parameters,
    read_signature,
)
from mlops_nb.core.records import SpecificationError

NAMES = """from datetime import date, datetime
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal, Optional
from mlops_nb.core.parameters import Field, Input, Output, Secret

class Colour(Enum):
    red = "r"
    blue = "b"

    def upper(self):
        return self.name.upper()

"""


@pytest.fixture
def notebook(tmp_path: Path):
    """Write a notebook with one parameters cell."""

    def write(source: str, *more: str) -> Path:
        path = tmp_path / "step.ipynb"
        cells = [{"cell_type": "code", "metadata": {"tags": ["parameters"]}, "source": source, "outputs": [], "execution_count": None}]
        cells += [cells[0] | {"metadata": {}, "source": text} for text in more]
        path.write_text(json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 4}))
        return path

    return write


def after(source: str, values: dict[str, Any]) -> dict[str, Any]:
    """Run the cell, and the cell that hands over the values, as a kernel would."""
    names: dict[str, Any] = {}
    exec(source, names)  # noqa: S102 our own
    exec(injected_source(source, values), names)  # noqa: S102
    return names


VALUES = [
    ("str", "1.10", "1.10"),
    ("str", "", ""),
    ("bool", "true", True),
    ("bool", "no", False),
    ("bool", 0, False),
    ("int", "7", 7),
    ("int", 7.0, 7),
    ("float", "1e-3", 0.001),
    ("float", "inf", math.inf),
    ("date", "2026-01-31", dt.date(2026, 1, 31)),
    ("date", "20260131", dt.date(2026, 1, 31)),  # pydantic alone reads seconds since 1970
    ("datetime", "2026-01-31T08:30:00+01:00", dt.datetime(2026, 1, 31, 8, 30, tzinfo=dt.timezone(dt.timedelta(hours=1)))),
    ("datetime", "2026-01-31", dt.datetime(2026, 1, 31)),
    ("Path", "data/a b.csv", Path("data/a b.csv")),
    ("Literal['a', 2, True, None]", "a", "a"),
    ("Literal['a', 2, True, None]", "2", 2),
    ("Literal['a', 2, True, None]", "true", True),
    ("Literal['a', 2, True, None]", "none", None),
    ("Optional[int]", "7", 7),
    ("Optional[int]", "none", None),
    ("int | None", "", None),
    ("str | None", "none", "none"),  # a word like others
    ("int | str", "7", 7),
    ("int | str", "seven", "seven"),
    ("list", "1,2", [1, 2]),
    ("list[int]", "[1, 2]", [1, 2]),
    ("list[int]", "1,2,3", [1, 2, 3]),
    ("list[int]", "", []),
    ("list[str]", "a, b", ["a", "b"]),
    ("list[str]", '["1,5", "x"]', ["1,5", "x"]),
    ("list[date]", "2026-01-01,2026-02-01", [dt.date(2026, 1, 1), dt.date(2026, 2, 1)]),
    ("list[list[float]]", "[[1], [2, 0.5]]", [[1.0], [2.0, 0.5]]),
    ("tuple[int, str]", "1,a", (1, "a")),
    ("set[int]", "2,1,2", {1, 2}),
    ("dict", '{"a": [1, null]}', {"a": [1, None]}),
    ("dict[str, float]", '{"a": 1}', {"a": 1.0}),
    ("dict[str, date]", '{"a": "2026-01-01"}', {"a": dt.date(2026, 1, 1)}),
    ("Annotated[float, Field(gt=0)]", "0.5", 0.5),
    ("Annotated[int, Field(ge=1, le=9)] | None", "9", 9),
    ("Annotated[int, 'people']", "9", 9),
    ("Any", "5", 5),
    ("Any", "1.10", "1.10"),  # as a number it would be another text
    ("Any", "null", None),
    ("Input", "a.json", "a.json"),
    ("Input", Path("a.json"), "a.json"),
    ("Input['uri_folder']", "azureml://a/b", "azureml://a/b"),
    ("Input[Path]", "data/a.csv", Path("data/a.csv")),
    ("Output['mltable', Path]", "out", Path("out")),
    ("Input | None", "none", None),
    ("'int'", "7", 7),
]


@pytest.mark.parametrize(("annotation", "given", "value"), VALUES)
def test_what_is_given_is_read_by_the_declared_type_and_arrives(annotation: str, given: Any, value: Any) -> None:
    source = f"{NAMES}x: {annotation}"
    bound = bind_signature(read_signature(source), {"x": given})
    assert bound == {"x": value}
    assert type(bound["x"]) is type(value)
    arrived = after(source, bound)["x"]
    assert arrived == value
    assert type(arrived) is type(value)


def test_not_a_number_arrives() -> None:
    assert math.isnan(after("x: float = 0.0", bind_signature(read_signature("x: float = 0.0"), {"x": "nan"}))["x"])


@pytest.mark.parametrize(
    ("annotation", "given", "said"),
    [
        ("str", 1.1, r"x = 1.1: text is expected, not the float 1.1 \(str\). Quote it; papermill takes it as text with `-r x"),
        ("str", 7, "text is expected"),
        ("str", None, "valid string"),
        ("int", "7.5", "x = '7.5': Input should be a valid integer"),
        ("int", True, "a number is expected, not True"),
        ("float", "abc", "valid number"),
        ("bool", "perhaps", "valid boolean"),
        ("date", 20260131, "a date as 2026-01-31 is expected"),
        ("date", "31.1.2026", "Invalid isoformat"),
        ("Path", "https://example.org/a", "not an address"),
        ("Path", "", "not empty text"),
        ("Literal['1.10', '2']", 1.1, r"one of 1.10, 2 is expected, not the float 1.1"),
        ("Colour", "green", "one of r, b is expected"),
        ("list[int]", "1,x", r"x\[1\] = '1,x'"),
        ("list[str]", "[1]", "text is expected, not the int 1"),
        ("list", "a,b", "a list in JSON is expected"),
        ("dict", "a=1", "a mapping in JSON is expected"),
        ("dict[str, float]", {"a": "x"}, r"x\['a'\] = "),
        ("Annotated[float, Field(gt=0)]", "0", "greater than 0"),
        ("Annotated[list[int], Field(min_length=2)]", "1", "at least 2 items"),
        ("Annotated[str, Field(gt=0)]", "a", "Unable to apply constraint"),
    ],
)
def test_what_is_no_value_of_the_type_is_refused(annotation: str, given: Any, said: str) -> None:
    with pytest.raises(SpecificationError, match=said):
        bind_signature(read_signature(f"{NAMES}x: {annotation}"), {"x": given})


def test_every_fault_is_listed_before_anything_runs(notebook) -> None:
    path = notebook("rows: int = 1\nflag: bool = False\ntarget: str  # column to predict\npassword: Secret = 'env:PASSWORD'")
    with pytest.raises(SpecificationError) as problem:
        bind(path, {"rows": "many", "flag": "perhaps", "row": "1", "zebra": 2, "password": "correct horse"})
    assert problem.value.faults == [
        "rows = 'many': Input should be a valid integer, unable to parse string as an integer (int).",
        "flag = 'perhaps': Input should be a valid boolean, unable to interpret input (bool).",
        "step.ipynb has no parameter 'row'. Did you mean 'rows'? (parameters: rows, flag, target, password).",
        "step.ipynb has no parameter 'zebra'. (parameters: rows, flag, target, password).",
        "password: a secret is given by reference: env:NAME, file:PATH or keyvault:VAULT/NAME, never as itself.",
        "step.ipynb needs 'target' (str: column to predict), which has no default. Give it: -p target=VALUE.",
    ]


def test_without_an_annotation_the_default_tells_the_type() -> None:
    source = f"{NAMES}a = 3\nb = 'x'\nc = None\nd = 2 * a\ne = Colour.red\nf = [1]\ng = Path('x')\nh = (1, 2)\n"
    source += "i = 1  # type: float of rows"
    signature = read_signature(source)
    assert [p.annotation for p in signature] == ["int", "str", "any", "any", "Colour", "list", "Path", "tuple", "float"]
    assert signature[-1].doc == "of rows"
    bound = bind_signature(signature, {"a": "4", "b": "5", "c": "6", "d": "x", "e": "blue", "i": "0.5"})
    assert {name: after(source, bound)[name] for name in "abcd"} == {"a": 4, "b": "5", "c": 6, "d": "x"}
    assert after(source, bound)["e"].upper() == "BLUE"
    with pytest.raises(SpecificationError, match="valid integer"):
        bind_signature(signature, {"a": "many"})


def test_what_is_no_parameter_is_left_alone() -> None:
    assert read_signature("import os\nfrom math import pi\nfirst, second = 1, 2\na = b = 3\n%matplotlib inline\ndef f(): ...") == []
    assert parameters_source({"cells": [{"cell_type": "markdown", "metadata": {}, "source": "# A"}]}) == ""
    assert injected_source("x = 1", {}) == ""
    with pytest.raises(SpecificationError, match=r"has no parameter 'x'. \(parameters: none\)"):
        bind_signature([], {"x": 1})


def test_an_enum_stands_in_the_cell_or_in_a_module_of_the_project(tmp_path: Path) -> None:
    """The module is read, not imported: it may be slow, or need what is not there."""
    (tmp_path / "settings.ini").touch()
    (tmp_path / "shop").mkdir()
    module = "import no_such_library\nfrom enum import StrEnum, auto\nclass Size(StrEnum):\n    small = auto()\n    large = auto()\n"
    (tmp_path / "shop" / "sizes.py").write_text(module)
    source = NAMES + "from shop.sizes import Size as S\nfrom http import HTTPStatus\n"
    source += "c: Colour = 'b'\nmany: list[Colour] = []\nsize: S = S.small\nstatus: HTTPStatus = HTTPStatus.OK"
    signature = read_signature(source, str(tmp_path / "nbs" / "10_data.ipynb"))
    assert [p.enum[:2] for p in signature] == [("r", "b"), (), ("small", "large"), ("100", "101")]
    bound = bind_signature(signature, {"many": "red,b", "size": "large", "status": "404"})
    lines = injected_source(source, bound).splitlines()
    assert lines[1:] == ["c = Colour.blue", "many = [Colour.red, Colour.blue]", "size = S.large", "status = HTTPStatus.NOT_FOUND"]
    with pytest.raises(SpecificationError, match=r"x: cannot import Gone from shop\.gone"):
        read_signature("from shop.gone import Gone\nx: Gone", str(tmp_path / "10_data.ipynb"))


def test_a_default_that_follows_from_what_is_given_is_computed_again() -> None:
    source = "def half(): return rows // 2\nrows: int = 100\nvalid: int = rows // 5\ntest: int = valid + half()\nname: str = 'a'\n"
    source += "first, second = rows, name\nrows += 1\nfile: str = f'{name}.csv'  # of the table"
    assert [p.name for p in read_signature(source) if p.computed] == ["valid", "test", "file"]
    assert injected_source(source, {"name": "b"}).splitlines()[1:] == [
        "name = 'b'",
        "first, second = (rows, name)  # computed again",
        "file = f'{name}.csv'  # computed again",
    ]
    names = after(source, {"rows": 1000, "valid": 7})
    assert (names["rows"], names["valid"], names["test"], names["first"], names["file"]) == (1000, 7, 507, 1000, "a.csv")


def test_the_cell_that_hands_over_the_values_is_meant_to_be_read() -> None:
    source = 'import datetime as when\npassword: Secret = "env:DB_PASSWORD"\nsince: when.date = "2026-01-01"\n'
    source += "note: Secret | None = None\nwait: Any = 1"
    assert injected_source(source, {"wait": [dt.date(2026, 1, 2), Path("a")]}).splitlines() == [
        "# Parameters",
        "from mlops_nb.core.secrets import reveal",
        "from pathlib import Path",
        "password = reveal('env:DB_PASSWORD')",
        "since = when.date(2026, 1, 1)",  # text would not be what was declared
        "wait = [when.date(2026, 1, 2), Path('a')]",
    ]
    assert "note = reveal('file:~/note')" in injected_source(source, {"note": "file:~/note"})
    with pytest.raises(ValueError, match="cannot be written into a notebook"):
        injected_source("x: Any = None", {"x": object()})


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("x: flaot = 1", "line 1: x: unknown type flaot. Known: int, float"),
        ("\nx: int = 'many'", "line 2: the default x = 'many': Input should be a valid integer"),
        ("x: Annotated[float, Field(gt=0)] = -1.0", "the default x = -1.0: Input should be greater than 0"),
        ("x: Input['a_file']", "write one of uri_file, uri_folder, mltable"),
        ("x: Input[int]", "quoted text or a number is expected in the brackets, not int"),
        ("x: Literal[auto]", "quoted text or a number is expected in the brackets, not auto"),
        ("x: dict[int]", "cannot use dict"),
        ("x: Annotated[int, Depends(f)]", r"cannot read Depends\(f\). In Annotated"),
        ("x: int = 1\nx: int = 2", "line 2: x stands here a second time"),
        ("class C(Enum):\n    a = f()\nx: C", "C.a must be a literal"),
        ("x: Secret = 'correct horse'", "x: a secret is given by reference"),
        ("x: Secret = ''", "a secret has no empty default"),
        ("x: list[Secret]", "a secret is a parameter of its own"),
        ("x: Secret | str = 'correct horse'", "a secret is a parameter of its own"),
        ("x = (", "line 1: '\\(' was never closed"),
    ],
)
def test_a_cell_that_cannot_be_right_is_refused(source: str, said: str) -> None:
    with pytest.raises(SpecificationError, match=said) as problem:
        read_signature(source, "10_data.ipynb")
    assert "correct horse" not in str(problem.value)
    assert str(problem.value).startswith("10_data.ipynb: parameters cell")


def test_a_component_is_told_what_azure_ml_knows() -> None:
    source = NAMES + """rows: int  # how many
share: Annotated[float, Field(ge=0, le=1, description="of rows")] = 0.2
many: Annotated[int, Field(gt=0)] = 5
flag: bool = False
task: Literal["auto", "regression"] = "auto"
folds: Literal[3, 5] = 5
colour: Colour = Colour.blue
day: date = date(2026, 1, 2)
names: list[str] = ["a"]
note: str = ""
half: int = many // 2
password: Secret = "env:PASSWORD"
data: Input["uri_folder", Path] = "data"
gold: Output = "gold.json"
"""
    told = {p.name: (p.azure_type, p.azure_default, p.optional, p.enum, p.minimum, p.maximum) for p in read_signature(source)}
    assert told == {
        "rows": ("integer", None, False, (), None, None),
        "share": ("number", 0.2, False, (), 0, 1),
        "many": ("integer", 5, False, (), None, None),
        "flag": ("boolean", False, False, (), None, None),
        "task": ("string", "auto", False, ("auto", "regression"), None, None),
        "folds": ("integer", 5, False, ("3", "5"), None, None),
        "colour": ("string", "b", False, ("r", "b"), None, None),
        "day": ("string", "2026-01-02", False, (), None, None),
        "names": ("string", '["a"]', False, (), None, None),
        "note": ("string", None, True, (), None, None),
        "half": ("integer", None, True, (), None, None),
        "password": ("string", "env:PASSWORD", False, (), None, None),
        "data": ("uri_folder", None, True, (), None, None),
        "gold": ("uri_file", None, True, (), None, None),
    }
    assert [p.kind for p in read_signature(source)][-3:] == ["value", "input", "output"]
    assert [p.doc for p in read_signature(source)][:2] == ["how many", "of rows"]


@pytest.mark.parametrize("content", ["", "[]", '{"cells": 3}', "not json"])
def test_a_file_that_is_no_notebook_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "step.ipynb"
    path.write_text(content)
    with pytest.raises(SpecificationError, match=r"step\.ipynb: not a notebook"):
        read_parameters(path)


def test_two_tagged_cells_are_one_too_many(tmp_path: Path) -> None:
    cell = {"cell_type": "code", "metadata": {"tags": ["parameters"]}, "source": "x = 1"}
    path = tmp_path / "step.ipynb"
    path.write_text(json.dumps({"cells": [cell, cell]}))
    with pytest.raises(SpecificationError, match="2 cells tagged parameters"):
        read_parameters(path)


def test_a_run_hands_every_type_to_the_kernel(project, tmp_path: Path, notebook) -> None:
    wanted = [(f"x{i}", *row) for i, row in enumerate(VALUES)]
    cell = NAMES + "\n".join(f"{name}: {annotation} = None" for name, annotation, _, _ in wanted)
    cell += "\nrows: int = 10\nhalf: int = rows // 2"
    look = "import json\nprint(json.dumps([repr(value) for value in [" + ", ".join(name for name, *_ in wanted) + ", half]]))"
    values = {name: given for name, _, given, _ in wanted} | {"rows": "40"}
    done = run_notebook(project, notebook(cell, look), tmp_path / "out" / "step.ipynb", values, report=False)
    text = "".join(json.loads(done.path.read_text())["cells"][-1]["outputs"][0]["text"])
    assert json.loads(text) == [repr(value) for *_, value in wanted] + ["20"]


def test_show_prints_the_signature(notebook, mlops_nb_command) -> None:
    done = mlops_nb_command("notebook", "show", notebook('data: str = "a.csv"  # the file'))
    assert "data" in done.stdout
    assert "the file" in done.stdout
