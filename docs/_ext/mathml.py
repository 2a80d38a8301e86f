"""Equations as MathML, which browsers draw by themselves: no scripts, nothing from another address."""

from docutils.nodes import SkipNode
from docutils.utils.math.latex2mathml import tex2mathml


def inline(self, node):
    """Write an equation in a sentence."""
    self.body.append(tex2mathml(node.astext()))
    raise SkipNode


def block(self, node):
    """Write an equation in a paragraph of its own."""
    self.body.append(f'<div class="equation">{tex2mathml(node.astext(), as_block=True)}</div>')
    raise SkipNode


def setup(app):
    """Register the renderer."""
    app.add_html_math_renderer("mathml", inline_renderers=(inline, None), block_renderers=(block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
