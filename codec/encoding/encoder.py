"""Features in, packets out: the encoder's decisions around the normative loop.

Every decision (levels, block modes, fields, key frames) is written into the stream, so floating
point is welcome here.  Levels are chosen in `levels`, at the highest efforts once more in
`refinement`; where vectors come from is left to `motion_search`, or to the caller; what the result
is worth, to whoever wants to know (`pipeline.metering`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from codec.encoding.arithmetic import as_written
from codec.encoding.config import EncoderConfig, whole_number
from codec.encoding.features import checked_features, checked_range
from codec.encoding.forward_transform import ForwardTransform
from codec.encoding.importance import ImportancePredictor, checked_maps
from codec.encoding.levels import LevelChoice, TensorPlan, estimated_cost
from codec.encoding.payloads import FrameWriter
from codec.encoding.refinement import CloudFunction, TaskRefinement
from codec.errors import BitstreamError
from codec.format.constants import (
    LATENT_LIMIT,
    MAX_OFFSET,
    MAX_PTS,
    MAX_QP,
    MAX_VECTOR,
    OFFSET_UNIT,
)
from codec.format.header import SequenceHeader
from codec.format.packets import FramePacket
from codec.format.profile import INTER, INTRA, Profile, profile_of
from codec.format.slots import Slots
from codec.limits import DEFAULT_LIMITS, Limits
from codec.normative.contexts import TensorContexts
from codec.normative.quantization import step_sizes
from codec.normative.reconstruction import Reconstructor, bytes_of, features_of
from codec.normative.stripes import stripes
from codec.normative.symbols import MODE_INTRA, MODE_SKIP, FrameSymbols, block_qps
from codec.normative.transform import split_blocks

__all__ = ["EncodedFrame", "Encoder"]

QP_PER_HALVING = 4.5
"""How many qp halve the rate, about."""
QP_PER_FACTOR = 3
"""How many qp double the squared step."""
MOST_IMPORTANCE = 2.0**16
LEAST_MOVE = 2
"""Between key frames, offsets that would move by less stay: they cost bits, and gain little."""

Importance = Sequence[NDArray[np.floating]]
"""For each tensor (rows, columns) of its blocks: by how much more than elsewhere an error costs."""


@dataclass(frozen=True, slots=True)
class EncodedFrame:
    """A packet and what it says: its symbols, and the latents that the decoder will have, which are
    the encoder's own memory: read them, and clone what is to be changed.
    """

    packet: FramePacket
    symbols: FrameSymbols
    latents: tuple[Tensor, ...]
    profile: Profile

    @property
    def features(self) -> tuple[Tensor, ...]:
        """The features that the decoder will have, float32 (C, H, W)."""
        return tuple(features_of(self.latents, self.profile))


class Encoder:
    """Encodes the feature tensors of one stream, frame by frame.

    Args:
        header: what the stream is: tensors, frame size, profile.
        config: how to code it.
        cloud: the cloud sub-model, features (batched) to output; from effort 5 on, levels are
            chosen by what they do to its output.  Without one, these efforts are like 4.
        device: where the arithmetic runs; the bits do not depend on it, the decisions may.
        limits: those of the decoders that the stream is for.
        profile: the one that the header names, where it does not carry it, or where the file knows
            more than streams carry: how to tell the importance of blocks.

    Raises:
        ValueError: such a decoder would refuse the header.

    Example:
        >>> encoder = codec.Encoder(header, codec.EncoderConfig(qp=24))
        >>> packets = [encoder.encode([frame]).packet for frame in features]
        >>> packets[0].key, packets[1].key
        (True, False)
    """

    def __init__(
        self,
        header: SequenceHeader,
        config: EncoderConfig | None = None,
        *,
        cloud: CloudFunction | None = None,
        device: torch.device | str = "cpu",
        limits: Limits = DEFAULT_LIMITS,
        profile: Profile | None = None,
    ) -> None:
        self.header = header
        self.config = config or EncoderConfig()
        self._decisions = self.config.decided_by()
        try:  # what no decoder would read must not be written
            SequenceHeader.from_bytes(header.to_bytes(), limits)
            self.profile = profile_of(header, limits, profile)
        except BitstreamError as error:
            raise ValueError(f"header: {error}") from error
        self._device = torch.device(device)
        self._payloads = FrameWriter(header, self.profile)
        self._reconstructor = Reconstructor(
            header.tensors, self.profile, header.grid, device, header.references
        )
        self._forward = [ForwardTransform(tensor, device) for tensor in self.profile.tensors]
        self._means = [
            torch.from_numpy(tensor.mean.astype(np.float32)).to(device)[:, None, None]
            for tensor in self.profile.tensors
        ]
        self._positions = [
            torch.from_numpy(tensor.scan.position).to(device) for tensor in self.profile.tensors
        ]
        # the fewer frames inherit the errors of a key frame, the less its bits are worth
        most = self._decisions.key_offset
        self.key_offset = min(round(math.log2(self.config.keyint) * most / 6), most)
        self._kept = Slots[FramePacket](header.references)
        self._last_slot = 0
        self._next_pts = 0
        self._since_key = 0
        self._predictor = None
        if self.profile.importance is not None and self._decisions.importance:
            self._predictor = ImportancePredictor(self.profile.importance, self.profile, device)
        self._refinement = None
        if cloud is not None and self._decisions.rounds:
            self._refinement = TaskRefinement(cloud, self.profile, self._decisions, device)

    @as_written()
    def encode(
        self,
        features: Sequence[Tensor],
        vectors: NDArray[np.int32] | None = None,
        *,
        pts: int | None = None,
        intra: bool = False,
        key: bool = False,
        qp: int | None = None,
        most_bytes: float | None = None,
        importance: Importance | None = None,
        slots: tuple[int, int] | None = None,
    ) -> EncodedFrame:
        """Encode one frame.

        Args:
            features: one (C, H, W) tensor for each tensor of the header, of any real type and on
                any device, finite; magnitudes up to 2^23 times the profile's unit of a latent.
            vectors: (rows, columns, 2) int32 motion field, (y, x) in quarter pixels of the input
                frame, content at x came from x + v in the frame before; None: no motion.
            pts: presentation time in the header's time base; default: one frame duration after the
                last.
            intra: predict no block from the frame before.
            key: make this a key frame.
            qp: for this frame, in place of the configuration's; key frames are coded finer.
            most_bytes: if the payload looks like getting larger, plan again with a larger qp.
            importance: for each tensor, (rows, columns) of its blocks: how many times as much as
                the profile says an error in each costs in this frame; positive.  It multiplies what
                the profile's file predicts, if it does.  Blocks get a finer or coarser step by it;
                above 2^16 and below 2^-16 it makes no further difference.  None: 1 everywhere,
                whatever the frames before were given.
            slots: of a stream that keeps several frames: which to predict from, and where to keep
                this one; a key frame is kept in slot 0, alone.  Default: from the frame encoded
                last, into the slot behind its own, in rotation.  Vectors are from that frame.

        Returns:
            The packet and its reconstruction.

        Raises:
            FeatureError: shapes do not fit the header, or values are not finite or out of range.
            ValueError: a field or importance of another shape or type, importance that is not
                positive; a time or qp that no packet can say; slots that the stream does not have,
                or nothing in the one to predict from.
            TypeError: something else than tensors, than an array of vectors, than a list of
                importance for each tensor, or than integers.
        """
        # before any state moves: a frame that is refused leaves the next one as it was
        key = key or self._since_key >= self.config.keyint
        slots, last_slot = self._checked_slots(slots, key=key), self._last_slot
        previous = self._kept[slots[0]]
        key = key or previous is None
        expected = 0 if previous is None else previous.next_pts
        pts = self._checked_pts(self._next_pts if pts is None else pts, expected, key=key)
        qp = self.config.qp if qp is None else whole_number("qp", qp)
        if qp < 0:
            raise ValueError(f"qp {qp} is below 0")
        features = checked_features(features, self.header.tensors)
        vectors = self._checked(vectors)
        maps = None
        if importance is not None:
            maps = checked_maps(importance, self.header.tensors, self.profile)
        latents = self._latents_of(features)
        self._payloads.predicted_from = slots[0]
        plan = self._plan(
            latents,
            features,
            vectors,
            self._importance_of(features, maps),
            key=key,
            intra=intra,
            qp=qp,
            most_bytes=math.inf if most_bytes is None else most_bytes,
        )
        frame = plan.symbols()
        if not frame.key and len(self._kept) > 1:
            frame.slots = slots
        if not frame.key and pts == expected and frame.changes_nothing:
            assert previous is not None  # noqa: S101 - the first frame is a key frame
            frame = replace(frame, qp=previous.qp, repeat=True)
        has_offsets = self._payloads.changes_offsets(frame)
        payload = self._payloads.write(frame)
        reconstruction = self._reconstructor.reconstruct(plan.predictions, frame)
        duration = self.header.frame_duration
        if not frame.key and previous is not None:
            duration = pts - previous.pts
        packet = FramePacket(
            key=frame.key,
            pts=pts,
            qp=frame.qp,
            has_vectors=frame.vectors is not None,
            payload=payload,
            duration=duration,
            has_offsets=has_offsets,
            repeat=frame.repeat,
            slots=frame.slots,
        ).sealed(previous, bytes_of(reconstruction))
        self._kept.keep(packet.without_payload, frame.slots, key=frame.key)
        self._last_slot = frame.slots[1] if frame.slots else 0
        self._next_pts = packet.next_pts
        if slots[0] != last_slot and not frame.key:  # the distance is not to the frame before
            self._next_pts = pts + self.header.frame_duration
        self._since_key = 1 if frame.key else self._since_key + 1
        return EncodedFrame(packet, frame, tuple(reconstruction), self.profile)

    def _checked_slots(self, slots: tuple[int, int] | None, *, key: bool) -> tuple[int, int]:
        """Return where the next frame is predicted from, and where it is kept."""
        count = len(self._kept)
        if slots is None:
            return self._last_slot, (self._last_slot + 1) % count
        found = tuple(whole_number("slot", slot) for slot in slots)
        if len(found) != 2 or not all(0 <= slot < count for slot in found):
            raise ValueError(
                f"slots {slots}, expected two from 0 to {count - 1}: the header says that "
                f"{count} {'frame is' if count == 1 else 'frames are'} kept"
            )
        if not key and self._since_key and self._kept[found[0]] is None:
            raise ValueError(f"slot {found[0]} is empty: nothing was kept in it since a key frame")
        return found[0], found[1]

    def _checked_pts(self, pts: int, expected: int, *, key: bool) -> int:
        """Return the time of the next frame, as its packet can say it: in full, or as what it
        differs by from the expected one.
        """
        pts = whole_number("pts", pts)
        if not -MAX_PTS <= pts < MAX_PTS:
            raise ValueError(f"pts {pts} is outside -2^62 … 2^62 - 1; count from another start")
        if not key and not -MAX_PTS <= pts - expected < MAX_PTS:
            raise ValueError(
                f"pts {pts} is 2^62 or more from {expected}, which the frames before make expected;"
                " make this a key frame, or count from another start"
            )
        return pts

    def _latents_of(self, features: Sequence[Tensor]) -> list[Tensor]:
        specs = self.header.tensors
        latents = []
        for tensor, spec, profile in zip(features, specs, self.profile.tensors, strict=True):
            unit = 0.5**profile.fraction_bits
            latent = torch.empty(spec.shape, dtype=torch.float32, device=self._device)
            for first, last in stripes(spec.channels, spec.elements):
                exact = tensor[first:last].to(self._device, torch.float64)
                checked_range(
                    exact,
                    spec,
                    LATENT_LIMIT * unit,
                    "measure the profile on frames like this one, or scale features and profile",
                )
                latent[first:last] = torch.round(exact / unit)
            latents.append(latent)
        return latents

    def _checked(self, vectors: NDArray[np.int32] | None) -> NDArray[np.int32] | None:
        if vectors is None:
            return None
        expected = (*self.header.field_shape, 2)
        if not isinstance(vectors, np.ndarray):
            raise TypeError(
                f"the motion field is a {type(vectors).__name__}, expected a NumPy array of int32 "
                f"and shape {expected}"
            )
        if vectors.shape != expected:
            raise ValueError(
                f"motion field of shape {vectors.shape}, expected {expected}: rows and columns of "
                f"the grid of {self.header.grid} pixels, and (y, x)"
            )
        if vectors.dtype.kind not in "iu":
            raise ValueError(
                f"motion field of {vectors.dtype}, expected int32, quarter pixels; round pixels "
                "times 4"
            )
        if not vectors.any():
            return None  # says the same in fewer bytes
        return np.clip(vectors.astype(np.int64), -MAX_VECTOR, MAX_VECTOR).astype(np.int32)

    def _importance_of(
        self, features: Sequence[Tensor], maps: list[NDArray[np.float64]] | None
    ) -> list[NDArray[np.float64]]:
        """Return what is predicted of the blocks of this frame times what is given, (N,) each."""
        found = [
            np.ones(tensor.blocks(spec.height, spec.width))
            for spec, tensor in zip(self.header.tensors, self.profile.tensors, strict=True)
        ]
        if self._predictor is not None:
            exponent = self._decisions.importance
            found = [weights**exponent for weights in self._predictor(features)]
        if maps is not None:
            with np.errstate(over="ignore"):  # far beyond what makes a difference
                found = [weights * given for weights, given in zip(found, maps, strict=True)]
        return [np.clip(each.ravel(), 1 / MOST_IMPORTANCE, MOST_IMPORTANCE) for each in found]

    def _emphasis(
        self, importance: list[NDArray[np.float64]], qp: int, floor: int, *, key: bool
    ) -> list[_Emphasis]:
        """Turn importance into offsets from `floor` on in a frame of that qp, and what these leave
        of it.
        """
        # as far as they move a block's qp, which ends at 0 and at `MAX_QP`
        least = max(floor, -math.ceil(qp / OFFSET_UNIT))
        most = min(MAX_OFFSET, math.ceil((MAX_QP - qp) / OFFSET_UNIT))
        found = []
        for number, given in enumerate(importance):
            weights = given
            if floor > -MAX_OFFSET:  # then the choice of levels must not make up for it
                weights = np.minimum(given, 2.0 ** (-OFFSET_UNIT * floor / QP_PER_FACTOR))
            wanted = np.round(-QP_PER_FACTOR * np.log2(weights) / OFFSET_UNIT)
            offsets = np.clip(wanted, least, most).astype(np.int64)
            if not key:
                before = self._payloads.tensors_at(key, qp)[number].offsets
                near = np.abs(offsets - np.clip(before, least, most)) < LEAST_MOVE
                offsets = np.where(near & (before >= floor), before, offsets)
            moved = block_qps(qp, offsets) - qp
            rest = weights * 2.0 ** (moved / QP_PER_FACTOR)
            found.append(_Emphasis(offsets, rest.astype(np.float32)))
        return found

    def _plan(
        self,
        latents: list[Tensor],
        features: Sequence[Tensor],
        vectors: NDArray[np.int32] | None,
        importance: list[NDArray[np.float64]],
        *,
        key: bool,
        intra: bool,
        qp: int,
        most_bytes: float,
    ) -> _FramePlan:
        """Decide what to code, with larger and larger qp until it fits; where that ends, with less
        and less that is finer than the frame.
        """
        floor = -MAX_OFFSET
        while True:
            plan = self._decide(latents, vectors, importance, floor, key=key, intra=intra, qp=qp)
            if self._refinement is not None:
                plan = self._refined(plan, [tensor.float() for tensor in features])
            if most_bytes == math.inf:  # nothing asks what it comes to
                return plan
            bits = plan.bits() + self._payloads.block_bits(plan.symbols())
            if plan.vectors is not None:
                bits += self._payloads.vector_bits(plan.vectors)
            excess = bits / 8 / max(most_bytes, 1)
            if excess <= 1 or (plan.qp == MAX_QP and floor == 0):
                return plan
            step = max(math.ceil(QP_PER_HALVING * math.log2(excess)), 1)
            if plan.qp < MAX_QP:
                qp += step
            else:
                floor = min(max(floor, plan.least_offset()) + math.ceil(step / OFFSET_UNIT), 0)

    def _decide(
        self,
        latents: list[Tensor],
        vectors: NDArray[np.int32] | None,
        importance: list[NDArray[np.float64]],
        floor: int,
        *,
        key: bool,
        intra: bool,
        qp: int,
    ) -> _FramePlan:
        """Choose key or inter frame, field, block modes and levels.

        A qp above the largest is one that only key frames, which are coded finer, make use of.
        """
        key_qp = min(max(qp - self.key_offset, 0), MAX_QP)
        qp = min(qp, MAX_QP)
        emphasis = self._emphasis(importance, key_qp if key else qp, floor, key=key)
        if not key and not intra:
            residuals = self._predicted(latents, vectors, emphasis, qp)
            tensors, cost, intra_cost = self._inter_frame(residuals, emphasis, qp)
            key = self.config.scene_cut and intra_cost < self._decisions.scene_cut_margin * cost
            if key:  # no offsets stay, and the qp is another
                emphasis = self._emphasis(importance, key_qp, floor, key=True)
            else:
                field = residuals.vectors
                if all((tensor.modes == MODE_INTRA).all() for tensor in tensors):
                    field = None  # nothing is predicted with it
                return _FramePlan(False, qp, field, tensors, residuals.predictions)
        if key:
            qp = key_qp
        tensors = self._intra_frame(latents, emphasis, qp, key=key)
        return _FramePlan(key, qp, None, tensors, self._reconstructor.predict(None))

    def _refined(self, plan: _FramePlan, features: Sequence[Tensor]) -> _FramePlan:
        """Choose levels once more, by the output of the cloud sub-model."""
        assert self._refinement is not None  # noqa: S101 - `_plan` has looked

        def reconstruct(tensors: list[TensorPlan]) -> list[Tensor]:
            trial = replace(plan, tensors=tensors).symbols()
            # scale classes, which points depend on, are found by coding
            for symbols, tensor in zip(trial.tensors, tensors, strict=True):
                symbols.classes = tensor.classes[:, tensor.modes != MODE_SKIP]
            return features_of(self._reconstructor.trial(plan.predictions, trial), self.profile)

        tensors = self._refinement.refine(features, plan.tensors, reconstruct, plan.qp)
        return replace(plan, tensors=tensors)

    def _predicted(
        self,
        latents: list[Tensor],
        vectors: NDArray[np.int32] | None,
        emphasis: list[_Emphasis],
        qp: int,
    ) -> _Residuals:
        """Predict with the field and without, and keep what looks cheaper, vectors included."""
        fields = [vectors]
        if vectors is not None and self._decisions.field_or_none:
            fields.append(None)
        predictions = [
            self._reconstructor.predict(field, self._payloads.predicted_from) for field in fields
        ]
        tensors = []
        for number, (latent, each) in enumerate(zip(latents, emphasis, strict=True)):
            residuals = [latent - predicted[number] for predicted in predictions]
            residuals.append(latent - self._means[number])
            prices = each.prices(self._decisions.price)
            tensors.append(
                [
                    _Residual(values, each.total(estimated_cost(values, prices)))
                    for values in self._values(number, residuals, each.qps(qp))
                ]
            )
        totals = [
            sum(float(tensor[choice].costs.sum()) for tensor in tensors)
            for choice in range(len(fields))
        ]
        if vectors is not None and len(fields) > 1:
            totals[0] += self._decisions.price * self._payloads.vector_bits(vectors)
        best = totals.index(min(totals))
        return _Residuals(
            fields[best],
            predictions[best],
            [tensor[best] for tensor in tensors],
            [tensor[-1] for tensor in tensors],
        )

    def _intra_frame(
        self, latents: list[Tensor], emphasis: list[_Emphasis], qp: int, *, key: bool
    ) -> list[TensorPlan]:
        """Plan a frame all of whose blocks are intra, a key frame or not."""
        contexts = self._payloads.tensors_at(key, qp)
        plans = []
        for number, (latent, each) in enumerate(zip(latents, emphasis, strict=True)):
            (values,) = self._values(number, [latent - self._means[number]], each.qps(qp))
            blocks = np.arange(values.shape[1])
            kinds = np.full(len(blocks), INTRA)
            choice = self._choice(number, values, contexts[number], kinds, each, qp, blocks)
            modes = np.full(len(blocks), MODE_INTRA, np.uint8)
            plans.append(
                TensorPlan(modes, values, choice.levels, choice.classes, each.offsets, each.weights)
            )
        return plans

    def _inter_frame(
        self, residuals: _Residuals, emphasis: list[_Emphasis], qp: int
    ) -> tuple[list[TensorPlan], float, float]:
        """Plan an inter frame; return as well what coding it without intra blocks would cost, and
        what coding all of it intra would, as far as intra blocks were tried, and else about.
        """
        contexts = self._payloads.tensors_at(False, qp)
        decisions = self._decisions
        plans, total, intra_total = [], 0.0, 0.0
        for number, each in enumerate(emphasis):
            inter, intra = residuals.inter[number], residuals.intra[number]
            tried = np.flatnonzero(intra.costs < decisions.intra_margin * inter.costs)
            # both in one go: in a small tensor the passes cost more than what is in them
            count, values = len(inter.costs), inter.values
            if len(tried):
                values = np.concatenate([values, intra.values[:, tried]], 1)
            blocks = np.concatenate([np.arange(count), tried])
            kinds = np.repeat([INTER, INTRA], [count, len(tried)])
            choice = self._choice(number, values, contexts[number], kinds, each, qp, blocks)
            cost, energy = choice.cost[:count], choice.energy[:count]
            plan = TensorPlan(
                np.full(count, MODE_SKIP, np.uint8),
                inter.values,
                choice.levels[:, :count],
                np.ascontiguousarray(choice.classes[:, :count]),
                each.offsets,
                each.weights,
            ).with_levels(np.where(cost < energy, choice.levels[:, :count], 0))
            best = each.total(np.minimum(energy, cost))
            alone = choice.cost[count:] * each.weights[tried]
            better = alone + decisions.price * decisions.intra_bits < best[tried]
            plan = plan.with_intra(tried[better], choice, count + np.flatnonzero(better))
            plans.append(plan)
            total += float(best.sum())
            intra_costs = intra.costs.copy()
            intra_costs[tried] = alone
            intra_total += float(intra_costs.sum())
        return plans, total, intra_total

    def _values(
        self, number: int, residuals: Sequence[Tensor], qps: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Transform residuals: (len(residuals), P, N) coefficients in scan order, in steps of their
        blocks.
        """
        size, (_, height, width) = self.profile.tensors[number].block_size, residuals[0].shape
        rows, columns = self.profile.tensors[number].blocks(height, width)
        scan, count = self._positions[number], len(residuals)
        values = np.empty((count, len(scan), rows * columns), np.float32)
        scale = torch.from_numpy((1 / step_sizes(qps)).astype(np.float32)).to(self._device)
        for first, last in stripes(rows, count * residuals[0].numel()):  # rows of blocks
            blocks = torch.cat(
                [split_blocks(each[:, first * size : last * size], size) for each in residuals]
            )
            coefficients = self._forward[number](blocks).flatten(0, 1).index_select(0, scan)
            these = slice(first * columns, last * columns)
            for out, found in zip(values, coefficients.chunk(count, 1), strict=True):
                out[:, these] = (found * scale[these]).cpu().numpy()
        return values

    def _choice(
        self,
        number: int,
        values: NDArray[np.float32],
        contexts: TensorContexts,
        kinds: NDArray[np.intp],
        emphasis: _Emphasis,
        qp: int,
        blocks: NDArray[np.intp],
    ) -> LevelChoice:
        """Choose levels of blocks of a tensor, each of which may occur more than once."""
        return LevelChoice(
            contexts,
            values,
            self.profile.tensors[number].points,
            kinds,
            qp,
            blocks,
            emphasis.offsets[blocks],
            self._decisions,
            emphasis.prices(self._decisions.price)[blocks],
        )


