"""The house rules: sizes, which way imports point, and that everything public says what it is."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import get_type_hints

import pytest
from conftest import ROOT
from typer.models import OptionInfo

from pai_cli.app import app

PACKAGE = ROOT / "pai_cli"
LAYERS = (
    *(
        "commands",
        "api",
        "display",
        "sampling",
        "ranking",
        "methods",
        "training",
        "mining",
        "analysis",
        "compacting",
        "pruning",
    ),
    *("models", "data", "files", "compute", "spectral"),
)
GROUND = {
    *((above, below) for above in ("errors", "telling") for below in ("printable", "spelling")),
    *((above, below) for above in ("random", "refusals") for below in ("errors", "spelling")),
    ("refusals", "telling"),
}
BOTTOM = ("errors", "progress", "printable", "refusals", "spelling", "telling", "random")

MOST_LINES_OF_FUNCTION, MOST_LINES_OF_MODULE, MOST_PARAMETERS = 50, 400, 7

Function = ast.FunctionDef | ast.AsyncFunctionDef


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


@cache
def text_of(module: str) -> str:
    return MODULES[module].read_text(encoding="utf-8")


@cache
def tree_of(module: str) -> ast.Module:
    return ast.parse(text_of(module))


@cache
def nodes_of(module: str) -> tuple[ast.AST, ...]:
    return tuple(ast.walk(tree_of(module)))


@cache
def lines_of(module: str) -> list[str]:
    return text_of(module).splitlines()


def functions(module: str) -> Iterator[Function]:
    return (node for node in nodes_of(module) if isinstance(node, Function))


def lines_of_code(module: str, function: Function) -> int:
    """Lines that are neither blank nor comment nor docstring; for a command, whose signature has a parameter a flag,
    those of its body.
    """
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    if not body:
        return 0
    text = lines_of(module)
    spans = [(body[0].lineno, body[-1].end_lineno or 0)]
    if not module.startswith(("pai_cli.commands.", "pai_cli.api.")):
        spans.append((function.lineno, function.body[0].lineno - 1))
    lines = [text[number - 1].strip() for begin, end in spans for number in range(begin, end + 1)]
    return sum(1 for line in lines if line and not line.startswith("#"))


@cache
def imported(module: str) -> set[str]:
    """The modules of this package that a module imports, at its top or inside its functions."""
    found = set()
    for node in nodes_of(module):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import"
            assert node.module is not None
            assert all(alias.name != "*" for alias in node.names), f"{module}: import *"
            deeper = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (deeper & set(MODULES)) or {node.module}
    return {name for name in found if name.split(".")[0] == "pai_cli"}


def layer(module: str) -> str:
    """`spectral` of `pai_cli.spectral.problems`; "" of the package itself."""
    return module.split(".")[1] if "." in module else ""


def may_import(importer: str, target: str) -> bool:
    above, below = layer(importer), layer(target)
    if above in ("app", "__main__"):
        return True
    if importer == "pai_cli":  # the library's face
        return below in ("api", *BOTTOM)
    if below in ("", *BOTTOM):  # the package itself holds the version
        return below == "" or above not in BOTTOM or ((above, below) in GROUND)
    if above not in LAYERS or below not in LAYERS:
        return False
    return LAYERS.index(above) <= LAYERS.index(below)


def test_functions_are_short() -> None:
    sizes = {
        f"{module}:{one.name}:{one.lineno}": lines_of_code(module, one)
        for module in MODULES
        for one in functions(module)
    }
    assert {name: size for name, size in sizes.items() if size > MOST_LINES_OF_FUNCTION} == {}


def test_modules_are_short() -> None:
    sizes = {module: len(lines_of(module)) for module in MODULES}
    assert {module: size for module, size in sizes.items() if size > MOST_LINES_OF_MODULE} == {}


def parameters(function: Function) -> int:
    given = function.args
    every = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
    return sum(1 for one in every if one is not None and one.arg not in ("self", "cls"))


def test_parameters_are_few() -> None:
    modules = [module for module in MODULES if layer(module) not in ("commands", "api")]
    counts = {f"{module}:{one.name}:{one.lineno}": parameters(one) for module in modules for one in functions(module)}
    assert {name: count for name, count in counts.items() if count > MOST_PARAMETERS} == {}


def test_arrows_point_down() -> None:
    every = [(module, target) for module in MODULES for target in sorted(imported(module))]
    assert [pair for pair in every if not may_import(*pair)] == []


def test_commands_call_the_library_and_nothing_below() -> None:
    """From below `api` they take what options are made of: constants, choices, and the names of methods."""
    taken = {
        alias.name
        for module in MODULES
        if layer(module) == "commands"
        for node in nodes_of(module)
        if isinstance(node, ast.ImportFrom) and layer(node.module or "") in LAYERS[LAYERS.index("display") + 1 :]
        for alias in node.names
    }
    choices = {
        one.name
        for module in MODULES
        for one in nodes_of(module)
        if isinstance(one, ast.ClassDef) and {"Enum", "StrEnum"} & {ast.unparse(base) for base in one.bases}
    }
    assert {name for name in taken - choices if not name.isupper()} <= {"names", "Recipe"}


def test_the_engine_knows_errors_and_itself() -> None:
    engine = [module for module in MODULES if layer(module) == "spectral"]
    assert {layer(target) for module in engine for target in imported(module)} <= {
        "spectral",
        "errors",
        "printable",
        "spelling",
    }


def test_every_import_of_this_package_exists() -> None:
    assert {target for module in MODULES for target in imported(module)} <= set(MODULES)


def test_every_folder_has_its_place() -> None:
    folders = {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders == set(LAYERS)
    files = {path.stem for path in PACKAGE.glob("*.py")}
    assert files == {"__init__", "__main__", "app", *BOTTOM}


def test_imports_run_in_no_circle() -> None:
    done: set[str] = set()

    def visit(module: str, way: tuple[str, ...]) -> None:
        assert module not in way, " -> ".join((*way[way.index(module) :], module))
        if module in done:
            return
        for target in sorted(imported(module) if module != "pai_cli" else ()):  # whose names load when they are used
            visit(target, (*way, module))
        done.add(module)

    for module in MODULES:
        visit(module, ())
    assert done == set(MODULES)


def public(module: str) -> Iterator[tuple[str, ast.AST]]:
    yield module, tree_of(module)
    for node in tree_of(module).body:
        if not isinstance(node, (Function, ast.ClassDef)) or node.name.startswith("_"):
            continue
        yield node.name, node
        if isinstance(node, ast.ClassDef):
            methods = [n for n in node.body if isinstance(n, Function) and not n.name.startswith("_")]
            yield from ((f"{node.name}.{method.name}", method) for method in methods)


def test_everything_public_says_what_it_is() -> None:
    every = [(module, name, node) for module in MODULES for name, node in public(module)]
    assert [(module, name) for module, name, node in every if not ast.get_docstring(node)] == []  # type: ignore[arg-type]


def test_docstrings_are_text_not_broken_string_literals() -> None:
    """A reflowed string leaves `"` at the end of one line and at the beginning of the next."""
    broken = []
    for node in (node for module in MODULES for node in nodes_of(module)):
        if isinstance(node, (ast.Module, ast.ClassDef, Function)):
            lines = [line.strip() for line in (ast.get_docstring(node, clean=False) or "").splitlines()]
            broken += [a for a, b in pairwise(lines) if a.endswith(' "') and b.startswith('"')]
    assert broken == []


@pytest.mark.parametrize(
    ("importer", "target", "allowed"),
    [
        ("pai_cli.commands.prune", "pai_cli.spectral.metrics", True),
        ("pai_cli.spectral.metrics", "pai_cli.files.masks", False),
        ("pai_cli.files.masks", "pai_cli.analysis.masks", False),
        ("pai_cli.display.ranking", "pai_cli.ranking.order", True),
        ("pai_cli.ranking.order", "pai_cli.display.ranking", False),
        ("pai_cli.pruning.run", "pai_cli.data.batches", True),
        ("pai_cli.data.npz", "pai_cli.files.messages", True),
        ("pai_cli.data.npz", "pai_cli.models.mlp", False),
        ("pai_cli.progress", "pai_cli.errors", False),
        ("pai_cli.errors", "pai_cli.printable", True),
        ("pai_cli.printable", "pai_cli.errors", False),
        ("pai_cli.files.masks", "pai_cli.app", False),
        ("pai_cli.app", "pai_cli.commands.prune", True),
    ],
)
def test_the_rule_itself(importer: str, target: str, allowed: bool) -> None:
    assert may_import(importer, target) is allowed


def test_options_are_named_by_themselves() -> None:
    """Some releases of typer (0.27) make `--DATA` of an option `data` whose name is told by its metavar alone."""
    for command in app.registered_commands:
        assert command.callback is not None
        for name, hint in get_type_hints(command.callback, include_extras=True).items():
            for info in getattr(hint, "__metadata__", ()):
                if isinstance(info, OptionInfo) and (info.metavar or "").lower() == name:
                    told = (info.default, *info.param_decls)  # without a default the first name stands in its place
                    assert any(str(one).startswith("--") for one in told), (
                        f"{command.callback.__name__}: name --{name} in its typer.Option"
                    )


IN_SHELL = ("commands", "display", "app", "__main__", "spelling")
"""Whose words are the command line's own; `spelling` is what knows the flags."""

