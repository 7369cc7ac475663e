"""`lineage`: a version's ancestors or descendants."""

from __future__ import annotations

from adaptry.facade.arguments import RefLike, parse_ref
from adaptry.facade.registries import RegistryLike, opened
from adaptry.operations.lineage import LineageNode, ancestor_tree, descendant_tree


def lineage(registry: RegistryLike, ref: RefLike, *, descendants: bool = False) -> LineageNode:
    """Returns the tree of a version's ancestors: its parents, their parents, and so on, with the recipe of
    each.

        print(adaptry.lineage(registry, "acme/both"))

    Args:
        registry: An open registry, a server's URL, or a folder.
        ref: The version, as in `"acme/both@1"`, or what `push` or `search` returned.
        descendants: Returns the versions that were made from it instead.

    Raises:
        NotFound: there is no such version.
        Unauthenticated, Unavailable.
    """
    parsed = parse_ref(ref)
    with opened(registry) as looked_in:
        return descendant_tree(looked_in, parsed) if descendants else ancestor_tree(looked_in, parsed)
