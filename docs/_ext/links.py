"""Every link of the built pages leads somewhere, and no page needs a network. A broken link is a warning."""

from __future__ import annotations

from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

from docutils.nodes import document
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.util import logging

logger = logging.getLogger(__name__)

# What a browser loads by itself, as opposed to what a reader may follow.
LOADED = frozenset({"script", "img", "iframe", "source", "object"})


class Page(HTMLParser):
    """What a page links to and loads, and which anchors it has."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.anchors = {""}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value for name, value in attrs if value}
        for name in ("id", "name"):
            self.anchors.add(values.get(name, ""))
        for name in ("href", "src", "data"):
            target = values.get(name)
            if target:
                is_loaded = tag in LOADED or (tag == "link" and values.get("rel") != "canonical")
                (self.loaded if is_loaded else self.links).append(target)


def problems(site: Path) -> Iterator[str]:
    """One sentence per link that leads nowhere, and per resource that is not in the site."""
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in site.rglob("*.html")}
    for path, page in pages.items():
        name = path.relative_to(site)
        for target in {*page.links, *page.loaded}:
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                if target in page.loaded and parts.scheme != "data":
                    yield f"{name}: {target} would be loaded from another machine"
                continue
            file = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not file.exists():
                yield f"{name}: {target} leads to no file"
            elif file in pages and unquote(parts.fragment) not in pages[file].anchors:
                yield f"{name}: {target} leads to no such place of that page"


def show_folders_as_text(app: Sphinx, doctree: document) -> None:
    """A link to a folder of the source code, which the site does not have, becomes text. A file is copied."""
    for node in list(doctree.findall(pending_xref)):
        if node.get("reftype") == "myst":
            folder = (Path(app.srcdir) / node["refdoc"]).parent / node["reftarget"]
            if folder.is_dir():
                node.replace_self(node.children)


def check(app: Sphinx, error: Exception | None) -> None:
    if error is None and app.builder.format == "html":
        for problem in sorted(problems(Path(app.outdir))):
            logger.warning(problem)


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("doctree-read", show_folders_as_text)
    app.connect("build-finished", check)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
