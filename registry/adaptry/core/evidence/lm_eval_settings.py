"""How lm-evaluation-harness ran a task, as one line of text: `5-shot; seed 1234; generation 0f3a…`.

Only a run with `--log_samples` has hashes of the prompts. Without them, two runs of one version of a task can
still differ in the number of examples in the prompts, the choice of these, the system instruction, and how
text is generated.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from adaptry.core.digest import Digest
from adaptry.core.evidence.parsed_results import count, mapping, text


def settings_of(document: Mapping[str, Any], task: str) -> str | None:
    """The settings of a task, or those that all tasks of a group share; if they differ, a hash of them. None
    if the file does not state the number of examples. (`Any`: JSON.)
    """
    each = {one: _of_task(document, one) for one in _tasks_of(document, task)}
    different = set(each.values())
    if None in different:
        return None
    return different.pop() if len(different) == 1 else f"mixed {_hash(each)}"


def _tasks_of(document: Mapping[str, Any], task: str) -> set[str]:
    """The tasks of a group and of the groups in it; a task itself."""
    groups = mapping(document.get("group_subtasks"))
    tasks, seen, waiting = set(), {task}, [task]
    while waiting:
        one = waiting.pop()
        members = groups.get(one)
        if not isinstance(members, list) or not members:
            tasks.add(one)
            continue
        new = {member for member in members if isinstance(member, str)} - seen
        seen |= new
        waiting += new
    return tasks or {task}


def _of_task(document: Mapping[str, Any], task: str) -> str | None:
    shots = count(mapping(document.get("n-shot")).get(task))
    if shots is None:
        return None
    parts = [f"{shots}-shot"]
    seed = text(mapping(document.get("config")).get("fewshot_seed"))
    if shots and seed is not None:
        parts.append(f"seed {seed[:20]}")
    if shots and document.get("chat_template_sha") and document.get("fewshot_as_multiturn") is True:
        parts.append("examples as turns")
    if (system := text(document.get("system_instruction_sha"))) is not None:
        parts.append(f"system instruction {system[:12]}")
    if generation := mapping(mapping(document.get("configs")).get(task)).get("generation_kwargs"):
        parts.append(f"generation {_hash(generation)}")
    return "; ".join(parts)


def _hash(value: object) -> str:
    return Digest.of(json.dumps(value, sort_keys=True).encode()).hex[:12]
