"""Turns operations into a commit: small files are stored as they arrive, then the tree is admitted.

A commit without a parent is applied to the branch's current head, and again if another commit comes first.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from adaptry.core.digest import Digest
from adaptry.core.errors import Conflict, FileMissing, Invalid, PermissionDenied, Withdrawn
from adaptry.core.hub_revision import missing_branch
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.manifest import Manifest
from adaptry.core.refs import AdapterName
from adaptry.registry.commit_info import CommitInfo, CommitNote, CommitResult
from adaptry.registry.commits import Commits
from adaptry.registry.interface import Registry
from adaptry.registry.manifest_inheritance import adapter_files, inherit_manifest, is_same_adapter
from adaptry_api.errors import HttpProblem
from adaptry_api.hub.addresses import stored_path
from adaptry_api.hub.base_claim import CLAIM_FILES, claimed_base
from adaptry_api.hub.commit_ops import (
    CommitHeader,
    DeletedFile,
    DeletedFolder,
    InlineFile,
    LargeFile,
    Operation,
)
from adaptry_api.hub.file_policy import AnnouncedFile, UploadFilter, nothing_stored_error
from adaptry_api.hub.gitids import MAX_REGULAR_SIZE
from adaptry_api.hub.refusals import STALE_BRANCH
from adaptry_api.hub.uploads import store_small_files

Tree = dict[str, tuple[int, Digest]]
_MAX_ATTEMPTS = 5
_NOT_HERE = "A file with this name doesn't exist"
"""The exact text matters: a client adds a hint to it."""


@dataclass(frozen=True, slots=True)
class TreeFile:
    """A file that the adapter has, and its new path. `size` is None if only the digest is known."""

    path: str
    digest: Digest
    size: int | None


TreeChange = TreeFile | DeletedFile | DeletedFolder


@dataclass(frozen=True, slots=True)
class _ParsedCommit:
    """The contents of a commit's lines. `held` has the bytes, by digest, of the small files that may declare
    a base: for each path the last one.
    """

    header: CommitHeader
    steps: Sequence[TreeChange]
    held: Mapping[Digest, bytes]


def apply_commit(
    registry: Registry, name: AdapterName, branch: str, operations: Iterable[Operation]
) -> tuple[CommitResult, Manifest]:
    """Commits the changes; returns the commit and the tree it was based on. If a commit is sent again after a
    lost response, the response is the same.

    Raises the errors of `commits.put`, `HttpProblem` (412) if the branch's head is not the commit's parent,
    `FileMissing`, `Invalid`.
    """
    taken = _store_small_files(registry, name, operations)
    header = taken.header
    note = CommitNote(
        title=commit_title(header.summary, "Upload"),
        message=header.description[:65_536],
    )
    for _ in range(_MAX_ATTEMPTS):
        head = registry.commits.get(name, f"refs/heads/{branch}")
        before = registry.commits.tree(name, head.digest)
        try:
            if header.parentCommit and not head.id.startswith(header.parentCommit):
                raise Conflict(STALE_BRANCH)
            after = _after(registry, name, before, taken)
            return registry.commits.put(name, branch, after.to_bytes(), note, head.id), before
        except (Conflict, FileMissing) as error:
            if done := _done_before(registry, name, head, taken):
                return done
            if isinstance(error, FileMissing):
                raise
            if header.parentCommit:
                raise HttpProblem(412, STALE_BRANCH) from error
    raise Conflict(f"{name}@{branch} kept changing during this commit; commit again")


def drop_excluded_files(operations: Iterable[Operation], chosen: UploadFilter) -> Iterator[Operation]:
    """The operations without the files that an announcement would leave out: the JavaScript client sends
    those anyway, and other clients need not announce files.

    Raises, at its end, `Unsupported` and `TooLarge` as for an announcement, and `Unsupported` if no operation
    is left. Raises `HttpProblem` (422) for a malformed path.
    """
    has_other = False
    for operation in operations:
        if isinstance(operation, InlineFile | LargeFile):
            # Files inside a line are small.
            size = (operation.size or 0) if isinstance(operation, LargeFile) else 0
            if not chosen.keeps(AnnouncedFile(operation.path, size)):
                continue
        has_other = has_other or not isinstance(operation, CommitHeader)
        yield operation
    chosen.require_no_whole_model()
    if chosen.excluded and not has_other:
        for path in chosen.excluded:
            stored_path(path)
        raise nothing_stored_error(chosen.excluded)


def commit_title(message: str, otherwise: str) -> str:
    """The first line of the message; `otherwise` if the message is empty."""
    return (message.strip().splitlines() or [otherwise])[0][:512]


def _done_before(
    registry: Registry, name: AdapterName, head: CommitInfo, taken: _ParsedCommit
) -> tuple[CommitResult, Manifest] | None:
    """Returns the branch's head if the same steps on its parent lead to it, which means that the commit was
    sent again. Clients repeat only uploads by themselves; a repeated delete reports that the file is missing.
    """
    if head.parent is None or not any(isinstance(step, TreeFile) for step in taken.steps):
        return None
    before = registry.commits.tree(name, registry.commits.get(name, head.parent).digest)
    try:
        if _after(registry, name, before, taken).digest != head.digest:
            return None
    except FileMissing:
        return None
    return CommitResult(commit=head, is_new=False), before


def _after(registry: Registry, name: AdapterName, before: Manifest, taken: _ParsedCommit) -> Manifest:
    """The tree after the steps. If the adapter's files change, the base is the one in its card, unless its
    config has a base's public name. Raises `FileMissing`.
    """
    tree = _changed(registry.commits, name, before, taken.steps)
    after = inherit_manifest(before, tree)
    if is_same_adapter(before, after) or not adapter_files(after):
        return after

    def read(path: str) -> bytes:
        entry = after.file(path)
        if entry is None or entry.size > MAX_REGULAR_SIZE:
            return b""
        data = taken.held.get(entry.sha256)
        if data is not None:
            return data
        try:
            return b"".join(registry.files.read(name, before.digest, path))
        except Withdrawn:  # a replacement of a recalled version does not inherit its declarations
            return b""

    claim = claimed_base(read)
    return Manifest.of(tree, base=claim) if claim else after


def require_branch(commits: Commits, name: AdapterName, revision: str) -> str:
    """The branch that commits to `revision` go to. Raises `PermissionDenied` for an alias, `RevisionNotFound`
    if it is not a branch, and `NotFound`.
    """
    branch = revision.removeprefix("refs/heads/")
    kinds = {info.kind for info in commits.references(name) if info.name == branch}
    if kinds & {"head", "branch"}:
        return branch
    if "alias" in kinds:
        raise PermissionDenied(
            f"{branch} is an alias of {name}, which takes no commits: commit to main, then "
            f"`adaptry alias set {name}@VERSION {branch}`"
        )
    raise missing_branch(name, branch, is_tag="tag" in kinds)


def _store_small_files(
    registry: Registry, name: AdapterName, operations: Iterable[Operation]
) -> _ParsedCommit:
    """Stores every small file, and returns the operations."""
    header: CommitHeader | None = None
    held: dict[str, tuple[Digest, bytes]] = {}
    steps: list[TreeChange] = []
    present: set[Digest] = set()  # checkpoints share their tokenizers, and each look-up is a query
    inline = _InlineFiles(registry, name)
    for operation in operations:
        match operation:
            case CommitHeader():
                header = operation
            case InlineFile(path=path):
                data = operation.data
                digest = Digest.of(data)
                if digest not in present:
                    inline.add(data)
                    present.add(digest)
                steps.append(TreeFile(stored_path(path), digest, len(data)))
                if path in CLAIM_FILES:
                    held[path] = digest, data
            case LargeFile(path=path, size=size):
                if operation.digest not in present and not registry.files.has(name, operation.digest):
                    raise Invalid(
                        f"{path[:200]} was not uploaded: {name} has no file {operation.digest.brief}"
                    )
                present.add(operation.digest)
                steps.append(TreeFile(stored_path(path), operation.digest, size))
            case _:
                steps.append(operation)
    inline.store()
    if header is None:
        raise Invalid("the commit has no line with the key `header`")
    return _ParsedCommit(header, steps, dict(held.values()))


class _InlineFiles:
    """Stores the small files of a commit, as many at a time as are held in memory."""

    _MAX_FILES, _MAX_BYTES = 128, 4 << 20

    def __init__(self, registry: Registry, name: AdapterName) -> None:
        self._registry = registry
        self._name = name
        self._held: list[bytes] = []

    def add(self, data: bytes) -> None:
        self._held.append(data)
        if len(self._held) == self._MAX_FILES or sum(map(len, self._held)) >= self._MAX_BYTES:
            self.store()

    def store(self) -> None:
        if self._held:
            store_small_files(self._registry, self._name, self._held)
            self._held = []


def _changed(commits: Commits, name: AdapterName, before: Manifest, steps: Sequence[TreeChange]) -> Tree:
    """The tree after these steps. Raises `FileMissing` if a file or folder to delete does not exist."""
    tree: Tree = {entry.path: (entry.size, entry.sha256) for entry in before.files}
    for step in steps:
        match step:
            case TreeFile(path=path, digest=digest, size=size):
                tree[path] = (size if size is not None else _size(commits, name, before, digest), digest)
            case DeletedFile(path=path) | DeletedFolder(path=path):
                gone = list(_at(tree, path.strip("/"), only_below=isinstance(step, DeletedFolder)))
                if not gone:
                    raise FileMissing(f"{_NOT_HERE}: {path[:200]}")
                for each in gone:
                    del tree[each]
    return tree


def _at(tree: Tree, path: str, *, only_below: bool) -> Iterator[str]:
    if path in tree and not only_below:
        yield path
    yield from (each for each in tree if not path or each.startswith(f"{path}/"))


def _size(commits: Commits, name: AdapterName, before: Manifest, digest: Digest) -> int:
    """The size of a file copied from elsewhere in the adapter: from the current tree, or from revisions that
    names lead to.

    Raises `Invalid`.
    """
    trees: Iterable[Manifest] = (commits.tree(name, info.digest) for info in commits.references(name))
    for tree in (before, *trees):
        for entry in tree.files:
            if entry.sha256 == digest:
                return entry.size
    for step in commits.list(name, limit=200).items:
        for entry in commits.tree(name, step.digest).files:
            if entry.sha256 == digest:
                return entry.size
    raise Invalid(
        f"no branch of {name} has the file {digest.brief}; copy from a branch, a tag or a recent commit"
    )
