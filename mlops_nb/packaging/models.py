"""Look into a model's files for code that loading them would run: what is named must be known, or the file is refused."""

import importlib
import io
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from mlops_nb.packaging import pickles
from mlops_nb.packaging.audit import Finding, files_of, sha256

# Of these packages, the classes are known; a function is not, unless it is listed below. Their own tests and readers are not.
_PACKAGES = re.compile(r"(sklearn|scipy\.sparse|pandas\.core)\.")
_NOT = re.compile(r"sklearn\.(datasets|externals|conftest|tests)\b|.*\.(tests|_testing|computation|pytables)\b")

def _named(prefix: str, names: str) -> set[str]:
    return {f"{prefix}.{name}" for name in names.split()}


_PLAIN = "list dict set frozenset tuple int float complex bool object bytearray"
_KNOWN = {
    *_named("builtins", f"{_PLAIN} str bytes slice range"),
    *_named("__builtin__", f"{_PLAIN} bytes"),
    *_named("collections", "OrderedDict defaultdict deque Counter"),
    *_named("datetime", "datetime date time timedelta timezone"),
    *("copyreg._reconstructor", "copy_reg._reconstructor", "_codecs.encode", "decimal.Decimal", "fractions.Fraction", "uuid.UUID"),
    "joblib.numpy_pickle.NumpyArrayWrapper",
    *_named("numpy", "dtype ndarray matrix asarray ma.core.MaskedArray ma.core._mareconstruct bool bool_ str_ bytes_ object_"),
    *_named("numpy", "float16 float32 float64 int8 int16 int32 int64 uint8 uint16 uint32 uint64 complex64 complex128"),
    *_named("numpy", "datetime64 timedelta64 log log1p log2 log10 exp expm1 sqrt square abs absolute sin cos"),
    *_named("numpy.core", "multiarray._reconstruct multiarray.scalar numeric._frombuffer _ufunc_reconstruct"),
    *_named("numpy._core", "multiarray._reconstruct multiarray.scalar numeric._frombuffer _ufunc_reconstruct"),
    *_named("numpy.random._pickle", "__randomstate_ctor __generator_ctor __bit_generator_ctor"),
    *_named("numpy.random", "_mt19937.MT19937 _pcg64.PCG64 _philox.Philox _sfc64.SFC64 bit_generator.SeedSequence"),
    "numpy.random.bit_generator.__pyx_unpickle_SeedSequence",
    *_named("pandas", "DataFrame Series Index RangeIndex MultiIndex DatetimeIndex CategoricalIndex Categorical Timestamp"),
    *_named("pandas", "StringDtype CategoricalDtype arrays.ArrowStringArray core.indexes.base._new_Index"),
    *_named("pandas._libs", "internals._unpickle_block arrays.__pyx_unpickle_NDArrayBacked tslibs.timestamps._unpickle_timestamp"),
    *_named("pyarrow.lib", "_restore_array py_buffer type_for_alias"),
    *_named("torch", "_utils._rebuild_tensor_v2 _utils._rebuild_parameter Size device FloatStorage DoubleStorage HalfStorage"),
    *_named("torch", "BFloat16Storage LongStorage IntStorage ShortStorage CharStorage ByteStorage BoolStorage"),
}
_LIBRARY = "a native library"
_NATIVE = {b"\x7fELF": _LIBRARY, b"MZ": _LIBRARY, b"\xcf\xfa\xed\xfe": _LIBRARY, b"\xca\xfe\xba\xbe": "compiled code"}
_COMPILED = {".so", ".pyd", ".dll", ".dylib", ".pyc", ".pyo", ".exe"}
_SUFFIXES = {".pkl", ".pickle", ".joblib", ".sav", ".pt", ".pth", ".ckpt", ".skops", ".keras", ".npy", ".npz"}  # must be what they say


def read_allowed(path: Path) -> set[str]:
    """Read a project's own allow-list: one name per line, or `sha256:` and a file's hash; `#` begins the reason."""
    if not path.is_file():
        return set()
    lines = (line.partition("#")[0].strip() for line in path.read_text().splitlines())
    return set(filter(None, lines))


def is_known(
    name: str,  # module and name, e.g. sklearn.pipeline.Pipeline
    allowed: set[str],  # the project's own
) -> bool:
    """Tell whether a pickle or a skops file may name this: listed, or a class that scikit-learn, SciPy or pandas define."""
    if name in _KNOWN or name in allowed:
        return True
    if not _PACKAGES.match(name) or _NOT.match(name):
        return False
    module, _, attribute = name.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), attribute, None)
    except Exception:  # no such module, or one that cannot be imported here: not known
        return False
    if isinstance(found, type):
        return found.__module__.partition(".")[0] == module.partition(".")[0]
    return (attribute.startswith("__pyx_unpickle_") or attribute == "newObj") and callable(found)  # how Cython makes an empty one


