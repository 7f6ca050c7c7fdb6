"""The page that says what the stand-in is held to names tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = REPOSITORY / "docs" / "aws-fidelity.md"


def rules() -> list[list[str]]:
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines if line.startswith("| ")]
    return [row for row in rows if row[0] != "rule"]


def test_every_rule_has_a_source_and_a_test_that_exists() -> None:
    there = {
        name
        for path in (REPOSITORY / "tests").rglob("test_*.py")
        for name in re.findall(r"^ *def (test_\w+)", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    }
    found = rules()
    told = re.search(r"\((\d+) rules\)", PAGE.read_text(encoding="utf-8"))
    assert told is not None and len(found) == int(told[1])
    for rule in found:
        assert len(rule) == 3 and all(rule), rule
        named = re.findall(r"\b(test_\w+)(?!\w*\.py)\b(?!\.py)", rule[2])
        assert named, f"no test: {rule}"
        assert not set(named) - there, f"no such test: {set(named) - there}"
