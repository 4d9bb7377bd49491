"""The pages of the studies: what they are made of, and that they work in a browser, offline."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("jinja2", reason="pages need the extra `study`")
pytest.importorskip("matplotlib", reason="pages need the extra `study`")
pytest.importorskip("plotly", reason="pages need the extra `study`")
pytest.importorskip("scipy", reason="pages need the extra `study`")

from markupsafe import Markup
from small_study import CLIPS, PIXEL, make_detection, make_study

from codec.pages.shell import ASSETS, Section, embedded_json, numbers, table
from tools.rate_distortion.page import study_page
from tools.report.page import CHARTS, asset, embedded_figure, render_page

pytestmark = pytest.mark.slow

HOSTILE = "</script><img src=x onerror=\"document.title='harmed'\">'\"&<!--"


# --- what pages are made of ---


def page(**given: Any) -> str:
    return render_page(**{"title": "T", "lead": "L", "sections": [], "provenance": {}, **given})


def test_anchors_are_slugs_of_titles() -> None:
    assert Section("Time & memory", "").anchor == "time-memory"
    assert Section("Codecs", "", anchor="all codecs").anchor == "all-codecs"
    assert Section("–", "").anchor == "section"


@pytest.mark.parametrize("titles", [("A", "a"), ("Provenance",)])
def test_anchors_must_differ(titles: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="expected all different"):
        page(sections=[Section(title, "") for title in titles])


def test_only_pages_with_charts_carry_plotly() -> None:
    assert len(page()) < 40_000
    assert len(page(scripts=(CHARTS,))) > 1_000_000


def test_a_script_cannot_end_its_element() -> None:
    with pytest.raises(ValueError, match="would end its element"):
        page(scripts=("'</SCRIPT>'",))


def test_text_is_escaped_and_bodies_are_not() -> None:
    text = page(title="<i>", lead="<u>", sections=[Section("<s>", "<em>body</em>", note="<q>")])
    assert not re.search("<(i|u|s|q)>", text)
    assert "<em>body</em>" in text


def test_payload_survives_and_holds_no_markup() -> None:
    text = embedded_json({"name": HOSTILE, "value": 1.5})
    assert "<" not in text
    assert json.loads(text) == {"name": HOSTILE, "value": 1.5}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_payload_must_be_finite(value: float) -> None:
    with pytest.raises(ValueError, match="Out of range float"):
        embedded_json({"value": value})


def test_provenance_is_listed() -> None:
    text = page(provenance={"command": "python -m x <y>", "versions": {"torch": "2.9"}})
    assert "python -m x &lt;y&gt;" in text
    assert "torch 2.9" in text


def test_table_escapes_formats_and_aligns() -> None:
    text = table(
        ["clip", "bytes", "%", "text"],
        [["<b>", 12345, "−41 %", Markup("<i>ok</i>")], ["c", 0.123456, None, "x"]],
        "Caption",
        totals=1,
    )
    assert "<b>" not in text
    assert ">12,345<" in text
    assert ">0.1235<" in text
    assert "<i>ok</i>" in text
    assert text.count('scope="col" class="number"') == 2
    assert text.count('class="total"') == 1


def test_table_refuses_ragged_rows() -> None:
    with pytest.raises(ValueError, match="a row of 1 cells under a header of 2"):
        table(["a", "b"], [["x"]])


def test_headline_numbers_are_escaped() -> None:
    assert "&lt;b&gt;" in numbers([("<b>", "−50 %", "")])


def test_figures_stand_beside_each_other(tmp_path: Path) -> None:
    """An SVG's ids are its own, its style rule does not leak, its inks are the theme's."""
    svg = (
        '<?xml version="1.0"?><svg width="72pt" viewBox="0 0 72 36"><metadata>m</metadata><defs>'
        '<style type="text/css">*{stroke-linejoin: round}</style></defs><g id="a">'
        '<use href="#b" style="fill: #1b1f24"/><path clip-path="url(#c)"/></g></svg>'
    )
    for name in ("one.10.svg", "two.10.svg"):
        (tmp_path / name).write_text(svg.replace(">m<", f">{name}<"))
    one, two = (embedded_figure(tmp_path / f"{name}.10", "<b>") for name in ("one", "two"))
    ids = [set(re.findall(r'\bid="([^"]+)"', figure)) for figure in (one, two)]
    assert not ids[0] & ids[1]
    prefix = re.search(r'id="(f\w+)-a"', one)
    assert prefix
    assert f'href="#{prefix[1]}-b"' in one
    assert f"url(#{prefix[1]}-c)" in one
    assert "var(--ink)" in one
    assert "<style" not in one
    assert "metadata" not in one
    assert 'aria-label="&lt;b&gt;"' in one


def test_a_bitmap_becomes_a_data_uri(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"png")
    assert 'src="data:image/png;base64,cG5n" alt="c"' in embedded_figure(tmp_path / "x.png", "c")


def test_nothing_outside_is_named() -> None:
    """Beside namespaces and licences, which are not fetched."""
    text = study_page(make_study())
    text = text.replace(re.findall(r"<script>.*?</script>", text, re.DOTALL)[1], "")  # Plotly
    urls = set(re.findall(r"https?://[^\"'\s)]+", text))
    assert urls <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}


def test_every_comparison_is_in_the_page() -> None:
    text = study_page(make_study())
    assert text.count('data-measure="bd_rate"') == 1
    assert "−40.0" in text
    assert f"{CLIPS[1]} against pixels-x265: too few points" in text
    assert "−50.0 … −30.0" in text
    assert "1 of 2" in text
    assert "out of its range" in text
    assert "qp=14 … 38" in text


def test_a_study_of_another_format_is_refused() -> None:
    with pytest.raises(ValueError, match="a study of format 2"):
        study_page({**make_study(), "format": 2})


def test_a_bare_study_makes_a_page() -> None:
    bare = {"comparisons": [], "showcases": [], "refused": []}
    assert "</html>" in study_page({**make_study(), **bare})


def test_what_the_study_module_writes_is_what_the_page_reads() -> None:
    from tools.rate_distortion.study import Study

    made = make_study(("a.mp4", "b.mp4", "c.mp4"))
    study = Study(made["settings"], made["provenance"], made["points"], made["refused"])
    text = study_page(study.to_json())
    assert "BD-rate of lmc" in text
    assert "BD-KL of lmc" in text


def test_assets_use_no_banned_function() -> None:
    for source in ((ASSETS / "page.js").read_text(), asset("rate_distortion.js")):
        assert not re.search(r"\beval\b|innerHTML|insertAdjacentHTML|document\.write", source)


# --- in a browser ---

Opener = Callable[[str], Any]


@pytest.fixture(scope="module")
def study_text() -> str:
    return study_page(make_study())


def choose(driver: Any, select: str, value: str) -> None:
    driver.execute_script(
        "const one = document.getElementById(arguments[0]); one.value = arguments[1];"
        "one.dispatchEvent(new Event('change'));",
        select,
        value,
    )


def traces(driver: Any, chart: str = "curve-chart") -> dict[str, Any]:
    found: list[Any] = driver.execute_script(
        "return document.getElementById(arguments[0]).data.map((trace) => ["
        "trace.uid ?? trace.name, [...trace.x], [...trace.y], trace.visible ?? true])",
        chart,
    )
    return {name: (x, y, visible) for name, x, y, visible in found}


def test_curves_are_drawn_and_follow_the_selects(opened: Opener, study_text: str) -> None:
    driver = opened(study_text)
    found = traces(driver)
    assert set(found) == {"lmc", "tiles", "pixels-x265", "mine", "lossless"}
    rates, losses, _ = found["lmc"]
    assert len(rates) == 5
    assert rates == sorted(rates)
    assert losses == sorted(losses, reverse=True)
    choose(driver, "curve-clip", CLIPS[1])
    assert traces(driver)["lmc"][0][0] == pytest.approx(2 * rates[0], rel=0.02)
    choose(driver, "curve-x", "kbit_per_s")
    assert traces(driver)["lmc"][0][0] == pytest.approx(0.4 * rates[0], rel=0.02)
    choose(driver, "curve-x", "bits_per_element")
    assert traces(driver)["pixels-x265"][0], "counted by the elements of the split"
    choose(driver, "curve-y", "top1_agreement")
    assert max(traces(driver)["lmc"][1]) <= 1
    choose(driver, "curve-y", "nrmse")
    assert "pixels-x265" not in traces(driver), "pixels have no features"
    choose(driver, "curve-split", "blocks.4")
    assert set(traces(driver)) == {"lmc"}


def test_points_of_all_variants_can_be_shown(opened: Opener, study_text: str) -> None:
    driver = opened(study_text)
    before = traces(driver)
    driver.find_element("id", "curve-all").click()
    after = traces(driver)
    assert set(after) - set(before) == {"tiles rest", "pixels-x265 rest"}


def test_the_legend_hides_a_codec_and_keeps_it_hidden(opened: Opener, study_text: str) -> None:
    driver = opened(study_text)
    driver.execute_script(
        "document.querySelector('#curve-chart .legendtoggle').dispatchEvent("
        "new MouseEvent('mousedown', {bubbles: true}));"
        "document.querySelector('#curve-chart .legendtoggle').dispatchEvent("
        "new MouseEvent('mouseup', {bubbles: true}));"
    )
    hidden = "return document.getElementById('curve-chart').data[0].visible === 'legendonly'"
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(driver, 5).until(lambda one: one.execute_script(hidden))
    choose(driver, "curve-clip", CLIPS[1])
    shown = driver.execute_script(
        "return document.getElementById('curve-chart')._fullData[0].visible"
    )
    assert shown == "legendonly"


def test_comparisons_follow_the_selects(opened: Opener, study_text: str) -> None:
    driver = opened(study_text)
    visible = (
        "return [...document.querySelectorAll('[data-choice=\"bd\"]:not([hidden]) caption')]"
        ".map((one) => one.textContent)"
    )
    assert [text[:7] for text in driver.execute_script(visible)] == ["BD-rate"]
    choose(driver, "bd-measure", "bd_kl")
    assert [text[:5] for text in driver.execute_script(visible)] == ["BD-KL"]
    choose(driver, "bd-split", "blocks.4")
    assert driver.execute_script(visible) == []


def test_frames_are_stacked_by_part(opened: Opener, study_text: str) -> None:
    driver = opened(study_text)
    found = traces(driver, "frame-chart")
    assert list(found) == ["header", "motion", "residual", "KL"]
    assert found["header"][1] == [32] * 4
    choose(driver, "frame-codec", "tiles")
    assert list(traces(driver, "frame-chart")) == ["all bits", "KL"]
    choose(driver, "frame-codec", "lossless")


def test_showcase_draws_frames_fields_channels_and_maps(opened: Opener, study_text: str) -> None:
    driver = opened(study_text)

    def count(selector: str) -> int:
        return len(driver.find_elements("css selector", selector))

    assert count("#show-strip image") == 2
    assert count("#show-strip .arrows") == 1, "one of the frames has no field"
    assert count("#show-strip .triple [role=img]") == 6
    tip = driver.find_element("css selector", ".arrows .shaft").get_attribute("d")
    # at (15.5, 15.5), content came from 2.5 pixels to the left: three times as long, to the right
    assert tip.startswith("M11.8 15.5L19.3 15.5")
    assert PIXEL in driver.find_element("css selector", "#show-strip image").get_attribute("href")
    values = driver.execute_script(
        "return document.getElementById('map-channel-bits').data[0].z.flat()"
    )
    assert values == [100, 200, 300, None]
    driver.find_element("id", "show-vectors").click()
    assert not driver.find_element("css selector", ".arrows").is_displayed()


def test_the_page_of_a_detector_speaks_of_its_task(opened: Opener) -> None:
    driver = opened(study_page(make_detection()))
    assert len(traces(driver)["lmc"][0]) == 5
    assert traces(driver)["lmc"][1][-1] == pytest.approx(0.008)
    choose(driver, "curve-y", "ap")
    assert max(traces(driver)["lmc"][1]) <= 1
    assert list(traces(driver, "frame-chart")) == ["header", "motion", "residual", "distortion"]
    visible = (
        "return [...document.querySelectorAll('[data-choice=\"bd\"]:not([hidden]) caption')]"
        ".map((one) => one.textContent)"
    )
    assert driver.execute_script(visible)[0].startswith("BD-rate of lmc at equal squared score")
    choose(driver, "bd-measure", "bd_rate-output_error")
    assert driver.execute_script(visible)[0].startswith("BD-rate of lmc at equal output error")
    assert len(driver.find_elements("css selector", "#show-results img")) == 2
    assert "score error 0.1" in driver.find_element("id", "show-summary").text
    said = driver.execute_script("return document.body.innerText")
    assert not re.search(r"\bKL\b|top-1|nats", said)


def test_theme_follows_the_system_and_the_toggle_is_remembered(
    opened: Opener, study_text: str
) -> None:
    driver = opened(study_text)
    background = "return getComputedStyle(document.body).backgroundColor"
    font = "return document.getElementById('curve-chart').layout.font.color"

    def emulate(scheme: str) -> None:
        driver.execute_cdp_cmd(
            "Emulation.setEmulatedMedia",
            {"features": [{"name": "prefers-color-scheme", "value": scheme}]},
        )

    def seen() -> tuple[str, str]:
        return driver.execute_script(background), driver.execute_script(font)

    def seen_after(act: Callable[[], object]) -> tuple[str, str]:
        """Act, and reload.  What a page stored in the moment before that is lost now and then: it
        is given time, and a second chance.
        """
        for pause in (0.5, 1, 2, 4):
            before = seen()
            act()
            acted = seen()
            time.sleep(pause)
            driver.refresh()
            if seen() == acted != before:
                break
        return seen()

    def click() -> None:
        driver.find_element("css selector", ".theme").click()

    emulate("dark")
    dark = seen()
    emulate("light")
    light = seen()
    assert all(a != b for a, b in zip(light, dark, strict=True))
    click()
    assert seen() == dark
    click()
    assert seen() == light
    assert seen_after(click) == dark
    assert seen_after(click) == light


def test_a_phone_need_not_scroll_sideways(opened: Opener, study_text: str) -> None:
    driver = opened(study_text)
    driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": 390, "height": 800, "deviceScaleFactor": 1, "mobile": True},
    )
    try:
        driver.refresh()
        width = driver.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
        assert width[0] <= width[1] == 390
        inside = "return document.querySelector('.strip').scrollWidth > innerWidth"
        assert driver.execute_script(inside), "the strip scrolls within its card"
    finally:
        driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_the_page_can_be_used_without_seeing_it(opened: Opener, study_text: str) -> None:
    driver = opened(study_text)
    unnamed = driver.execute_script(
        "const named = (one) => one.labels?.length || one.getAttribute('aria-label')"
        "  || one.textContent.trim();"
        "return [...document.querySelectorAll('main select, main input, button, a[href]')]"
        "  .filter((one) => !named(one)).map((one) => one.outerHTML)"
    )
    assert unnamed == []
    levels = [
        int(heading.tag_name[1]) for heading in driver.find_elements("css selector", "h1, h2, h3")
    ]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert driver.find_elements("css selector", "img:not([alt])") == []


def test_hostile_names_do_no_harm(opened: Opener) -> None:
    driver = opened(study_page(make_study((HOSTILE, f"{HOSTILE}2"), own=HOSTILE)))
    assert HOSTILE in traces(driver), "the name comes through whole"
    choose(driver, "curve-clip", f"{HOSTILE}2")
    choose(driver, "frame-codec", HOSTILE)
    driver.execute_script(
        "const chart = document.getElementById('curve-chart');"
        "chart.data.forEach((_, number) => Plotly.Fx.hover(chart,"
        "  [{curveNumber: number, pointNumber: 0}]))"
    )
    assert driver.title != "harmed"
    assert driver.find_elements("css selector", "img") == []


def test_a_page_without_charts_works_too(opened: Opener) -> None:
    driver = opened(page(sections=[Section("One", "<p>text</p>"), Section("Two", "<p>text</p>")]))
    links = [link.text for link in driver.find_elements("css selector", ".bar nav a")]
    assert links == ["One", "Two", "Provenance"]
    driver.find_element("css selector", ".theme").click()
