"""mkdocs' hooks: pages from the code, pages of the repository outside docs/, and the navigation from the index of docs/."""

from __future__ import annotations

import posixpath
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel

from website.index import navigation
from website.links import PAGES, replaced, site_name, targets
from website.reference import reference
from website.sources import source_page

ROOT = Path(__file__).resolve().parents[1]
ORIGINS: dict[str, str] = {}
"""For each page that is a file of the repository: its path there."""


def on_config(config: MkDocsConfig, **_: Any) -> MkDocsConfig:
    """The navigation: the sections of docs/README.md, with the generated pages in the reference."""
    config.nav = navigation((ROOT / "docs" / "README.md").read_text(), [*reference()])
    return config


def on_files(files: Files, config: MkDocsConfig, **_: Any) -> Files:
    """Add what is generated, and whatever the pages link to outside docs/."""
    ORIGINS.clear()
    ORIGINS.update({file.src_uri: f"docs/{file.src_uri}" for file in files.documentation_pages()})
    for name, text in reference().items():
        files.append(File.generated(config, name, content=text))
    waiting = [*PAGES, *(link for origin in ORIGINS.values() for link in _links(origin))]
    while waiting:
        target = waiting.pop()
        name = site_name(ROOT, target)
        if not (ROOT / target).exists() or files.get_file_from_path(name):
            continue
        if (ROOT / target).suffix in (".png", ".svg"):
            files.append(File.generated(config, name, abs_src_path=str(ROOT / target)))
            continue
        in_nav = InclusionLevel.INCLUDED if target in PAGES else InclusionLevel.NOT_IN_NAV
        ORIGINS[name] = target
        files.append(File.generated(config, name, content=_content(target), inclusion=in_nav))
        waiting += _links(target)
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Point the links of a page of the repository to the pages of the site."""
    name = page.file.src_uri
    if name not in ORIGINS:
        return markdown
    folder = _folder(ORIGINS[name])

    def change(target: str) -> str:
        wanted = site_name(ROOT, posixpath.normpath(posixpath.join(folder, target)))
        return posixpath.relpath(wanted, posixpath.dirname(name) or ".")

    return replaced(markdown, change)


def on_post_page(output: str, **_: Any) -> str:
    """Give the theme's search dialog the name that screen readers announce."""
    dialog = 'data-md-component="search" role="dialog"'
    return output.replace(dialog, f'{dialog} aria-label="Search"')


def _content(target: str) -> str:
    path = ROOT / target
    return path.read_text() if path.suffix == ".md" else source_page(path, target)


def _folder(origin: str) -> str:
    """In which the links of a page of the repository begin."""
    return origin if (ROOT / origin).is_dir() else posixpath.dirname(origin)


def _links(origin: str) -> list[str]:
    return targets(_content(origin), _folder(origin))
