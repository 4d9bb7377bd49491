"""The page of a receiver: what it serves and to whom, and that it works in a browser."""

from __future__ import annotations

import base64
import http.client
import json
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

pytest.importorskip("aioquic", reason="the live link needs the extra `live`")

import torch

from codec.live.page import FRAMES, FrameState, LivePage, LiveStatus, ShownFrame, ShownSender
from codec.live.thumbnails import thumbnails

pytestmark = pytest.mark.slow

HOSTILE = "</script><img src=x onerror=\"document.title='harmed'\">'\"&<!--"
CONNECTIONS = 16


def frames(count: int = 100) -> tuple[ShownFrame, ...]:
    """A key frame, then others, some of them concealed, skipped and lost."""
    states = [FrameState.KEY, *[FrameState.DECODED] * (count - 1)]
    states[10:13] = [FrameState.CONCEALED, FrameState.LOST, FrameState.SKIPPED]
    found = []
    for number, state in enumerate(states):
        arrived = state in {FrameState.KEY, FrameState.DECODED}
        size = 40_000 if state is FrameState.KEY else 2000 + number if arrived else 0
        found.append(ShownFrame(number, state, size, 0.08 + number / 5000 if arrived else None))
    return tuple(found)


def sender(number: int = 1, name: str = "gate", **given: Any) -> ShownSender:
    shown: dict[str, Any] = {
        "model": "efficientnet_lite0",
        "split": "blocks.4",
        "decoded": 97,
        "concealed": 1,
        "kbit_per_s": 512.25,
        "frames_per_s": 25.0,
        "loss": 0.043,
        "latency_p50": 0.091,
        "frames": frames(),
        "result_of": ShownFrame(99, FrameState.DECODED, 2099, 0.1),
        "result": [{"frame": 99, "top5": [{"class": 207, "label": "golden retriever"}]}],
        "thumbnails": (np.full((4, 6), 200, np.uint8),),
    }
    return ShownSender(number, name, **(shown | given))


def asked(page: LivePage, target: str = "/", host: str = "localhost") -> tuple[Any, bytes]:
    port = int(page.address.rsplit(":", 1)[1].strip("/"))
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", target, headers={"Host": host})
        response = connection.getresponse()
        return response, response.read()
    finally:
        connection.close()


def status(page: LivePage, target: str = "/status") -> dict[str, Any]:
    response, body = asked(page, target)
    assert response.status == 200
    found: dict[str, Any] = json.loads(body)
    return found


@pytest.fixture
def page() -> Iterator[LivePage]:
    with LivePage(0) as served:
        yield served


# --- what is served, and to whom ---


def test_the_page_is_one_file_that_names_nothing_outside(page: LivePage) -> None:
    response, body = asked(page)
    text = body.decode()
    assert response.status == 200
    assert response.headers["Content-Type"] == "text/html; charset=utf-8"
    assert {part for part in text.split('"') if part.startswith("http")} == {
        "http://www.w3.org/2000/svg"
    }
    policy = response.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    for banned in ("innerHTML", "insertAdjacentHTML", "document.write", "eval(", "style="):
        assert banned not in text


def test_the_status_is_that_of_the_last_update(page: LivePage) -> None:
    assert status(page)["senders"] == []
    page.update(LiveStatus((sender(), sender(2, "harbour")), "0.0.0.0:4433", 3, 0.2))
    found = status(page)
    assert [one["name"] for one in found["senders"]] == ["gate", "harbour"]
    assert "frames" not in found["senders"][0]
    assert found["selected"]["number"] == 1
    assert found["selected"]["frames"][:2] == [
        [0, "key", 40000, 0.08],
        [1, "decoded", 2001, 0.0802],
    ]
    assert found["selected"]["columns"] == ["class", "label"]
    assert found["selected"]["rows"] == [["207", "golden retriever"]]
    grey = found["selected"]["thumbnails"][0]
    assert (grey["width"], grey["height"]) == (6, 4)
    assert base64.b64decode(grey["grey"]) == bytes([200]) * 24
    assert found["age"] < 10


@pytest.mark.parametrize(
    ("query", "number"),
    [("?sender=2", 2), ("?sender=7", 1), ("?sender=-1", 1), ("?sender=" + "9" * 400, 1), ("?x", 1)],
)
def test_a_sender_is_asked_for_by_its_number(page: LivePage, query: str, number: int) -> None:
    page.update(LiveStatus((sender(), sender(2))))
    assert status(page, f"/status{query}")["selected"]["number"] == number


