"""What every section of the report is made of: the page's look, tables, bars."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

STYLE = """
:root { --ink: #1c2430; --soft: #5b6676; --line: #dfe4ea; --good: #14804a; --bad: #c2341d; --paper: #fff;
  --tile: #f4f6f8; --bar: #2b6cb0; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8ecf1; --soft: #9aa6b5; --line: #323b47; --good: #4cc38a; --bad: #ff8a73; --paper: #161b22;
    --tile: #1f2630; --bar: #6aa9ee; }
}
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
       max-width: 62rem; margin: 2.5rem auto; padding: 0 1.2rem; }
h1 { font-size: 1.6rem; margin: 0 0 .2rem; overflow-wrap: anywhere; }
h2 { font-size: 1.1rem; margin: 2.4rem 0 .5rem; }
p, .soft { color: var(--soft); } p { margin: .3rem 0 .8rem; }
.lead { background: var(--tile); border-radius: .5rem; padding: .7rem 1rem; color: var(--ink); }
.lead p { margin: .15rem 0; color: inherit; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .34rem 0 .34rem .9rem; border-bottom: 1px solid var(--line);
         text-align: right; white-space: nowrap; vertical-align: top; }
th { font-weight: 600; color: var(--soft); white-space: normal; vertical-align: bottom; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
.words td { text-align: left; white-space: normal; } .words th { text-align: left; }
.words td:first-child { white-space: nowrap; }
.good { color: var(--good); } .bad { color: var(--bad); font-weight: 600; }
code { font: .85em ui-monospace, monospace; overflow-wrap: anywhere; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1.2rem; margin: 0; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
svg text { fill: var(--soft); font-size: 10px; } .axis { stroke: var(--line); } .zero { stroke: var(--soft); }
.whisker { stroke: var(--ink); stroke-width: 1.5; } .dot { fill: var(--ink); }
.plot { width: 100%; height: auto; margin: .2rem 0 .6rem; } .plot text { font-size: 11px; }
.plot .name { fill: var(--ink); } .plot .kept { fill: var(--bad); }
.stem { stroke: var(--bar); stroke-width: 3; } .mark { fill: var(--bar); } .grid { stroke: var(--line); }
.bar { display: inline-block; width: 9rem; height: .7rem; background: var(--tile); border-radius: .2rem;
       vertical-align: middle; text-align: left; }
.bar i { display: block; height: 100%; background: var(--bar); border-radius: .2rem; min-width: 1px; }
"""


def table(head: Iterable[str], rows: Iterable[tuple[str, ...]], words: bool = False) -> str:
    """A table of figures, or of words; headings are text, cells are HTML."""
    top = "".join(f"<th>{escape(text)}</th>" for text in head)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    kind = ' class="words"' if words else ""
    return (
        f'<div class="scroll"><table{kind}><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def bar(share: float) -> str:
    """A bar of a share of the full length, 0 to 1."""
    return f'<span class="bar"><i style="width:{100 * share:.1f}%"></i></span>'


def flagged(text: str, bad: bool) -> str:
    """The text, marked where it is bad."""
    return f'<span class="bad">{text}</span>' if bad else text
