"""What code a run depends on, and hashes of it that only a change of meaning changes.

Hashed is the syntax tree without docstrings: comments, layout, quotes and redundant parentheses do not count, and
Python 3.11 to 3.13 agree. Modules count whole, with all of ours that they import. Modules of `attn.experiments`
hold figures and claims too, so there only what the builder reaches counts, definition by definition.

Methods named as in `EVALUATION_METHODS`, and what only they reach (functions, modules, and methods of the same
object), have hashes of their own: a change there leaves the losses of training as they are, so that a replay of
losses cannot speak for it.
"""

from __future__ import annotations

import ast
import copy
import hashlib
import importlib.util
import inspect
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import NamedTuple

EVALUATION_METHODS = ("evaluate", "outcome")
EVALUATION = " (evaluation)"  # ends the key of an evaluation hash
_PACKAGE = "attn"
_BY_DEFINITION = "attn.experiments"
# What a run's numbers do not depend on: judging, drawing, command line.
_LEFT_OUT = ("attn.reproduction", "attn.cli", "attn.book")
_ALWAYS = ("attn.training.loop",)  # every run is trained by it
_Scope = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def source_hashes(build: Callable) -> dict[str, str]:
    """Hash of everything a run depends on, by module and, for the builder's own part, "module:builder"."""
    files = [*Path(__file__).parents[1].rglob("*.py"), Path(inspect.getfile(build))]
    return dict(_source_hashes(build, tuple((str(path), path.stat().st_mtime_ns) for path in files)))


@lru_cache(maxsize=64)
def _source_hashes(build: Callable, stamp: tuple[tuple[str, int], ...]) -> dict[str, str]:
    everything = _reach(build, without=frozenset())
    names = _evaluation_names(everything.statements)
    training = _reach(build, without=names)
    own = f"{build.__module__}:{build.__name__}"
    hashes = {own: _hash(_training_part(node, names) for node in training.statements)}
    only_evaluated = [node for node in everything.statements if node not in training.statements]
    methods = [method for node in training.statements for method in _evaluation_methods(node, names)]
    if only_evaluated or methods:
        hashes[own + EVALUATION] = _hash([*methods, *only_evaluated])
    needed = _closure({*training.modules, *_ALWAYS})
    for module in sorted(_closure({*everything.modules, *_ALWAYS})):
        if module not in needed:
            hashes[module + EVALUATION] = _whole_hash(_tree(module))
            continue
        hashes[module], evaluation = _part_hashes(_tree(module))
        if evaluation:
            hashes[module + EVALUATION] = evaluation
    return hashes


# Trees of modules are parsed once and kept, so what is found out about a node is kept with it.


@cache
def _whole_hash(tree: ast.Module) -> str:
    return _hash([tree])


@cache
def _part_hashes(tree: ast.Module) -> tuple[str, str | None]:
    """Hashes of what training uses of a module, and of its evaluation methods if it has any."""
    names = _evaluation_names([tree])
    methods = _evaluation_methods(tree, names)
    return _hash([_training_part(tree, names)]), _hash(methods) if methods else None


def tree_hash(source: str) -> str:
    """sha256 of what Python source means, without docstrings, comments and layout."""
    return _hash([ast.parse(source)])


# --- hashing ---------------------------------------------------------------------------------------------


def _hash(nodes: Iterable[ast.AST]) -> str:
    digest = hashlib.sha256()
    for node in nodes:
        digest.update(_canonical(node).encode())
        digest.update(b"\n")
    return digest.hexdigest()


def _canonical(value: object) -> str:
    """Type names and filled fields, all the way down; empty fields are left out, as new Pythons add some."""
    if isinstance(value, ast.AST):
        fields = {
            name: field for name, field in ast.iter_fields(value) if name not in ("kind", "type_comment")
        }
        if isinstance(value, _Scope):
            fields["body"] = _without_docstring(value)
        filled = [
            f"{name}={_canonical(field)}"
            for name, field in fields.items()
            if field is not None and field != []
        ]
        return f"{type(value).__name__}({', '.join(filled)})"
    if isinstance(value, list):
        return f"[{', '.join(map(_canonical, value))}]"
    return f"{type(value).__name__}:{value!r}"


def _without_docstring(scope: _Scope) -> list[ast.stmt]:
    body = scope.body
    if body and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
        return body[1:] if isinstance(body[0].value.value, str) else body
    return body


@cache
def _methods(node: ast.AST) -> tuple[ast.FunctionDef, ...]:
    """Methods of every class in `node`."""
    classes = [item for item in ast.walk(node) if isinstance(item, ast.ClassDef)]
    return tuple(method for item in classes for method in item.body if isinstance(method, ast.FunctionDef))


class _Used(NamedTuple):
    names: frozenset[str]
    attributes: frozenset[str]


@cache
def _used(node: ast.AST, without: frozenset[str] = frozenset()) -> _Used:
    """Names and attributes in `node`, but not those in methods named in `without`."""
    names, attributes, todo = set(), set(), [node]
    while todo:
        item = todo.pop()
        if isinstance(item, ast.Name):
            names.add(item.id)
        elif isinstance(item, ast.Attribute):
            attributes.add(item.attr)
        todo += [child for child in ast.iter_child_nodes(item) if not _is_left_out(item, child, without)]
    return _Used(frozenset(names), frozenset(attributes))


def _is_left_out(scope: ast.AST, item: ast.AST, names: frozenset[str]) -> bool:
    """Whether `item` in the body of `scope` is a method of one of these names."""
    return isinstance(scope, ast.ClassDef) and isinstance(item, ast.FunctionDef) and item.name in names


