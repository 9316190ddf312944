"""Where the nodes and edges of a small graph go: left to right by rank, neighbours on a level, few crossings."""

from collections import defaultdict
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from graphlib import TopologicalSorter
from itertools import pairwise
from math import floor
from statistics import mean

Place = tuple[float, float]  # column from the left, row from the top; a row may lie between two others


@dataclass(frozen=True)
class Layout:
    """Where everything goes."""

    places: dict[str, Place]
    edges: dict[tuple[str, str], list[Place]]  # (from, to) -> the places it goes through, both ends among them


def lay_out(
    needs: dict[str, list[str]],  # node -> the nodes it needs; needs that are no nodes are passed over
) -> Layout:
    """Place every node to the right of those it needs; an edge that a longer way implies is left out."""
    needs = {node: [other for other in dict.fromkeys(others) if other in needs] for node, others in needs.items()}
    column = _ranks(needs)
    chains = {(start, end): _chain(start, end, column) for start, end in _essential(needs)}
    layers: list[list[Hashable]] = [[] for _ in range(max(column.values(), default=-1) + 1)]
    for node in needs:
        layers[column[node]].append(node)
    for (start, _), chain in chains.items():
        for step, bend in enumerate(chain[1:-1], column[start] + 1):
            layers[step].append(bend)
    rows = _rows(layers, [pair for chain in chains.values() for pair in pairwise(chain)])
    places = {node: (float(column[node]), rows[node]) for node in needs}
    edges = {(a, b): [(float(column[a] + i), rows[bend]) for i, bend in enumerate(chain)] for (a, b), chain in chains.items()}
    return Layout(places, edges)


def _ranks(needs: dict[str, list[str]]) -> dict[str, int]:
    ranks: dict[str, int] = {}
    for node in TopologicalSorter(needs).static_order():
        ranks[node] = 1 + max((ranks[other] for other in needs[node]), default=-1)
    return ranks


def _essential(needs: dict[str, list[str]]) -> list[tuple[str, str]]:
    """List the edges (from, to) that no longer way implies."""
    above: dict[str, set[str]] = {}
    for node in TopologicalSorter(needs).static_order():
        above[node] = set(needs[node]).union(*(above[other] for other in needs[node]))
    return [(start, end) for end, starts in needs.items() for start in starts
            if not any(start in above[other] for other in starts)]


def _chain(start: str, end: str, column: dict[str, int]) -> list[Hashable]:
    """Give an edge a bend in every column between its ends, so that it is led around the nodes there."""
    return [start, *((start, end, between) for between in range(column[start] + 1, column[end])), end]


def _rows(layers: list[list[Hashable]], links: Iterable[tuple[Hashable, Hashable]]) -> dict[Hashable, float]:
    """Sweep to and fro, drawing every node to the middle of its neighbours in the column before."""
    left, right = defaultdict(list), defaultdict(list)
    for a, b in links:
        right[a].append(b)
        left[b].append(a)
    rows = {node: float(i) for layer in layers for i, node in enumerate(layer)}
    for sweep in range(5):
        beside, order = (left, layers) if sweep % 2 == 0 else (right, layers[::-1])
        for layer in order:
            wanted = {node: mean(rows[other] for other in beside[node]) if beside[node] else rows[node] for node in layer}
            layer.sort(key=wanted.__getitem__)
            rows |= _spread(layer, wanted)
    halves = {node: floor(row * 2 + 0.5) / 2 for node, row in rows.items()}  # straight lines where nearly straight would do
    top = min(halves.values(), default=0.0)
    return {node: row - top for node, row in halves.items()}


def _spread(layer: list[Hashable], wanted: dict[Hashable, float]) -> dict[Hashable, float]:
    """Keep a column's nodes apart; a bend takes less room than a node. The column as a whole stays where it wanted to be."""
    placed: dict[Hashable, float] = {}
    for before, node in zip([None, *layer], layer, strict=False):
        room = 1.0 if isinstance(before, str) and isinstance(node, str) else 0.5
        placed[node] = wanted[node] if before is None else max(wanted[node], placed[before] + room)
    shift = mean(wanted[node] - placed[node] for node in layer)
    return {node: row + shift for node, row in placed.items()}
