"""The rules of the house, read off the sources: who imports whom, what is documented, what both doorways offer."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import click
import pytest

import recsys_dask
from recsys_dask import api, params
from recsys_dask.cli import program

ROOT = Path(recsys_dask.__file__).parent
TESTS = Path(__file__).parent
README = TESTS.parent / "README.md"


class Import(NamedTuple):
    """`target` is a module, as far as the package's own are concerned, else the dotted name."""

    source: str
    target: str
    line: int
    in_function: bool
    for_types: bool

    def __str__(self) -> str:
        return f"{self.source}:{self.line} imports {self.target}"


def module_name(path: Path) -> str:
    """`stages.ingest`; the package itself is the empty name, a package in it goes by its folder."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


TREES = {module_name(path): ast.parse(path.read_text(encoding="utf-8")) for path in sorted(ROOT.rglob("*.py"))}


def imported_names(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    assert isinstance(node, ast.ImportFrom) and node.module
    assert node.level == 0, "imports are absolute"
    return [f"{node.module}.{alias.name}" for alias in node.names]


def target_of(name: str) -> str:
    """The package's module that a dotted name is in, with a leading dot; other names as they are."""
    if name.partition(".")[0] != "recsys_dask":
        return name
    parts = name.split(".")[1:]
    while parts and ".".join(parts) not in TREES:
        parts.pop()
    return "." + ".".join(parts)


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def imports_below(source: str, node: ast.AST, in_function: bool = False, for_types: bool = False) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            if isinstance(child, ast.ImportFrom) and child.module == "__future__":
                continue
            for name in imported_names(child):
                yield Import(source, target_of(name), child.lineno, in_function, for_types)
        yield from imports_below(
            source,
            child,
            in_function or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda),
            for_types or is_type_checking(child),
        )


IMPORTS = [one for name, tree in TREES.items() for one in imports_below(name, tree)]
OWN = [one for one in IMPORTS if one.target.startswith(".")]
OTHERS = [one for one in IMPORTS if not one.target.startswith(".") and not one.for_types]


def head(module: str) -> str:
    """`stages` of `.stages.ingest`."""
    return module.removeprefix(".").partition(".")[0]


def found(imports: list[Import]) -> list[str]:
    return [str(one) for one in imports]


# -------------------------------------------------------------------------------------------------------------- imports

LIBRARIES = {"formats", "cooccurrence", "sampling", "models", "training", "metrics", "nearest", "holdout"}
LAYERS = (
    {"__main__"},
    {"cli"},
    {"api"},
    {"commands"},
    {"evaluation", "continuation", "reporting"},
    {"steps", "planning"},
    {"pipeline", "lookup", "recommender"},
    {"stages"},
    {"recommending"},
    LIBRARIES,
    {"store", "runtime"},
    {"schemas", "params", "errors", "credentials", "arrow", "kernels", "kernel_files", "sums", "cores", "compressed"},
)
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}


def test_the_sources_are_found() -> None:
    assert {"cli", "api", "stages.ingest", "store.tables", "formats.mpd"} <= set(TREES)
    assert len(OWN) > 100 and any(one.in_function for one in OWN) and any(one.for_types for one in OWN)


def test_every_module_has_a_place() -> None:
    assert {head(name) for name in TREES if name} <= set(LEVEL)


def test_imports_point_down() -> None:
    """cli → api → pipeline, lookup → stages → libraries → store, runtime → the rest; types and functions count too.

    The one exception: params looks the registered measures up when asked.
    """
    wrong = [
        one
        for one in OWN
        if head(one.target)
        and head(one.source) != head(one.target)
        and LEVEL[head(one.target)] <= LEVEL[head(one.source)] < len(LAYERS) - 1
    ]
    assert found(wrong) == []
    bottom = [one for one in OWN if head(one.source) in LAYERS[-1] and head(one.target) not in {"", *LAYERS[-1]}]
    assert [(one.source, one.target, one.in_function) for one in bottom] == [("params", ".cooccurrence.measures", True)]


def test_the_package_itself_imports_nothing_of_its_own() -> None:
    assert found([one for one in OWN if one.source == ""]) == []


def test_only_the_version_is_taken_from_the_package_itself() -> None:
    """`import recsys_dask` for `__version__`; everything else comes from the module that it is in."""
    for name, tree in TREES.items():
        used = {
            node.attr
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "recsys_dask"
        }
        assert used <= {"__version__", "__file__"}, name


