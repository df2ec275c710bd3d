"""What the HTML pages of all packages share: one style sheet, one policy, and data that stay data."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup


def environment(folder: Path) -> Environment:
    """Return a template environment that escapes every text and refuses unknown names.

    Templates may use `style` (the shared style sheet), `json_block` and `policy`.
    """
    made = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals |= {"style": Markup(Path(__file__).with_name("page.css").read_text("utf-8")), "policy": policy}
    made.filters["json_block"] = json_block
    return made


def json_block(content: object) -> Markup:
    """Return JSON for a script block: no `<` and nothing but ASCII, so that no text in it can end the block.

    >>> print(json_block("</script>"))
    "\\u003c/script\\u003e"
    """
    text = json.dumps(content, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def policy(scripts: Iterable[str] = ()) -> str:
    """Return a content security policy under which only these scripts run, and nothing is asked of the network."""
    digests = (base64.b64encode(hashlib.sha256(code.encode()).digest()).decode() for code in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests) or "'none'"
    # Charts write style rules of their own.
    rest = "style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
    return f"default-src 'none'; script-src {allowed}; {rest}"
