"""Where to cut: exact arithmetic over a link, the search, rankings and how sure they are."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_plan import FRAMES, TARGET, TERMS, curve, make_options, make_plan, times

from codec.format.header import TensorSpec
from codec.models.costs import SplitCost
from codec.planning.candidates import MOST_CUTS, Candidate, chosen
from codec.planning.certainty import RESAMPLINGS, draws_of, interval, rank
from codec.planning.plan import EDGE_ONLY, REMOTE, Option
from codec.planning.search import CLOSE, KEYINT, REFINEMENTS, Curve, Point, search
from codec.planning.stages import Link, Power, Stages, Terms, estimate
from codec.planning.table import plan_text, rate_shown

# --- arithmetic -------------------------------------------------------------------------------


def test_a_frame_passes_edge_link_and_cloud() -> None:
    stages = Stages(0.010, 0.005, 2500, 0.004, 0.006)
    found = estimate(stages, Terms(Link(2e6, 0.06), edge_slowdown=8))
    assert found.edge_load_seconds == pytest.approx(0.120)
    assert found.link_seconds == pytest.approx(0.010)
    assert found.cloud_load_seconds == pytest.approx(0.010)
    assert found.latency_seconds == pytest.approx(0.120 + 0.010 + 0.030 + 0.010)
    assert found.frames_per_second == pytest.approx(1 / 0.120)
    assert found.bottleneck == "edge"
    assert found.edge_joules is None


@pytest.mark.parametrize(
    ("rate", "slowdown", "bottleneck", "frames_per_second"),
    [(1e5, 1, "link", 5), (1e8, 1, "cloud", 10), (1e8, 20, "edge", 1 / 0.3)],
)
def test_the_slowest_stage_bounds_what_passes(
    rate: float, slowdown: float, bottleneck: str, frames_per_second: float
) -> None:
    found = estimate(Stages(0.010, 0.005, 2500, 0.04, 0.06), Terms(Link(rate, 0), slowdown))
    assert found.bottleneck == bottleneck
    assert found.frames_per_second == pytest.approx(frames_per_second)


def test_energy_is_that_of_the_edge() -> None:
    terms = Terms(Link(2e6, 0.06), 8, Power(edge_watts=5, radio_watts=2))
    found = estimate(Stages(0.010, 0.005, 2500, 0.004, 0.006), terms)
    assert found.edge_joules == pytest.approx(5 * 0.120 + 2 * 0.010)


@pytest.mark.parametrize("wrong", [(0, 0.1), (-1, 0.1), (1, -0.1), (math.nan, 0.1)])
def test_what_is_no_link_is_refused(wrong: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="a rate is positive"):
        Link(*wrong)


# --- the search -------------------------------------------------------------------------------


def coded(parameter: int, *, loss_at_24: float = 0.1, slope: float = math.log(4) / 6) -> Point:
    loss = loss_at_24 * math.exp(slope * (parameter - 24))
    size = round(1e5 * 2 ** (-parameter / 5))
    return Point(parameter, (loss,) * FRAMES, (5 * size, *(size,) * (FRAMES - 1)))


@pytest.mark.parametrize("wanted", [1.5, 10, 24, 33, 49])
@pytest.mark.parametrize("slope", [0.1, 0.23, 0.4])
def test_the_search_comes_close_in_few_steps(wanted: float, slope: float) -> None:
    loss = TARGET * math.exp(slope * (24 - wanted))
    asked: list[int] = []

    def measure(parameter: int) -> Point:
        asked.append(parameter)
        return coded(parameter, loss_at_24=loss, slope=slope)

    points = search(measure, TARGET, start=24, most=51)
    assert len(asked) == len(set(asked)) <= 6
    found = Curve(points, TARGET)
    low, high = found.around
    assert low.loss <= TARGET < high.loss
    assert high.parameter - low.parameter <= max(CLOSE, 12)
    size = 1e5 * 2 ** (-wanted / 5) * (1 + 4 / KEYINT)
    assert found.plain_bytes_per_frame() == pytest.approx(size, rel=0.05)


def test_what_does_not_come_to_the_loss_is_said() -> None:
    points = search(lambda crf: coded(crf, loss_at_24=1e4), TARGET, start=24, most=51)
    found = Curve(points, TARGET)
    assert points[0].parameter == 0
    assert not found.reached
    assert found.plain_bytes_per_frame() == points[0].frame_bytes[1] * (KEYINT - 1 + 5) / KEYINT


def test_what_loses_nothing_is_taken_at_its_coarsest() -> None:
    points = search(lambda qp: coded(qp, loss_at_24=0.0), TARGET, start=24, most=51)
    found = Curve(points, TARGET)
    assert points[-1].parameter == 51
    assert found.reached
    assert found.nearest is points[-1]


@pytest.mark.parametrize(
    ("loss_of", "around"),
    [
        # as x265 does on a moving clip: five sixths less loss, then hardly any for ten steps
        (
            lambda crf: float(
                np.interp(
                    crf, [0, 10, 12, 14, 16, 19, 26], [0.05, 0.0514, 0.072, 0.074, 0.078, 0.1, 0.25]
                )
            ),
            (11, 12),
        ),
        (lambda crf: 0.065 + 0.002 * crf, (2, 3)),
        (lambda crf: 0.07 if crf == 0 else 0.0701 + 0.001 * crf, (0, 1)),
        (lambda crf: 0.06 if crf < 33 else 0.5, (32, 33)),
    ],
)
def test_a_loss_that_falls_slowly_is_followed_to_the_end(
    loss_of: Callable[[int], float], around: tuple[int, int]
) -> None:
    points = search(made_of(loss_of), 0.07, start=26, most=51)
    low, high = Curve(points, 0.07).around
    assert low.loss <= 0.07 < high.loss
    assert low.parameter <= around[0] < around[1] <= high.parameter
    assert high.parameter - low.parameter <= 6


def made_of(loss_of: Callable[[int], float]) -> Callable[[int], Point]:
    return lambda parameter: Point(parameter, (loss_of(parameter),) * 2, (100, 10))


@given(st.lists(st.floats(0, 1), min_size=52, max_size=52), st.integers(0, 51))
def test_whatever_the_losses_an_end_is_measured_before_anything_is_said_of_it(
    losses: list[float], start: int
) -> None:
    asked: list[int] = []

    def measure(parameter: int) -> Point:
        asked.append(parameter)
        return Point(parameter, (losses[parameter],) * 2, (100, 10))

    points = search(measure, 0.5, start=start, most=51)
    assert len(asked) == len(set(asked)) <= 1 + 6 + REFINEMENTS
    found = Curve(points, 0.5)
    low, high = found.around
    assert (low is high) == (not found.reached or found.exceeded)
    if not found.reached:
        assert points[0].parameter == 0
    if found.exceeded:
        assert points[-1].parameter == 51


@pytest.mark.parametrize(("loss", "end"), [(0.2, 0), (0.05, 51)])
def test_a_flat_loss_is_followed_to_an_end(loss: float, end: int) -> None:
    points = search(made_of(lambda _: loss), TARGET, start=26, most=51)
    assert Curve(points, TARGET).nearest.parameter == end
    assert len(points) <= 6


def test_a_first_frame_counts_as_one_of_many() -> None:
    found = curve(6400, 100)
    assert found.plain_bytes_per_frame() == pytest.approx(
        math.sqrt((6400 + 63 * 200) / 64 * (6400 + 63 * 50) / 64)
    )


def test_later_key_frames_do_not_count_as_inter_frames() -> None:
    sizes = tuple(6400 if number % KEYINT == 0 else 100 for number in range(2 * KEYINT + 2))
    found = Curve([Point(24, (TARGET,) * len(sizes), sizes)], TARGET)
    assert found.plain_bytes_per_frame() == (6400 + 63 * 100) / 64
    spread = found.bytes_per_frame(draws_of([len(sizes)], 4, options=1).frames[0])
    assert np.ptp(spread) == 0


# --- which cuts -------------------------------------------------------------------------------


def listed(name: str, share: int, channels: int) -> Candidate:
    spec = TensorSpec(name, channels, 10, 10, 8, 8, 7, 7)
    return Candidate(name, (spec,), SplitCost(share, 1000 - share))


def test_cuts_that_send_more_than_the_picture_are_left_out() -> None:
    found, words = chosen([listed("a", 100, 40), listed("b", 200, 20)], 3000)
    assert [each.split for each in found] == ["b"]
    assert "than the picture has samples" in words


def test_of_cuts_at_one_place_the_smallest_is_kept() -> None:
    found, words = chosen([listed("a", 500, 20), listed("b", 504, 10), listed("c", 520, 20)], 3000)
    assert [each.split for each in found] == ["b", "c"]
    assert "with the fewest elements" in words


def test_many_cuts_are_thinned_and_the_ends_stay() -> None:
    many = [listed(f"c{number}", 20 * number, 10) for number in range(1, 40)]
    found, words = chosen(many, 3000)
    assert len(found) == MOST_CUTS
    assert (found[0].split, found[-1].split) == ("c1", "c39")
    assert "of the 39 cuts" in words
    gaps = np.diff([each.edge_share for each in found])
    assert gaps.max() < 4 * gaps.min()


def test_cuts_of_unknown_cost_are_not_at_one_place() -> None:
    def free(number: int) -> Candidate:
        return replace(listed(f"c{number}", 0, 10), cost=SplitCost(0, 0))

    found, words = chosen([free(number) for number in range(3)], 3000)
    assert [each.split for each in found] == ["c0", "c1", "c2"]
    assert "equally large edges" not in words
    found, words = chosen([free(number) for number in range(40)], 3000)
    assert len(found) == MOST_CUTS
    assert "spread widest over their order" in words
    gaps = np.diff([int(each.split[1:]) for each in found])
    assert gaps.max() < 4 * gaps.min()


# --- who is best ------------------------------------------------------------------------------


def test_latencies_are_those_of_the_parts() -> None:
    plan = make_plan()
    latency = {row.name: 1000 * row.estimate.latency_seconds for row in plan.rows}
    # edge and encoder eight times, bytes over a megabit, half of 60 ms, decoder and cloud
    assert latency["early"] == pytest.approx(8 * 3 + 25.6 + 30 + 9, abs=0.1)
    assert latency["late"] == pytest.approx(8 * 10 + 6.4 + 30 + 2, abs=0.1)
    assert latency[REMOTE] == pytest.approx(8 * 2 + 102.4 + 30 + 11, abs=0.5)
    assert latency[EDGE_ONLY] == pytest.approx(80 + 30)
    assert plan.rankings["latency"].best == "early"
    assert plan.rankings["rate"].best == "late"
    assert plan.rankings["edge_load_of_cuts"].best == "early"


def test_who_is_best_depends_on_the_link() -> None:
    assert make_plan(Terms(Link(1e4, 0.06), 8)).rankings["latency"].best == EDGE_ONLY
    assert make_plan(Terms(Link(1e9, 0.06), 8)).rankings["latency"].best == REMOTE
    ranges = make_plan().rates
    assert [each.best for each in ranges] == [EDGE_ONLY, "early", REMOTE]
    assert ranges[0].from_bits_per_second == 0
    assert ranges[-1].to_bits_per_second is None
    # early and the edge alone meet where 33 ms and the link make 80, that is 25.6 kbit in 47 ms
    assert ranges[1].from_bits_per_second == pytest.approx(25600 / 0.047, rel=0.03)
    # early and pixels where 6 ms are what 76.8 kbit more take
    assert ranges[2].from_bits_per_second == pytest.approx(76800 / 0.006, rel=0.03)


def test_half_a_round_trip_is_everyone_s() -> None:
    near, far = make_plan(Terms(Link(1e6, 0.0), 8)), make_plan(Terms(Link(1e6, 0.2), 8))
    for one, other in zip(near.rows, far.rows, strict=True):
        more = other.estimate.latency_seconds - one.estimate.latency_seconds
        assert more == pytest.approx(0.1)


def test_what_differs_in_nothing_but_chance_is_not_told_apart() -> None:
    one, other = make_options()[:2]
    twin = Option("twin", "cut", one.curves, one.seconds, one.facts)
    sure = make_plan(options=[one, other])
    assert sure.rankings["latency"].share == 1
    assert sure.rankings["latency"].rivals == ()
    unsure = make_plan(options=[one, twin, other], times_excess=0.05)
    assert unsure.rankings["latency"].rivals == ("twin",)
    assert 0.3 < unsure.rankings["latency"].share < 0.7
    assert "not told apart from twin" in "\n".join(unsure.findings())


def test_frames_that_differ_make_intervals() -> None:
    steady, unsteady = make_plan().row("early"), make_plan(spread=0.5).row("early")
    assert np.ptp(steady.bytes_interval) < 1
    assert np.ptp(unsteady.bytes_interval) > 0.1 * unsteady.stages.bytes_sent
    low, high = unsteady.latency_interval_seconds
    assert low < unsteady.estimate.latency_seconds < high


def test_what_does_not_reach_the_loss_is_not_ranked() -> None:
    early, late, remote, edge = make_options()
    coarse = tuple(
        Point(each.parameter, tuple(10 * loss for loss in each.losses), (1,) * FRAMES)
        for each in remote.curves[0].points
    )
    missed = Option(REMOTE, "remote", (Curve(coarse, TARGET),), remote.seconds, remote.facts)
    plan = make_plan(options=[early, late, missed, edge])
    assert not plan.row(REMOTE).reached
    assert plan.rankings["rate"].best == "late"
    assert f"{REMOTE} does not come to a loss of 0.1" in plan.remarks()[0]


def test_what_loses_less_at_its_coarsest_is_ranked_and_said() -> None:
    early, late, remote, edge = make_options()
    fine = tuple(
        Point(each.parameter, tuple(loss / 10 for loss in each.losses), each.frame_bytes)
        for each in late.curves[0].points
    )
    spared = Option("late", "cut", (Curve(fine, TARGET),), late.seconds, late.facts)
    plan = make_plan(options=[early, spared, remote, edge])
    assert plan.rankings["rate"].best == "late"
    assert plan.remarks()[0] == (
        "late loses less than 0.1 even at its coarsest: its bytes are more than are needed."
    )
    assert "coarsest" not in make_plan().remarks()[0]


def test_several_clips_are_resampled_too() -> None:
    draws = draws_of([5, 9], 4, options=2)
    assert [each.shape for each in draws.frames] == [(RESAMPLINGS + 1, 5), (RESAMPLINGS + 1, 9)]
    assert (draws.clips[0] == 1).all()
    assert (draws.clips.sum(1) == 2).all()
    assert draws.clips[1:].std() > 0
    assert (draws_of([5], 4, options=2).clips == 1).all()
    two = [
        Option(name, "cut", (curve(100, 100), curve(100, size)), times(edge=1), {})
        for name, size in (("a", 900), ("b", 100))
    ]
    row = make_plan(options=two).row("a")
    assert row.bytes_by_clip == pytest.approx((100, 900), rel=0.1)
    assert row.stages.bytes_sent == pytest.approx(500, rel=0.1)
    assert row.bytes_interval == pytest.approx((100, 900), rel=0.1)


def test_ranks_are_of_differences() -> None:
    noise = np.random.default_rng(0).normal(size=RESAMPLINGS + 1)
    noise[0] = 0
    ranking = rank({"a": 10 + noise, "b": 10.1 + noise, "c": 10.1 - noise})
    assert (ranking.best, ranking.rivals) == ("a", ("c",))
    assert interval(noise)[0] < -1.5


def test_a_plan_is_json_with_units_in_its_names() -> None:
    found = json.loads(json.dumps(make_plan().to_json(), allow_nan=False))
    assert found["format"] == 1
    assert found["settings"]["link"] == {"bits_per_second": 1e6, "rtt_seconds": 0.06}
    assert [each["name"] for each in found["options"]] == ["early", "late", REMOTE, EDGE_ONLY]
    assert found["options"][0]["stages"]["bytes_sent"] == pytest.approx(3200, rel=0.01)
    assert found["rankings"]["latency"]["best"] == "early"


def test_the_table_says_what_is_best() -> None:
    lines = plan_text(make_plan()).splitlines()
    assert lines[0] == (
        "small, clip.mp4 (8 frames), 1 Mbit/s, round trip 60 ms, edge 8 times slower, effort 4, "
        "kl 0.1"
    )
    assert lines[4].split()[:3] == ["early", "16.0", "8.0"]
    assert any(line.startswith("Least latency of all: early, 89 ms;") for line in lines)
    assert TERMS.edge_slowdown == 8


@pytest.mark.parametrize(
    ("rate", "shown"),
    [
        (2e6, "2 Mbit/s"),
        (1.5e3, "1.5 kbit/s"),
        (1e9, "1 Gbit/s"),
        (999_999, "1 Mbit/s"),
        (999.9, "1 kbit/s"),
        (999, "999 bit/s"),
    ],
)
def test_rates_are_written_short(rate: float, shown: str) -> None:
    assert rate_shown(rate) == shown
