"""The look of the page, in light and dark; the colours of the stages are told apart in greyscale too."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape


def document(title: str, style: str, sections: Iterable[str]) -> str:
    """One page that needs nothing else: the title is text, style and sections are CSS and HTML already."""
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{style}</style><body>{''.join(sections)}</body></html>\n"
    )


STYLE = """
:root { --ink: #1c2430; --soft: #5b6676; --line: #dfe4ea; --bad: #c2341d; --paper: #fff; --tile: #f4f6f8;
  --decode: #2b6cb0; --wait: #a3acb8; --preprocess: #d99a1c; --infer: #14804a; --postprocess: #8a4fbf;
  --publish: #d1495b; --age: #1c2430; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8ecf1; --soft: #9aa6b5; --line: #323b47; --bad: #ff8a73; --paper: #161b22; --tile: #1f2630;
    --decode: #6aa9ee; --wait: #6b7684; --preprocess: #f0bc55; --infer: #4cc38a; --postprocess: #b98be6;
    --publish: #f27d8c; --age: #e8ecf1; }
}
* { box-sizing: border-box; }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
       max-width: 62rem; margin: 2.5rem auto; padding: 0 1.2rem; }
h1 { font-size: 1.6rem; margin: 0 0 .2rem; overflow-wrap: anywhere; }
h2 { font-size: 1.1rem; margin: 2.6rem 0 .4rem; } h3 { font-size: 1rem; margin: 1.6rem 0 .3rem; }
p { margin: .2rem 0 .8rem; } p, ol, .soft { color: var(--soft); } .warn { color: var(--bad); }
ol { padding-left: 1.4rem; margin: 0 0 .8rem; }
.tiles { display: flex; flex-wrap: wrap; gap: .7rem; margin: 1.2rem 0; }
.tiles div { background: var(--tile); border-radius: .5rem; padding: .6rem 1rem; flex: 1 1 7.5rem; }
.tiles b { display: block; font-size: 1.35rem; font-variant-numeric: tabular-nums; }
.tiles span, .tiles small { color: var(--soft); font-size: .8rem; font-weight: 400; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .38rem 0 .38rem .9rem; border-bottom: 1px solid var(--line); text-align: right;
         white-space: nowrap; vertical-align: top; }
th { font-weight: 600; color: var(--soft); } th:first-child, td:first-child { text-align: left; padding-left: 0; }
td small { display: block; color: var(--soft); font-size: .75em; }
.sub { padding-left: 1.15rem; }
.swatch, .legend i { display: inline-block; width: .7rem; height: .7rem; border-radius: .15rem;
                     margin-right: .45rem; background: var(--c); }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: .2rem 1rem; padding: 0; margin: 0 0 .4rem;
          font-size: .85rem; }
.s-decode { --c: var(--decode); } .s-wait { --c: var(--wait); } .s-preprocess { --c: var(--preprocess); }
.s-infer { --c: var(--infer); } .s-postprocess { --c: var(--postprocess); } .s-publish { --c: var(--publish); }
.s-age { --c: var(--age); } .roof { --c: var(--bad); } .worst { --c: var(--bad); }
.plot { position: relative; height: 17rem; margin: 0 .4rem 1.5rem 3.4rem; border: 1px solid var(--line); }
.plot svg { position: absolute; inset: 0; width: 100%; height: 100%; }
.curve, .grid { fill: none; vector-effect: non-scaling-stroke; stroke-linejoin: round; }
.curve { stroke: var(--c); stroke-width: 1.8; } .grid { stroke: var(--line); stroke-width: 1; }
.ticks { stroke-linecap: round; stroke-width: 2.4; opacity: .55; } .warmup { fill: var(--line); opacity: .6; }
.plot span { position: absolute; font-size: .75rem; color: var(--soft); white-space: nowrap; }
.plot .x { top: 100%; transform: translate(-50%, .2rem); }
.plot .y { right: 100%; transform: translate(-.4rem, 50%); }
.xname, .yname { font-size: .75rem; color: var(--soft); }
.yname { margin: .6rem 0 .5rem; } .xname { text-align: right; margin: -.2rem .4rem 1rem; }
.dot { position: absolute; border-radius: 50%; background: var(--c); transform: translate(-50%, 50%); opacity: .85; }
.dot b { position: absolute; left: calc(100% + .25rem); top: 50%; transform: translateY(-50%); font: .72rem/1 system-ui,
         sans-serif; color: var(--ink); white-space: nowrap; }
.dot b.leftward { left: auto; right: calc(100% + .25rem); }
.bar { display: grid; grid-template-columns: 7.5rem 1fr 6rem; gap: .8rem; align-items: center; padding: .16rem 0;
       font-size: .9rem; font-variant-numeric: tabular-nums; }
.bar > span { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.bar > span:last-child { text-align: right; }
.wide .bar { grid-template-columns: minmax(6rem, 14rem) 1fr 8rem; font-size: .82rem; padding: .08rem 0; }
.bar em { position: relative; height: 1rem; background: var(--tile); border-radius: .2rem; }
.bar i { position: absolute; top: 0; bottom: 0; background: var(--c); border-radius: .2rem; min-width: 1px; }
.bar u { position: absolute; top: -.1rem; bottom: -.1rem; width: 2px; background: var(--bad); }
.faint { opacity: .5; }
dl { display: grid; grid-template-columns: minmax(6rem, max-content) 1fr; gap: .25rem 1.2rem; margin: 0;
     font-size: .9rem; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
@media (max-width: 34rem) {
  body { margin: 1.2rem auto; padding: 0 .9rem; }
  .bar { grid-template-columns: 6.4rem 1fr 4.4rem; gap: .5rem; }
  .wide .bar { grid-template-columns: 6.2rem 1fr 7rem; }
  .plot { height: 14rem; margin-left: 2.9rem; margin-right: .6rem; }
  .dot b { display: none; } .worst b { display: block; }
  dl { grid-template-columns: 1fr; gap: 0; } dd { margin-bottom: .5rem; }
}
"""
