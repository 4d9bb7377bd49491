"""Hypothesis profiles, determinism between tests, and the folder of clips and weights."""

from __future__ import annotations

import os

# Before anything loads OpenMP, here and in the processes that tests start: the tensors are small,
# the cores are taken by other tests, and threads that wait for one another in turns cost most.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import json
import random
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from torch import nn

# The first example pays for warming up torch, so a deadline per example would only be noise.
settings.register_profile("dev", max_examples=50, deadline=None)
settings.register_profile("ci", max_examples=100, deadline=None, derandomize=True)
settings.register_profile("few", max_examples=10, deadline=None, derandomize=True)  # mutate.py
settings.register_profile("nightly", max_examples=10_000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "dev"))


@pytest.fixture(autouse=True)
def _isolation() -> Iterator[None]:
    """One torch thread at the start of each test; at its end random generators as they were,
    gradients on, which commands of tools/ switch off, and the scheduling usual, which SVT-AV1 makes
    that of real time if root opens it: browsers started then have hung the whole machine.

    torch is looked up rather than imported: the tests of the lower floors run without it.
    """
    torch = sys.modules.get("torch")
    python_state = random.getstate()
    numpy_state = np.random.get_state()  # noqa: NPY002 -- the global generator is what leaks
    torch_state = None
    schedule = None
    if hasattr(os, "sched_getscheduler"):
        schedule = os.sched_getscheduler(0), os.sched_getparam(0)
    if torch is not None:
        torch.set_num_threads(1)
        torch_state = torch.get_rng_state()
    yield
    if schedule is not None and os.sched_getscheduler(0) != schedule[0]:
        os.sched_setscheduler(0, *schedule)
    random.setstate(python_state)
    np.random.set_state(numpy_state)  # noqa: NPY002
    if torch is not None:
        torch.set_rng_state(torch_state)
        torch.set_grad_enabled(True)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder with videos/, weights/ and calibration/ that LMC_DATA names."""
    named = os.environ.get("LMC_DATA")
    if not named:
        pytest.skip("LMC_DATA is not set: no folder with videos/, weights/ and calibration/")
    folder = Path(named)
    if not folder.is_dir():
        pytest.fail(f"LMC_DATA names {folder}, which is not a folder")
    return folder


@pytest.fixture(scope="session")
def efficientnet() -> nn.Module:
    """The default model."""
    from codec.models.sources import load_model

    return load_model("efficientnet_lite0")


@pytest.fixture(scope="session")
def resnet() -> nn.Module:
    """A network of the paper, without its weights."""
    from codec.models.sources import load_model

    return load_model("resnet34", "random:1")


@pytest.fixture(scope="session")
def densenet() -> nn.Module:
    """The other one."""
    from codec.models.sources import load_model

    return load_model("densenet121", "random:1")


# --- pages in a browser ---

OPTIONS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--force-prefers-reduced-motion", "--window-size=1200,900",
)  # fmt: skip


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A headless Chromium that logs everything."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs the package selenium")
    from selenium.webdriver.chrome.service import Service

    binary = shutil.which("chromium") or shutil.which("google-chrome")
    service = shutil.which("chromedriver")
    if not binary or not service:
        pytest.skip("needs chromium and chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for option in (*OPTIONS, f"--user-data-dir={tmp_path_factory.mktemp('browser')}"):
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(service))
    try:
        yield driver
    finally:
        driver.quit()


@pytest.fixture
def opened(browser: Any, tmp_path: Path) -> Iterator[Callable[[str], Any]]:
    """Open a page; afterwards, see that it has complained of nothing and asked for nothing."""
    browser.get("data:,")
    for kind in ("browser", "performance"):
        browser.get_log(kind)  # of other tests

    def open_page(text: str) -> Any:
        path = tmp_path / "page.html"
        path.write_text(text, encoding="utf-8")
        browser.get(path.as_uri())
        return browser

    yield open_page
    assert browser.get_log("browser") == []
    messages = (json.loads(entry["message"])["message"] for entry in browser.get_log("performance"))
    requested = [
        message["params"]["request"]["url"]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
    ]
    assert [url for url in requested if not url.startswith(("file:", "data:", "blob:"))] == []
