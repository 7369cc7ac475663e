"""The server's log: one line for each request, as text or as JSON, and never a secret.

Every line passes `redact`, also tracebacks and the lines of libraries: tokens, invitations, passwords in
addresses, and signatures of addresses are replaced before the line is written.

A thread writes the lines, so that no request waits for a blocked pipe. Lines that it cannot write in time are
dropped and counted in the log.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import threading
from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import IO, Literal, NamedTuple, get_args

LogFormat = Literal["text", "json"]
LogLevel = Literal["debug", "info", "warning", "error"]
LOG_FORMATS: tuple[LogFormat, ...] = get_args(LogFormat)
LOG_LEVELS: tuple[LogLevel, ...] = get_args(LogLevel)
LOG = logging.getLogger("adaptry.api.requests")

_NAMES = ("adaptry", "uvicorn")
_HIDDEN = "[hidden]"
_MAX_WAITING = 10_000
_BATCH = 500
_TOGETHER_SECONDS = 0.05
_FLUSH_SECONDS = 2.0
_SECRETS = (
    # A token or an invitation in any spelling, also truncated.
    (re.compile(r"(?:hf_)?adr_[a-z]{2,8}_[0-9A-Za-z]+"), _HIDDEN),
    # The value after `Authorization: Bearer`, also in a dump of headers.
    (re.compile(r"(?i)(\b(?:bearer|basic)\s+)[^\s'\",;]+"), rf"\1{_HIDDEN}"),
    # Signatures in URLs: of this server and of buckets.
    (
        re.compile(
            r"(?i)([?&](?:grant|token|x-amz-signature|x-amz-credential|x-amz-security-token|signature|sig)=)"
            r"[^&\s'\"]+"
        ),
        rf"\1{_HIDDEN}",
    ),
    # A password in an address.
    (re.compile(r"([a-z][a-z0-9+.-]*://[^/\s:@]*:)[^/\s@]+@"), rf"\1{_HIDDEN}@"),
)
"""The pattern of each kind, and its replacement."""


class RequestRecord(NamedTuple):
    """A finished request. `route` is its template, and never the actual path."""

    request: str
    principal: str | None
    method: str
    route: str
    status: int
    seconds: float
    received: int
    sent: int


def log_request(record: RequestRecord) -> None:
    """Logs a request as one line: at level warning if the server failed, otherwise at level info."""
    level = logging.WARNING if record.status >= 500 else logging.INFO
    if LOG.isEnabledFor(level):
        # Not `LOG.log`, which looks for its caller: that takes longer than the rest.
        LOG.handle(logging.LogRecord(LOG.name, level, "", 0, "%s", (_Line(record),), None))


def configure(format: LogFormat, level: LogLevel, stream: IO[str] | None = None) -> None:
    """Sends the log of this process to `stream` (default: stderr), in place of where it went before."""
    target = logging.StreamHandler(stream or sys.stderr)
    target.setFormatter(_JsonFormatter() if format == "json" else _TextFormatter())
    handler = _BackgroundHandler(target)
    for name in _NAMES:
        logger = logging.getLogger(name)
        logger.handlers[:] = [handler]
        logger.propagate = False
        logger.setLevel(level.upper())
    if level != "debug":
        logging.getLogger("uvicorn").setLevel("WARNING")  # its lines at start and end


def redact(text: str) -> str:
    """The text without secrets."""
    if _may_have_secrets(text):
        for pattern, shown in _SECRETS:
            text = pattern.sub(shown, text)
    return text


def _may_have_secrets(text: str) -> bool:
    """Whether `text` contains one of the substrings that the patterns need. Most lines contain none."""
    text = text.casefold()
    return (
        "adr_" in text or "?" in text or "&" in text or "://" in text or "bearer" in text or "basic" in text
    )


class _BackgroundHandler(logging.Handler):
    """Passes records to a separate thread, and drops records while too many wait.

    The thread writes the lines of `_TOGETHER_SECONDS` together: waking it for each line, and switching the
    interpreter lock, would cost a request more time than its response.
    """

    def __init__(self, target: logging.StreamHandler[IO[str]]) -> None:
        super().__init__()
        self._target = target
        self._waiting: deque[logging.LogRecord | threading.Event] = deque()
        self._wake, self._hurry = threading.Event(), threading.Event()
        self._left_out = 0
        threading.Thread(target=self._write, name="adaptry-log", daemon=True).start()

    def createLock(self) -> None:  # noqa: N802
        self.lock = None  # `emit` needs none, and is called for every request

    def emit(self, record: logging.LogRecord) -> None:
        if len(self._waiting) >= _MAX_WAITING:
            self._left_out += 1
            return
        self._waiting.append(record)
        if not self._wake.is_set():
            self._wake.set()

    def flush(self) -> None:
        """Waits until everything is written, for a limited time, since the pipe may be blocked."""
        written = threading.Event()
        self._waiting.append(written)
        self._hurry.set()
        self._wake.set()
        written.wait(_FLUSH_SECONDS)

    def _write(self) -> None:
        while True:
            self._wake.wait()
            self._hurry.wait(_TOGETHER_SECONDS)
            self._hurry.clear()
            self._wake.clear()
            while self._waiting:
                self._write_some([self._waiting.popleft() for _ in range(min(_BATCH, len(self._waiting)))])

    def _write_some(self, waiting: Sequence[logging.LogRecord | threading.Event]) -> None:
        records = [one for one in waiting if isinstance(one, logging.LogRecord)]
        if left_out := self._left_out:
            self._left_out -= left_out
            message = f"{left_out} lines were dropped here: they arrived faster than they could be written"
            records.append(logging.LogRecord(LOG.name, logging.WARNING, "", 0, message, None, None))
        if records:
            try:
                self._target.stream.write("".join(f"{self._target.format(one)}\n" for one in records))
                self._target.flush()
            except Exception:  # noqa: BLE001  (as every handler of `logging` does)
                self._target.handleError(records[0])
        for one in waiting:
            if isinstance(one, threading.Event):
                one.set()


class _Line:
    """A request whose text is formatted only when it is written."""

    def __init__(self, record: RequestRecord) -> None:
        self.record = record

    def __str__(self) -> str:
        one = self.record
        return (
            f"request {one.request} {_word(one.principal or '-')} {one.method} {one.route} {one.status}"
            f" {one.seconds * 1000:.1f}ms in={one.received} out={one.sent}"
        )


class _TextFormatter(logging.Formatter):
    """`2026-05-01T12:00:00.123Z INFO request …`: one line, with line breaks escaped."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s")

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802
        return _time(record.created)

    def format(self, record: logging.LogRecord) -> str:
        if (line := _line_in(record)) is None:
            text = super().format(record)
        else:  # takes a third of the time of `super().format`
            text = f"{_time(record.created)} {record.levelname} {line}"
        first, *rest = redact(text).splitlines() or [""]
        return "\n  ".join([first, *rest])


class _JsonFormatter(logging.Formatter):
    """A JSON object on one line."""

    def format(self, record: logging.LogRecord) -> str:
        found: dict[str, object] = {"time": _time(record.created), "level": record.levelname.lower()}
        if (line := _line_in(record)) is not None:
            fields = line.record._asdict()
            milliseconds = round(fields.pop("seconds") * 1000, 3)
            found |= {"message": "request", **fields, "milliseconds": milliseconds}
        else:
            found |= {"logger": record.name, "message": record.getMessage()}
        if record.exc_info:
            found["traceback"] = self.formatException(record.exc_info)
        return json.dumps({key: _redacted(value) for key, value in found.items()})


def _line_in(record: logging.LogRecord) -> _Line | None:
    """The request that a record describes; None if it describes something else."""
    line = record.args[0] if isinstance(record.args, tuple) and record.args else None
    return line if isinstance(line, _Line) else None


def _redacted(value: object) -> object:
    return redact(value) if isinstance(value, str) else value


def _word(text: str) -> str:
    """A name as one word; quoted if it has blanks."""
    return text if text.isprintable() and " " not in text else json.dumps(text)


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