def test_what_is_shown_is_bounded(page: LivePage) -> None:
    many = sender(
        name="n" * 1000,
        frames=frames(1000),
        result=[{"x" * 500: "y" * 5000} for _ in range(100)],
        thumbnails=(np.zeros((2000, 1000), np.uint8),) * 50,
    )
    page.update(LiveStatus((many,) * 1000))
    found = status(page)
    assert len(found["senders"]) == 64
    shown = found["selected"]
    assert len(shown["name"]) == 120
    assert [frame[0] for frame in shown["frames"]] == list(range(1000 - FRAMES, 1000))
    assert (len(shown["rows"]), shown["more_rows"]) == (20, 80)
    assert len(shown["columns"][0]) == len(shown["rows"][0][0]) == 120
    assert [(one["width"], one["height"]) for one in shown["thumbnails"]] == [(125, 250)] * 8


def test_what_is_no_number_is_none(page: LivePage) -> None:
    frame = ShownFrame(0, FrameState.DECODED, 1, float("nan"))
    odd = sender(loss=float("nan"), latency_p95=float("inf"), frames=(frame,))
    page.update(LiveStatus((odd,), max_latency=float("inf")))
    found = status(page)
    assert found["max_latency"] is found["selected"]["loss"] is found["selected"]["frames"][0][3]


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:80", "LOCALHOST:8080", "[::1]:8080"])
def test_loopback_names_are_served(page: LivePage, host: str) -> None:
    assert asked(page, host=host)[0].status == 200


@pytest.mark.parametrize("target", ["/", "/status"])
@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example:80", "", "10.0.0.1"]
)
def test_other_names_are_refused(page: LivePage, host: str, target: str) -> None:
    page.update(LiveStatus((sender(name="secret"),)))
    response, body = asked(page, target, host)
    assert response.status == 403
    assert b"secret" not in body


def test_the_page_of_all_addresses_is_served_by_address_only() -> None:
    with LivePage(0, "0.0.0.0") as page:
        assert asked(page, host="10.0.0.1:8080")[0].status == 200
        assert asked(page, host="evil.example")[0].status == 403


@pytest.mark.parametrize(
    ("target", "code"),
    [("/codec", 404), ("/../../etc/passwd", 404), ("http://[", 400), ("/x" * 300, 404)],
)
def test_there_is_nothing_else(page: LivePage, target: str, code: int) -> None:
    assert asked(page, target)[0].status == code


def test_garbage_does_no_harm(page: LivePage, capfd: pytest.CaptureFixture[str]) -> None:
    port = int(page.address.rsplit(":", 1)[1].strip("/"))
    for content in (
        b"",
        b"\0" * 100,
        b"GET\r\n\r\n",
        b"GET / HTTP/9\r\n\r\n",
        b"POST / HTTP/1.1\r\n\r\n",
    ):
        with socket.create_connection(("127.0.0.1", port), timeout=10) as stranger:
            stranger.sendall(content)
            stranger.shutdown(socket.SHUT_WR)
            while stranger.recv(4096):
                pass
    assert asked(page)[0].status == 200
    assert capfd.readouterr() == ("", "")


def test_with_too_many_connections_the_oldest_is_closed(page: LivePage) -> None:
    port = int(page.address.rsplit(":", 1)[1].strip("/"))
    silent = [socket.create_connection(("127.0.0.1", port), timeout=10) for _ in range(CONNECTIONS)]
    try:
        assert asked(page)[0].status == 200
        assert silent[0].recv(1) == b""
    finally:
        for one in silent:
            one.close()


def test_a_port_that_is_taken_is_named(page: LivePage) -> None:
    port = int(page.address.rsplit(":", 1)[1].strip("/"))
    with pytest.raises(OSError, match=f"no page at 127.0.0.1 port {port}"), LivePage(port):
        pass


def test_a_page_that_is_not_entered_has_no_address() -> None:
    with pytest.raises(ValueError, match="enter it first"):
        _ = LivePage(0).address


def test_the_port_is_free_again_at_the_end() -> None:
    with LivePage(0) as page:
        port = int(page.address.rsplit(":", 1)[1].strip("/"))
        asked(page)
    with LivePage(port) as page:
        assert asked(page)[0].status == 200


# --- thumbnails ---


def test_thumbnails_are_spread_over_the_tensors_and_use_all_greys() -> None:
    features = [torch.arange(96.0).reshape(6, 4, 4), -torch.arange(8.0).reshape(2, 2, 2)]
    found = thumbnails(features, 4)
    assert [one.shape for one in found] == [(4, 4), (4, 4), (4, 4), (2, 2)]
    assert all(one.dtype == np.uint8 and (one.min(), one.max()) == (0, 255) for one in found)
    assert found[-1][0, 0] == 255
    assert len(thumbnails(features, 50)) == 8
    assert thumbnails([], 3) == thumbnails(features, 0) == []


