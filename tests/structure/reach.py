"""Who reaches into another package's objects: read from the source, with what its types say.

A package may call what it imports. It may not assign to a field of another package's object, nor
change a container that it found there: who owns a field must be able to rely on it. Types are
known from annotations and from constructors; what has no known type is not judged.
"""

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.structure.arrows import file_of

CONTAINERS = frozenset(
    {"dict", "list", "set", "deque", "Counter", "defaultdict", "OrderedDict", "bytearray"}
)
MUTATORS = frozenset(
    {
        *("add", "append", "appendleft", "clear", "discard", "extend", "insert", "pop", "popitem"),
        *("popleft", "remove", "reverse", "rotate", "setdefault", "sort", "subtract", "update"),
    }
)
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass
class Class:
    """A class as its source shows it."""

    name: str
    package: str
    bases: tuple[str, ...] = ()
    fields: dict[str, "Type"] = field(default_factory=dict)
    returns: dict[str, "Type"] = field(default_factory=dict)
    """Of its methods and properties."""


@dataclass(frozen=True)
class Type:
    """The full name of a class, or of a container; of containers, what its items are."""

    name: str
    item: "Type | None" = None


@dataclass
class Module:
    """A module's names, and the full names that they stand for."""

    name: str
    package: str
    tree: ast.Module
    names: dict[str, str] = field(default_factory=dict)
    aliases: dict[str, ast.expr] = field(default_factory=dict)


class Tree:
    """All modules below a root, and every class in them."""

    def __init__(self, root: Path, top: str = "overlay") -> None:
        self.classes: dict[str, Class] = {}
        self.functions: dict[str, tuple[Module, Function]] = {}
        self.modules: dict[str, Module] = {}
        for path in sorted((root / top).rglob("*.py")):
            self._read(root, path)
        for module in self.modules.values():
            _name(module, self.modules)
        for module in self.modules.values():
            for node in module.tree.body:
                if isinstance(node, ast.ClassDef):
                    self._declare(module, node)
        for module in self.modules.values():
            for node in module.tree.body:
                if isinstance(node, ast.ClassDef):
                    self._learn(module, node)

    def _read(self, root: Path, path: Path) -> None:
        parts = path.relative_to(root).with_suffix("").parts
        package = ".".join(parts[:-1])
        name = package if parts[-1] == "__init__" else ".".join(parts)
        self.modules[name] = Module(name, package, ast.parse(path.read_text()))

    def _declare(self, module: Module, node: ast.ClassDef) -> None:
        full = f"{module.name}.{node.name}"
        bases = tuple(found.name for each in node.bases if (found := self.type_of(module, each)))
        self.classes[full] = Class(full, module.package, bases)

    def _learn(self, module: Module, node: ast.ClassDef) -> None:
        """The types of its fields, as far as annotations and constructors say."""
        known = self.classes[f"{module.name}.{node.name}"]
        for each in node.body:
            match each:
                case ast.AnnAssign(target=ast.Name(id=name), annotation=annotation):
                    _put(known.fields, name, self.type_of(module, annotation))
                case ast.FunctionDef() | ast.AsyncFunctionDef():
                    if each.returns is not None:
                        _put(known.returns, each.name, self.type_of(module, each.returns))
        for method in node.body:
            if isinstance(method, Function):
                names = Scope(self, module, method, known).names
                for statement in ast.walk(method):
                    self._learn_from(module, known, names, statement)

    def _learn_from(
        self, module: Module, known: Class, names: Mapping[str, Type], statement: ast.AST
    ) -> None:
        match statement:
            case ast.AnnAssign(
                target=ast.Attribute(value=ast.Name(id="self"), attr=name), annotation=annotation
            ):
                _put(known.fields, name, self.type_of(module, annotation))
            case ast.Assign(targets=targets, value=value):
                for target in targets:
                    match target:
                        case ast.Attribute(value=ast.Name(id="self"), attr=name):
                            _put(known.fields, name, self._made(module, names, value))

    def _made(self, module: Module, names: Mapping[str, Type], value: ast.expr) -> Type | None:
        match value:
            case ast.Name(id=name):
                return names.get(name)
            case ast.Call(func=func):
                found = self.type_of(module, func)
                known = found and (found.name in self.classes or found.name in CONTAINERS)
                return found if known else None
            case ast.Dict() | ast.DictComp():
                return Type("dict")
            case ast.List() | ast.ListComp():
                return Type("list")
            case ast.Set() | ast.SetComp():
                return Type("set")
            case ast.NamedExpr(target=ast.Name(), value=inner):
                return self._made(module, names, inner)
        return None

    def type_of(self, module: Module, annotation: ast.expr) -> Type | None:
        """What an annotation says: a class of ours or a container; None for anything else."""
        match annotation:
            case ast.Constant(value=str(text)):
                try:
                    return self.type_of(module, ast.parse(text, mode="eval").body)
                except SyntaxError:
                    return None
            case ast.Name(id=name):
                if name in CONTAINERS:
                    return Type(name)
                full = module.names.get(name, "")
                alias = self.modules.get(full.rpartition(".")[0])
                if full and full not in self.classes and alias is not None:
                    target = alias.aliases.get(full.rpartition(".")[2])
                    return self.type_of(alias, target) if target is not None else Type(full)
                return Type(full) if full else None
            case ast.Attribute(value=ast.Name(id=name), attr=attribute):
                outer = module.names.get(name, "")
                return Type(f"{outer}.{attribute}") if outer in self.modules else None
            case ast.BinOp(op=ast.BitOr(), left=left, right=right):
                return self.type_of(module, left) or self.type_of(module, right)
            case ast.Subscript(value=outer, slice=inner):
                found = self.type_of(module, outer)
                item = inner.elts[-1] if isinstance(inner, ast.Tuple) and inner.elts else inner
                if found is None:
                    return None
                return Type(found.name, self.type_of(module, item))
        return None

    def attribute(self, owner: Type, name: str) -> Type | None:
        """The type of a field, property or method's result."""
        known = self.classes.get(owner.name)
        if known is None:
            return None
        found = known.fields.get(name) or known.returns.get(name)
        if found is not None:
            return found
        inherited = (self.attribute(Type(base), name) for base in known.bases)
        return next((each for each in inherited if each), None)


