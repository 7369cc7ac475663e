"""The files of other projects that pages load: recorded with origin, licence and hash, and unchanged."""

from __future__ import annotations

import hashlib
import json
from importlib.resources import files

VENDORED = files("adaptry_api.pages").joinpath("vendored")
RECORDS = json.loads(VENDORED.joinpath("SOURCES.json").read_text())["files"]


def test_every_vendored_file_is_the_recorded_one() -> None:
    for record in RECORDS:
        content = VENDORED.joinpath(record["file"]).read_bytes()
        assert hashlib.sha256(content).hexdigest() == record["sha256"], record["file"]


def test_every_vendored_file_is_recorded_with_package_version_and_licence() -> None:
    present = {path.name for path in VENDORED.iterdir() if path.name.endswith((".js", ".css"))}
    assert present == {record["file"] for record in RECORDS}
    for record in RECORDS:
        assert record["package"]
        assert record["version"]
        assert record["license"] in ("BSD-0-Clause", "Apache-2.0", "MIT")
        assert VENDORED.joinpath(record["license_file"]).read_text().strip()
