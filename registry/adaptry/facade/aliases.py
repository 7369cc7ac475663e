"""`promote` and `rollback`: moving an alias, and moving it back."""

from __future__ import annotations

from adaptry.core.errors import Invalid
from adaptry.core.refs import Label, Latest, parse_stored_alias
from adaptry.core.validation import validated
from adaptry.facade.arguments import RefLike, parse_ref
from adaptry.facade.python_errors import python_errors
from adaptry.facade.registries import RegistryLike, opened
from adaptry.operations import promotion
from adaptry.operations.promotion import AliasMoveResult
from adaptry.registry.aliases import PRODUCTION, MoveRequest


@python_errors
def promote(
    registry: RegistryLike,
    ref: RefLike,
    *,
    to: str = PRODUCTION,
    expect: int | None = None,
    condition: str | None = None,
    override: str | None = None,
) -> AliasMoveResult:
    """Points an alias at the version that `ref` selects now, if its policies allow it.

        adaptry.promote(registry, "acme/tone@staging")  # to prod
        adaptry.promote(registry, "acme/tone@2", to="staging")
        adaptry.promote(registry, "acme/tone@3", condition='eval("gsm8k", "exact_match").value >= 0.7')

    Args:
        registry: An open registry, a server's URL, or a folder.
        ref: The version, as in `"acme/tone@3"`, or what `push` or `search` returned.
        to: The alias to move; a new one is created.
        expect: The number of the version that the alias must be at now (0: the alias must not exist).
        condition: One more condition, in the language of policies, even if the alias has no policy.
        override: A reason to move the alias even though its conditions are not met; it needs
            `policy.override`.

    Raises:
        NotFound: there is no such version.
        CheckFailed: a condition is not met; the message lists them.
        Invalid: a malformed condition.
        MissingDependency: the registry evaluates conditions without the extra `gates`.
        Conflict: the alias is not at `expect`, someone else moved it in the meantime, or the version's
            state does not allow aliases.
        InvalidRef: a malformed ref or alias.
        PermissionDenied, Unauthenticated, Unavailable.
    """
    parsed = parse_ref(ref)
    request = validated(MoveRequest, None, condition=condition, override=override)
    with opened(registry) as changed:
        return promotion.promote(changed, parsed, to, expect=expect, request=request)


@python_errors
def rollback(registry: RegistryLike, ref: RefLike) -> AliasMoveResult:
    """Moves an alias back to the version before its last move; a second rollback undoes the first.

        adaptry.rollback(registry, "acme/tone@prod")

    Args:
        registry: An open registry, a server's URL, or a folder.
        ref: The alias, as in `"acme/tone@prod"`; without an alias, `prod` is meant.

    Raises:
        NotFound: there is no such alias, or it never moved.
        Conflict: the alias was moved in the meantime, or the earlier version's state does not allow aliases.
        Invalid: `ref` names a version, not an alias.
        PermissionDenied, Unauthenticated, Unavailable.
    """
    parsed = parse_ref(ref)
    match parsed.selector:
        case Label(alias):
            pass
        case Latest():
            alias = PRODUCTION
        case _:
            raise Invalid(
                f"{parsed} names a version, but only an alias can be rolled back: write {parsed.name}@ALIAS"
            )
    with opened(registry) as changed:
        return promotion.rollback(changed, parsed.name, parse_stored_alias(alias))
