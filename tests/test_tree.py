"""Rules of the tree: what may be imported where, file sizes, and what must not be written anywhere."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
HEAVY = ("torch", "verl", "ray", "vllm", "transformers")
# Written in two halves, so that this file does not break its own rule.
REGISTRY_HOSTS = tuple(
    name.replace(" ", ".")
    for name in ("pypi org", "pythonhosted org", "npmjs org", "npmjs com", "deb debian org", "download pytorch org")
)

TEXT = (".py", ".sh", ".yaml", ".yml", ".toml", ".md", ".txt", ".html", ".j2", ".json", ".cfg", "Makefile", ".ci/run")


def files(*suffixes: str) -> list[Path]:
    """Files of the checkout that git knows, of these endings (all of them where none is given)."""
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    found = [ROOT / name for name in listed if not suffixes or name.endswith(suffixes)]
    return [path for path in found if path.is_file()]


PYTHON = files(".py")
NODES: dict[Path, list[ast.AST]] = {
    path: list(ast.walk(ast.parse(path.read_text(encoding="utf-8")))) for path in PYTHON
}


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imported_by(node: ast.AST) -> Iterator[str]:
    """Yield the first part of every module that this statement imports."""
    if isinstance(node, ast.Import):
        yield from (alias.name.split(".")[0] for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
        yield node.module.split(".")[0]


def imported(path: Path) -> Iterator[str]:
    """Yield the first part of every module that is imported anywhere in a file, within functions too."""
    for node in NODES[path]:
        yield from imported_by(node)


@pytest.mark.parametrize("module", ["medix_verl.cli", "reward_fns", "data_prep.command", "evaluation.command"])
def test_the_core_starts_without_the_heavy_packages(module: str) -> None:
    code = f"import sys, {module}; print([name for name in {HEAVY} if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert run.stdout.strip() == "[]", run.stderr


def test_python_files_are_short_and_say_what_they_are() -> None:
    texts = {name_of(path): path.read_text(encoding="utf-8") for path in PYTHON}
    assert {name: len(text.splitlines()) for name, text in texts.items() if len(text.splitlines()) > 500} == {}
    assert [name for name, text in texts.items() if text.strip() and not ast.get_docstring(NODES[ROOT / name][0])] == []
    assert [name for name in texts if Path(name).stem in {"utils", "helpers", "common", "misc"}] == []


def allowed_imports() -> dict[str, set[str]]:
    """Read the table of rooms in CONTRIBUTING.md: room -> rooms that it may import, itself included."""
    rows = re.findall(r"^\| `(\w+)/` \|[^|]*\| ([^|]*) \|$", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE)
    rooms = {room: set(re.findall(r"`(\w+)/`", may)) | {room} for room, may in rows}
    return {room: set(rooms) if "everything" in dict(rows)[room] else may for room, may in rooms.items()}


def arrows() -> dict[tuple[str, str], list[str]]:
    """Return every import between two rooms: (importer, imported) -> its lines as `file:line`."""
    rooms, found = allowed_imports(), {}
    for path in PYTHON:
        room = path.relative_to(ROOT).parts[0]
        for node in NODES[path]:
            for name in set(imported_by(node)) & set(rooms) - {room}:
                found.setdefault((room, name), []).append(f"{name_of(path)}:{node.lineno}")
    return found


def test_imports_between_rooms_run_one_way() -> None:
    rooms = allowed_imports()
    assert len(rooms) >= 7, "the table of rooms in CONTRIBUTING.md was not found"
    graph = {f"{importer} -> {target}": lines for (importer, target), lines in sorted(arrows().items())}
    upward = [
        f"{line}: {importer}/ may not import {target}/ (table in CONTRIBUTING.md)"
        for (importer, target), lines in arrows().items()
        if importer in rooms and target not in rooms[importer]
        for line in lines
    ]
    print("\n".join(f"{arrow}  ({len(lines)} imports)" for arrow, lines in graph.items()))
    assert upward == []


def test_only_the_plugins_import_verl() -> None:
    # Tests and benchmarks measure veRL itself.
    product = [path for path in PYTHON if path.relative_to(ROOT).parts[0] not in {"tests", "benchmarks"}]
    importers = [name_of(path) for path in product if "verl" in imported(path)]
    assert importers
    assert [name for name in importers if not name.startswith("medix_verl/plugins/")] == []


def test_nobody_trusts_remote_code() -> None:
    trusting = [
        name_of(path)
        for path in PYTHON
        for node in NODES[path]
        if isinstance(node, ast.keyword)
        and node.arg == "trust_remote_code"
        and not (isinstance(node.value, ast.Constant) and node.value.value is False)
    ]
    assert trusting == []
    settings = files(".sh", ".yaml", ".yml", "Makefile", ".ci/run")
    pattern = re.compile(r"trust[_-]remote[_-]code\s*[=:]?\s*true", re.IGNORECASE)
    assert [name_of(path) for path in settings if pattern.search(path.read_text(encoding="utf-8"))] == []


def test_no_file_names_a_registry_host() -> None:
    naming = {name_of(path): host for path in files(*TEXT) for host in REGISTRY_HOSTS if host in text_of(path)}
    assert naming == {}


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace").lower()
