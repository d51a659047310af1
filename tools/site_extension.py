"""What the book needs of Sphinx beyond its settings."""

from pathlib import Path

from docutils import nodes
from sphinx import addnodes
from sphinx.util.docutils import SphinxRole


class Leaf(SphinxRole):
    """{leaf}`Title <part/chapter>`: a link to the chapter where the book has it, the word "coming" where it has not."""

    def run(self):
        title, _, chapter = self.text.rstrip(">").partition(" <")
        text = nodes.inline(title, title)
        if f"book/{chapter}" not in self.env.found_docs:
            coming = nodes.inline("", "coming", classes=["coming"])
            return [nodes.inline("", "", text, nodes.Text(" "), coming, classes=["leaf"])], []
        link = addnodes.pending_xref(
            "", text, refdomain="std", reftype="doc", reftarget=f"/book/{chapter}",
            refdoc=self.env.docname, refexplicit=True, refwarn=True,
        )  # fmt: skip
        return [nodes.inline("", "", link, classes=["leaf"])], []


class Printed(SphinxRole):
    """{pdf}`text`: a link to the printed book where `make pdf` has made it, nothing where it has not or on paper."""

    def run(self):
        file = "_build/genlib-course.pdf"
        if self.env.app.builder.format != "html" or not (Path(self.env.srcdir) / file).is_file():
            return [], []
        where = {"refdoc": self.env.docname, "reftarget": f"/{file}", "refdomain": "", "reftype": "download"}
        return [addnodes.download_reference("", "", nodes.Text(self.text), **where)], []


def without_thebe(app, config):
    """Remove sphinx-thebe: the book offers no live kernel, and its script prints an error to every page's console."""
    app.registry.css_files[:] = [each for each in app.registry.css_files if each[0] != "sphinx-thebe.css"]
    for listeners in app.events.listeners.values():
        listeners[:] = [each for each in listeners if not each.handler.__module__.startswith("sphinx_thebe")]


def setup(app):
    app.add_role("leaf", Leaf())
    app.add_role("pdf", Printed())
    app.connect("config-inited", without_thebe)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
