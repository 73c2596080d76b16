"""The house rules that a program can watch: each takes source, each yields what breaks it."""

import ast
from collections.abc import Iterator

MAX_FILE_LINES = 800
ONE_IDEA_LINES = 500
"""A longer file's docstring begins with "One idea:" and names it."""
FEW_LINES = 40
"""A shorter file's docstring says why it stands alone."""
MAX_FUNCTION_LINES = 60
UNDOCUMENTED_METHOD_LINES = 10
"""A method this short may do without a docstring: its class has said what it is for."""

NO_IO = frozenset(
    {
        *("aioice", "aiortc", "asyncio", "concurrent", "datetime", "logging", "multiprocessing"),
        *("os", "secrets", "selectors", "socket", "ssl", "structlog", "subprocess", "threading"),
        *("time", "trio", "trio_asyncio", "uuid"),
    }
)
"""What the core must not import: clocks, tasks, sockets, logs, and chance of its own."""
VAGUE = ("Manager", "Helper", "Util", "Utils", "Base", "Common")
PRECISE = frozenset({"Base"})
"""What sounds vague and is not: the base of a candidate (RFC 8445 §5.1.1)."""
Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(tree: ast.AST) -> Iterator[Function]:
    """Every function and method, nested ones too."""
    for node in ast.walk(tree):
        if isinstance(node, Function):
            yield node


def lines_of(node: Function | ast.ClassDef) -> int:
    """How many lines a definition takes, its signature and docstring included."""
    return (node.end_lineno or node.lineno) - node.lineno + 1


def too_long(source: str) -> Iterator[str]:
    """Files of more than one idea, and functions that do not fit a screen."""
    count = len(source.splitlines())
    if count > MAX_FILE_LINES:
        yield f"{count} lines: this file is asking to be two"
    elif count > ONE_IDEA_LINES and not docstring(source).startswith("One idea:"):
        yield f"{count} lines: its docstring begins with 'One idea:', or it is two"
    for function in functions(ast.parse(source)):
        if (count := lines_of(function)) > MAX_FUNCTION_LINES:
            yield f"{function.lineno}: {function.name} takes {count} lines"


def too_short(source: str) -> Iterator[str]:
    """Cuttings: files of a few lines that do not say why they stand alone."""
    count = len(source.splitlines())
    if count < FEW_LINES and "alone" not in docstring(source).lower():
        yield f"{count} lines: it says why it stands alone, or it is part of another file"


def docstring(source: str) -> str:
    """A module's docstring, or nothing."""
    return ast.get_docstring(ast.parse(source)) or ""


def undocumented(source: str) -> Iterator[str]:
    """Modules, public classes and functions, and longer public methods without a docstring."""
    tree = ast.parse(source)
    if ast.get_docstring(tree) is None:
        yield "1: the module has no docstring"
    for node in tree.body:
        if not isinstance(node, Function | ast.ClassDef) or node.name.startswith("_"):
            continue
        if ast.get_docstring(node) is None:
            yield f"{node.lineno}: {node.name} has no docstring"
        for method in node.body if isinstance(node, ast.ClassDef) else []:
            if (
                isinstance(method, Function)
                and not method.name.startswith("_")
                and lines_of(method) > UNDOCUMENTED_METHOD_LINES
                and ast.get_docstring(method) is None
            ):
                yield f"{method.lineno}: {node.name}.{method.name} has no docstring"


def vaguely_named(source: str) -> Iterator[str]:
    """Classes whose name says nothing."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.ClassDef) or node.name in PRECISE:
            continue
        if node.name.endswith(VAGUE):
            yield f"{node.lineno}: {node.name} says nothing of what it is"


def prints(source: str) -> Iterator[str]:
    """Calls of `print`."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Call(func=ast.Name(id="print")):
                yield f"{node.lineno}: print outside the command line"


def swallows_everything(source: str) -> Iterator[str]:
    """Bare excepts, and handlers that would hide our own bugs."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.ExceptHandler(type=None):
                yield f"{node.lineno}: bare except"
            case ast.ExceptHandler(type=ast.Name(id="AssertionError")):
                yield f"{node.lineno}: an AssertionError is our bug and is never caught"


def impure(source: str) -> Iterator[str]:
    """What would let the core meet a clock, the world, or chance that no seed decides."""
    tree = ast.parse(source)
    the_module = any(
        isinstance(node, ast.Import) and any(alias.name == "random" for alias in node.names)
        for node in ast.walk(tree)
    )
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                roots = [alias.name.split(".")[0] for alias in names]
            case ast.ImportFrom(module=str(module), names=names):
                roots = [module.split(".")[0]]
                if module == "random" and any(alias.name != "Random" for alias in names):
                    yield f"{node.lineno}: global randomness"
            case ast.Attribute(value=ast.Name(id="random"), attr=attribute):
                if the_module and attribute in DRAWS:
                    yield f"{node.lineno}: random.{attribute} draws from global randomness"
                continue
            case ast.Call(func=ast.Name(id="hash" | "id" as name)):
                yield f"{node.lineno}: {name}() differs from run to run"
                continue
            case _:
                continue
        yield from (f"{node.lineno}: imports {root}" for root in roots if root in NO_IO)
    yield from _order_of_sets(tree)


DRAWS = frozenset(
    {
        *("betavariate", "choice", "choices", "expovariate", "gauss", "getrandbits", "randbytes"),
        *("randint", "random", "randrange", "sample", "seed", "shuffle", "triangular", "uniform"),
    }
)


def _order_of_sets(tree: ast.AST) -> Iterator[str]:
    """Iterations whose order nobody decides: over set displays, and over names declared as sets."""
    names = set(_names_of_sets(tree))
    for node in ast.walk(tree):
        match node:
            case ast.For(iter=iterated) | ast.comprehension(iter=iterated):
                pass
            case ast.Call(
                func=ast.Name(id="list" | "tuple" | "enumerate" | "iter" | "next"),
                args=[iterated, *_],
            ):
                pass
            case _:
                continue
        if _is_set(iterated) or ast.unparse(iterated) in names:
            yield f"{iterated.lineno}: iterates the set {ast.unparse(iterated)!r}: sort it"


def _names_of_sets(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.AnnAssign(target=target, annotation=annotation):
                if ast.unparse(annotation).startswith(("set", "frozenset")):
                    yield ast.unparse(target)
                    if isinstance(target, ast.Name):
                        yield f"self.{target.id}"
            case ast.Assign(targets=[target], value=value) if _is_set(value):
                yield ast.unparse(target)


def _is_set(node: ast.expr) -> bool:
    match node:
        case ast.Set() | ast.SetComp():
            return True
        case ast.Call(func=ast.Name(id="set" | "frozenset")):
            return True
        case _:
            return False
