"""The site: guides, format and gallery as they stand in the repository, and the references.

    sphinx-build -W --keep-going -c tools/site . build/site          (needs the extra `site`)

Markdown is read where it lies, so that a link leads to the same place here and in the repository;
what Python offers is read from docstrings, and what commands take from the commands.
"""

from __future__ import annotations

from typing import Any

import click
from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx.application import Sphinx

import codec
from codec.cli import main

project = "latent-motion-codec"
author = "the latent-motion-codec authors"
release = codec.__version__

CONTENTS = """

```{toctree}
:hidden:

Start here <self>
tools/gallery/README
codec/README
```

```{toctree}
:hidden:
:caption: Reference

tools/site/python
tools/site/commands
bitstreams/FORMAT
bitstreams/LINK
bitstreams/README
```

```{toctree}
:hidden:
:caption: Studies

tools/README
tools/results/README
```

```{toctree}
:hidden:
:caption: The project

CONTRIBUTING
CHANGELOG
bitstreams/clip/README
```
"""
"""Added to the README, which is the first page."""

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
root_doc = "README"
include_patterns = ["*.md", *(f"{folder}/**.md" for folder in ("bitstreams", "codec", "tools"))]
exclude_patterns = ["**/site-packages"]
suppress_warnings = ["misc.highlighting_failure"]  # dumps of bytes have no syntax

html_theme = "furo"
html_title = "latent-motion-codec"
html_extra_path = ["index.html"]
html_copy_source = False
html_theme_options: dict[str, list[str]] = {"top_of_page_buttons": []}

myst_heading_anchors = 3
default_role = "code"  # what single backquotes are in docstrings
autodoc_default_options = {"members": True}
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autodoc_type_aliases = {
    name: name for name in ("Array", "FrameLike", "PerTensor", "NDArray", "npt.NDArray", "Tensor")
}
napoleon_numpy_docstring = False
python_maximum_signature_line_length = 80
python_use_unqualified_type_names = True


class Help(Directive):  # type: ignore[misc,unused-ignore] # docutils comes without types
    """`.. lmc:: encode`: what `lmc encode --help` prints."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return a block of text."""
        name = self.arguments[0]
        context = click.Context(main, info_name="lmc")
        command = main.get_command(context, name)
        if command is None:
            raise self.error(f"lmc has no command {name!r}")
        below = click.Context(command, context, name, max_content_width=88, terminal_width=88)
        return [nodes.literal_block(text=command.get_help(below), language="none")]


def add_contents(_: Sphinx, name: str, source: list[str]) -> None:
    """Put the table of contents behind the README, which the repository shows without one."""
    if name == root_doc:
        source[0] += CONTENTS


def setup(app: Sphinx) -> dict[str, Any]:
    """Tell Sphinx of both."""
    app.add_directive("lmc", Help)
    app.connect("source-read", add_contents)
    return {"parallel_read_safe": True}
