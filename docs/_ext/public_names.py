"""The API reference: every public name is in it, and refers to the others by the names that a user imports.

A class is documented under the package's name and defined in a module that may change. So what a signature or a
docstring refers to is looked up by its last part among the public names. Anything else stays plain code.
"""

from __future__ import annotations

import re
from typing import Any

from docutils.nodes import Element, Node, literal, system_message
from docutils.parsers.rst.states import Inliner
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

import adbc_telemetry
from adbc_telemetry import schema, testing

PAGE = "api/package"
FOLDER = "api/"


def add_remaining_names(app: Sphinx, docname: str, source: list[str]) -> None:
    """Append to the page what it does not name yet: a new public name is never left out."""
    if docname != PAGE:
        return
    named = set(re.findall(r"auto\w+:: (\w+)", source[0]))
    remaining = [name for name in adbc_telemetry.__all__ if name not in named and name != "__version__"]
    if remaining:
        source[0] += "\n## Others\n\n```{eval-rst}\n.. currentmodule:: adbc_telemetry\n\n"
        for name in remaining:
            is_class = isinstance(getattr(adbc_telemetry, name), type)
            source[0] += f".. auto{'class' if is_class else 'function'}:: {name}\n"
            source[0] += "   :members:\n\n" if is_class else "\n"
        source[0] += "```\n"


def resolve(app: Sphinx, env: BuildEnvironment, node: pending_xref, content: Element) -> Node | None:
    """A public name by its last part; plain code for anything else that the reference's pages mention."""
    if node.get("refdomain") != "py" or not node["refdoc"].startswith(FOLDER):
        return None
    target = PUBLIC.get(node["reftarget"].rpartition(".")[2])
    if target is not None:
        domain: Any = env.domains["py"]
        for kind in ("class", "func", "obj"):
            found: Node | None = domain.resolve_xref(
                env, node["refdoc"], app.builder, kind, target, node, content
            )
            if found is not None:
                return found
    return content


def name_role(
    name: str, rawtext: str, text: str, lineno: int, inliner: Inliner, *_: object
) -> tuple[list[Node], list[system_message]]:
    """What stands in single backticks, as docstrings write it: a link if it is a public name, else code."""
    code = literal(rawtext, text, classes=["code"])
    target = PUBLIC.get(text.removesuffix("()"))
    if target is None:
        return [code], []
    docname = inliner.document.settings.env.docname
    attributes = {"refdomain": "py", "reftype": "obj", "reftarget": target, "refdoc": docname}
    return [pending_xref(rawtext, code, refexplicit=True, **attributes)], []


PUBLIC = {
    **{name: f"adbc_telemetry.testing.{name}" for name in testing.__all__},
    **{
        name: f"adbc_telemetry.schema.{name}"
        for name, value in vars(schema).items()
        if isinstance(value, type) and value.__module__ == schema.__name__ and not name.startswith("_")
    },
    **{name: f"adbc_telemetry.{name}" for name in adbc_telemetry.__all__},
}


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_role("name", name_role)
    app.connect("source-read", add_remaining_names)
    app.connect("missing-reference", resolve)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
