"""What ``mkdocs`` adds to the pages in ``docs``: the repository's own pages, and an API reference.

README, CONTRIBUTING, CHANGELOG and the log are pages of the site as they are in the repository.
Links between all of these are written so that they work on a page of the repository; here they are
translated. A linked file that is no page (a figure, a table, a YAML or Python file) is copied into
the site. A link to a file that does not exist stays as it is, and ``mkdocs build --strict`` fails.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
PAGES = {  # in the repository -> in the site
    "README.md": "index.md",
    "CONTRIBUTING.md": "CONTRIBUTING.md",
    "CHANGELOG.md": "CHANGELOG.md",
    "results/LOG.md": "results/LOG.md",
}
LINK = re.compile(r"(?<=\]\()(?!https?://|#|mailto:)([^)\s#]+)(?=[)#])")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the API reference into the navigation."""
    assert config.nav is not None
    config.nav.append({"API reference": [f"api/{room}.md" for room in sorted(rooms())]})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the repository's pages, the API reference and every file that a page links to."""
    for room, modules in rooms().items():
        text = f"# alignlab.{room}\n\n" + "".join(f"::: {name}\n\n" for name in modules)
        files.append(File.generated(config, f"api/{room}.md", content=text))
    for source, uri in PAGES.items():
        files.append(File.generated(config, uri, content=(ROOT / source).read_text()))
    for file in list(files.documentation_pages()):
        if file.src_uri.startswith("api/"):
            continue
        for target in LINK.findall(file.content_string):
            uri = site_uri(target, file.src_uri)
            path = ROOT / uri
            if path.is_file() and files.get_file_from_path(uri) is None:
                files.append(File.generated(config, uri, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Translate links from places in the repository to places in the site."""

    def translated(link: re.Match[str]) -> str:
        uri = site_uri(link[1], page.file.src_uri)
        if files.get_file_from_path(uri) is None:
            return link[1]
        return posixpath.relpath(uri, posixpath.dirname(page.file.src_uri) or ".")

    return LINK.sub(translated, markdown)


def site_uri(target: str, page: str) -> str:
    """Where a file that a page of the repository links to is in the site."""
    sources = {uri: source for source, uri in PAGES.items()}
    folder = posixpath.dirname(sources.get(page, f"docs/{page}"))
    path = posixpath.normpath(posixpath.join(folder, target))
    path = "README.md" if path == "docs/README.md" else path  # the site's start has that list
    return PAGES.get(path, path.removeprefix("docs/"))


def rooms() -> dict[str, list[str]]:
    """The modules of each folder of the package; those at its top are the room ``package``."""
    found: dict[str, list[str]] = {}
    for path in sorted((ROOT / "alignlab").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if path.stat().st_size and parts[-1] != "__init__":
            room = parts[1] if len(parts) > 2 else "package"
            found.setdefault(room, []).append(".".join(parts))
    return found
