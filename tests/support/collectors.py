"""Collectors in processes of their own."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import trustme


class Running(NamedTuple):
    """A collector's process and its URL."""

    process: subprocess.Popen[str]
    url: str


@contextlib.contextmanager
def collecting(store: Path, *options: str | Path) -> Iterator[Running]:
    """A collector on a free port. It is ended by SIGTERM, and must end well; its log may tell of refused events."""
    command = [sys.executable, "-m", "adbc_telemetry", "collect", "--port", "0", "--store", str(store)]
    process = subprocess.Popen(
        [*command, *map(str, options)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.startswith("collecting on "), process.communicate()
            yield Running(process, line.split()[2])
            process.terminate()
            _, complaints = process.communicate(timeout=30)
            told = [
                line for line in complaints.splitlines() if " events refused; the last one for: " not in line
            ]
            assert (process.returncode, told) == (0, [])
        finally:
            process.kill()


class Certificate(NamedTuple):
    """Files of a certificate for loopback."""

    authority: Path
    chain: Path
    key: Path

    @property
    def options(self) -> list[str | Path]:
        """For `collecting`."""
        return ["--tls-cert", self.chain, "--tls-key", self.key]


def loopback_certificate(folder: Path) -> Certificate:
    """A new certificate of a new authority."""
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1", "localhost")
    files = Certificate(folder / "authority.pem", folder / "chain.pem", folder / "key.pem")
    authority.cert_pem.write_to_path(files.authority)
    issued.private_key_pem.write_to_path(files.key)
    for blob in issued.cert_chain_pems:
        blob.write_to_path(files.chain, append=True)
    return files
