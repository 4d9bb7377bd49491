"""Which cuts of a network are worth measuring."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from codec.format.header import TensorSpec
from codec.models.costs import SplitCost
from codec.models.split_points import describe_costs

__all__ = ["MOST_CUTS", "Candidate", "candidates", "chosen"]

MOST_CUTS = 10
SAME_COST = 0.01
"""Cuts whose edges differ by less than this share of the network are at one place."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A cut, before anything of it is measured."""

    split: str
    tensors: tuple[TensorSpec, ...]
    cost: SplitCost

    @property
    def elements(self) -> int:
        """Count what crosses for a frame."""
        return sum(spec.elements for spec in self.tensors)

    @property
    def edge_share(self) -> float:
        """Return what of the network's multiplications is the edge's."""
        return self.cost.edge_macs / max(self.cost.edge_macs + self.cost.cloud_macs, 1)


def candidates(
    model: str, input_size: tuple[int, int], splits: Sequence[str] = ()
) -> tuple[list[Candidate], str]:
    """Return the cuts to measure, and in words how they were chosen: in the order of the network,
    or those asked for in the order in which they were.

    Args:
        model: a name or a file, as of `describe_costs`.
        input_size: height and width.
        splits: those asked for, in place of a choice; of them only those that `lmc models` lists
            have a known cost.

    Raises:
        ModelError: there is no such model.
    """
    listed = [Candidate(*each) for each in describe_costs(model, input_size)]
    if splits:
        by_name = {each.split: each for each in listed}
        unknown = SplitCost(0, 0)
        return (
            [by_name.get(name, Candidate(name, (), unknown)) for name in dict.fromkeys(splits)],
            "the cuts that were asked for",
        )
    height, width = input_size
    return chosen(listed, 3 * height * width)


def chosen(listed: Sequence[Candidate], samples: int) -> tuple[list[Candidate], str]:
    """Choose among the cuts that `lmc models` lists.

    Args:
        listed: in the order of the network.
        samples: of a picture; a cut with more elements sends more numbers than the picture has.
    """
    small = [each for each in listed if each.elements < samples]
    known = any(each.cost.edge_macs + each.cost.cloud_macs for each in small)
    if known:
        apart = _apart(small)
        places = {each.split: each.edge_share for each in apart}
    else:  # cuts that cost nothing are not at one place: nobody counts this network's operations
        apart = small
        places = {each.split: number for number, each in enumerate(apart)}
    kept = list(apart)
    while len(kept) > MOST_CUTS:
        # what lies closest to its neighbours tells least; the first and the last stay
        gaps = [
            places[kept[number + 1].split] - places[kept[number - 1].split]
            for number in range(1, len(kept) - 1)
        ]
        del kept[1 + gaps.index(min(gaps))]
    words = [f"{len(kept)} of the {len(listed)} cuts listed by lmc models"]
    if len(small) < len(listed):
        words.append("without those of more elements than the picture has samples")
    if len(apart) < len(small):
        words.append("of several with equally large edges that with the fewest elements")
    if len(kept) < len(apart):
        over = "the network's multiplications" if known else "their order"
        words.append(f"the {MOST_CUTS} spread widest over {over}")
    return kept, ", ".join(words)


def _apart(small: Sequence[Candidate]) -> list[Candidate]:
    """Keep of cuts at one place the one with the fewest elements."""
    apart: list[Candidate] = []
    for each in small:
        if apart and each.edge_share - apart[-1].edge_share < SAME_COST:
            if each.elements < apart[-1].elements:
                apart[-1] = each
            continue
        apart.append(each)
    return apart
