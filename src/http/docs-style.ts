/** The style of the documentation page; its digest is in the page's content security policy. */
export const STYLE = `
:root { color-scheme: light dark; --ink: #1c2430; --soft: #5d6b7c; --line: #dfe4ea; --ground: #fff; --side: #f6f8fa; --code: #eef1f5; --link: #0b5cad; }
@media (prefers-color-scheme: dark) { :root { --ink: #dfe5ec; --soft: #93a1b1; --line: #2b3440; --ground: #12171d; --side: #171d24; --code: #202832; --link: #7ab7ff; } }
* { box-sizing: border-box; }
html { scroll-padding-top: 1rem; }
body { margin: 0; display: grid; grid-template-columns: 19rem minmax(0, 1fr); color: var(--ink); background: var(--ground); font: 15px/1.55 system-ui, sans-serif; }
nav { position: sticky; top: 0; height: 100vh; overflow-y: auto; padding: 1.25rem 1rem 2rem; background: var(--side); border-right: 1px solid var(--line); font-size: 13px; }
nav .brand { font-size: 1.15rem; font-weight: 700; color: var(--ink); }
nav .brand small { font-weight: 400; color: var(--soft); }
nav h2 { margin: 1.3rem 0 .3rem; font-size: 11px; letter-spacing: .08em; text-transform: uppercase; color: var(--soft); }
nav ul { margin: 0; padding: 0; list-style: none; }
nav li a { display: flex; gap: .5rem; align-items: baseline; padding: .18rem .3rem; border-radius: 4px; color: var(--ink); }
nav li a:hover { background: var(--code); text-decoration: none; }
nav .m { min-width: 3.4rem; font-size: 9px; }
main { max-width: 62rem; padding: 2rem 2.5rem 6rem; }
h1 { margin: 0 0 .5rem; font-size: 1.9rem; }
h2.tag { margin: 3rem 0 0; font-size: 1.3rem; text-transform: capitalize; border-bottom: 2px solid var(--line); padding-bottom: .3rem; }
h2.tag + p { margin-top: .4rem; color: var(--soft); }
section { margin: 1.6rem 0 0; padding: 1.1rem 1.3rem 1.3rem; border: 1px solid var(--line); border-radius: 8px; }
section:target { border-color: var(--link); box-shadow: 0 0 0 1px var(--link); }
section > p:empty { display: none; }
h3 { margin: 0; font-size: 1.08rem; }
h3 a { color: inherit; }
h4 { margin: 1.1rem 0 .3rem; font-size: 11px; letter-spacing: .08em; text-transform: uppercase; color: var(--soft); }
a { color: var(--link); text-decoration: none; }
a:hover { text-decoration: underline; }
a:focus-visible { outline: 2px solid var(--link); outline-offset: 2px; }
code, pre, .t { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; font-size: .88em; }
code { padding: .08em .32em; border-radius: 4px; background: var(--code); overflow-wrap: anywhere; }
pre { margin: .6rem 0 0; padding: .7rem .9rem; border-radius: 6px; background: var(--code); overflow-x: auto; }
.route { margin: .5rem 0; }
.route code { font-size: .95em; background: none; padding: 0; }
var { font-style: normal; color: var(--link); }
.needs { margin-left: .5rem; padding: .1rem .5rem; border: 1px solid var(--line); border-radius: 99px; font-size: 12px; color: var(--soft); white-space: nowrap; }
.m { display: inline-block; min-width: 4rem; padding: .1rem .35rem; border-radius: 4px; font-size: 11px; text-align: center; color: #fff; background: #5d6b7c; }
.m.get { background: #1f6f43; } .m.post { background: #0b5cad; } .m.put, .m.patch { background: #8a5a00; } .m.delete { background: #a32a2a; }
.s { font-variant-numeric: tabular-nums; } .s2 { color: #1f8a4c; } .s4 { color: #b06a00; } .s5 { color: #c23b3b; }
.wide { overflow-x: auto; }
table { width: 100%; border-collapse: collapse; }
td { padding: .4rem .7rem .4rem 0; border-top: 1px solid var(--line); vertical-align: top; }
tr:first-child td { border-top: 0; }
td:first-child { white-space: nowrap; width: 1%; }
td:first-child code { background: none; padding: 0; }
small, .arm { color: var(--soft); }
.arm { margin: .8rem 0 .2rem; }
@media (max-width: 52rem) { body { display: block; } nav { position: static; height: auto; max-height: 45vh; border-right: 0; border-bottom: 1px solid var(--line); } main { padding: 1.2rem; } }
@media print { nav { display: none; } body { display: block; } section { break-inside: avoid; } }
`;
