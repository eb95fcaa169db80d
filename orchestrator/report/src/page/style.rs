//! The page's style sheet: system fonts, light and dark, and a print form that is light whatever the screen was.

use crate::figures::css_variables;

pub(super) fn css() -> String {
    format!(
        ":root {{ color-scheme: light dark; {} }}\n@media screen and (prefers-color-scheme: dark) {{ :root {{ {} }} \
         }}\n{RULES}",
        css_variables(false),
        css_variables(true)
    )
}

const RULES: &str = "\
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--text);
font: 16px/1.55 system-ui, 'Segoe UI', Helvetica, Arial, 'DejaVu Sans', sans-serif; }
main { max-width: 1240px; margin: 0 auto; padding: 40px 32px 80px; }
h1 { font-size: 30px; line-height: 1.2; margin: 0 0 6px; overflow-wrap: anywhere; }
h2 { font-size: 21px; margin: 52px 0 12px; padding-top: 12px; border-top: 1px solid var(--grid); }
p { max-width: 46em; overflow-wrap: anywhere; }
.lead { font-size: 19px; margin: 0 0 14px; }
.quiet, figcaption, .file { color: var(--muted); }
.quiet { font-size: 14px; }
.file { font-family: ui-monospace, 'DejaVu Sans Mono', monospace; font-size: 12px; white-space: nowrap; }
ul.laws { padding: 0; margin: 18px 0; list-style: none; }
ul.laws li { border-left: 4px solid var(--grid); padding: 2px 0 2px 16px; margin: 0 0 14px; }
ul.laws li.scaling { border-color: var(--s2); }
ul.laws li.doubt { border-color: var(--s1); }
ul.laws .law { font-size: 18px; }
figure { margin: 24px 0 34px; }
figure svg { display: block; max-width: 100%; height: auto; }
figcaption { font-size: 14px; line-height: 1.5; max-width: 62em; margin-top: 8px; overflow-wrap: anywhere; }
figcaption b { color: var(--text); font-weight: 600; }
.wide { overflow-x: auto; margin: 12px 0; }
table { border-collapse: collapse; font-size: 13.5px; line-height: 1.4; font-variant-numeric: tabular-nums; }
th { text-align: left; font-weight: 600; border-bottom: 1.5px solid var(--muted); vertical-align: bottom; }
th, td { padding: 5px 13px 5px 0; }
th { overflow-wrap: anywhere; max-width: 9em; }
td { hyphens: none; }
td { border-bottom: 1px solid var(--grid); vertical-align: top; overflow-wrap: break-word; }
td:nth-child(-n+3) { overflow-wrap: normal; white-space: nowrap; }
sup { line-height: 0; }
th.n, td.n { text-align: right; }
td.n { white-space: nowrap; }
code, pre { font-family: ui-monospace, 'DejaVu Sans Mono', monospace; font-size: 13px; }
code { overflow-wrap: anywhere; }
pre { background: var(--finegrid); padding: 12px 16px; border-radius: 6px; overflow-x: auto; line-height: 1.45; }
details { margin: 10px 0; }
summary { cursor: pointer; }
details.part > summary { font-weight: 600; padding: 4px 0; }
h3 { font-size: 17px; margin: 30px 0 8px; overflow-wrap: anywhere; }
.bad { color: var(--s1); font-weight: 600; }
@media print {
  @page { margin: 14mm; }
  body { font-size: 11pt; }
  main { max-width: none; padding: 0; }
  h2 { break-after: avoid; margin-top: 26pt; }
  figure, tr, li { break-inside: avoid; }
  thead { display: table-header-group; }
  pre { white-space: pre-wrap; overflow-wrap: anywhere; }
  .wide { overflow: visible; }
  table { font-size: 8.5pt; }
  th, td { padding-right: 8pt; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}";