FLAG = re.compile(r"(?<![\w-])(--[a-z][a-z-]*|-[how]\b)")
OF_OTHERS = "torchrun --nproc-per-node"  # what a person types to another program


def flags_in(source: ast.AST) -> list[str]:
    """Every flag that stands in a string, docstrings among them, with its line."""
    strings = [node for node in ast.walk(source) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    return [
        f"{node.lineno}: {flag}" for node in strings for flag in FLAG.findall(str(node.value).replace(OF_OTHERS, ""))
    ]


def test_no_flag_is_named_below_the_command_line() -> None:
    found = {module: flags_in(tree_of(module)) for module in MODULES if layer(module) not in IN_SHELL}
    assert {module: flags for module, flags in found.items() if flags} == {}


@pytest.mark.parametrize("text", ["give --data", "`--freeze-every` of", "another folder (-o)", "--seed", "{path}: -w"])
def test_a_flag_in_a_string_is_found(text: str) -> None:
    assert len(flags_in(ast.parse(f'f"""{text}"""'))) == 1


@pytest.mark.parametrize(
    "text", ["mlp-A-B", "a -- b", "-mask", "vgg-bn", "every `n`-th", "mkdir -p", "per_class=", "a-o"]
)
def test_what_is_no_flag_is_passed_over(text: str) -> None:
    assert flags_in(ast.parse(repr(text))) == []


AS_IT_IS = ("str", "repr", "format")
"""Calls that give an exception's text as it is; any other function that takes one is looked at itself."""


@cache
def own_exceptions() -> frozenset[str]:
    """Exceptions of this package, whose texts are its own."""
    found: set[str] = set()
    classes = [node for module in MODULES for node in nodes_of(module) if isinstance(node, ast.ClassDef)]
    for node in classes:
        if node.name.endswith("Error"):
            found.add(node.name)
    return frozenset(found)


def raw_messages(tree: ast.AST, own: frozenset[str]) -> list[int]:
    """Lines of texts that hold another library's message as it is: in the braces of a string, an exception that was caught,
    or that a function is given.
    """
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler) and node.name:
            given = {node.name: node.type}
        elif isinstance(node, Function):
            given = {one.arg: one.annotation for one in (*node.args.args, *node.args.kwonlyargs)}
        else:
            continue
        foreign = {name for name, kind in given.items() if kind is not None and _exceptions(kind) - own}
        braces = [one for one in ast.walk(node) if isinstance(one, ast.FormattedValue)] if foreign else []
        found += [one.lineno for one in braces if foreign & _named(one.value)]
    return found


