"""Every key of a recipe on one page, from the schema that recipes are checked by."""

from __future__ import annotations

from distill.recipe import describe_schema
from docs.site.markdown import escaped

__all__ = ["keys_page"]

_HEAD = """# Every key of a recipe

Made from the schema that recipes are checked by; `distill recipe schema` prints the same. Names are dotted, as `--set`
takes them. A key with names in brackets belongs to those variants of its section alone.
[What they are for, with examples](recipes.md).
"""


def keys_page() -> str:
    """The page: a heading for each section of a recipe, an entry for each key."""
    parts = [_HEAD]
    section = None
    for key in describe_schema():
        first, dot, _ = key.path.partition(".")
        if first != section:
            section = first
            parts.append(f"\n## {first}\n")
            if not dot and not key.default:
                parts += [escaped(key.description), ""]
                continue
        default = f"; default `{key.default}`" if key.default not in ("", "required") else ""
        default = "; required" if key.default == "required" else default
        variants = f" ({', '.join(key.variants)})" if key.variants else ""
        about = f" {escaped(key.description)}" if key.description else ""
        parts.append(f"- **`{key.path}`**{escaped(variants)}: *{escaped(key.type)}{default}*.{about}")
    return "\n".join(parts) + "\n"
