"""Names of strangers as text that shows what is in them, and does nothing else.

An escape sequence moves a terminal's cursor, sets its title or hides what follows; a mark of
direction swaps letters for the eye; a control character makes an XML file invalid, and half a
surrogate pair cannot be written at all. Each becomes its escape, as Python would write it.
"""


def showable(text: object) -> str:
    """One line: ``\\x1b``, ``\\n``, ``\\u202e`` for what is no letter, sign or plain space."""
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in str(text))


def showable_lines(text: object, indent: str = "") -> str:
    """The same of every line; the second and later ones begin with `indent`."""
    lines = str(text).expandtabs().split("\n")
    return f"\n{indent}".join(showable(line.removesuffix("\r")) for line in lines)
