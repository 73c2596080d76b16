"""Codes, not sentences: nothing in the package branches on the words that people are shown.

A sentence may be rewritten at any time, and whoever decides by it then decides something else
without a sound. A refusal that somebody branches on is a code (an enum) beside its text.
"""

import ast
from collections.abc import Iterator

SENTENCES = frozenset({"detail", "grant", "message", "sentence", "text", "why"})
"""What holds a text for people, by the names that it goes by."""
ERRORS = frozenset({"error", "exception", "failure", "refused"})
"""What an exception goes by: as a text it is a sentence."""
SEARCHES = frozenset({"count", "endswith", "find", "index", "startswith"})
"""Methods of a text that look for another in it."""
PATTERNS = frozenset({"findall", "match", "search"})
"""Functions of `re` that look for a pattern; `fullmatch` is how a value is read from a text."""
ALLOWED = {
    "overlay/core/wire/old_links.py": "msgspec has no type for what ends early, only a sentence",
}
"""Files that may, each with the reason."""


def decided_by_text(source: str) -> Iterator[str]:
    """Every comparison of a text for people with a literal, and every search for one in it."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Compare(left=left, ops=ops, comparators=comparators):
                sides = [left, *comparators]
                words = any(map(_is_literal, sides)) and all(isinstance(op, DECIDING) for op in ops)
                subjects = sides if words else []
            case ast.Call(func=ast.Attribute(value=ast.Name(id="re"), attr=name), args=args):
                subjects = args[1:2] if name in PATTERNS else []
            case ast.Call(func=ast.Attribute(value=subject, attr=name), args=[word, *_]):
                subjects = [subject] if name in SEARCHES and _is_literal(word) else []
            case ast.Match(subject=subject, cases=cases):
                subjects = [subject] if any(_is_word(case.pattern) for case in cases) else []
            case _:
                continue
        for subject in subjects:
            if _is_sentence(subject):
                yield f"{node.lineno}: decided by its text: {ast.unparse(subject)}"


DECIDING = ast.Eq | ast.NotEq | ast.In | ast.NotIn


def _is_literal(node: ast.expr) -> bool:
    """A text, a constant that may hold one, or a collection of texts."""
    match node:
        case ast.Constant(value=str(text)):
            return bool(text)  # an empty one says nothing
        case ast.Name(id=name):
            return name.isupper()
        case ast.Tuple(elts=elements) | ast.List(elts=elements) | ast.Set(elts=elements):
            return any(map(_is_literal, elements))
        case _:
            return False


def _is_word(pattern: ast.pattern) -> bool:
    match pattern:
        case ast.MatchValue(value=value):
            return _is_literal(value)
        case ast.MatchOr(patterns=patterns):
            return any(map(_is_word, patterns))
        case _:
            return False


def _is_sentence(node: ast.expr) -> bool:
    """Whether an expression holds a text for people, changed in its case or stripped, too."""
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name) if name in SENTENCES:
            return True
        case ast.Attribute(value=ast.Name(id=name), attr="args"):
            return name in ERRORS
        case ast.Subscript(value=value):
            return _is_sentence(value)
        case ast.Call(func=ast.Name(id="str" | "repr"), args=[ast.Name(id=name)]):
            return name in ERRORS | SENTENCES
        case ast.Call(func=ast.Attribute(value=value), args=[]):
            return _is_sentence(value)
        case _:
            return False