@dataclass(frozen=True, slots=True)
class _Emphasis:
    """How the blocks of a tensor differ in importance: (N,) offsets, and what an error counts in
    each once it is measured in steps of the block.
    """

    offsets: NDArray[np.int64]
    weights: NDArray[np.float32]

    def qps(self, qp: int) -> NDArray[np.int64]:
        return block_qps(qp, self.offsets)

    def prices(self, price: float) -> NDArray[np.float32]:
        """Return what a bit may cost in squared steps of each block."""
        return np.asarray(np.float32(price) / self.weights)

    def total(self, costs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Bring costs of blocks, in their squared steps, to one scale."""
        return np.asarray(costs * self.weights)


@dataclass(frozen=True, slots=True)
class _Residual:
    """The (P, N) coefficients of a tensor's residual, in steps, and the estimated cost of each
    block.
    """

    values: NDArray[np.float32]
    costs: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class _Residuals:
    """A field, what it predicts, and for each tensor the residual to that, and to its means."""

    vectors: NDArray[np.int32] | None
    predictions: list[Tensor]
    inter: list[_Residual]
    intra: list[_Residual]


@dataclass(frozen=True, slots=True)
class _FramePlan:
    """What will be coded of a frame, and what its blocks are predicted from."""

    key: bool
    qp: int
    vectors: NDArray[np.int32] | None
    tensors: list[TensorPlan]
    predictions: list[Tensor]

    def bits(self) -> float:
        """Return about how many bits the levels take."""
        return sum(tensor.bits() for tensor in self.tensors)

    def least_offset(self) -> int:
        """Return the offset of the blocks that are finest."""
        return int(min(tensor.offsets.min() for tensor in self.tensors))

    def symbols(self) -> FrameSymbols:
        """Return the symbols to code."""
        return FrameSymbols(
            self.key, self.qp, self.vectors, [tensor.symbols() for tensor in self.tensors]
        )
