"""A self-signed certificate for this machine, made with openssl."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from pathlib import Path

import pytest

from adaptry.core.lazy_dataclass import dataclass

_NAMES = "subjectAltName=DNS:localhost,IP:127.0.0.1"


@dataclass(frozen=True)
class Certificate:
    """The paths of the certificate and its key."""

    path: Path
    key: Path

    def server(self) -> ssl.SSLContext:
        """A TLS context that presents the certificate to every client."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.path, self.key)
        return context


def self_signed(folder: Path) -> Certificate:
    """A certificate that is valid for two days. Skips the test if openssl is not installed."""
    if not shutil.which("openssl"):
        pytest.skip("openssl is not installed")
    made = Certificate(folder / "crt", folder / "pem")
    asked = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=localhost",
    ]
    files = ["-addext", _NAMES, "-keyout", str(made.key), "-out", str(made.path)]
    subprocess.run([*asked, *files], check=True, capture_output=True)
    return made
