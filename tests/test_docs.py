"""The documents: their Python runs and prints what they show, and the files they name are there."""

import itertools
import re
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
PATH = re.compile(r"`((?:[\w.-]+/)+[\w.*-]*)`")

every_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)


def blocks(document):
    """Returns line, language and text of each fenced block."""
    text = document.read_text()
    return [
        (text.count("\n", 0, block.start()) + 2, block[2], textwrap.dedent(block[3]))
        for block in FENCE.finditer(text)
    ]


NUMBER = re.compile(r"\d[\d,]*(?:\.\d*)?(?:e[+-]\d+)?")
TIME = re.compile(rf"{NUMBER.pattern}(?= (?:m?s|us|steps/s|networks/s|min)\b)")


def shape(text):
    """The lines of a text less their numbers and times, which are each machine's own."""
    text = NUMBER.sub("#", text)
    lines = [re.sub(r"\s+", " ", line.replace("# ms", "# s")).strip() for line in text.splitlines()]
    return [line for line in lines if line]


def numbers(text):
    """The numbers that are no times; those that every machine rounds differently agree so far."""
    found = NUMBER.findall(TIME.sub("", text))
    return [pytest.approx(float(each.replace(",", "")), rel=0.03, abs=0.01) for each in found]


@every_document
def test_python_of_a_document_runs_and_prints_what_follows(document, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": document.stem}  # shared: a reader types one block after the other
    printed = None
    for line, language, text in blocks(document):
        if language == "python":
            # The empty lines before it make a traceback name the document's own lines.
            exec(compile("\n" * (line - 1) + text, document, "exec"), names)
            printed = capsys.readouterr().out
        elif language == "text" and printed is not None:
            assert shape(printed) == shape(text), f"{document.name}, line {line}"
            own = [each.expected for each in numbers(printed)]
            assert own == numbers(text), f"{document.name}, line {line}"
            printed = None


@every_document
def test_files_that_a_document_names_are_there(document):
    if document.name == "log.md":
        pytest.skip("a log names what was there on its day")
    text = FENCE.sub("", document.read_text())
    links = re.findall(r"\]\(([\w./-]+)\)", text)
    missing = [link for link in links if not (document.parent / link).exists()]
    missing += [name for name in PATH.findall(text) if not any(ROOT.glob(name.rstrip("/")))]
    assert missing == []


def test_readme_shows_a_program_with_its_output():
    languages = [language for _, language, _ in blocks(ROOT / "README.md")]
    assert ("python", "text") in itertools.pairwise(languages)
