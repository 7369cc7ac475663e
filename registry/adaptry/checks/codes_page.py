"""The page of all codes of findings, `docs/checks.md`."""

from __future__ import annotations

from adaptry.checks.base_codes import BASE_CODES
from adaptry.checks.codes import ADAPTER_CODES


def render_page() -> str:
    """The page `docs/checks.md`, from the tables."""
    lines = [
        "# Findings of checks",
        "",
        (
            "`adaptry check` and every push report findings. If a finding *blocks*, `check` exits with 1 and"
            " a push is refused (unless an administrator of the namespace gives a reason:"
            " `--force --reason`). A finding that *warns* or *notes* is stored and shown."
        ),
        "",
        "This page is written by `python -m adaptry.checks > docs/checks.md`.",
        "",
        (
            "A registry inspects all weights before it admits them, whether they arrive through `adaptry"
            " push`, REST, Hub clients, mirrors or jobs. Commits to branches with NaN or"
            " infinity are refused too. A child process with limits on memory and processor time counts the"
            " NaN and infinite elements of every tensor, and computes the Euclidean norm of the others in"
            " float64. If the process fails, the push fails with `unavailable` (503) and can be retried;"
            " the uploaded files are kept. `adaptry show REF` shows the totals, `adaptry inspect REF"
            " --weights`"
            " every tensor, and `GET /api/v1/adapters/NAMESPACE/NAME/versions/VERSION/tensors` returns the"
            " tensors in pages. A version pushed to an older Adaptry is shown as not inspected until one of"
            " the last two is called for it."
        ),
        "",
        (
            "`adaptry check DIR` inspects the weights in the same way, unless it is called with"
            " `--no-weights`; `adaptry check REF` uses the findings of the push. A module changes nothing if"
            " its update is a product with a factor of zeros, or if its multipliers are all 1: this is known"
            " for every method whose training starts there. The weights that an adapter replaces, such as"
            " those of `modules_to_save`, are compared with the base's at the positions in its record."
            " Untrained adapters of OSF, DEFT, FRoD, PiSSA and OLoRA, and unchanged rows of an embedding, are"
            " recognised only by `adaptry check` on a machine that has the base's weights; a LoRA that began"
            ' with `init_lora_weights` "orthogonal" only in float32 or float64.'
        ),
        "",
        (
            "Tensors of F64, F32, F16, BF16, F8_E4M3, F8_E5M2, F8_E8M0 and C64 (as pairs of F32) have a norm."
            " Integers, booleans and weights packed in them have none (`null`), and neither has a tensor"
            " whose norm exceeds float64. With numpy (installed by the extras `server` and `torch`), a"
            " gigabyte takes about a second; without it, 10 to 30 seconds. Both ways give the same counts,"
            " and norms that agree to a relative 1e-12."
        ),
        "",
        "| code | severity | meaning | remedy |",
        "|---|---|---|---|",
        *(
            f"| `{code}` | {entry.severity} | {entry.meaning} | {entry.remedy} |"
            for code, entry in {**ADAPTER_CODES, **BASE_CODES}.items()
        ),
    ]
    return "\n".join(lines) + "\n"