def look_into_folder(folder: Path, allowed: set[str]) -> tuple[list[Finding], int]:  # the findings, and how many files were looked into
    """Look into every file of a model; a file of an unknown kind that is no pickle is data."""
    findings: list[Finding] = []
    count = 0
    for name, path in files_of(folder):
        count += 1
        if f"sha256:{sha256(path)}" in allowed:
            findings.append(Finding(name, "not looked into", "", "its hash is on the allow-list"))
            continue
        with path.open("rb") as file:
            findings += look_into(name, file, allowed)
    return findings, count


def look_into(name: str, file: BinaryIO, allowed: set[str]) -> Iterator[Finding]:
    """Look into one file, whatever its name says that it is, and into the members of an archive."""
    head = file.read(512)
    file.seek(0)
    suffix = Path(name).suffix.lower()
    native = next((what for magic, what in _NATIVE.items() if head.startswith(magic)), "")
    if native or suffix in _COMPILED:
        yield Finding(name, f"{native or 'compiled code'}, which nobody can look into; leave it out of the model")
    elif head.startswith(b"\x89HDF\r\n"):
        yield Finding(name, "HDF5, in which Keras can hide code (Lambda layers); save it as ONNX, safetensors or a skops file")
    elif head[257:262] == b"ustar":
        yield Finding(name, "a tar archive; unpack it, so that its files can be looked into")
    elif head.startswith(b"PK\x03\x04"):
        yield from _look_into_zip(name, file, allowed)
    elif head.startswith(b"\x93NUMPY"):
        yield from _look_into_array(name, file, allowed)
    else:
        yield from _look_into_stream(name, suffix, file, allowed)


def _look_into_stream(name: str, suffix: str, file: BinaryIO, allowed: set[str]) -> Iterator[Finding]:
    try:
        inside = pickles.decompress(file)
        head = inside.peek(2)[:2]
        file.seek(0)
        if pickles.is_pickle(head, file) if inside.raw is file else head[:1] == b"\x80":
            yield from _judge(name, pickles.list_globals(file), allowed)
        elif suffix in _SUFFIXES:
            yield Finding(name, f"does not hold what {suffix} says; it cannot be looked into")
    except (pickles.Unreadable, OSError, EOFError, ValueError) as problem:
        yield Finding(name, f"a pickle that {problem}" if isinstance(problem, pickles.Unreadable) else f"cannot be read ({problem})")


def _judge(name: str, globals_: set[str], allowed: set[str]) -> Iterator[Finding]:
    unknown = sorted(one for one in globals_ if not is_known(one, allowed))
    for one in unknown:
        yield Finding(name, f"would fetch {one}, which is not on the allow-list")


def _look_into_zip(name: str, file: BinaryIO, allowed: set[str]) -> Iterator[Finding]:
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.namelist()
            if "schema.json" in members and Path(name).suffix.lower() != ".keras":
                yield from _look_into_skops(name, file, allowed)
                return
            for member in members:
                if member.endswith("/"):
                    continue
                data = io.BytesIO(archive.read(member))
                if member.endswith(".json") and re.search(rb'"class_name"\s*:\s*"Lambda"', data.getvalue()):
                    yield Finding(f"{name}!{member}", "a Lambda layer, which holds code")
                yield from look_into(f"{name}!{member}", data, allowed)
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError) as problem:
        yield Finding(name, f"a zip archive that cannot be read ({problem})")


def _look_into_skops(name: str, file: BinaryIO, allowed: set[str]) -> Iterator[Finding]:
    import skops.io

    file.seek(0)
    try:
        types = skops.io.get_untrusted_types(data=file.read())
    except Exception as problem:  # a hostile file may make of the reader what it likes; it reads a schema and runs nothing
        yield Finding(name, f"a skops file that cannot be read ({type(problem).__name__}: {str(problem)[:200]})")
        return
    for one in sorted(types):
        if not is_known(one, allowed):
            yield Finding(name, f"would fetch {one}, which is not on the allow-list")


def _look_into_array(name: str, file: BinaryIO, allowed: set[str]) -> Iterator[Finding]:
    import numpy as np

    try:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        _, _, dtype = read(file)
        if dtype.hasobject:
            yield from _judge(name, pickles.list_globals(io.BytesIO(file.read())), allowed)
    except (ValueError, pickles.Unreadable) as problem:
        yield Finding(name, f"an array that cannot be looked into ({problem})")
