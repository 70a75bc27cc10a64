"""The machines decide the same each time: they iterate no set and call nothing that answers differently.

A set of strings is walked in another order in each process, so a machine that iterates one can't be replayed
from a seed. tests/test_layers.py keeps modules out of the machines; this file reads their code. It knows a
set by its literal, its call, its annotation (of a name, a field, a parameter or a result, also as the values
of a mapping) and by what it was assigned from, within one file. Consumers to which the order is nothing, such
as `sorted` without a key, `len`, `any` and another set, may take one.
"""

from __future__ import annotations

import ast
import runpy
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
#: The files and folders that are machines, as the rules about imports list them.
MACHINES: tuple[str, ...] = runpy.run_path(str(ROOT / "tests" / "test_layers.py"))["CORES"]

SETS = frozenset({"set", "frozenset", "Set", "AbstractSet", "MutableSet"})
MAPPINGS = frozenset({"dict", "defaultdict", "Mapping", "MutableMapping"})
SET_METHODS = frozenset({"copy", "union", "intersection", "difference", "symmetric_difference"})
SET_OPERATORS = (ast.BitAnd, ast.BitOr, ast.BitXor, ast.Sub)
#: Calls that show the order of what they are given.
ORDER_SHOWING = frozenset(
    {"deque", "enumerate", "extend", "filter", "fromkeys", "iter", "join", "list", "map", "tuple", "zip"}
)
#: Calls that don't, unless a key lets two items stand level.
ORDER_BLIND = frozenset({"all", "any", "frozenset", "len", "max", "min", "set", "sorted", "sum"})
#: Builtins that do I/O, or answer differently in each process.
FORBIDDEN_CALLS = frozenset({"breakpoint", "hash", "id", "input", "open", "print"})

Function = ast.FunctionDef | ast.AsyncFunctionDef


def name_of(node: ast.expr) -> str:
    """Return the last part of a name or an attribute: `self.held` -> "held"; "" for anything else."""
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def annotates_a_set(annotation: ast.expr | None) -> bool:
    if isinstance(annotation, ast.BinOp):
        return annotates_a_set(annotation.left) or annotates_a_set(annotation.right)
    base = annotation.value if isinstance(annotation, ast.Subscript) else annotation
    return base is not None and name_of(base) in SETS


def annotates_a_mapping_to_sets(annotation: ast.expr | None) -> bool:
    if not isinstance(annotation, ast.Subscript) or not isinstance(annotation.slice, ast.Tuple):
        return False
    return name_of(annotation.value) in MAPPINGS and annotates_a_set(annotation.slice.elts[-1])


@dataclass
class Known:
    """What is known to be a set, a mapping to sets, or a function that returns a set."""

    sets: set[str] = field(default_factory=set[str])
    mappings: set[str] = field(default_factory=set[str])
    functions: set[str] = field(default_factory=set[str])

    def is_set(self, node: ast.expr) -> bool:
        match node:
            case ast.Set() | ast.SetComp():
                return True
            case ast.Name() | ast.Attribute():
                return name_of(node) in self.sets
            case ast.NamedExpr(value=value):
                return self.is_set(value)
            case ast.IfExp(body=body, orelse=orelse):
                return self.is_set(body) or self.is_set(orelse)
            case ast.BoolOp(values=values):
                return any(self.is_set(value) for value in values)
            case ast.BinOp(left=left, op=op, right=right) if isinstance(op, SET_OPERATORS):
                return any(self.is_set(side) or is_view_of_keys(side) for side in (left, right))
            case ast.Subscript(value=value):
                return name_of(value) in self.mappings
            case ast.Call(func=ast.Attribute(value=value, attr=method)):
                if method in ("get", "pop", "setdefault") and name_of(value) in self.mappings:
                    return True
                return method in self.functions or (method in SET_METHODS and self.is_set(value))
            case ast.Call(func=ast.Name(id=name)):
                return name in ("set", "frozenset") or name in self.functions
            case _:
                return False

    def learn(self, scope: ast.AST) -> None:
        """Take in what the scope annotates and assigns."""
        for node in ast.walk(scope):
            if isinstance(node, Function) and annotates_a_set(node.returns):
                self.functions.add(node.name)
            elif isinstance(node, ast.arg):
                self.add(node.arg, annotates_a_set(node.annotation), annotates_a_mapping_to_sets(node.annotation))
            elif isinstance(node, ast.AnnAssign):
                self.add(
                    name_of(node.target),
                    annotates_a_set(node.annotation),
                    annotates_a_mapping_to_sets(node.annotation),
                )
            elif isinstance(node, ast.Assign):
                for target in node.targets:
                    self.add(name_of(target), self.is_set(node.value), False)
            elif isinstance(node, ast.NamedExpr):
                self.add(node.target.id, self.is_set(node.value), False)

    def add(self, name: str, is_set: bool, is_mapping: bool) -> None:
        if name and is_set:
            self.sets.add(name)
        if name and is_mapping:
            self.mappings.add(name)


