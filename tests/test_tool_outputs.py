"""Outputs of the commands in tools/: no input is overwritten, and errors are one line."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from tools.running.outputs import guarded, write_text


def test_inputs_are_refused(tmp_path: Path) -> None:
    path, link = tmp_path / "in", tmp_path / "link"
    path.write_text("mine")
    link.symlink_to(path)
    with (
        pytest.raises(click.UsageError, match="same file"),
        guarded({"-o": str(link)}, [("CLIPS", path)]),
    ):
        pytest.fail("nothing is done")
    with guarded({"-o": str(path)}):
        pass  # a study may be done again


def test_errors_are_told_as_click_does() -> None:
    with (
        pytest.raises(click.ClickException, match=r"^missing: no such file or directory$"),
        guarded(),
    ):
        Path("missing").read_text()


def test_a_full_disk_is_told_with_the_name() -> None:
    with pytest.raises(click.ClickException, match=r"^/dev/full: no space left"), guarded():
        write_text(Path("/dev/full"), "text")


def commands() -> list[tuple[str, Callable[[Path], list[str]]]]:
    return [
        ("ablation", lambda path: [str(path), "-o", str(path)]),
        ("make.picture", lambda path: [str(path), str(path)]),
    ]


@pytest.mark.parametrize(("name", "arguments"), commands())
def test_a_command_does_not_destroy_its_input(
    tmp_path: Path, name: str, arguments: Callable[[Path], list[str]]
) -> None:
    module: Any = pytest.importorskip(f"tools.{name}")
    path = tmp_path / "clip.png"
    path.write_text("mine")
    result = CliRunner().invoke(module.main, arguments(path))
    assert result.exit_code == 2, result.output
    assert "same file" in result.stderr
    assert path.read_text() == "mine"


def test_a_study_does_not_destroy_its_labels(tmp_path: Path) -> None:
    module: Any = pytest.importorskip("tools.rate_distortion.command")
    labels, clip = tmp_path / "frames.csv", tmp_path / "clip.mp4"
    labels.write_text("clip,frame,class\n")
    clip.write_text("mine")
    arguments = [str(clip), "-o", str(tmp_path), "--labels", str(labels)]
    result = CliRunner().invoke(module.main, arguments)
    assert result.exit_code == 2, result.output
    assert "frames.csv" in result.stderr
    assert labels.read_text() == "clip,frame,class\n"


def test_tables_say_how_they_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    from tools.make import tables

    for words, message in [([], "usage"), (["/dev/full"], "/dev/full: no space left")]:
        monkeypatch.setattr(sys, "argv", ["tables", *words])
        with pytest.raises(SystemExit, match=message):
            tables.main()