def _put(fields: dict[str, Type], name: str, found: Type | None) -> None:
    if found is not None:
        fields.setdefault(name, found)


def _name(module: Module, modules: Mapping[str, Module]) -> None:
    """The names that a module's imports and definitions bind."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                module.names[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    for each in module.tree.body:
        match each:
            case ast.ClassDef(name=name):
                module.names[name] = f"{module.name}.{name}"
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                module.names.setdefault(name, f"{module.name}.{name}")
                module.aliases[name] = value


class Scope:
    """The local names of one function, and their types."""

    def __init__(self, tree: Tree, module: Module, function: Function, owner: Class | None) -> None:
        self.tree, self.module = tree, module
        self.names: dict[str, Type] = {}
        self.fresh: set[str] = set()
        """Names of objects that this function has made itself."""
        if owner is not None:
            self.names["self"] = Type(owner.name)
        spec = function.args
        for argument in [*spec.posonlyargs, *spec.args, *spec.kwonlyargs]:
            if argument.annotation is not None:
                found = tree.type_of(module, argument.annotation)
                if found is not None:
                    self.names[argument.arg] = found
        for node in ast.walk(function):
            self._bind(node)

    def _bind(self, node: ast.AST) -> None:
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                self._learn(name, value)
            case ast.NamedExpr(target=ast.Name(id=name), value=value):
                self._learn(name, value)
            case ast.AnnAssign(target=ast.Name(id=name), annotation=annotation):
                found = self.tree.type_of(self.module, annotation)
                if found is not None:
                    self.names[name] = found
            case ast.For(target=ast.Name(id=name), iter=iterated):
                found = self.type_of(iterated)
                if found is not None and found.item is not None:
                    self.names[name] = found.item

    def _learn(self, name: str, value: ast.expr) -> None:
        found = self.type_of(value)
        if found is not None:
            self.names[name] = found
            if isinstance(value, ast.Call) and self.tree.type_of(self.module, value.func):
                self.fresh.add(name)

    def type_of(self, node: ast.expr) -> Type | None:
        """The type of an expression, if the source says it."""
        match node:
            case ast.Name(id=name):
                return self.names.get(name)
            case ast.Attribute(value=value, attr=name):
                owner = self.type_of(value)
                return self.tree.attribute(owner, name) if owner else None
            case ast.Subscript(value=value):
                owner = self.type_of(value)
                return owner.item if owner else None
            case ast.Call(func=ast.Attribute(value=value, attr=name)):
                owner = self.type_of(value)
                if owner is None:
                    return None
                if owner.name in CONTAINERS:
                    return owner.item if name in {"get", "pop", "popleft"} else None
                return self.tree.attribute(owner, name)
            case ast.Call(func=ast.Name() as func):
                found = self.tree.type_of(self.module, func)
                return found if found and found.name in self.tree.classes else None
            case ast.NamedExpr(value=value):
                return self.type_of(value)
            case ast.IfExp(body=body, orelse=orelse):
                return self.type_of(body) or self.type_of(orelse)
        return None


def reaches(tree: Tree) -> Iterator[str]:
    """Every place where a package changes what belongs to another: module, line, what it does."""
    for module in tree.modules.values():
        for function, owner in _functions(tree, module):
            scope = Scope(tree, module, function, owner)
            for node in ast.walk(function):
                for verb, target in _changes(scope, node):
                    foreign = _foreign(scope, target)
                    if foreign:
                        text = ast.unparse(target)
                        where = f"{file_of(module.name)}:{target.lineno}"
                        yield f"{where}: {verb} {text}, which is {foreign}'s"


def _functions(tree: Tree, module: Module) -> Iterator[tuple[Function, Class | None]]:
    for node in module.tree.body:
        if isinstance(node, Function):
            yield node, None
        elif isinstance(node, ast.ClassDef):
            for method in node.body:
                if isinstance(method, Function):
                    yield method, tree.classes[f"{module.name}.{node.name}"]


def _changes(scope: Scope, node: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    """What a statement assigns to, deletes or mutates."""
    match node:
        case ast.Assign(targets=targets):
            for target in targets:
                for each in target.elts if isinstance(target, ast.Tuple) else [target]:
                    yield "assigns to", each
        case ast.AugAssign(target=target):
            yield "assigns to", target
        case ast.AnnAssign(target=target, value=ast.expr()):
            yield "assigns to", target
        case ast.Delete(targets=targets):
            for target in targets:
                yield "deletes", target
        case ast.Call(
            func=ast.Attribute(value=ast.Attribute() | ast.Subscript() as value, attr=attr)
        ):
            found = scope.type_of(value)
            if attr in MUTATORS and (found is None or found.name not in scope.tree.classes):
                yield f"mutates by {attr}", value


def _foreign(scope: Scope, target: ast.expr) -> str:
    """The class of another package whose object is on the way to the target; empty if none is."""
    node = target
    while isinstance(node, ast.Attribute | ast.Subscript):
        node = node.value
        if isinstance(node, ast.Name) and (node.id == "self" or node.id in scope.fresh):
            return ""
        owner = scope.type_of(node)
        known = scope.tree.classes.get(owner.name) if owner else None
        if known is not None and known.package != scope.module.package:
            return known.name
    return ""
