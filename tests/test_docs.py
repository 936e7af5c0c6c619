"""The pages in docs/, the README and REPRODUCING.md: their commands, Python blocks and links. See docs/README.md."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from markdown_it import MarkdownIt

from reproduce import judging
from reproduce.cli import main
from tests.reproduce.test_check_method import installed  # noqa: F401  # a fixture: examples/random_search

ROOT = Path(__file__).parents[1]
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [*DOCS, ROOT / "README.md", ROOT / "REPRODUCING.md"]
MARK = re.compile(r"<!-- test: (.*) -->")
MARKS = ("run", "slow", "parse")
ASSIGNMENT = re.compile(r"[A-Z_]+=\S+")
PLACEHOLDER = re.compile(r"[A-Z]+")
LINK = re.compile(r"\]\(([^)\s]+)\)")
CLAIMS = ("--only", "--claim")  # options that take a claim's id


@dataclass(frozen=True)
class Block:
    """A code block of a page. line: of its first line, from 1. mark: one of `MARKS`, or empty."""

    language: str
    text: str
    line: int
    mark: str

    @property
    def commands(self) -> list[list[str]]:
        """The words of each line that begins with `reproduce` or `python`, without the path and what shells take."""
        if self.language == "python":
            return []
        lines = self.text.replace("\\\n", " ").splitlines()
        return [words for line in lines if (words := words_of(line)) and words[0] in ("reproduce", "python")]


def words_of(line: str) -> list[str]:
    try:
        words = shlex.split(line, comments=True)
    except ValueError:  # no command: a quotation mark is open
        return []
    while words and ASSIGNMENT.fullmatch(words[0]):
        del words[0]
    if words and words[-1] == "&":
        del words[-1]
    return [words[0].removeprefix(".venv/bin/"), *words[1:]] if words else []


def blocks(page: Path) -> list[Block]:
    """Raises `AssertionError` for a mark that there is not, or that stands before something else."""
    found, mark = [], ""
    for token in MarkdownIt("commonmark").parse(page.read_text(encoding="utf-8")):
        if token.type == "html_block" and (marked := MARK.fullmatch(token.content.strip())):
            assert marked[1] in MARKS, f"{page.name}: no test is named {marked[1]!r}"
            mark = marked[1]
        elif token.type in ("fence", "code_block"):
            assert token.map is not None
            first = token.map[0] + (2 if token.type == "fence" else 1)
            found.append(Block(token.info.strip(), token.content, first, mark))
            mark = ""
        else:
            assert not mark, f"{page.name}: '{mark}' stands before no code block"
    return found


def marked(page: Path, mark: str) -> list[list[str]]:
    return [words for block in blocks(page) if block.mark == mark for words in block.commands]


def having(mark: str) -> list[Any]:
    """The pages with commands of this mark, as parameters."""
    return [pytest.param(page, id=page.name) for page in PAGES if marked(page, mark)]


def with_python(*marks: str) -> list[Any]:
    return [
        pytest.param(page, id=page.name)
        for page in PAGES
        if any(block.language == "python" and block.mark in marks for block in blocks(page))
    ]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with this repository's records and nothing else; and a home of its own."""
    shutil.copytree(ROOT / "results", tmp_path / "results", ignore=shutil.ignore_patterns(".resume"))
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def invoke(words: list[str]) -> None:
    result = CliRunner().invoke(main, words)
    told = f"reproduce {shlex.join(words)}: {result.output[-500:]}"
    assert result.exit_code == 0, told if result.exception is None else f"{told}{result.exception!r}"


def parse(words: list[str]) -> click.Command:
    """click's own parsing of a command's options and arguments; the command. Runs nothing."""
    context = main.make_context("reproduce", list(words))
    name, command, rest = main.resolve_command(context, list(words))
    assert command is not None
    for argument in command.params:
        if isinstance(argument, click.Argument) and isinstance(argument.type, click.Path) and argument.type.exists:
            Path(rest[0]).touch()  # its content is not looked at
    command.make_context(name, rest, parent=context)
    return command


def check(words: list[str], *, dry: bool) -> None:
    """Parse a command, and where it can say what it would do, let it: that finds wrong rows, ids and protocols."""
    options = {name for option in parse(words).params for name in option.opts}
    vague = any(PLACEHOLDER.fullmatch(word) for word in words)
    judging.check([word for before, word in pairwise(words) if before in CLAIMS and not vague])
    if vague or "--no-run" in words:
        if "--list" in options and "--rows" in words:
            invoke([*words, "--list"])
    elif dry and "--dry-run" in options:
        invoke([*words, "--dry-run"])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_are_understood(page: Path, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REPRODUCE_BACKEND")  # nothing is run
    for block in blocks(page):
        for program, *words in block.commands:
            if program == "reproduce":
                check(words, dry=not block.mark)
            else:
                assert words[0] == "-m" and find_spec(words[1]) is not None, words


@pytest.mark.parametrize("page", having("run"))
def test_commands_run(page: Path, here: Path) -> None:
    for _, *words in marked(page, "run"):
        invoke(words)


@pytest.mark.slow
@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("page", having("slow"))
def test_slow_commands_run(page: Path, here: Path) -> None:
    for _, *words in marked(page, "slow"):
        invoke(words)


def execute(page: Path, mark: str) -> None:
    names: dict[str, Any] = {"__name__": page.stem}
    for block in blocks(page):
        if block.language == "python" and block.mark == mark:
            if mark:
                names = {"__name__": page.stem}
            exec(compile("\n" * (block.line - 1) + block.text, str(page), "exec"), names)


@pytest.mark.parametrize("page", with_python(""))
def test_python_runs(page: Path, here: Path) -> None:
    execute(page, "")


@pytest.mark.slow
@pytest.mark.parametrize("page", with_python("slow"))
def test_slow_python_runs(page: Path, here: Path) -> None:
    execute(page, "slow")


def links(page: Path) -> Iterator[str]:
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        if "://" not in link:
            yield link.partition("#")[0]


@pytest.mark.parametrize("page", DOCS, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    broken = [link for link in links(page) if link and not (page.parent / link).exists()]
    assert not broken


def test_every_page_is_named_in_the_index_and_the_readme() -> None:
    names = {page.name for page in DOCS} - {"README.md"}
    assert names <= set(links(ROOT / "docs" / "README.md"))
    assert {f"docs/{name}" for name in names} <= set(links(ROOT / "README.md"))