def test_no_circles() -> None:
    """Also within a layer: modules can be put in an order in which each imports only earlier ones."""
    needs: dict[str, set[str]] = {name: set() for name in TREES}
    for one in OWN:
        if not one.for_types and one.source != "params" and one.target != f".{one.source}":
            needs[one.source].add(one.target.removeprefix("."))
    while needs:
        free = {name for name, others in needs.items() if not others & needs.keys() - {name, ""}}
        assert free, f"a circle among {sorted(needs)}"
        needs = {name: others for name, others in needs.items() if name not in free}


def test_a_stage_imports_no_stage() -> None:
    wrong = [one for one in OWN if head(one.source) == head(one.target) == "stages" and one.source != "stages"]
    assert found(wrong) == []


def test_a_library_imports_no_other() -> None:
    """Save through what `base` modules name."""
    wrong = [
        one
        for one in OWN
        if {head(one.source), head(one.target)} <= LIBRARIES
        and head(one.source) != head(one.target)
        and not one.target.endswith(".base")
    ]
    assert found(wrong) == []


ONLY_IN = {
    "dask": {"runtime", "stages", "formats"},
    "distributed": {"runtime", "stages", "formats"},
    "torch": {"training", "models.mf", "models.mlp", "models.item2vec"},
    "fastai": {"training", "models.mf", "models.mlp"},
    "pynndescent": {"nearest.index"},
    "fsspec": {"store"},
    "s3fs": {"store"},
    "pyarrow.parquet": {"store.tables", "stages.export", "formats.columns"},  # tables, exports, an input
    "click": {"cli"},
    "rich": {"runtime.progress"},
    "bokeh": {"reporting"},
    "jinja2": {"reporting.page"},
    "sklearn": {"reporting.projection"},
}


@pytest.mark.parametrize("package", ONLY_IN)
def test_a_package_is_imported_in_its_places_alone(package: str) -> None:
    wrong = [
        one
        for one in OTHERS
        if one.target == package or one.target.startswith(f"{package}.")
        if one.source not in ONLY_IN[package] and head(one.source) not in ONLY_IN[package]
    ]
    assert found(wrong) == []


def test_slow_packages_are_imported_inside_functions() -> None:
    """Save where something of Dask's, torch's, fastai's or numba's is extended, in a module that is itself imported
    inside functions."""
    extending = {"runtime.fitness", "models.mf", "models.mlp", "models.item2vec", "kernel_files"}
    extending |= {f"training.{name}" for name in ("losses", "sparse_adam", "learner", "article", "optimiser", "stock")}
    extending |= {name for name in TREES if name.startswith("formats.scanner.")}  # masks extends numba
    slow = {"dask", "distributed", "torch", "fastai", "pynndescent", "pandas", "numba", "bokeh", "sklearn", "jinja2"}
    wrong = [one for one in OTHERS if one.target.partition(".")[0] in slow and not one.in_function]
    assert {one.source for one in wrong} <= extending
    by_others = [one for one in OWN if one.target[1:] in extending and one.source not in extending]
    assert {one.in_function for one in by_others if not one.for_types} <= {True}


@pytest.mark.parametrize("module", ["recsys_dask", "recsys_dask.cli", "recsys_dask.api", "recsys_dask.params"])
def test_nothing_heavy_is_imported_by(module: str) -> None:
    heavy = ("torch", "fastai", "numba", "pyarrow", "pandas", "dask", "distributed", "fsspec", "bokeh", "msgspec")
    code = f"import sys, {module}; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_nothing_is_pickled() -> None:
    """No pickle is written to or read from a store."""
    wrong = [one for one in OTHERS if one.target.partition(".")[0] in {"pickle", "cloudpickle", "joblib"}]
    assert {head(one.source) for one in wrong} <= {"runtime", "kernel_files"}  # what numba compiled is kept so


def test_nothing_is_scattered() -> None:
    """A lost worker would cancel the futures. (`scatter` of the report is a plot's.)"""
    assert {one.target for one in OTHERS if head(one.source) == "reporting"}.isdisjoint({"dask", "distributed"})
    for name, tree in TREES.items():
        if head(name) == "reporting":
            continue
        calls = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
        assert "scatter" not in [call.attr for call in calls if isinstance(call, ast.Attribute)], name


def test_clusters_are_made_in_one_place() -> None:
    wrong = [one for one in OTHERS if one.target.rpartition(".")[2] in {"LocalCluster", "Client"}]
    assert {head(one.source) for one in wrong} == {"runtime"}


# -------------------------------------------------------------------------------------------------- size, names, text


@pytest.mark.parametrize("module", [name for name in TREES if name])
def test_a_module_fits_in_the_head(module: str) -> None:
    path = ROOT / (module.replace(".", "/") + ".py")
    path = path if path.exists() else path.with_suffix("") / "__init__.py"
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


