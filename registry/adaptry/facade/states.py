"""`revoke`: recalling a version."""

from __future__ import annotations

from adaptry.core.validation import validated
from adaptry.facade.arguments import RefLike, parse_ref
from adaptry.facade.python_errors import python_errors
from adaptry.facade.registries import RegistryLike, opened
from adaptry.operations.version_state import StateChangeResult, change_state
from adaptry.registry.records import StateChange

_SENTENCES = {"reason": "a reason must have 3 to 1024 characters, so that others understand it later"}


@python_errors
def revoke(
    registry: RegistryLike, ref: RefLike, *, reason: str, successor: RefLike | None = None
) -> StateChangeResult:
    """Recalls a version: its files can no longer be pulled, and workers unload it.

        adaptry.revoke(registry, "acme/tone@2", reason="leaks names", successor="acme/tone@3")

    Args:
        registry: An open registry, a server's URL, or a folder.
        ref: The version, by number, alias or digest, or what `push` or `search` returned.
        reason: Why, in 3 to 1024 characters. It is shown to everyone who reads the version.
        successor: The version to use instead.

    Raises:
        NotFound: there is no such version.
        Invalid: `ref` is a bare name, whose target the recall itself would change; or the reason is too
            short.
        Conflict: someone else changed the state in the meantime, or the successor does not exist.
        PermissionDenied, Unauthenticated, Unavailable.
    """
    parsed = parse_ref(ref)
    instead = None if successor is None else str(parse_ref(successor))
    change = validated(StateChange, _SENTENCES, state="revoked", reason=reason, successor=instead)
    with opened(registry) as changed:
        return change_state(changed, parsed, change)
