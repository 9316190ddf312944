"""What the tests of labels in files stand on."""

from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def lay(tmp_path: Path) -> Callable[..., Path]:
    """Write files below a folder, pictures as bytes and all else as text: `lay(**{"a/1.txt": "0 0 0 1 1"})`."""

    def write(**files: str | bytes) -> Path:
        for name, content in files.items():
            path = tmp_path / "given" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return tmp_path / "given"

    return write
