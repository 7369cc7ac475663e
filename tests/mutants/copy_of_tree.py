"""A copy of the working tree with its own interpreter, so that a mutant does not affect the checkout.

Its interpreter imports the product code of the copy, whatever environment variables a test clears, and
everything else from the same places as this interpreter.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("registry/adaptry", "cli/adaptry_cli", "api/adaptry_api")


def copy_tree(to: Path) -> Path:
    """Copies what git knows into `to`/tree; returns the path of an interpreter that imports from there."""
    tree, home = to / "tree", to / "venv"
    shutil.rmtree(tree, ignore_errors=True)
    names = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        check=True,
        text=True,
    ).stdout
    for name in filter(None, names.split("\0")):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, tree / name)
    if (ROOT / ".venvs").exists():
        (tree / ".venvs").symlink_to((ROOT / ".venvs").resolve())
    venv.EnvBuilder(clear=True, symlinks=True).create(home)
    ours, theirs = Path(sys.prefix, "bin"), home / "bin"
    for program in ours.iterdir():
        if not (theirs / program.name).exists():
            (theirs / program.name).symlink_to(program.resolve() if program.is_symlink() else program)
    script = (ours / "adaptry").read_text()
    (theirs / "adaptry").unlink()
    (theirs / "adaptry").write_text(script.replace(str(ours), str(theirs)))
    (theirs / "adaptry").chmod(0o755)
    for name in set(Path(sys.prefix).glob("hub-js")):
        (home / name.name).symlink_to(name)
    packages = next((home / "lib").glob("python*/site-packages"))
    roots = [str(tree / Path(package).parent) for package in PACKAGES]
    everything = f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})"
    (packages / "copy.pth").write_text("\n".join([*roots, everything]) + "\n")
    return theirs / "python"
