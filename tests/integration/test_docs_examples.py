"""Every code block of the documentation runs as it is printed, in the order of its page."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from support.page_examples import ROOT, SHOWN, Block, PageRun, blocks, pages, starts_a_collector
from support.server import TelemetryServer
from support.waiting import wait_until

PAGES = {path.relative_to(ROOT).as_posix(): blocks(path) for path in pages()}
WORDS = (
    "continues",
    "own process",
    "file ",
    "background until ",
    "background output",
    "output",
    "eventually",
    "shown, ",
)


def is_run(block: Block) -> bool:
    return block.language not in SHOWN or block.word == "output"


@pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX shell")
@pytest.mark.parametrize("page", [page for page, found in PAGES.items() if any(map(is_run, found))])
def test_the_examples_of_a_page_run(page: str, tmp_path: Path, server: TelemetryServer) -> None:
    for needed in ("adbc_driver_sqlite.dbapi", "duckdb", "starlette"):
        pytest.importorskip(needed)
    with PageRun(tmp_path, server.port) as run:
        run.run(PAGES[page])
        if sends_to_the_server(PAGES[page]):
            wait_until(lambda: server.requests, what=lambda: f"{page}: nothing has arrived")


def sends_to_the_server(page: list[Block]) -> bool:
    return not starts_a_collector(page) and any(
        "127.0.0.1:8317" in block.code for block in page if block.language == "python"
    )


@pytest.mark.parametrize("page", PAGES)
def test_a_page_says_of_each_block_how_it_is_tested(page: str) -> None:
    for block in PAGES[page]:
        assert block.language in SHOWN | {"python", "sh"}, f"{block}: tag it python, sh or text"
        assert not block.word or block.word.startswith(WORDS), f"{block}: {block.word}"


@pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX shell")
def test_a_block_that_fails_fails_its_page(tmp_path: Path, server: TelemetryServer) -> None:
    for number, block in enumerate(
        [
            Block("a page", "python", "raise SystemExit(1)", 1),
            Block("a page", "python", "import warnings; warnings.warn('old')", 1),
            Block("a page", "sh", "false\ntrue", 1),
            Block("a page", "sh", "pip install no-such-package-at-all", 1),
            Block("a page", "sh", "make no-such-target-at-all", 1),
            Block("a page", "sh", "true", 1, "background until ready"),
            Block("a page", "text", "something else\n", 1, "output"),
        ]
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        with PageRun(folder, server.port) as run, pytest.raises(AssertionError, match="a page, line 1"):
            run.run([block])