def test_names_say_what_is_inside() -> None:
    parts = {part for name in TREES for part in name.split(".")}
    assert parts.isdisjoint({"utils", "util", "helpers", "helper", "common", "misc"})
    classes = [node.name for tree in TREES.values() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    assert [name for name in classes if "Manager" in name] == []


def test_every_module_says_what_it_is() -> None:
    assert [name for name, tree in TREES.items() if not ast.get_docstring(tree) and name != "__main__"] == []


def undocumented(tree: ast.Module) -> list[str]:
    """Public functions and classes without a docstring."""
    return [
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not node.name.startswith("_")
        if not ast.get_docstring(node)
    ]


@pytest.mark.parametrize("name", [name for name in recsys_dask.__all__ if not name.startswith("_")])
def test_what_is_public_is_documented(name: str) -> None:
    public = getattr(recsys_dask, name)
    assert len(inspect.getdoc(public) or "") > 20
    if inspect.isclass(public):
        members = [getattr(public, one) for one in vars(public) if not one.startswith("_")]
        functions = [one for one in members if callable(one) or isinstance(one, property)]
        assert [one for one in functions if not inspect.getdoc(one)] == []


@pytest.mark.parametrize("module", TREES)
def test_functions_and_classes_are_documented(module: str) -> None:
    assert undocumented(TREES[module]) == []


def test_docstrings_of_the_api_tell_the_parameters_and_errors() -> None:
    for name, command in api.COMMANDS.items():
        text = inspect.getdoc(command.function) or ""
        for cls in command.options:
            for field in dataclasses.fields(cls):
                assert f"{field.name}: " in text, name
        if name not in {"info"}:
            assert "Raises" in text, name


# ------------------------------------------------------------------------------------------------------ public names


def test_every_public_name_can_be_imported() -> None:
    missing = []
    for name in recsys_dask.__all__:
        try:
            getattr(recsys_dask, name)
        except (ImportError, AttributeError) as error:
            missing.append(f"{name}: {error}")
    assert missing == []
    assert set(recsys_dask.__all__) <= set(dir(recsys_dask))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nosuch"):
        recsys_dask.nosuch
    assert not hasattr(recsys_dask, "utils")


def test_all_errors_are_public_and_have_one_root() -> None:
    errors = importlib.import_module("recsys_dask.errors")
    classes = [one for one in vars(errors).values() if inspect.isclass(one) and issubclass(one, Exception)]
    for one in classes:
        assert issubclass(one, recsys_dask.RecsysDaskError)
        assert one.__name__ in recsys_dask.__all__
        assert one.exit_code in (1, 2)


def test_the_package_is_typed() -> None:
    assert (ROOT / "py.typed").exists()


# --------------------------------------------------------------------------------------------- command line and Python

PYTHON = {"client", "progress"}  # of Python alone
SHELL = {"debug", "as_json", "as_items"}  # of the command line alone


def test_every_function_is_a_command_and_every_command_a_function() -> None:
    functions = {
        name
        for name, one in vars(api).items()
        if inspect.isfunction(one) and one.__module__ == api.__name__ and not name.startswith("_")
    } - {"command"}
    assert functions == set(api.COMMANDS) == {name.replace("-", "_") for name in program.commands}
    assert functions <= set(recsys_dask.__all__)


@pytest.mark.parametrize("name", api.COMMANDS)
def test_a_command_has_the_parameters_of_its_function(name: str) -> None:
    signature = inspect.signature(api.COMMANDS[name].function)
    command = program.commands[name.replace("_", "-")]
    assert set(signature.parameters) - PYTHON == {one.name for one in command.params} - SHELL
    for one in command.params:
        if one.name in SHELL:
            continue
        parameter = signature.parameters[one.name]
        if isinstance(one, click.Argument):
            assert parameter.kind is parameter.POSITIONAL_OR_KEYWORD
            assert one.required is (parameter.default is parameter.empty)
        else:
            assert parameter.kind is parameter.KEYWORD_ONLY
            assert one.opts == [params.spelled(one.name)]
            assert one.default == parameter.default, one.name


@pytest.mark.parametrize("name", api.COMMANDS)
def test_arguments_stand_in_the_same_order(name: str) -> None:
    signature = inspect.signature(api.COMMANDS[name].function)
    command = program.commands[name.replace("_", "-")]
    arguments = [one.name for one in command.params if isinstance(one, click.Argument)]
    assert [one.name for one in signature.parameters.values() if one.kind is one.POSITIONAL_OR_KEYWORD] == arguments


@pytest.mark.parametrize("name", api.COMMANDS)
def test_whoever_computes_takes_a_client_and_cluster_options(name: str) -> None:
    parameters = set(inspect.signature(api.COMMANDS[name].function).parameters)
    ours = {field.name for field in dataclasses.fields(params.Cluster)}
    if "client" in parameters:
        assert ours <= parameters
    else:
        assert name in {"similar", "info", "plan", "embedding", "recommend", "report"}  # they start nothing


def test_the_commands_of_the_specification_are_there() -> None:
    wanted = "sample run ingest counts pairs train neighbours export similar recommend embedding evaluate report info"
    assert set(wanted.split()) <= set(program.commands)


def all_options() -> set[str]:
    commands = [program, *program.commands.values()]
    return {option for one in commands for parameter in one.params for option in parameter.opts} | {
        "--help",
        "--version",
    }


def texts(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value


def test_messages_name_options_that_exist() -> None:
    wrong = [
        f"{name}:{line} {option}"
        for name, tree in TREES.items()
        for line, text in texts(tree)
        for option in re.findall(r"(?<![\w-])--[a-z][a-z-]+", text)
        if option not in all_options()
    ]
    assert wrong == []


def readme_commands() -> list[str]:
    """Lines of the README's code blocks that call the program."""
    lines = re.findall(r"^```\w*\n(.*?)^```", README.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return [line for block in lines for line in block.splitlines() if line.startswith("recsys-dask ")]


def test_commands_of_the_readme_are_commands() -> None:
    assert len(readme_commands()) >= 3
    for line in readme_commands():
        name, *arguments = shlex.split(line, comments=True)[1:]
        program.commands[name].make_context(name, arguments)  # raises click.UsageError


def test_options_of_the_readme_exist() -> None:
    """Wherever they are named, but for calls of other programs in code blocks."""
    inline = re.sub(r"^```\w*\n.*?^```", "", README.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", inline))
    assert len(named) > 10 and named <= all_options()


def test_names_of_the_readme_exist() -> None:
    for name in re.findall(r"\brd\.(\w+)", README.read_text(encoding="utf-8")):
        assert name in recsys_dask.__all__


# ---------------------------------------------------------------------------------------------------- params and tests

DATACLASSES = [one for one in vars(params).values() if dataclasses.is_dataclass(one) and isinstance(one, type)]


@pytest.mark.parametrize("cls", DATACLASSES, ids=lambda cls: cls.__name__)
def test_parameters_are_frozen_and_explained(cls: type) -> None:
    assert cls.__dataclass_params__.frozen
    for field in dataclasses.fields(cls):
        text = field.metadata["help"]
        assert len(text) > 10, field.name
        assert text.rstrip().endswith((".", ")")), field.name
        assert field.default is not dataclasses.MISSING
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(cls(), dataclasses.fields(cls)[0].name, 1)


def test_one_name_means_one_thing() -> None:
    """A parameter that several stages have is the same parameter: type, default, bounds and choices; but for
    `method`, one of those that a command knows, and `k`, how many it shows."""
    seen: dict[str, tuple[object, ...]] = {}
    for cls in DATACLASSES:
        for field in dataclasses.fields(cls):
            if field.name in ("method", "k"):  # each command has those that can do it, and as many as are asked for
                continue
            rule = {name: value for name, value in field.metadata.items() if name != "help"}
            mine = (field.type, field.default, rule)
            assert seen.setdefault(field.name, mine) == mine, field.name


def imported_by(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {
        name.partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in imported_names(node)
    }


def test_oracles_import_nothing_from_the_package() -> None:
    imported = imported_by(TESTS / "oracles.py")
    assert "recsys_dask" not in imported
    assert imported <= {*sys.stdlib_module_names, "numpy"}  # for its linear algebra


def test_strategies_import_nothing_from_the_package() -> None:
    assert "recsys_dask" not in imported_by(TESTS / "strategies.py")


def test_kernels_are_all_compiled_before_workers_start() -> None:
    """Every module that has a kernel, or its package, is on the list and can warm its own up."""
    from recsys_dask import kernels

    decorated = {
        f"recsys_dask.{name}"
        for name, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
        for one in node.decorator_list
        if getattr(one.func if isinstance(one, ast.Call) else one, "id", None) in ("kernel", "float_kernel")
    }
    listed = {name if name in kernels.MODULES else name.rpartition(".")[0] for name in decorated}
    assert listed == set(kernels.MODULES)
    for name in listed:
        functions = [
            one.name for one in TREES[name.removeprefix("recsys_dask.")].body if isinstance(one, ast.FunctionDef)
        ]
        assert "warm" in functions, name
