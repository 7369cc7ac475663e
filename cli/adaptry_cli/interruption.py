"""Messages after Ctrl-C: which work is complete, and how to continue."""

from __future__ import annotations

from collections.abc import Mapping

_CHANGED_NOTHING = "nothing was changed"
INTERRUPTIONS: Mapping[str, str] = {
    "push": (
        "no version was registered, unless the registry had already accepted it; run the same command"
        " again: files that arrived are not sent again, and a version that already exists is printed"
    ),
    "pull": (
        "{folder} was not written; run the same command again, and files that had arrived are not"
        " fetched twice"
    ),
    "import": "adapters printed above are imported; run the same command again to import the others",
    "copy": (
        "no version was registered; run the same command again, and files that had arrived are not sent twice"
    ),
    "mirror": "versions printed above are copied; run the same command again to copy the others",
    "bundle create": "{file} was not written",
    "bundle load": "versions that are complete are registered; run the same command again to load the others",
    "merge": "{output} was not written",
    "combine": "no adapter was written or registered",
    "stack": "no adapter was written or registered",
    "extract": "no adapter was written or registered",
    "convert": "no adapter was written or registered",
    "resize": "no adapter was written or registered",
    "export": "nothing was written or registered",
    "base add": (
        "the base was not registered; run the same command again, and weights that are stored are kept"
    ),
    "jobs submit": (
        "a job that was submitted keeps running (`adaptry jobs ls`); `adaptry jobs cancel JOB` stops it"
    ),
    "jobs watch": "the jobs are not affected; `adaptry jobs cancel JOB` stops one",
    "jobs logs": "the job keeps running; `adaptry jobs cancel JOB` stops it",
    "events": "no event is lost: --after NUMBER continues after the last one printed",
    "backup": "no backup was completed; a backup folder keeps the files that were copied for the next one",
    "restore": "the registry was not replaced; run the same command again",
    "repair": "the repairs printed above are done; run the same command again to continue",
    "gc": "the files deleted so far were unused; run the same command again to continue",
    "migrate": "the folder still has its catalog; run the same command again with an empty database",
    "recall status": "the recall continues",
    "demo": "the demo's folder stays; run it again to start over",
    "serve": "the server has stopped",
    "login": "no token was kept",
    "delete": "nothing was deleted",
}


def interruption_text(path: str, params: Mapping[str, object]) -> str:
    """The message for a command that was interrupted; `params` are its arguments."""
    text = INTERRUPTIONS.get(path, _CHANGED_NOTHING)
    place = {name: params.get(name) or "the folder" for name in ("folder", "file", "output")}
    return f"interrupted: {text.format(**place)}"
