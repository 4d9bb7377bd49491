"""What the documents show works: code runs, commands parse, the dumped stream decodes."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import re
import shlex
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import click
import pytest

from codec import cli
from codec.errors import ModelError, TaskError
from codec.files.streams import StreamReader
from codec.format.constants import FORMAT_VERSION
from codec.models.preprocessing import read_preprocessing
from codec.pipeline.decoding import decode_frames
from codec.tasks.description import TASK_NAMES, TaskDescription

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / "bitstreams").glob("**/*.md")),
    *sorted((ROOT / "codec").glob("*.md")),
    *sorted((ROOT / "tools").glob("**/*.md")),
]
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
SHELL = {"console", "sh", "bash", "shell"}


def blocks(document: Path, languages: set[str]) -> list[str]:
    """The fenced blocks of a document in one of the languages."""
    text = document.read_text(encoding="utf-8")
    return [body for language, body in FENCE.findall(text) if language in languages]


def commands(document: Path) -> list[list[str]]:
    """Every `lmc` command in the shell blocks of a document, word by word."""
    found = []
    for block in blocks(document, SHELL):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line.removeprefix("$ "), comments=True)
            for part in split(words, {"|", "&&", ";"}):
                words_of_part = list(split(part, {">", ">>", "2>", "<"}))
                if words_of_part and words_of_part[0][:1] == ["lmc"]:
                    found.append(words_of_part[0][1:])
    return found


def split(words: list[str], separators: set[str]) -> list[list[str]]:
    parts: list[list[str]] = [[]]
    for word in words:
        if word in separators:
            parts.append([])
        else:
            parts[-1].append(word)
    return parts


def documented() -> list[pytest.param]:
    return [
        pytest.param(words, id=f"{document.name}: {' '.join(words)}")
        for document in DOCUMENTS
        for words in commands(document)
    ]


@pytest.mark.parametrize("words", documented())
def test_documented_commands_parse(words):
    command: click.Command = cli.main
    if words and words[0] in cli.main.commands:
        command, words = cli.main.commands[words[0]], words[1:]
    with suppress(click.exceptions.Exit), command.make_context("lmc", list(words)):
        pass  # --help and --version exit


@pytest.mark.video
@pytest.mark.weights
@pytest.mark.parametrize(
    "document", [document for document in DOCUMENTS if blocks(document, {"python"})], ids=str
)
def test_documented_code_runs(document, tmp_path):
    # One script, since a later block may go on where an earlier one stopped.
    script = "\n".join(blocks(document, {"python"}))
    (tmp_path / "bitstreams").symlink_to(ROOT / "bitstreams")
    finished = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_links_between_documents_lead_somewhere(document):
    text = FENCE.sub("", document.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        if "://" not in target and not target.startswith("mailto:"):
            assert (document.parent / target).exists(), target


@pytest.mark.slow
@pytest.mark.video
@pytest.mark.weights
def test_the_recipe_for_a_codec_of_ones_own_gives_its_curve(tmp_path):
    pytest.importorskip("scipy", reason="the study needs the extra `study`")
    recipe = ROOT / "tools" / "README.md"
    (tmp_path / "bitstreams").symlink_to(ROOT / "bitstreams")
    (tmp_path / "my_codec.py").write_text("".join(blocks(recipe, {"python"})))
    (line,) = [
        line for block in blocks(recipe, SHELL) for line in block.splitlines() if "my_" in line
    ]
    finished = subprocess.run(
        [sys.executable, *shlex.split(line)[1:]],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    with (tmp_path / "study" / "results.csv").open(newline="") as file:
        kl = [float(row["kl"]) for row in csv.DictReader(file) if row["codec"] == "subtracted"]
    assert len(kl) == 5
    assert kl[-1] < kl[0]
    study = json.loads((tmp_path / "study" / "study.json").read_text())
    assert study["settings"]["test"] == ["lmc", "subtracted"]
    assert any(one["anchor"] == "subtracted" for one in study["comparisons"])
    assert "subtracted" in (tmp_path / "study" / "index.html").read_text()


@pytest.mark.slow
@pytest.mark.video
def test_the_recipe_for_a_detector_of_ones_own_finds_and_draws(tmp_path):
    recipe = ROOT / "codec" / "README.md"
    text = recipe.read_text(encoding="utf-8").partition("\n## Bring your detector")[2]
    section = text.partition("\n## ")[0]
    for _, body in FENCE.findall(section):
        name = re.match(r"# (\w+\.(?:py|toml))\n", body)
        if name:
            (tmp_path / name[1]).write_text(body)
    (tmp_path / "street.mp4").symlink_to(ROOT / "bitstreams" / "clip" / "car_24.mp4")
    lines = [
        line
        for language, body in FENCE.findall(section)
        if language in SHELL
        for line in body.splitlines()
    ]
    starts = {"python": [sys.executable], "lmc": [sys.executable, "-m", "codec"]}
    printed = []
    for line in lines:
        first, *words = shlex.split(line, comments=True)
        finished = subprocess.run(
            [*starts[first], *words],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert finished.returncode == 0, f"{line}: {finished.stderr}"
        printed.append(finished.stdout)
    assert "relu_2" in printed[1]
    assert json.loads((tmp_path / "boxes.json").read_text())
    assert (tmp_path / "drawn.mp4").stat().st_size > 1000


GUIDE = (ROOT / "codec" / "README.md").read_text(encoding="utf-8")
KEYS = GUIDE.partition("## Keys of the two TOML files")[2]
VALUES = {
    "labels": ["a", "b"],
    "activation": "none",
    "score_threshold": 0.5,
    "nms_iou": 0.5,
    "scores": [0],
    "boxes": [1],
    "strides": [8],
} | dict.fromkeys(("bins", "centres", "heatmaps", "regressions", "offsets", "sizes", "points"), 3)


TASKS = "| `task` | `decoder` | keys that it needs | keys with a default |"


def rows_of(header: str) -> list[list[list[str]]]:
    """The rows of a table of keys: what is in code in each cell."""
    table = KEYS.partition(f"\n{header}\n")[2].partition("\n\n")[0]
    cells = [line.strip("|").split("|") for line in table.splitlines()[1:]]
    return [[re.findall(r"`([^`]+)`", cell) for cell in row] for row in cells]


def asked(refused: pytest.ExceptionInfo) -> set[str]:
    return set(str(refused.value).partition("expected only ")[2].split(", "))


@pytest.mark.parametrize("row", rows_of(TASKS), ids=str)
def test_the_guide_has_the_keys_of_tasks(row):
    (task,), decoder, needed, more = row
    said = {"task": task.strip('"')} | ({"decoder": decoder[0].strip('"')} if decoder else {})
    values = said | {key: VALUES[key] for key in needed}
    assert TaskDescription("guide", values).task().name == said["task"]
    with pytest.raises(TaskError, match="unknown key") as refused:
        TaskDescription("guide", values | {"zzz": 1}).task()
    assert asked(refused) == {*said, *needed, *more}
    for key in needed:
        with pytest.raises(TaskError, match=f"key '{key}' is missing"):
            TaskDescription("guide", {k: v for k, v in values.items() if k != key}).task()
    explained = {key for cells in rows_of("| key | value |") for key in cells[0]}
    assert {*needed, *more} <= explained


def test_the_guide_has_all_tasks_and_the_keys_of_preprocessing(tmp_path):
    tasks = {row[0][0].strip('"') for row in rows_of(TASKS)}
    assert tasks == set(TASK_NAMES)
    path = tmp_path / "input.toml"
    path.write_text(
        'resize = "letterbox"\nsize = [1, 1]\nmean = [0, 0, 0]\nscale = [1, 1, 1]\nzzz = 1\n'
    )
    with pytest.raises(ModelError, match="unknown key") as refused:
        read_preprocessing(path)
    assert asked(refused) == {row[0][0] for row in rows_of("| key | value | default |")}


FORMAT = ROOT / "bitstreams" / "FORMAT.md"


def test_the_specification_is_of_this_version():
    text = FORMAT.read_text(encoding="utf-8")
    assert text.startswith(f"# The latent-motion stream format, version {FORMAT_VERSION}\n")
    assert f"| version | u(8) | {FORMAT_VERSION};" in text
    versions = re.findall(r"^\| (\d+) \| ", text.partition("\n## C ")[2], flags=re.MULTILINE)
    assert versions == [str(number) for number in range(FORMAT_VERSION, 0, -1)]


def test_the_specification_names_the_tables_by_their_hash():
    content = json.loads((ROOT / "codec" / "format" / "tables.json").read_text(encoding="utf-8"))
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
    appendix = FORMAT.read_text(encoding="utf-8").partition("\n## A ")[2].partition("\n## B ")[0]
    assert f"SHA-256: {hashlib.sha256(canonical).hexdigest()}\n" in appendix
    assert set(re.findall(r"^\| (\w+) \| [\d× ]+ \|", appendix, flags=re.MULTILINE)) == set(content)


def dumped_stream() -> tuple[bytes, str]:
    """The stream of appendix B and the text of the appendix.

    Its rows are an offset, bytes in hexadecimal and their meaning, in a table or in columns two
    spaces apart.  Every offset has to be that of the bytes before it.
    """
    text = FORMAT.read_text(encoding="utf-8")
    appendix = re.split(r"^## ", text.partition("\n## B ")[2], flags=re.MULTILINE)[0]
    content = b""
    for line in appendix.splitlines():
        cells = [cell.strip(" `:") for cell in re.split(r"\s{2,}|\|", line.strip(" |"))]
        cells = [cell for cell in cells if cell]
        if len(cells) < 2 or not re.fullmatch(r"(?:[0-9a-fA-F]{2} ?)+", cells[1]):
            continue
        if not re.fullmatch(r"(0x)?[0-9a-fA-F]+", cells[0]):
            continue
        offsets = {int(cells[0], 16)}
        if cells[0].isdecimal():
            offsets.add(int(cells[0]))
        assert len(content) in offsets, f"{line!r} is at offset {len(content)}"
        content += bytes.fromhex(cells[1])
    return content, appendix


def test_the_dumped_stream_decodes():
    content, appendix = dumped_stream()
    if "TBD" in appendix:
        pytest.skip("appendix B is still to be written")
    assert content, "appendix B holds no rows of offset and bytes"
    reader = StreamReader(io.BytesIO(content))
    digests = [frame.md5() for _, frame in decode_frames(reader)]
    assert digests
    assert reader.bytes_read == len(content)
    for digest in re.findall(r"\b[0-9a-f]{32}\b", appendix):
        assert digest in digests
