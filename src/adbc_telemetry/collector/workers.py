"""Work in a process of its own, one call at a time: what is slow, or needs memory, must not disturb the intake.

The collector calls methods of an object that lives in the other process. A call is a message over the other process's
standard input; its result is a message over standard output. When the collector ends, however it does, the other
process sees the end of its input and ends at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, BinaryIO, Final, TypeVar

import msgspec

_LENGTH_BYTES: Final = 8
_SECRETS: Final = "ADBC_TELEMETRY_WORKER_SECRETS"
T = TypeVar("T")


class WorkerError(Exception):
    """A call failed. The message is the error's class, since its text may quote what was sent to the collector."""


class _Call(msgspec.Struct):
    method: str
    parameters: dict[str, Any]


class _Result(msgspec.Struct):
    value: msgspec.Raw = msgspec.Raw(b"null")
    error: str | None = None


class WorkerProcess:
    """The collector's side. Calls wait for one another; a process that has died is started anew by the next call.

    Args:
        module: the module that calls `serve`.
        arguments: its command line.
        niceness: how far it gives way to other processes.
        inherited: a descriptor that the process keeps open, such as that of a lock.
        secrets: what the process finds with `secrets()`. It is not on its command line, which others can see.
    """

    def __init__(
        self,
        module: str,
        arguments: Sequence[str],
        *,
        niceness: int,
        inherited: int | None = None,
        secrets: Mapping[str, str] | None = None,
    ) -> None:
        self._command = [sys.executable, "-m", module, *arguments]
        self._niceness = niceness
        self._inherited = inherited
        self._secrets = dict(secrets or {})
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="adbc-telemetry-worker")
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = False

    @property
    def pid(self) -> int | None:
        """The process, or None while there is none."""
        return self._process.pid if self._process is not None else None

    async def call(self, result_type: type[T], method: str, *, timeout: float, **parameters: Any) -> T:
        """Call a method of the object in the other process.

        Args:
            result_type: what the method returns.
            method: its name.
            timeout: seconds, from when its turn comes. A call that takes longer is ended together with the process.
            parameters: its arguments.

        Raises:
            WorkerError: the call failed or took too long, or the process died.
        """
        if self._closed:
            raise WorkerError("the collector is stopping")
        message = msgspec.json.encode(_Call(method, parameters))
        answer = await asyncio.get_running_loop().run_in_executor(
            self._thread, self._exchange, message, timeout
        )
        result = msgspec.json.decode(answer, type=_Result)
        if result.error is not None:
            raise WorkerError(result.error)
        return msgspec.json.decode(result.value, type=result_type)

    def close(self) -> None:
        """End the process, and the call under way with it."""
        self._closed = True
        process = self._process
        if process is not None:
            process.kill()  # and no more: the call under way uses its pipes, and sees that they end
        self._thread.shutdown(wait=True)
        self._kill()

    def _exchange(self, message: bytes, timeout: float) -> bytes:
        if self._closed:
            raise WorkerError("the collector is stopping")
        if self._process is None or self._process.poll() is not None:
            self._start()
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        timer = threading.Timer(timeout, process.kill)
        timer.daemon = True
        timer.start()
        try:
            _send(process.stdin, message)
            return _receive(process.stdout)
        except (OSError, EOFError):
            self._kill()
            raise WorkerError("the process ended, or took too long") from None
        finally:
            timer.cancel()

    def _start(self) -> None:
        self._kill()
        options: dict[str, Any] = {}
        if os.name == "posix":
            # A Ctrl-C in the terminal is for the collector, which ends this process in its own time.
            options["start_new_session"] = True
            options["pass_fds"] = () if self._inherited is None else (self._inherited,)
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={
                **os.environ,
                "ADBC_TELEMETRY_NICENESS": str(self._niceness),
                _SECRETS: msgspec.json.encode(self._secrets).decode(),
            },
            **options,
        )
        if self._closed:
            self._process.kill()  # `close` has not seen it

    def _kill(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            with contextlib.suppress(OSError):  # what was not sent is of no use any more
                pipe.close()


def serve(target: object) -> None:
    """The other process's side: call methods of `target` as the collector asks, until the collector ends.

    Args:
        target: the object.
    """
    if hasattr(os, "nice"):
        os.nice(int(os.environ.get("ADBC_TELEMETRY_NICENESS", "0")))
    incoming, outgoing = sys.stdin.buffer, sys.stdout.buffer
    calls: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def receive() -> None:
        try:
            while True:
                calls.put(_receive(incoming))
        except (OSError, EOFError):
            os._exit(0)  # the collector is gone: whatever is under way ends here

    threading.Thread(target=receive, daemon=True).start()
    while True:
        call = msgspec.json.decode(calls.get(), type=_Call)
        try:
            value = getattr(target, call.method)(**call.parameters)
            result = _Result(value=msgspec.Raw(msgspec.json.encode(value)))
        except Exception as error:  # noqa: BLE001 - the collector gets it
            result = _Result(error=type(error).__name__)
        _send(outgoing, msgspec.json.encode(result))


def secrets() -> dict[str, str]:
    """The other process's side: what the collector gave as `secrets`."""
    return msgspec.json.decode(os.environ.get(_SECRETS, "{}"), type=dict[str, str])


def _send(pipe: Any, message: bytes) -> None:
    pipe.write(len(message).to_bytes(_LENGTH_BYTES, "big") + message)
    pipe.flush()


def _receive(pipe: BinaryIO | Any) -> bytes:
    length = int.from_bytes(_read(pipe, _LENGTH_BYTES), "big")
    return _read(pipe, length)


def _read(pipe: BinaryIO | Any, length: int) -> bytes:
    content: bytes = pipe.read(length)
    if len(content) < length:
        raise EOFError
    return content
