"""List what a package is made of, as a CycloneDX bill of materials that its own schema accepts."""

import uuid
from pathlib import Path
from typing import Any

from mlops_nb.packaging.audit import files_of, sha256
from mlops_nb.packaging.context import Source
from mlops_nb.packaging.lock import read_pins

FILE = "sbom.json"


def make_sbom(source: Source, folder: Path) -> str:
    """Describe the base image, every pinned package, and every file of the model with its hash. It holds no time: the same
    package has the same bill."""
    from cyclonedx.model import HashAlgorithm, HashType, Property
    from cyclonedx.model.bom import Bom
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.output import make_outputter
    from cyclonedx.schema import OutputFormat, SchemaVersion
    from packageurl import PackageURL

    def hashed(values: tuple[str, ...]) -> list[HashType]:
        return [HashType(alg=HashAlgorithm.SHA_256, content=value) for value in values]

    whole = Component(name=source.name, version=source.version, type=ComponentType.APPLICATION, bom_ref="package",
                      properties=[Property(name="mlops-nb:model", value=source.model)])
    digest = source.base.digest.removeprefix("sha256:")
    parts = [Component(name=source.base.image, version=source.base.digest or "not pinned", type=ComponentType.CONTAINER,
                       bom_ref="base", hashes=hashed((digest,) if digest else ()))]
    for pin in read_pins((folder / "lock.txt").read_text()):
        parts.append(Component(
            name=pin.name, version=pin.version, type=ComponentType.LIBRARY, bom_ref=f"pypi:{pin.name}@{pin.version}",
            purl=PackageURL("pypi", None, pin.name, pin.version),
            properties=[Property(name="mlops-nb:where", value=pin.marker)] if pin.marker else []))
    for name, path in files_of(folder / "model"):
        parts.append(Component(name=f"model/{name}", type=ComponentType.FILE, bom_ref=f"file:model/{name}",
                               hashes=hashed((sha256(path),))))
    bom = Bom(components=parts, serial_number=uuid.uuid5(uuid.NAMESPACE_URL, sha256(folder / "lock.txt") + source.model))
    bom.metadata.component = whole
    bom.register_dependency(whole, parts)
    return _without_time(make_outputter(bom, OutputFormat.JSON, SchemaVersion.V1_6).output_as_string())


def _without_time(text: str) -> str:
    import json

    content = json.loads(text)
    content["metadata"].pop("timestamp", None)
    return json.dumps(content, indent=1, sort_keys=True) + "\n"


def check_sbom(text: str) -> Any:  # None: the schema accepts it
    """Check a bill of materials against CycloneDX 1.6's own schema; returns the first fault."""
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    return JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
