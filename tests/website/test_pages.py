"""The pages that are written from the code, the navigation, and the links, without mkdocs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
import yaml

import ilf_bench
from harness.config.spec import ExperimentSpec, TimingSpec, preset_names
from harness.paths import ROOT
from ilf.settings import IlfSettings
from ilf_bench.cli import app
from ilf_bench.registry import Registry
from website.index import navigation, sections
from website.links import replaced, site_name, targets
from website.reference import reference, table
from website.sources import source_page
from website.text import plain

INDEX = (ROOT / "docs" / "README.md").read_text()


def test_every_command_and_option_is_in_the_reference() -> None:
    page = reference()["reference/cli.md"]
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        part = page.partition(f"\n## {name}\n")[2].partition("\n## ")[0]
        options = [option for one in command.params for option in (*one.opts, *one.secondary_opts) if option.startswith("--")]
        assert command.help in part and all(f"`{option}`" in part for option in options if option != "--help"), name


def test_every_field_is_in_the_reference() -> None:
    page = reference()["reference/configuration.md"]
    fields = [*ExperimentSpec.model_fields, *TimingSpec.model_fields, *IlfSettings.__pydantic_fields__]
    assert not [name for name in fields if f"\n| `{name}` |" not in page]


def test_every_method_preset_and_name_is_in_the_reference() -> None:
    pages = reference()
    assert not [name for name in Registry.of(()).methods if f"\n## {name}\n" not in pages["reference/methods.md"]]
    assert not [name for name in preset_names() if f"\n## {name}\n" not in pages["reference/presets.md"]]
    assert not [name for name in ilf_bench.__all__ if f".{name}\n" not in pages["reference/python.md"]]
    assert "| `psnr` | PSNR" in pages["reference/metrics.md"]


@pytest.mark.parametrize("name", [*reference()])
def test_no_markup_of_docstrings_and_no_path_of_a_machine_is_left(name: str) -> None:
    page = reference()[name]
    assert not [mark for mark in (":class:", ":func:", str(ROOT), str(Path.home()) + "/") if mark in page]
    rows = [line for line in page.splitlines() if line.startswith("| ")]
    assert all(line.endswith(" |") for line in rows)


def test_the_navigation_is_the_index() -> None:
    kinds = sections(INDEX)
    assert [*kinds][:5] == ["Tutorial", "How-to", "Explanation", "Reference", "Results"]
    assert kinds["Explanation"]["The statistics"] == "statistics.md"
    nav = {title: pages for entry in navigation(INDEX, [*reference()]) for title, pages in entry.items()}
    assert nav["Tutorial"] == "tutorial.md" and nav["Reference"][0] == "reference/cli.md"
    assert {"Changes": "changelog.md"} in nav["Project"]


def test_links_lead_to_pages_of_the_site() -> None:
    text = "[a](../README.md#top) [b](https://example.org/x) [c](x.md)\n```\n[d](y.md)\n```\n"
    assert targets(text, "docs") == ["README.md", "docs/x.md"]
    assert replaced(text, str.upper).splitlines()[2] == "[d](y.md)"
    assert replaced(text, lambda _: "new").startswith("[a](new#top) [b](https://example.org/x) [c](new)")
    names = {
        name: site_name(ROOT, name) for name in ("README.md", "docs", "docs/gpu.md", "action.yml", "examples", "zoo/tiny-dit")
    }
    assert [*names.values()] == [
        "overview.md", "README.md", "gpu.md", "source/action.yml.md", "source/examples/index.md", "source/zoo/tiny-dit/index.md",
    ]  # fmt: skip


def test_a_notebook_becomes_a_page_with_its_outputs(tmp_path: Path) -> None:
    image = {"data": {"image/png": "QUJD\n", "text/plain": "<Figure>"}, "output_type": "display_data"}
    cells = [
        {"cell_type": "markdown", "source": ["# Title\n", "text"]},
        {"cell_type": "code", "source": ["1 + 1"], "outputs": [{"output_type": "stream", "text": ["two\n"]}, image]},
    ]
    (tmp_path / "x.ipynb").write_text(json.dumps({"cells": cells}))
    page = source_page(tmp_path / "x.ipynb", "examples/x.ipynb")
    assert "\n# Title\ntext\n" in page and "~~~~~~python\n1 + 1\n" in page and "~~~~~~text\ntwo\n" in page
    assert "(data:image/png;base64,QUJD)" in page and "<Figure>" not in page


def test_a_cell_cannot_break_a_table() -> None:
    assert table(("a",), [("x | y\nz",)]).splitlines()[2] == "| x \\| y z |"


def test_docstrings_become_markdown() -> None:
    text = plain("See :class:`ilf.Module` and ``x``.\n\n>>> f(1)\n2\n\nAfter.")
    assert text == "See `ilf.Module` and `x`.\n\n```pycon\n>>> f(1)\n2\n```\n\nAfter."


def test_nothing_of_the_site_names_another_host() -> None:
    class Loader(yaml.SafeLoader):
        pass

    Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda loader, suffix, node: suffix)
    config = yaml.load((ROOT / "website" / "mkdocs.yml").read_text(), Loader)
    assert config["theme"]["font"] is False and "repo_url" not in config and config["extra"] == {"generator": False}
    assert config["validation"]["links"] == dict.fromkeys(
        ("not_found", "anchors", "absolute_links", "unrecognized_links"), "warn"
    )
