"""The shape of the repository: what may import what, deviations against their tags in the code, no machine named."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from reproduce import paper

ROOT = Path(__file__).parents[1]
PACKAGES = ("effconv", "baselines", "reproduce")
TAG = re.compile(r"\bR-\d\d\b")
SLOW_TO_IMPORT = {"torch", "torchvision", "pydantic", "pandas", "matplotlib", "numpy", "scipy", "sklearn", "rich"}


def loaded_by(statement: str) -> set[str]:
    """Top-level names of all modules that are loaded after a statement, in a process of its own."""
    code = f"{statement}; import sys; print(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def imported_in(file: Path) -> Iterator[str]:
    """Top-level names of every import statement of a file, those inside functions too."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            yield node.module.partition(".")[0]


def sources(*packages: str) -> list[Path]:
    return [file for package in packages for file in sorted((ROOT / package).rglob("*.py"))]


def tracked() -> list[Path]:
    """Files that git has or would take; skips where there is no git or no checkout."""
    try:
        command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no git checkout")
    return [path for name in done.stdout.split("\0") if name and (path := ROOT / name).is_file()]


def test_command_line_starts_without_the_heavy_packages() -> None:
    assert not loaded_by("import reproduce.cli") & SLOW_TO_IMPORT


def test_effconv_imports_the_standard_library_and_torch_only() -> None:
    for file in sources("effconv"):
        foreign = set(imported_in(file)) - sys.stdlib_module_names - {"torch", "effconv"}
        assert not foreign, f"{file.relative_to(ROOT)} imports {', '.join(sorted(foreign))}"


def test_effconv_loads_nothing_that_torch_does_not_load() -> None:
    assert loaded_by("import effconv") - loaded_by("import torch") <= sys.stdlib_module_names | {"effconv"}


def test_every_imported_package_is_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [*project["dependencies"], *project["optional-dependencies"]["slurm"]]
    names = {re.match(r"[\w-]+", line)[0].replace("-", "_") for line in lines}  # type: ignore[index]
    others = {"sklearn", "PIL", "markdown_it"}  # imported by another name than they are installed by
    known = names | others | sys.stdlib_module_names | set(PACKAGES)
    for file in sources(*PACKAGES):
        assert set(imported_in(file)) <= known, file.relative_to(ROOT)


def test_deviation_tags_in_the_code_and_entries_agree() -> None:
    tags = {tag for file in sources(*PACKAGES) for tag in TAG.findall(file.read_text(encoding="utf-8"))}
    assert tags == {entry.id for entry in paper.deviations()}


@pytest.mark.parametrize("entry", paper.deviations(), ids=lambda entry: entry.id)
def test_deviation_stands_where_its_entry_says(entry: paper.Deviation) -> None:
    assert entry.id in (ROOT / entry.code).read_text(encoding="utf-8")


def test_no_file_names_a_machine_or_a_folder_outside() -> None:
    # Put together here, so that this file does not find itself.
    words = re.compile(r"(?<![\w.])/" + "(?:work|root)" + r"/[\w.]|\b" + "shared" + "/")
    for file in tracked():
        try:
            text = file.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # a picture
        found = words.search(text)
        assert found is None, f"{file.relative_to(ROOT)}: {found and found[0]!r}"

