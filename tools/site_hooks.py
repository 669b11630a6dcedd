"""Hooks of the documentation site: they bring files from outside ``docs/`` into it, and make links to them work.

The pages of ``docs/`` are read in two places, in the repository and on the site. Their links are written for the
repository; what they point at outside ``docs/`` becomes a page or a download of the site, or else plain text.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
PAGES = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "src/rollflow/models/scenes/CARD.md": "model-card.md",
}
"""Markdown files outside ``docs/`` by their path in the repository, and the page of the site that each becomes."""
DOWNLOADS = ("examples/*.py", "examples/notebooks/*.ipynb")

_LINK = re.compile(r"(!?)\[([^\]\[]*(?:\[[^\]\[]*\][^\]\[]*)*)\]\(([^)\s]+)\)")
_FENCE = re.compile(r"^(?: *)```")


def on_files(files: Files, config: Any) -> Files:
    """Add the pages and downloads that lie outside ``docs/``."""
    for source, page in PAGES.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / source)))
    for pattern in DOWNLOADS:
        for path in sorted(ROOT.glob(pattern)):
            name = path.relative_to(ROOT).as_posix()
            files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: Any, files: Files) -> str:
    """Rewrite the links of a page that lead out of ``docs/``, or that come from a page outside of it."""
    name = page.file.src_uri
    sources = {target: source for source, target in PAGES.items()}
    return relinked(markdown, sources.get(name, f"docs/{name}"), {file.src_uri for file in files})


def on_page_content(html: str, page: Page, config: Any, files: Files) -> str:
    """Replace the ``::`` before an indented block of a docstring, which is not Markdown, by a colon."""
    return re.sub(r"::</p>(\s*<(?:div|pre)\b)", r":</p>\1", html)


def relinked(markdown: str, source: str, known: set[str]) -> str:
    """Return the text of a page with links that hold on the site.

    Args:
        markdown: Text of the page.
        source: Path of the page in the repository.
        known: Paths of all files of the site.
    """
    here = _on_site(source)

    def replace(match: re.Match[str]) -> str:
        image, text, link = match.groups()
        path, mark, anchor = link.partition("#")
        if not path or re.match(r"[a-z]+:", path):
            return match[0]
        original = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
        target = _on_site(original)
        if target not in known:  # a broken link within docs/ stays, for the build to report
            return match[0] if original.startswith("docs/") else text
        return f"{image}[{text}]({posixpath.relpath(target, posixpath.dirname(here) or '.')}{mark}{anchor})"

    lines, code = [], False
    for line in markdown.split("\n"):
        code ^= bool(_FENCE.match(line))
        lines.append(line if code else _LINK.sub(replace, line))
    return "\n".join(lines)


def _on_site(path: str) -> str:
    """The path on the site of a file of the repository; unchanged if it has none of its own."""
    return PAGES.get(path, path.removeprefix("docs/"))