def test_thumbnails_of_what_is_no_picture() -> None:
    odd = torch.tensor([[[float("nan"), float("inf")], [1.0, 2.0]], [[3.0, 3.0], [3.0, 3.0]]])
    first, flat = thumbnails([odd], 2)
    assert first.tolist() == [[0, 0], [128, 255]]
    assert flat.max() == 0


# --- in a browser ---


def requests(browser: Any) -> list[str]:
    """What was asked for since this was last called."""
    messages = (json.loads(entry["message"])["message"] for entry in browser.get_log("performance"))
    return [
        message["params"]["request"]["url"]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
    ]


Opener = Callable[[LiveStatus], Any]


@pytest.fixture
def opened(browser: Any, page: LivePage) -> Iterator[Opener]:
    """Open the page; afterwards, see that it complained of nothing and asked nobody else."""
    browser.get("data:,")
    browser.get_log("browser")
    requests(browser)

    def open_page(shown: LiveStatus) -> Any:
        page.update(shown)
        browser.get(page.address)
        until(browser, "return document.querySelector('main').dataset.state === 'well'")
        return browser

    yield open_page
    browser.get("data:,")
    assert browser.get_log("browser") == []
    assert [url for url in requests(browser) if not url.startswith((page.address, "data:"))] == []


def until(driver: Any, script: str) -> None:
    """Wait until a script of the page's returns true."""
    for _ in range(100):
        if driver.execute_script(script):
            return
        time.sleep(0.1)
    raise AssertionError(script)


def count(driver: Any, selector: str) -> int:
    return len(driver.find_elements("css selector", selector))


def text(driver: Any, selector: str) -> str:
    found: str = driver.find_element("css selector", selector).text
    return found


def marks(driver: Any, selector: str) -> int:
    """How many frames a path stands for."""
    paths = driver.find_elements("css selector", selector)
    return sum(path.get_attribute("d").count("M") for path in paths)


def test_frames_are_drawn_by_what_became_of_them(opened: Opener) -> None:
    driver = opened(LiveStatus((sender(),), "127.0.0.1:4433", 2, 0.2))
    assert marks(driver, "#bytes .bar.key") == 1
    assert marks(driver, "#bytes .bar.decoded") == 96
    for chart in ("#bytes", "#latency"):
        for state in ("concealed", "skipped", "lost"):
            assert marks(driver, f"{chart} .band.{state}") == 1
            assert count(driver, f"{chart} .mark.{state}") == 1
    assert marks(driver, "#latency .dot.decoded") == 96
    assert text(driver, "#bytes text.key") == "40,000 B", "larger than the axis: it says its bytes"
    assert count(driver, "#latency .limit") == 1
    assert "127.0.0.1:4433 · 2 refused" in text(driver, "#listening")
    numbers = text(driver, ".numbers").split("\n")
    assert numbers[:6] == ["Frames/s", "25.0", "Rate", "512 kbit/s", "Loss", "4.3 %"]
    assert "golden retriever" in text(driver, "#result tbody")
    assert text(driver, "#result .quiet") == "frame 99, decoded"


def test_the_page_follows_the_receiver(opened: Opener, page: LivePage) -> None:
    driver = opened(LiveStatus())
    assert "No sender is here yet" in text(driver, "main")
    assert text(driver, "#state") == "listening"
    concealed = ShownFrame(100, FrameState.CONCEALED)
    shown = sender(frames=(*frames(), concealed), result_of=concealed, result=[])
    page.update(LiveStatus((shown,)))
    until(driver, "return document.querySelectorAll('#bytes .bar').length > 0")
    assert marks(driver, "#bytes .band.concealed") == 2
    assert count(driver, "#result .note") == 1
    assert text(driver, "#result .more") == "nothing found"
    page.update(LiveStatus())
    until(driver, "return document.querySelector('#sender').hidden")


def test_thumbnails_are_drawn(opened: Opener) -> None:
    driver = opened(LiveStatus((sender(),)))
    pixel = (
        "return [...document.querySelector('canvas').getContext('2d')"
        ".getImageData(5, 3, 1, 1).data]"
    )
    assert driver.execute_script(pixel) == [200, 200, 200, 255]


def test_senders_are_selected(opened: Opener) -> None:
    driver = opened(LiveStatus((sender(), sender(2, "harbour", connected=False), sender(3))))
    assert count(driver, "#senders tbody tr") == 3
    assert text(driver, "[aria-current=true] .sender") == "gate"
    driver.find_elements("css selector", ".sender")[1].click()
    until(driver, "return document.querySelector('#about').textContent.startsWith('harbour')")
    assert text(driver, "#about") == "harbour · not connected"
    assert text(driver, "#state") == "2 senders are connected"
    time.sleep(1.2)
    assert text(driver, "[aria-current=true] .sender") == "harbour", "after two more answers"


