"""A secret may be read from a file that an environment variable names, and then appears nowhere else."""

from __future__ import annotations

from pathlib import Path

import pytest

from adaptry.core.errors import Invalid, Unavailable
from adaptry.core.settings import AdaptrySettings, secret_or_env


def test_a_secret_is_read_from_the_file_that_is_named(tmp_path: Path) -> None:
    file = tmp_path / "catalog-url"
    file.write_text("postgresql://ada:s3cret@db/adaptry\n")
    settings = AdaptrySettings.from_env({"ADAPTRY_CATALOG_FILE": str(file)})
    assert settings.catalog == "postgresql://ada:s3cret@db/adaptry"


def test_an_unset_secret_is_absent() -> None:
    assert secret_or_env("ADAPTRY_TOKEN", {"ADAPTRY_TOKEN_FILE": ""}) is None


def test_a_secret_in_two_places_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="both set"):
        secret_or_env("ADAPTRY_TOKEN", {"ADAPTRY_TOKEN": "x", "ADAPTRY_TOKEN_FILE": str(tmp_path / "token")})


@pytest.mark.parametrize("content", [None, b"\n", b"\xff\xfe"])
def test_the_error_for_a_file_without_a_secret_names_the_variable(
    tmp_path: Path, content: bytes | None
) -> None:
    file = tmp_path / "token"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises((Invalid, Unavailable), match="ADAPTRY_TOKEN_FILE"):
        secret_or_env("ADAPTRY_TOKEN", {"ADAPTRY_TOKEN_FILE": str(file)})