def _attributes(nodes: Iterable[ast.AST], without: frozenset[str] = frozenset()) -> set[str]:
    return set().union(*(_used(node, without).attributes for node in nodes))


def _evaluation_names(nodes: list[ast.AST]) -> frozenset[str]:
    """`EVALUATION_METHODS`, and the methods in `nodes` that these alone use, directly or not."""
    methods = [method for node in nodes for method in _methods(node)]
    names = frozenset(EVALUATION_METHODS)
    while True:
        used = _attributes(method for method in methods if method.name in names)
        candidates = {method.name for method in methods if method.name in used} - names
        # a method that calls its parent's of the same name does not thereby belong to training
        more = {name for name in candidates if name not in _attributes(nodes, names | {name})}
        if not more:
            return names
        names |= more


def _evaluation_methods(node: ast.AST, names: frozenset[str]) -> list[ast.FunctionDef]:
    """Evaluation methods of every class in `node`."""
    return [method for method in _methods(node) if method.name in names]


class _Strip(ast.NodeTransformer):
    def __init__(self, names: frozenset[str]) -> None:
        self.names = names

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.ClassDef:
        node.body = [item for item in node.body if not _is_left_out(node, item, self.names)]
        return self.generic_visit(node)


def _training_part(node: ast.AST, names: frozenset[str]) -> ast.AST:
    """The node without the evaluation methods of these names; the original stays as it is."""
    return _Strip(names).visit(copy.deepcopy(node))


# --- modules ---------------------------------------------------------------------------------------------


@cache
def _module_file(module: str) -> Path | None:
    try:
        spec = importlib.util.find_spec(module)
    except ModuleNotFoundError:
        return None
    return Path(spec.origin) if spec is not None and spec.origin and spec.origin.endswith(".py") else None


@cache
def _parsed(path: Path, changed: int) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


def _tree(module: str) -> ast.Module:
    path = _module_file(module)
    return _parsed(path, path.stat().st_mtime_ns)


def _within(module: str, packages: Iterable[str]) -> bool:
    return any(module == name or module.startswith(name + ".") for name in packages)


class _Import(NamedTuple):
    bound: str  # the name it binds here, "*" for all
    module: str  # the module that is run for it
    name: str | None  # the name there, None if a module itself is bound


@cache
def _imports(tree: ast.Module, module: str) -> tuple[_Import, ...]:
    """Imports of ours anywhere in `tree`, the source of `module`."""
    return tuple(_found_imports(tree, module))


def _found_imports(tree: ast.Module, module: str) -> Iterator[_Import]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if _within(alias.name, [_PACKAGE]):
                    yield _Import(alias.asname or _PACKAGE, alias.name, None)
        elif isinstance(node, ast.ImportFrom):
            origin = _origin(node, module)
            for alias in node.names if _within(origin, [_PACKAGE]) else ():
                submodule = f"{origin}.{alias.name}"
                bound = alias.asname or alias.name
                if _module_file(submodule):
                    yield _Import(bound, submodule, None)
                else:
                    yield _Import(bound, origin, alias.name)


def _origin(node: ast.ImportFrom, module: str) -> str:
    """The module that a from-import names, relative ones resolved."""
    if node.level == 0:
        return node.module or ""
    is_package = _module_file(module).name == "__init__.py"
    parts = module.split(".")
    base = parts[: len(parts) - node.level + is_package]
    return ".".join([*base, *([node.module] if node.module else [])])


def _closure(modules: set[str]) -> set[str]:
    """The modules and all of ours that they import, directly or not, packages' own files included."""
    seen: set[str] = set()
    todo = list(modules)
    while todo:
        module = todo.pop()
        if module in seen or _within(module, [*_LEFT_OUT, _BY_DEFINITION]) or _module_file(module) is None:
            continue
        seen.add(module)
        todo += [found.module for found in _imports(_tree(module), module)]
        if "." in module and module.rpartition(".")[0] != _PACKAGE:
            todo.append(module.rpartition(".")[0])
    return seen


# --- definitions -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Reach:
    statements: list[ast.stmt]  # of modules that count by definition, in a fixed order
    modules: set[str]  # that count whole


def _reach(build: Callable, *, without: frozenset[str]) -> _Reach:
    """What `build` uses: statements of experiments modules, and other modules that these name.

    What only methods named in `without` use is left out.
    """
    start = inspect.getmodule(build).__name__
    todo, seen, modules = [(start, build.__name__)], set(), set()
    found: dict[tuple[str, int], ast.stmt] = {}
    while todo:
        module, name = todo.pop()
        if (module, name) in seen:
            continue
        seen.add((module, name))
        tree = _tree(module)
        for item in _imports(tree, module):
            if item.bound not in (name, "*"):
                continue
            if not _within(item.module, [_BY_DEFINITION]):
                modules.add(item.module)
            elif item.name is None:  # a module used by attribute: all of it
                todo += [(item.module, other) for node in _tree(item.module).body for other in _stored(node)]
            else:
                todo.append((item.module, name if item.name == "*" else item.name))
        for position, statement in enumerate(tree.body):
            if name in _stored(statement):
                found[module, position] = statement
                todo += [(module, used) for used in _used(statement, without).names]
    ordered = [found[place] for place in sorted(found)]
    return _Reach(ordered, modules)


_NewScope = (
    ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda
    | ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp
)  # fmt: skip


@cache
def _stored(statement: ast.stmt) -> frozenset[str]:
    """Names that a top-level statement defines or changes in its module."""
    names, todo = set(), [statement]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store | ast.Del):
            names.add(node.id)
        if not isinstance(node, _NewScope):
            todo += ast.iter_child_nodes(node)
    return frozenset(names)
