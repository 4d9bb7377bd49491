"""The page of a plan: it is complete, escapes what it is given, and works in a browser."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("jinja2", reason="pages need the extra `page`")

from small_plan import make_plan

from codec.planning.charts import _decades
from codec.planning.page import plan_page
from codec.planning.stages import Link, Power, Terms

HOSTILE = "</script><img src=x onerror=\"document.title='harmed'\">'\"&<!--"
Opener = Callable[[str], Any]
WIDTHS = (390, 768, 1280)


def test_nothing_outside_is_named_and_nothing_heavy_is_inside() -> None:
    text = plan_page(make_plan())
    urls = set(re.findall(r"https?://[^\"'\s)]+", text))
    assert urls == {"http://www.w3.org/2000/svg"}, "a namespace, which is not fetched"
    assert len(text) < 200_000
    assert "default-src &#39;none&#39;" in text


def test_figures_and_certainty_are_in_it() -> None:
    text = plan_page(make_plan())
    assert "89 ms; best in 100 % of the resamplings" in text
    assert "early against edge only: less latency, −21 ms" in text
    assert "early below" not in text
    assert re.search(r"edge only below \d+ kbit/s, early to", text)
    assert "top1 agreement" in text
    assert "edge, J" not in text


def test_energy_is_shown_where_a_model_is_given() -> None:
    text = plan_page(make_plan(Terms(Link(1e6, 0.06), 8, Power(4, 0.8))))
    assert "edge, J" in text
    assert "its radio 0.8 W while it sends" in text


def test_what_was_refused_is_listed() -> None:
    text = plan_page(make_plan(refused=[{"split": "deep", "reason": "features <not> finite"}]))
    assert "features &lt;not&gt; finite" in text


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (12, 18, [12, 14, 16, 18]),
        (1.2, 1.3, [1.2, 1.25, 1.3]),
        (30, 220, [50, 100, 200]),
        (3, 2000, [10, 100, 1000]),
    ],
)
def test_every_axis_has_numbers(low: float, high: float, ticks: list[float]) -> None:
    assert _decades(low, high) == pytest.approx(ticks)


# --- in a browser ---


def shown_width(driver: Any, width: int) -> None:
    driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600},
    )


def displayed(driver: Any, selector: str) -> list[Any]:
    return [one for one in driver.find_elements("css selector", selector) if one.is_displayed()]


@pytest.mark.slow
@pytest.mark.parametrize("width", WIDTHS)
def test_it_fits_every_width(opened: Opener, width: int) -> None:
    driver = opened(plan_page(make_plan(names=("add_11+add_18+leaky_relu_17", "late"), spread=0.4)))
    shown_width(driver, width)
    try:
        driver.refresh()
        sides = driver.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
        assert sides[0] <= sides[1] == width
        drawings = displayed(driver, ".drawing")
        assert len(drawings) == 2
        for drawing in drawings:
            box = drawing.find_element("xpath", "./ancestor::figure").rect
            assert drawing.rect["x"] >= box["x"]
            assert drawing.rect["x"] + drawing.rect["width"] <= box["x"] + box["width"]
        text = displayed(driver, ".drawing text.tick")[0]
        assert text.rect["height"] >= 9, "text is not scaled down"
    finally:
        driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@pytest.mark.slow
def test_bars_are_as_long_as_the_latencies(opened: Opener) -> None:
    plan = make_plan()
    driver = opened(plan_page(plan))
    for bar, row in zip(driver.find_elements("css selector", ".bars li"), plan.rows, strict=True):
        track = bar.find_element("css selector", ".track").rect["width"]
        parts = bar.find_elements("css selector", ".part")
        longest = max(each.latency_interval_seconds[1] for each in plan.rows)
        share = sum(part.rect["width"] for part in parts) / track
        assert share == pytest.approx(row.estimate.latency_seconds / longest, abs=0.02)
        assert f"{1000 * row.estimate.latency_seconds:.0f} ms" in bar.text


@pytest.mark.slow
def test_lines_and_the_strip_are_drawn(opened: Opener) -> None:
    driver = opened(plan_page(make_plan()))
    assert len(displayed(driver, ".drawing .curve")) == 4
    assert len(displayed(driver, ".drawing .curve.winner")) == 3
    strip = [one.text for one in displayed(driver, ".drawing rect + text")]
    assert strip == ["edge only", "early", "pixels by x265"]
    assert len(displayed(driver, ".drawing circle")) == 3


@pytest.mark.slow
def test_it_is_light_and_dark(opened: Opener) -> None:
    driver = opened(plan_page(make_plan()))
    seen = (
        "return [getComputedStyle(document.body).backgroundColor,"
        " getComputedStyle(document.querySelector('.part.edge')).backgroundColor,"
        " getComputedStyle(document.querySelector('.drawing .curve.cut')).stroke]"
    )
    found = {}
    for scheme in ("light", "dark"):
        driver.execute_cdp_cmd(
            "Emulation.setEmulatedMedia",
            {"features": [{"name": "prefers-color-scheme", "value": scheme}]},
        )
        found[scheme] = driver.execute_script(seen)
    assert all(a != b for a, b in zip(found["light"], found["dark"], strict=True))
    driver.find_element("css selector", ".theme").click()
    assert driver.execute_script(seen) == found["light"]


@pytest.mark.slow
def test_it_can_be_used_without_seeing_it(opened: Opener) -> None:
    driver = opened(plan_page(make_plan()))
    drawings = driver.find_elements("css selector", "svg.drawing")
    assert all(one.get_attribute("aria-label") for one in drawings)
    levels = [
        int(heading.tag_name[1]) for heading in driver.find_elements("css selector", "h1, h2, h3")
    ]
    assert levels[0] == 1
    assert levels.count(1) == 1


@pytest.mark.slow
def test_hostile_names_do_no_harm(opened: Opener) -> None:
    driver = opened(plan_page(make_plan(names=(HOSTILE, "late"), clips=[HOSTILE], model=HOSTILE)))
    assert driver.title == f"Where to cut {HOSTILE}"
    assert driver.find_elements("css selector", "img") == []