def test_a_frame_that_is_pointed_at_is_read_out(opened: Opener) -> None:
    from selenium.webdriver import ActionChains

    driver = opened(LiveStatus((sender(),)))
    said = "return document.querySelector('section:has(#bytes) .readout').textContent"
    assert driver.execute_script(said) == "frame 99 · decoded · 2,099 bytes · 100 ms"
    chart = driver.find_element("id", "bytes")
    left = 46 + 1 - chart.size["width"] // 2
    ActionChains(driver).move_to_element_with_offset(chart, left, 0).perform()
    until(driver, f"{said} === 'frame 0 · key frame · 40,000 bytes · 80 ms'")
    assert count(driver, ".cursor") == 2, "in both charts"


def test_the_page_says_that_the_receiver_is_gone_and_finds_it_again(browser: Any) -> None:
    with LivePage(0) as page:
        page.update(LiveStatus((sender(),)))
        port = int(page.address.rsplit(":", 1)[1].strip("/"))
        browser.get(page.address)
        until(browser, "return document.querySelector('main').dataset.state === 'well'")
    until(browser, "return document.querySelector('main').dataset.state === 'gone'")
    assert "has not answered for" in text(browser, "#state")
    assert marks(browser, "#bytes .bar.decoded") == 96, "what was there is still to be seen"
    with LivePage(port) as page:
        page.update(LiveStatus((sender(), sender(2))))
        until(browser, "return document.querySelector('main').dataset.state === 'well'")
        assert count(browser, "#senders tbody tr") == 2
        browser.get("data:,")


def test_the_page_says_that_there_is_nothing_new(opened: Opener, page: LivePage) -> None:
    driver = opened(LiveStatus((sender(),)))
    page._newest = page._newest[0], time.monotonic() - 60
    until(driver, "return document.querySelector('main').dataset.state === 'stale'")
    assert text(driver, "#state").startswith("nothing new for 6")


@pytest.mark.parametrize("width", [390, 768, 1280])
def test_nothing_scrolls_sideways(opened: Opener, width: int) -> None:
    long = "a-very-long-name-of-a-camera-without-any-space-in-it-" * 2
    result = [{"category_id": 1, "bbox": [1.25] * 4, long: long, "segmentation": "x" * 500}]
    shown = (sender(name=long, split=long, result=result), sender(2, long, result=result))
    driver = opened(LiveStatus(shown))
    driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 768},
    )
    try:
        for part in (shown, shown[:1]):
            driver = opened(LiveStatus(part))
            reach = driver.execute_script(
                "return [document.documentElement.scrollWidth, innerWidth]"
            )
            assert reach[0] <= reach[1] == width
    finally:
        driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_the_theme_is_that_of_the_system(opened: Opener) -> None:
    driver = opened(LiveStatus((sender(),)))
    seen = []
    for scheme in ("light", "dark"):
        driver.execute_cdp_cmd(
            "Emulation.setEmulatedMedia",
            {"features": [{"name": "prefers-color-scheme", "value": scheme}]},
        )
        seen.append(
            driver.execute_script(
                "return [getComputedStyle(document.body).backgroundColor,"
                "getComputedStyle(document.querySelector('#bytes .bar')).stroke]"
            )
        )
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    assert all(light != dark for light, dark in zip(*seen, strict=True))


def test_hostile_names_and_results_do_no_harm(opened: Opener) -> None:
    result = [{HOSTILE: HOSTILE}]
    given = {"name": HOSTILE, "model": HOSTILE, "split": HOSTILE, "result": result}
    shown = sender(1, **given), sender(2, **given)
    driver = opened(LiveStatus(shown, HOSTILE))
    assert text(driver, ".sender") == HOSTILE, "the name comes through whole"
    assert text(driver, "#result tbody td") == text(driver, "#result th") == HOSTILE
    driver.find_elements("css selector", ".sender")[1].click()
    time.sleep(0.7)
    assert driver.title == "Live link"
    assert count(driver, "img") == 0


def test_the_page_can_be_used_without_seeing_it(opened: Opener) -> None:
    driver = opened(LiveStatus((sender(), sender(2))))
    unnamed = driver.execute_script(
        "return [...document.querySelectorAll('button, canvas, svg[role=img], [tabindex]')].filter("
        "(one) => !one.getAttribute('aria-label') && !one.getAttribute('aria-labelledby')"
        " && !one.textContent.trim()).map((one) => one.outerHTML)"
    )
    assert unnamed == []
    assert count(driver, "h1") == 1
    assert count(driver, ".sender[aria-pressed=true]") == 1