def is_view_of_keys(node: ast.expr) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "keys"


def outermost_functions(node: ast.AST) -> Iterator[Function]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, Function):
            yield child
        else:
            yield from outermost_functions(child)


def scopes(tree: ast.Module) -> Iterator[tuple[ast.AST, Known]]:
    """Yield each outermost function, and the rest of the module, with what is a set there.

    A local name is known only in its function; a field is known in the whole file, whoever holds it.
    """
    functions = list(outermost_functions(tree))
    bodies = [tree.body, *(node.body for node in ast.walk(tree) if isinstance(node, ast.ClassDef))]
    fields: list[ast.stmt] = [node for body in bodies for node in body if isinstance(node, ast.Assign | ast.AnnAssign)]
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(isinstance(target, ast.Attribute) for target in targets):
                fields.append(node)
    everything = Known()
    everything.learn(tree)
    shared = Known(functions=everything.functions)
    shared.learn(ast.Module(fields, []))
    for function in functions:
        known = Known(set(shared.sets), set(shared.mappings), set(shared.functions))
        known.learn(function)
        known.learn(function)  # a second time, for what was assigned from a name that is learnt further down
        yield function, known
    yield ast.Module([node for node in tree.body if not isinstance(node, Function)], []), shared


def offences(path: str, source: str) -> list[str]:
    """Return a sentence for each place in a machine that shows a set's order or leaves the machine."""
    found: set[tuple[int, str]] = set()
    for scope, known in scopes(ast.parse(source, path)):
        found.update((line, text) for line, text in offences_in(scope, known))
    return [f"{path}:{line}: {text}" for line, text in sorted(found)]


def offences_in(scope: ast.AST, known: Known) -> Iterator[tuple[int, str]]:
    blind = {
        id(argument)
        for node in ast.walk(scope)
        if isinstance(node, ast.Call) and name_of(node.func) in ORDER_BLIND and not node.keywords
        for argument in node.args
    }
    for node in ast.walk(scope):
        shown: list[ast.expr] = []
        match node:
            case ast.For(iter=iterated) | ast.AsyncFor(iter=iterated) | ast.YieldFrom(value=iterated):
                shown.append(iterated)
            case ast.ListComp() | ast.DictComp() | ast.GeneratorExp() if id(node) not in blind:
                shown.extend(generator.iter for generator in node.generators)
            case ast.List(elts=items) | ast.Tuple(elts=items):
                shown.extend(item.value for item in items if isinstance(item, ast.Starred))
            case ast.Call(func=function, args=arguments, keywords=keywords):
                name = name_of(function)
                if isinstance(function, ast.Name) and name in FORBIDDEN_CALLS:
                    yield (
                        node.lineno,
                        f"a machine calls {name}(); let its driver do it, or hand the answer in",
                    )
                if isinstance(function, ast.Attribute) and name == "pop" and not arguments:
                    shown.append(function.value)
                if name in ORDER_SHOWING or (name in ORDER_BLIND and keywords):
                    shown.extend(arguments)
                shown.extend(item.value for item in arguments if isinstance(item, ast.Starred))
            case ast.AsyncFunctionDef() | ast.Await() | ast.AsyncWith():
                yield node.lineno, "a machine waits for nothing; let its driver be asynchronous"
            case _:
                pass
        for expression in shown:
            if known.is_set(expression):
                text = ast.unparse(expression)
                yield (
                    expression.lineno,
                    f"a machine shows the order of the set {text}; sort it, or keep a dict",
                )