def _exceptions(kind: ast.AST) -> set[str]:
    """Names of exceptions in what is caught, or in an annotation."""
    names = {node.id if isinstance(node, ast.Name) else node.attr for node in ast.walk(kind)
             if isinstance(node, ast.Name | ast.Attribute)}  # fmt: skip
    types = "type" in names  # of an exception, which says nothing
    return {name for name in names if name.endswith(("Error", "Exception", "Errors", "error")) and not types}


def _named(node: ast.AST) -> set[str]:
    """Names in an expression that no function is given; a file's name, and texts of this package's own, are no messages."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id not in AS_IT_IS:
        return set()
    if isinstance(node, ast.Attribute) and node.attr in ("filename", "text"):
        return set()
    inner = [_named(child) for child in ast.iter_child_nodes(node)]
    return set().union(*inner) | ({node.id} if isinstance(node, ast.Name) else set())


def test_what_libraries_say_is_made_one_printable_line() -> None:
    found = {module: raw_messages(tree_of(module), own_exceptions()) for module in MODULES}
    assert {module: lines for module, lines in found.items() if lines} == {}


@pytest.mark.parametrize(
    ("code", "lines"),
    [
        ('raise DataError(f"{path}: {e}")', [4]),
        ('raise DataError(f"{path}: {e.strerror or e}")', [4]),
        ('raise DataError(f"{path}: {e!r}")', [4]),
        ('note(f"{str(e)[:9]}")', [4]),
        ('raise DataError(f"{path}: {one_line(e)}, {type(e).__name__}, {reason_of(e)}")', []),
        ("if 'memory' in str(e): pass", []),
        ("def told(error: OSError | None) -> str: return f'{error}'", [4]),
        ("def told(error: type[Exception]) -> str: return f'{error.__name__}'", []),
    ],
)
def test_a_raw_message_is_found(code: str, lines: list[int]) -> None:
    tree = ast.parse(f"try:\n    pass\nexcept ValueError as e:\n    {code}")
    assert raw_messages(tree, frozenset()) == lines
    assert raw_messages(tree, frozenset(["ValueError", "OSError"])) == []
