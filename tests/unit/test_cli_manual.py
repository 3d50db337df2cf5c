from __future__ import annotations

import re
import tomllib
from pathlib import Path

from ebpfmesh.cli.app import app
from ebpfmesh.cli.manual import configuration, file
from ebpfmesh.cli.manual_commands import commands
from ebpfmesh.cli.manual_metrics import metrics
from ebpfmesh.config import Config, parse, settings

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_of_settings_is_up_to_date() -> None:
    """If not: python -m ebpfmesh.cli.manual > docs/configuration.md."""
    assert (DOCS / "configuration.md").read_text() == configuration()


def test_the_page_of_metrics_is_up_to_date() -> None:
    """If not: python -m ebpfmesh.cli.manual_metrics > docs/metrics.md."""
    assert (DOCS / "metrics.md").read_text() == metrics()


def test_the_page_of_commands_is_up_to_date() -> None:
    """If not: python -m ebpfmesh.cli.manual_commands > docs/commands.md."""
    assert (DOCS / "commands.md").read_text() == commands()


def test_limits_are_those_of_the_settings() -> None:
    row = re.compile(r"^\| [^|]+ \| ([\d,]+) \| `(\w+)` \|", re.MULTILINE)
    rows = row.findall((DOCS / "limits.md").read_text())
    assert len(rows) >= 6
    for default, name in rows:
        assert int(default.replace(",", "")) == settings()[name].default


def test_every_page_has_its_place() -> None:
    places = (DOCS.parent / "mkdocs.yml").read_text()
    pages = [page.name for page in DOCS.glob("*.md")]
    assert not [page for page in pages if f"- {page}\n" not in places]


def test_every_setting_has_its_section() -> None:
    assert re.findall(r"^## `(\w+)`$", configuration(), re.MULTILINE) == list(settings())


def test_the_file_of_settings_is_up_to_date() -> None:
    """If not: python -m ebpfmesh.cli.manual toml > deploy/ebpfmesh.toml."""
    assert (DOCS.parent / "deploy" / "ebpfmesh.toml").read_text() == file()


def test_the_file_of_settings_sets_nothing_and_offers_the_defaults() -> None:
    assert parse(file(), "file", {}, {}) == Config()
    offered = re.sub(r"^#(\w+ = )", r"\1", file(), flags=re.MULTILINE)
    assert list(tomllib.loads(offered)) == list(settings())
    assert parse(offered, "file", {}, {}) == Config()


def test_the_examples_of_the_page_are_valid() -> None:
    example = re.search(r"`(max_flows = \d+)`", configuration())
    assert example is not None
    assert parse(example[1], "example", {}, {}) == Config(max_flows=1000000)


def test_the_operators_guide_names_every_command() -> None:
    guide = (DOCS / "operate.md").read_text()
    names = {command.name for command in app.registered_commands}
    names |= {group.name for group in app.registered_groups}
    assert not [name for name in names if f"ebpfmesh {name}" not in guide]


def test_the_operators_guide_names_every_reason() -> None:
    guide = (DOCS / "operate.md").read_text()
    reasons = (DOCS.parent / "bpf" / "reasons.h").read_text()
    for reason in re.findall(r"X\((\w+)\) +/\*", reasons):
        assert f"`{reason}`" in guide
