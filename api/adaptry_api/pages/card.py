"""An adapter's README as HTML: CommonMark with tables, cleaned by an allow-list of elements.

The text is untrusted. It is rendered as Markdown without raw HTML, and the result is cleaned again by an HTML
parser, so that neither step alone has to be perfect. Images are shown only if they are files of the version.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Final

from adaptry.core.readme_head import README_HEAD

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.token import Token

MAX_CARD: Final = 256 << 10
"""Maximum size in bytes of a README that is rendered."""
_TEXT: Final = ("p", "br", "hr", "strong", "em", "del", "s", "code", "pre", "blockquote", "a", "img")
_BLOCKS: Final = ("h3", "h4", "h5", "h6", "ul", "ol", "li", "table", "thead", "tbody", "tr", "th", "td")
_ATTRIBUTES: Final = {"a": {"href", "title"}, "img": {"src", "alt", "title"}, "ol": {"start"}}
_TOP: Final = 3  # level of the card's first headings: the page's own is 1, the panel's is 2


def render_card(readme: bytes, images: Mapping[str, str]) -> str:
    """The README without its YAML head, as HTML for the inside of a page.

    `images` maps paths of the version's files to addresses. Headings are below the page's, and skip no level.
    """
    import nh3  # a server whose pages no one opens never needs it

    text = readme[:MAX_CARD].decode("utf-8", "replace")
    head = README_HEAD.match(text)
    tokens = _markdown().parse(text[head.end() :] if head else text)
    _nest_headings(tokens)
    for token in tokens:
        for inner in token.children or ():
            if inner.type == "image":
                source = images.get(str(inner.attrs.get("src", "")).removeprefix("./"))
                if source is None:  # on another host, or missing: the alternative text is shown
                    inner.type = "text"
                else:
                    inner.attrs["src"] = source
    html = _markdown().renderer.render(tokens, _markdown().options, {})
    return nh3.clean(
        html,
        tags={*_TEXT, *_BLOCKS},
        attributes={tag: set(names) for tag, names in _ATTRIBUTES.items()},
        set_tag_attribute_values={"pre": {"tabindex": "0"}},  # so that the keyboard can scroll it
        url_schemes={"https", "http", "mailto"},
        link_rel="noopener noreferrer nofollow",
    )


def _nest_headings(tokens: Sequence[Token]) -> None:
    """Gives each heading the level below the heading that contains it: a README may begin with any level, and
    skip some, but readers with a screen reader then look for the missing ones.
    """
    containing: list[str] = []
    for token in tokens:
        if token.type == "heading_open":
            while containing and containing[-1] >= token.tag:
                containing.pop()
            containing.append(token.tag)
        if token.type in ("heading_open", "heading_close"):
            token.tag = f"h{min(_TOP + len(containing) - 1, 6)}"


@cache
def _markdown() -> MarkdownIt:
    from markdown_it import MarkdownIt

    return MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"])
