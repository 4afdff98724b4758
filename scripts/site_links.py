"""Lets `mkdocs build` show links to files outside of docs/ as their paths: the site has no such files.

The pages are read on GitHub, too, where these links lead to the files.
"""

import re
from typing import Any

_LINK_OUT = re.compile(r"\[([^\]]+)\]\((?:\.\./)+([^)\s]+)\)")


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Called by mkdocs with the text of each page."""
    depth = page.file.src_uri.count("/")

    def shown(link: re.Match[str]) -> str:
        leads_out = link[0].count("../") > depth
        if not leads_out:
            return link[0]
        return f"`{link[2]}`" if link[1] == link[2] else f"{link[1]} (`{link[2]}`)"

    return _LINK_OUT.sub(shown, markdown)
