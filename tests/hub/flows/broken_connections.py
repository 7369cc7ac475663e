"""A broken connection: line 35."""

from __future__ import annotations

from pathlib import Path

from world import WEIGHTS, ClientCannot, World, line, sha256

_TEN_MB = 10 << 20  # the size of the client's pieces: it does not keep an incomplete one


@line(35)
def a_cut_connection(world: World) -> None:
    """The download of a large file continues where it was cut."""
    from wire import PROXY

    assert PROXY is not None
    name = world.pushed(folder="large")
    PROXY.ranges.clear()
    PROXY.cut_downloads_after, PROXY.cuts = _TEN_MB + (5 << 20), 1
    try:
        file = world.api().hf_hub_download(name, WEIGHTS)
    except Exception as error:  # noqa: BLE001  # each client generation has its own
        assert PROXY.cuts == 0, error
        file = world.api().hf_hub_download(name, WEIGHTS)
    assert PROXY.cuts == 0, "nothing was cut"
    assert sha256(Path(file).read_bytes()) == sha256(world.bytes("large"))
    if not PROXY.ranges:
        raise ClientCannot("starts again after a cut, where others resume")
    assert int(PROXY.ranges[0].removeprefix("bytes=").rstrip("-")) >= _TEN_MB
