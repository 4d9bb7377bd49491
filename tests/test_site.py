"""The site builds without a warning; its links lead somewhere; it asks nothing of elsewhere."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

import codec
from codec.cli import main

ROOT = Path(__file__).resolve().parents[1]
SITE = ROOT / "tools" / "site"


def test_the_references_are_complete() -> None:
    listed = re.findall(
        r"^\.\. (?:auto\w+|data):: (\w+)$", (SITE / "python.md").read_text(), re.MULTILINE
    )
    assert sorted(listed) == sorted({*codec.__all__, "open"})
    told = re.findall(r"^\.\. lmc:: (\w+)$", (SITE / "commands.md").read_text(), re.MULTILINE)
    assert sorted(told) == sorted(main.commands)


class Page(HTMLParser):
    """What a page links to, what it loads, and what can be linked to in it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.places: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if given.get("id"):
            self.places.add(given["id"] or "")
        if tag in {"script", "img", "iframe", "source"} and given.get("src"):
            self.loaded.append(given["src"] or "")
        elif tag == "link" and given.get("rel") in {"stylesheet", "icon", "preload"}:
            self.loaded.append(given["href"] or "")
        elif tag == "a" and given.get("href"):
            self.links.append(given["href"] or "")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for name in ("sphinx", "myst_parser", "furo"):
        pytest.importorskip(name, reason="the site needs the extra `site`")
    output = tmp_path_factory.mktemp("site")
    # its own doctrees, and the code of this tree
    words = ["-W", "--keep-going", "-q", "-d", f"{output}-doctrees", "-c", SITE, ROOT, output]
    built = subprocess.run(
        [sys.executable, "-m", "sphinx", *map(str, words)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    return output


@pytest.mark.slow
def test_every_link_leads_somewhere_and_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in site.rglob("*.html")}
    names = {path.relative_to(site).as_posix() for path in pages}
    assert {"index.html", "README.html", "bitstreams/FORMAT.html", "bitstreams/LINK.html"} <= names
    assert {"tools/gallery/README.html", "tools/site/python.html"} <= names
    for path, page in pages.items():
        for link in (*page.links, *page.loaded):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                assert link not in page.loaded, f"{path.name} loads {link}"
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            assert target.is_file(), f"{path.name}: {link}"
            if parts.fragment and target in pages:
                assert unquote(parts.fragment) in pages[target].places, f"{path.name}: {link}"
    for path in site.rglob("*.css"):
        assert not re.search(r"url\(['\"]?(https?:)?//", path.read_text(encoding="utf-8")), path


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs the package selenium")
    from selenium.webdriver.chrome.service import Service

    binary, service = shutil.which("chromium"), shutil.which("chromedriver")
    if not binary or not service:
        pytest.skip("needs chromium and chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for option in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(option)
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('browser')}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(service))
    try:
        yield driver
    finally:
        driver.quit()


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_fit_and_follow_the_scheme(site: Path, browser: Any, width: int, scheme: str) -> None:
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get("about:blank")
    browser.get_log("performance")  # what the browser's own first page asked for
    wanted = {"name": "prefers-color-scheme", "value": scheme}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [wanted]})
    for name in ("index", "tools/gallery/README", "tools/site/python", "bitstreams/FORMAT"):
        browser.get((site / f"{name}.html").as_uri())
        if name == "index":  # leads on to the first page
            from selenium.webdriver.support.wait import WebDriverWait

            WebDriverWait(browser, 20).until(lambda driver: "README" in driver.current_url)
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width, name
        colour = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
        bright = [int(value) for value in re.findall(r"\d+", colour)[:3]]
        assert (min(bright) > 200) == (scheme == "light"), (name, colour)
        assert browser.find_element("css selector", "h1").is_displayed()
    assert not [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [
        message["params"]["request"]["url"]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
    ]
    assert asked
    assert all(url.startswith(("file:", "data:")) for url in asked), asked
