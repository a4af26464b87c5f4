"""The code blocks of a page, and what runs them.

A page's blocks run in order in one folder, as its reader would run them:

    ```python    a program; those that follow one another share a process, each with names of its own
    ```sh        a script; it ends with 0
    ```text      shown, not run; so are the languages in `SHOWN`

A comment above a block says what else there is to know:

    <!-- example: continues -->             the python block above goes on here, with its names
    <!-- example: own process -->           the python block changes its process
    <!-- example: file NAME -->             the block is the file NAME of the folder
    <!-- example: background until TEXT --> the script goes on until the page ends; the next block waits for TEXT
    <!-- example: output -->                the text is what the block above has printed; `...` is anything
    <!-- example: background output -->     the text is in what a script in the background has printed, or will print
    <!-- example: eventually -->            the block is run until it succeeds, and its output is what is shown
    <!-- example: shown, REASON -->         the block cannot be run here

A block within a comment is run, and the reader does not see it. The ports in `PORTS` become free ones. Where the page
starts no collector of its own, 8317 is the test's server.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from support.server import refused_url
from support.waiting import wait_until

ROOT = Path(__file__).parents[2]
PORTS = ("8317", "8318", "8000")
SHOWN = frozenset({"text", "mermaid", "json", "toml", "yaml", "ini", "sql", "http"})
TIMEOUT = 60.0

_BLOCK = re.compile(
    r"^(?:<!-- example: (?P<word>.+?) -->\n)?```(?P<language>[^\n]*)\n(?P<code>.*?)^```$", re.M | re.S
)
_RUNNER = Path(__file__).with_name("run_examples.py")
# The command; without --port, a collector takes the port of the page and not its default, which may be taken.
_COMMAND = """case "$1 $*" in
*--port*) ;;
collect*|serve*) set -- "$@" --port {port} ;;
esac
exec "$TEST_PYTHON" -m adbc_telemetry "$@\""""
_PIP = Path(__file__).with_name("pretend_pip.py")


@dataclass(frozen=True)
class Block:
    """A code block: its language, its text, the line where it begins, and what the comment above it says."""

    page: str
    language: str
    code: str
    line: int
    word: str = ""

    def __str__(self) -> str:
        return f"{self.page}, line {self.line}"


def blocks(path: Path) -> list[Block]:
    """The code blocks of a page, in order. Sphinx's directives are none."""
    text = path.read_text(encoding="utf-8")
    page = path.relative_to(ROOT).as_posix()
    return [
        Block(
            page,
            found["language"],
            found["code"],
            text.count("\n", 0, found.start("code")) + 1,
            found["word"] or "",
        )
        for found in _BLOCK.finditer(text)
        if not found["language"].startswith("{")
    ]


