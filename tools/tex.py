"""Sphinx for the printed book: what pages say in HTML alone is turned into what LaTeX can show.

It works on the whole book at once, after the pages are put together and before references are resolved.
"""

import re

from docutils import nodes
from sphinx import addnodes
from sphinx.transforms.post_transforms import SphinxPostTransform

ON_SCREEN_ONLY = {"book/progress"}  # pages that do nothing on paper
SUMMARY = re.compile(r"<summary[^>]*>(.*?)</summary>", re.S)


def raw(text: str) -> nodes.raw:
    return nodes.raw("", text, format="latex")


class Print(SphinxPostTransform):
    """Parts, a preface, solutions in the open, figures without the code that drew them."""

    default_priority = 8  # after the choice among a cell's outputs, before the references
    formats = ("latex",)

    def run(self):
        self.leave_out()
        self.preface()
        self.parts()
        self.solutions()
        for image in self.document.findall(nodes.image):
            image.setdefault("width", "88%")
        for code in list(self.document.findall(nodes.literal_block)):  # a short one stays on one page
            if "solution" not in code.parent["classes"]:
                lines = min(code.astext().count("\n") + 2, 8)
                code.parent.insert(code.parent.index(code), raw(rf"\needspace{{{lines * 12}pt}}"))

    def leave_out(self):
        for page in list(self.document.findall(addnodes.start_of_file)):
            if page["docname"] in ON_SCREEN_ONLY:
                page.parent.remove(page)
        for link in list(self.document.findall(addnodes.pending_xref)):
            if link["reftarget"].lstrip("/") in ON_SCREEN_ONLY:
                link.replace_self(nodes.inline("", link.astext()))
        for cell in self.document.findall(nodes.container):
            if "tag_hide-input" in cell["classes"]:
                cell.children = [child for child in cell if "cell_input" not in child["classes"]]

    def preface(self):
        """The front page's text becomes a chapter; its title and its picture are on the title page."""
        front = self.document.next_node(nodes.section)
        inside = [each for each in front[1:] if not any(each.findall(addnodes.start_of_file))]
        for node in inside:
            front.remove(node)
        text = [node for node in inside if "cover" not in node.get("classes", [])]
        front.insert(1, [raw(r"\courseunnumbered"), nodes.section("", nodes.title("", "About this course"), *text)])

    def parts(self):
        """Each part is named once, and its chapters are numbered as on the site."""
        first = {}
        for toctree in self.env.get_doctree(self.config.root_doc).findall(addnodes.toctree):
            for i, (_, page) in enumerate(toctree["entries"]):
                first[page] = (toctree.get("caption", "") if i == 0 else None, toctree.get("numbered"))
        for page in self.document.findall(addnodes.start_of_file):
            caption, numbered = first.get(page["docname"], (None, None))
            opening = rf"\courseopenpart{{{caption}}}" if caption else ""
            page.insert(0, raw(opening + (r"\coursenumbered" if numbered else r"\courseunnumbered")))

    def solutions(self):
        """<details> is HTML, which LaTeX drops: what it folds stands open under its summary."""
        for parent in {id(node.parent): node.parent for node in self.document.findall(nodes.raw)}.values():
            outer, box = [], None
            for node in parent.children:
                html = node.astext() if isinstance(node, nodes.raw) and node["format"] == "html" else ""
                if "</details>" in html:
                    box = None
                if summary := SUMMARY.search(html):
                    title = nodes.paragraph("", "", nodes.strong("", summary[1].strip()))
                    box = nodes.container("", title, raw(r"\nopagebreak"), classes=["solution"])
                    outer.append(box)
                elif box is not None:
                    box.append(node)
                else:
                    outer.append(node)
            parent.children = []
            parent.extend(outer)


def setup(app):
    app.add_post_transform(Print)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
