"""The demo's people: two label handwritten digits, a third one decides where they differ, and a small model proposes the next round.

The pictures are scikit-learn's `digits`, written by 43 people. The first person reads them as they were meant; the second one reads
like somebody who has seen only thirty of them, and errs where these are alike. What they do goes through the doors that the card uses.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlops_nb.core.files import write_file
from mlops_nb.core.records import PeopleNeeded
from mlops_nb.core.runs import Run, list_runs
from mlops_nb.core.settings import Settings
from mlops_nb.terminal import run_scenario

if TYPE_CHECKING:
    from mlops_nb.inner_loop.store import LabelItem, Store

PROJECT = "digits"
FIRST, NEXT = 120, 60  # pictures that come in at first, and later


@dataclass(frozen=True)
class Labels:
    """How the labeling went."""

    run: Run
    final: int  # items that are decided
    disputed: int  # of them, by the third person
    alpha: float  # Krippendorff's, between the first two
    model: str  # that learned from them
    proposed: int  # items of the next round with proposals
    right: float  # share of these proposals that are


class _Post:
    """The pictures, and who reads them how."""

    def __init__(self, folder: Path):
        from sklearn.datasets import load_digits
        from sklearn.neighbors import KNeighborsClassifier

        self.folder, digits = folder, load_digits()
        self._pictures, self._meant = digits.images, [str(digit) for digit in digits.target]
        novice = KNeighborsClassifier(1).fit(digits.data[-30:], digits.target[-30:])
        self._read = [str(digit) for digit in novice.predict(digits.data)]

    def deliver(self, first: int, last: int) -> None:
        """Lay pictures into the folder."""
        from PIL import Image

        for number in range(first, last):
            picture = Image.fromarray((255 - self._pictures[number] * (255 / 16)).astype("uint8"))
            file = BytesIO()
            picture.resize((128, 128), Image.Resampling.BICUBIC).save(file, "PNG")
            write_file(self.folder / f"{number:04}.png", file.getvalue())

    def meant(self, item: "LabelItem") -> str:
        """Say which digit the writer meant."""
        return self._meant[int(Path(item.data["image"]).stem)]

    def read(self, item: "LabelItem") -> str:
        """Say what somebody with little experience reads."""
        return self._read[int(Path(item.data["image"]).stem)]


def label_the_post(settings: Settings) -> Labels:
    """Let people label, review, and a model learn; then lay the next pictures before the model."""
    from mlops_nb.inner_loop import agreement, review, sessions
    from mlops_nb.inner_loop.store import open_store

    post = _Post(settings.state / "post")
    post.deliver(0, FIRST)
    run = _until_people(settings, {"folder": str(post.folder)})
    with open_store(settings, PROJECT) as store:
        sessions.label_by(store, _oracle(post.meant), "ana")
        sessions.label_by(store, _oracle(post.read), "ben")
    run = _until_people(settings, None, run)
    with open_store(settings.model_copy(update={"user": "cam"}), PROJECT) as store:
        disputed = _settle(store, post.meant, review.settle)
        alpha = next(one.value for one in agreement.measure(store) if "alpha" in one.measure)
        run = run_scenario(settings, "labeling", None, run_id=run.id)
        final = store.progress()["final"]
        model = json.loads(run.output("learn", "learned").read_text())["model"]
        post.deliver(FIRST, FIRST + NEXT)
        _until_people(settings, {"folder": str(post.folder), "model": model.replace("model:", "models:/")})
        waiting = list(store.items(state="open"))
    proposed = [one for one in waiting if one.prediction]
    right = sum(one.prediction[0]["label"] == post.meant(one) for one in proposed)
    return Labels(run, final, disputed, float(alpha or 0), model, len(proposed), right / max(len(proposed), 1))


def _oracle(tell: "Callable[[LabelItem], str]") -> "Callable[[LabelItem], Iterable[dict[str, Any]]]":
    return lambda item: [{"kind": "class", "label": tell(item)}]


def _until_people(settings: Settings, values: dict[str, Any] | None, run: Run | None = None) -> Run:
    """Begin the scenario, or go on with a run of it, until it waits for people."""
    try:
        run_scenario(settings, "labeling", values, new=run is None, run_id=run.id if run else "")
    except PeopleNeeded:
        return list_runs(settings, "labeling")[-1]
    raise RuntimeError("The labeling scenario did not wait for people.")


def _settle(store: "Store", meant: "Callable[[LabelItem], str]", decide: Callable[..., None]) -> int:
    """Decide what is disputed or was drawn for a look, as the third person; returns how much was disputed."""
    from mlops_nb.inner_loop.leases import hand_out

    disputed = 0
    while items := hand_out(store, "cam", role="review"):
        disputed += items[0].state == "disputed"
        decide(store, items[0].id, [{"id": "class", "kind": "class", "label": meant(items[0])}], "recorded as the demo's own")
    return disputed