def pages() -> list[Path]:
    """The README, and all pages of the documentation and of the examples."""
    return sorted(
        [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").glob("*/README.md")]
    )


def starts_a_collector(page: list[Block]) -> bool:
    """Whether a page has a collector of its own, from one block to its end."""
    return any(
        block.word.startswith("background") and "adbc-telemetry collect" in block.code for block in page
    )


def printed_as(expected: str) -> re.Pattern[str]:
    """A pattern of the output that a page shows: `...` is anything, and blanks at the end of a line are nothing."""
    lines = "\n".join(line.rstrip() for line in expected.strip().splitlines())
    return re.compile(".*?".join(re.escape(part) for part in lines.split("...")), re.S)


@dataclass
class PageRun:
    """Runs the blocks of one page. A context manager: its end ends all processes of the page.

    Args:
        folder: where the blocks run.
        server_port: of the server that the endpoint of the examples becomes, on a page without a collector.
    """

    folder: Path
    server_port: int
    _ports: dict[str, str] = field(default_factory=dict)
    _processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    _printed: str = ""

    def run(self, page: list[Block]) -> None:
        """Run all blocks.

        Raises:
            AssertionError: a block has failed, or has printed something else than the page says.
        """
        self._ports = {port: refused_url().rpartition(":")[2] for port in PORTS}
        if not starts_a_collector(page):
            self._ports["8317"] = str(self.server_port)
        self._write_commands()
        self._copy_files_beside(page[0])
        for group in _grouped(page):
            self._run_group(group)

    def _run_group(self, group: list[Block]) -> None:
        block = group[0]
        kind, _, argument = block.word.partition(" ")
        if kind == "file":
            (self.folder / argument).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / argument).write_text(self._on_free_ports(block.code), encoding="utf-8")
        elif kind == "output":
            self._compare(block)
        elif block.word == "background output":
            self._wait_for(block)
        elif kind == "background":
            self._start(block, argument.removeprefix("until "))
        elif kind == "eventually":
            self._run_until_it_succeeds(group)
        elif block.language == "python":
            self._run_python(group)
        elif block.language == "sh":
            self._run_script(block)

    def _copy_files_beside(self, block: Block) -> None:
        """The files of an example: its page's steps are done in its folder."""
        source = (ROOT / block.page).parent
        if source.is_relative_to(ROOT / "examples"):
            for file in source.iterdir():
                if file.is_file():
                    text = self._on_free_ports(file.read_text(encoding="utf-8"))
                    (self.folder / file.name).write_text(text, encoding="utf-8")

    def _compare(self, block: Block) -> None:
        shown = "\n".join(line.rstrip() for line in self._printed.strip().splitlines())
        assert printed_as(self._on_free_ports(block.code)).fullmatch(shown), f"{block}: it printed\n{shown}"

    def _run_script(self, block: Block) -> None:
        code = block.code
        if "adbc-telemetry collect" in code:  # one that lives as long as the script
            code = code.replace("8317", refused_url().rpartition(":")[2])
        self._printed, _ = self._finish(block, ["sh", "-e", "-c", self._on_free_ports(code)])

    def _run_python(self, group: list[Block]) -> None:
        """Run blocks in one process. It prints a mark before each one, so that each one's output is known."""
        blocks = [block for block in group if block.language == "python"]
        programs = [
            {
                "name": str(block),
                "line": block.line,
                "code": self._on_free_ports(block.code),
                "continues": block.word == "continues",
            }
            for block in blocks
        ]
        file = self.folder / ".examples.json"
        file.write_text(json.dumps(programs), encoding="utf-8")
        command = [sys.executable, "-W", "error", str(_RUNNER), str(file)]
        printed, errors = self._finish(group[0], command)
        assert not errors, f"{group[0]}: {errors}"
        outputs = iter(printed.split("\x1e\n")[1:])
        for block in group:
            if block.language == "python":
                self._printed = next(outputs)
            else:
                self._compare(block)

    def _run_until_it_succeeds(self, group: list[Block]) -> None:
        deadline = time.monotonic() + TIMEOUT
        while True:
            try:
                if group[0].language == "python":
                    self._run_python(group)
                else:
                    self._run_script(group[0])
                    for output in group[1:]:
                        self._compare(output)
                return
            except AssertionError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def _finish(self, block: Block, command: list[str]) -> tuple[str, str]:
        """Run a command to its end; returns what it printed.

        Its output goes through files, since a process in the background may keep a pipe open.
        """
        process, output, errors = self._open(command)
        try:
            code = process.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{block}: still running after {TIMEOUT:.0f} s\n{_text(output)}") from None
        assert code == 0, f"{block}: ended with {code}\n{_text(output)}\n{_text(errors)}"
        return _text(output), _text(errors)

    def _start(self, block: Block, text: str) -> None:
        # The last line takes the shell's place, so that it is what is ended.
        before, newline, last = self._on_free_ports(block.code).rstrip().rpartition("\n")
        process, output, errors = self._open(["sh", "-e", "-c", f"{before}{newline}exec {last}"])
        wait_until(lambda: text in _text(output) + _text(errors) or process.poll() is not None, TIMEOUT)
        assert process.poll() is None, f"{block}: ended\n{_text(output)}\n{_text(errors)}"

    def _wait_for(self, block: Block) -> None:
        pattern = printed_as(self._on_free_ports(block.code))
        outputs = [
            self.folder / f".{number}.{kind}"
            for number in range(len(self._processes))
            for kind in ("out", "err")
        ]
        wait_until(
            lambda: any(pattern.search(_text(output)) for output in outputs),
            TIMEOUT,
            lambda: f"{block}: not printed\n" + "\n".join(map(_text, outputs)),
        )

    def _open(self, command: list[str]) -> tuple[subprocess.Popen[bytes], Path, Path]:
        """A process in the page's folder, and the files of its output."""
        output = self.folder / f".{len(self._processes)}.out"
        errors = output.with_suffix(".err")
        with output.open("wb") as stdout, errors.open("wb") as stderr:
            process = subprocess.Popen(
                command,
                cwd=self.folder,
                env={
                    **{
                        name: value
                        for name, value in os.environ.items()
                        if not name.startswith(("COV", "PYTEST"))
                    },
                    "PATH": f"{self.folder / '.commands'}:{os.environ['PATH']}",
                    "HOME": str(self.folder),
                    # Where matplotlib keeps what it knows of fonts: to look for them takes seconds.
                    "XDG_CACHE_HOME": os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache")),
                    "TEST_PYTHON": sys.executable,
                    "PYTHONUNBUFFERED": "1",
                    # Events of a process in the background need not wait for its end.
                    "DATABRICKS_TELEMETRY_FLUSH_INTERVAL_MS": "100",
                },
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
            )
        self._processes.append(process)
        return process, output, errors

    def _on_free_ports(self, code: str) -> str:
        for port, free in self._ports.items():
            code = re.sub(rf"\b{port}\b", free, code)
        return code

    def _write_commands(self) -> None:
        """The commands of the pages: those of this Python, a pip that only looks, and a make that only plans."""
        folder = self.folder / ".commands"
        folder.mkdir()
        scripts = {
            name: f'exec "$TEST_PYTHON" -m {name} "$@"'
            for name in ("celery", "gunicorn", "jupyter", "pytest")
        }
        scripts["adbc-telemetry"] = _COMMAND.format(port=self._ports["8317"])
        scripts["python"] = 'exec "$TEST_PYTHON" "$@"'
        scripts["pip"] = f'exec "$TEST_PYTHON" "{_PIP}" "{ROOT / "pyproject.toml"}" "$@"'
        scripts["make"] = f'exec {shutil.which("make")} --dry-run --directory "{ROOT}" "$@" >/dev/null'
        for name, script in scripts.items():
            (folder / name).write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
            (folder / name).chmod(0o700)

    def __enter__(self) -> PageRun:
        return self

    def __exit__(self, *exc_info: object) -> None:
        for process in self._processes:
            _end(process)


def _grouped(page: list[Block]) -> Iterator[list[Block]]:
    """What is run together: blocks of Python, or a block that is run until it succeeds and its output."""
    group: list[Block] = []
    for block in page:
        if block.word.startswith("shown") or (block.language in SHOWN and not block.word):
            continue
        if group and not _joins(block, group):
            yield group
            group = []
        group.append(block)
    if group:
        yield group


def _joins(block: Block, group: list[Block]) -> bool:
    """Whether a block is run together with those before it."""
    first = group[0]
    if block.word == "output":
        return first.language == "python" or first.word == "eventually"
    return all(each.language == "python" and each.word in ("", "continues") for each in (block, first))


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process, and all that it has started."""
    process.terminate()  # does nothing to one that has ended
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(1)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(10)