def machines() -> list[Path]:
    files: list[Path] = []
    for place in MACHINES:
        path = ROOT / place
        files.extend(sorted(path.rglob("*.py")) if path.is_dir() else [path] if path.exists() else [])
    return files


def test_the_machines_show_no_sets_order_and_call_nothing_outside() -> None:
    found = [
        sentence
        for path in machines()
        for sentence in offences(path.relative_to(ROOT).as_posix(), path.read_text("utf-8"))
    ]
    assert not found, "\n".join(["", *found])


BAD = (
    "for x in {1, 2}: f(x)",
    "for x in set(a): f(x)",
    "for x in frozenset(a) - b: f(x)",
    "for x in set(a).union(b): f(x)",
    "for x in a.keys() & b: f(x)",
    "y = [x for x in {1, 2}]",
    "y = {x: 1 for x in set(a)}",
    "y = list({1, 2})",
    "y = tuple(set(a))",
    "y = (*set(a), 1)",
    "y = ','.join({'a', 'b'})",
    "y = dict.fromkeys({'a', 'b'})",
    "y = min(set(a), key=f)",
    "y = sum(1 for x in a for y in {1})\nz = tuple(x for x in {1})",
    "def f(a: set[str]):\n    for x in a: g(x)",
    "def f(a: 'int', b: frozenset[str] | None):\n    g(*b)",
    "def f():\n    a = set()\n    b = a | {1}\n    return [x for x in b]",
    "def f():\n    if (a := set(b)): return list(a)",
    "def f():\n    for x in g(): pass\ndef g() -> set[int]: ...",
    "class A:\n    held: set[str]\n    def f(self):\n        for x in self.held: g(x)",
    "class A:\n    def __init__(self):\n        self.held = set()\n    def f(self):\n        self.held.pop()",
    "class A:\n    by: dict[str, set[int]]\n    def f(self, k):\n        for x in self.by[k]: g(x)",
    "class A:\n    by: dict[str, set[int]]\n    def f(self, k):\n        return list(self.by.get(k, ()))",
    "def f(a: set[int]):\n    yield from a",
    "y = hash('a')",
    "print('a')",
    "with open('a') as f: pass",
    "async def f(): pass",
)

GOOD = (
    "for x in [1, 2]: f(x)",
    "for x in sorted({1, 2}): f(x)",
    "y = len(set(a)) + max({1, 2})",
    "y = any(x > 1 for x in {1, 2})",
    "y = sorted(f(x) for x in set(a))",
    "y = {f(x) for x in set(a)}",
    "y = 1 in {1, 2}",
    "for x in a | b: f(x)",
    "def f():\n    a = set()\ndef g(a: list[int]):\n    for x in a: h(x)",
    "class A:\n    held: set[str]\n    def f(self, x):\n        self.held.add(x); return x in self.held",
    "class A:\n    by: dict[str, set[int]]\n    def f(self):\n        for k in self.by: g(k)",
    "def f(a: dict[int, int]):\n    return a.pop(1), list(a)",
    "def f(x: int) -> None:\n    self.print(x)\n    self.open()",
)


@pytest.mark.parametrize("source", BAD)
def test_a_machine_that_is_not_the_same_every_time_is_noticed(source: str) -> None:
    assert offences("transport/broker/x.py", source)


@pytest.mark.parametrize("source", GOOD)
def test_a_machine_may_ask_a_set_what_has_no_order(source: str) -> None:
    assert offences("transport/broker/x.py", source) == []
