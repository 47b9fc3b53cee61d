"""The reference as pages of Markdown, written from the code: command line, configuration, methods, metrics, presets, Python."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from functools import cache
from typing import Any

import typer

from harness.config.spec import ExperimentSpec, TimingSpec, preset_names
from harness.paths import ROOT
from website.sources import fence
from website.text import plain


@cache
def reference() -> dict[str, str]:
    """Every page by its name on the site, in the order of the navigation."""
    return {
        "reference/cli.md": command_line(),
        "reference/configuration.md": configuration(),
        "reference/methods.md": methods(),
        "reference/metrics.md": metrics(),
        "reference/presets.md": presets(),
        "reference/python.md": python(),
    }


def table(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table; ``|`` and line breaks of the cells are kept out of its syntax."""
    lines = [[*columns], ["---"] * len([*columns])]
    cells = [[" ".join(cell.split()).replace("|", "\\|") for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in [*lines, *cells]) + "\n"


def code(text: str) -> str:
    """A text as code, or nothing."""
    return f"`{text}`" if text else ""


def command_line() -> str:
    """Every command with its arguments and options, as ``--help`` knows them."""
    from ilf_bench.cli import app

    group: Any = typer.main.get_command(app)
    parts = ["# Command line\n", f"{group.help}\n", "`ilf-bench COMMAND --help` prints the same in a terminal.\n"]
    parts.append(table(("command", "description"), ((f"[`{n}`](#{n})", c.help or "") for n, c in group.commands.items())))
    for name, command in group.commands.items():
        shown = [one for one in command.params if not getattr(one, "hidden", False)]
        arguments = [one for one in shown if one.param_type_name == "argument"]
        options = [one for one in shown if one.param_type_name == "option"]
        words = " ".join(_argument(one) for one in arguments)
        parts.append(f"## {name}\n\n{command.help}\n\n{fence(f'ilf-bench {name} {words} [OPTIONS]'.replace('  ', ' '), 'text')}")
        if arguments:
            parts.append(table(("argument", "description"), ((code(_argument(one)), one.help or "") for one in arguments)))
        if options:
            parts.append(table(("option", "default", "description"), map(_option, options)))
    return "\n".join(parts)


def _argument(one: Any) -> str:
    name = one.metavar or one.name.upper()
    return name if one.required else f"[{name.strip('[]')}]"


def _option(one: Any) -> tuple[str, str, str]:
    names = ", ".join(code(name) for name in [*one.opts, *one.secondary_opts])
    annotation = one.type_descriptor.annotation
    kind = "" if annotation is bool else " " + code(one.metavar or getattr(annotation, "__name__", "text").upper())
    default = "" if one.default in (None, False, ()) or callable(one.default) else code(str(one.default).replace(f"{ROOT}/", ""))
    return names + kind, "required" if one.required else default, one.help or ""


def configuration() -> str:
    """The fields of a preset, of its ``timing`` and of its ``training`` section."""
    from ilf.settings import IlfSettings

    parts = ["# Configuration\n"]
    parts.append(
        "A preset is a YAML file, checked as a whole before anything is loaded. `ilf-bench run my-preset.yaml` takes your own;"
        " `--set FIELD=VALUE` replaces any field, for example `--set timing.rounds=3`.\n"
    )
    parts += ["## Preset\n", _doc(ExperimentSpec), _fields(ExperimentSpec)]
    parts += ["## `timing`\n", _doc(TimingSpec), _fields(TimingSpec)]
    parts += ["## `training`\n", _doc(IlfSettings), table(("field", "type", "default"), _dataclass_rows(IlfSettings))]
    parts += ["## Example\n", "The preset `tiny-text`:\n", fence((ROOT / "presets" / "tiny-text.yaml").read_text(), "yaml")]
    return "\n".join(parts)


def _doc(kind: Any) -> str:
    return plain(inspect.getdoc(kind) or "") + "\n"


def _fields(kind: Any) -> str:
    rows = []
    for name, field in kind.model_fields.items():
        default = "required" if field.is_required() else code(repr(field.default) if field.default != "" else '""')
        default = "see below" if isinstance(field.default, TimingSpec) else default
        bounds = ", ".join(str(one) for one in field.metadata)
        rows.append((code(name), code(_type(field.annotation)), default, code(bounds)))
    return table(("field", "type", "default", "bounds"), rows)


def _dataclass_rows(kind: Any) -> Iterable[tuple[str, str, str]]:
    for name, field in kind.__pydantic_fields__.items():
        yield code(name), code(_type(field.annotation)), "required" if field.is_required() else code(repr(field.default))


def _type(annotation: Any) -> str:
    text = annotation.__name__ if isinstance(annotation, type) and not getattr(annotation, "__args__", ()) else str(annotation)
    return text.replace("typing.", "").replace("harness.config.spec.", "").replace("harness.config.anchors.", "")


def methods() -> str:
    """The table of ``ilf-bench list methods``, and the whole docstring of each."""
    from ilf_bench.commands.list_ import methods as listed
    from ilf_bench.registry import Registry

    kinds = Registry.of(()).methods
    rows = [(f"[`{name}`](#{name})", options, plain(text)) for name, options, text in listed()]
    parts = ["# Methods\n", "A method is written `NAME`, or `NAME:OPTION=VALUE:...`; `+` composes several, as in"]
    parts.append("`steps:8+deepcache:interval=2`. `ilf-bench list methods` prints this table.\n")
    parts.append(table(("method", "options and their defaults", "description"), rows))
    for name, options, _ in listed():
        source = inspect.getmodule(kinds[name])
        file = source.__name__.replace(".", "/") + ".py" if source else ""
        parts.append(f"## {name}\n\n{_doc(kinds[name])}\nOptions: {code(options) or 'none'}. Source: `{file}`.\n")
    return "\n".join(parts)


def metrics() -> str:
    """The table of ``ilf-bench list metrics``."""
    from ilf_bench.commands.list_ import metrics as listed

    parts = [
        "# List of metrics\n",
        "`ilf-bench list metrics` prints this table; [Metrics](../metrics.md) says what each measures.\n",
    ]
    parts.append(table(("metric", "with the bundled scorers"), ((code(name), text) for name, text in listed())))
    return "\n".join(parts)


def presets() -> str:
    """The table of ``ilf-bench list presets``, and each file."""
    from ilf_bench.commands.list_ import PRESETS
    from ilf_bench.commands.list_ import presets as listed

    rows = [(f"[`{name}`](#{name.replace('.', '')})", *rest) for name, *rest in listed()]
    parts = ["# Presets\n", "`ilf-bench run PRESET`; `ilf-bench list presets` prints this table.\n", table(PRESETS, rows)]
    for name in preset_names():
        parts.append(f"## {name}\n\n{fence((ROOT / 'presets' / f'{name}.yaml').read_text(), 'yaml')}")
    return "\n".join(parts)


def python() -> str:
    """The public names, for mkdocstrings to describe, by their modules."""
    import ilf_bench

    parts = ["# Python\n", "`import ilf_bench` is the one public import; each name is loaded when it is first used.\n"]
    for module, names in ilf_bench._MODULES.items():
        parts.append(f"## {module}\n")
        parts += [f"::: {module}.{name}\n" for name in names]
    parts.append("## ilf_bench.testing\n\n::: ilf_bench.testing\n    options: {show_root_heading: false}\n")
    return "\n".join(parts)
