"""For the site: links to files outside of docs/ become their paths, since the site doesn't have these files."""

import re
from posixpath import dirname, join, normpath
from typing import Any

_LINK = re.compile(r"\[([^\]]+)\]\((\.\./[^)\s]*)\)")


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """The page's text, as MkDocs is to read it."""

    def within(link: re.Match[str]) -> str:
        text, target = link.groups()
        path = normpath(join("docs", dirname(page.file.src_uri), target))
        if path.startswith("docs/"):
            return link[0]
        name = path.rpartition("/")[2]
        return f"`{path}`" if text == name else f"{text} (`{path}`)"

    return _LINK.sub(within, markdown)
