"""mkdocs hook: pages at the root of the repository join the site, README.md as its front page.

Links in the Markdown files follow the repository, so that they work on a code host; here they follow the site.
"""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
LINK = re.compile(r"\]\((?:docs/|\.\./)([\w./-]+)")


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Add the root's Markdown files and the licence."""
    for path in (*ROOT.glob("*.md"), ROOT / "LICENSE"):
        name = "index.md" if path.name == "README.md" else path.name
        files.append(File.generated(config, name, abs_src_path=str(path)))


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Take `docs/` and `../` from the targets of links, and name the front page as the site does."""
    return LINK.sub(r"](\1", markdown).replace("](README.md", "](index.md")
