"""How the page of a report looks: light and dark, wide and narrow, on screen and on paper."""

CSS = """
:root{color-scheme:light dark;--ink:#1b1b1b;--paper:#fff;--soft:#5f5f5f;--line:#ddd;--note:#fff4d6;
--box:#f5f6f8;--link:#0060a0;--shade:rgba(0,0,0,.35)}
@media(prefers-color-scheme:dark){:root{--ink:#e4e4e4;--paper:#17191c;--soft:#a8a8a8;--line:#3a3d42;
--note:#3a3115;--box:#202328;--link:#7fc0f0;--shade:rgba(255,255,255,.4)}}
*{box-sizing:border-box}
body{max-width:84rem;margin:2rem auto;padding:0 1rem;font:16px/1.5 system-ui,sans-serif;color:var(--ink);
background:var(--paper);overflow-wrap:break-word}
p,ul,nav,summary,figcaption{max-width:64rem}
a{color:var(--link)}h1{line-height:1.2}h2{margin-top:3rem;border-bottom:1px solid var(--line)}
nav ul{columns:2 22rem;list-style:none;padding:0}nav li{break-inside:avoid}
.soft,figcaption,summary{color:var(--soft);font-size:.9rem}
.missing,.warning{background:var(--note);padding:.5rem .8rem;border-radius:.3rem}
dl{display:grid;grid-template-columns:max-content minmax(0,1fr);gap:.25rem 1.2rem;background:var(--box);
border:1px solid var(--line);border-radius:.3rem;padding:.8rem 1rem;margin:1.5rem 0;font-size:.9rem}
dt{font-weight:600}dd{margin:0}
figure{margin:1.5rem 0}figcaption{padding-bottom:.4rem}
details{margin:.6rem 0}summary{cursor:pointer}details .table{margin:.5rem 0 1.5rem}
.note{margin:.3rem 0 0}

/* What is wider than the page scrolls; a shade at an edge says that there is more behind it. */
.table,.frame{overflow-x:auto;background:linear-gradient(to right,var(--paper) 40%,transparent) 0 0/3rem 100%,
linear-gradient(to left,var(--paper) 40%,transparent) 100% 0/3rem 100%,
linear-gradient(to right,var(--shade),transparent) 0 0/.8rem 100%,
linear-gradient(to left,var(--shade),transparent) 100% 0/.8rem 100%;background-repeat:no-repeat;
background-attachment:local,local,scroll,scroll}
table{border-collapse:collapse;font-size:.85rem;font-variant-numeric:tabular-nums}
.many table{font-size:.78rem}.many th,.many td{padding:.2rem .4rem}
th,td{padding:.2rem .6rem;text-align:right;white-space:nowrap}
th[scope=row],thead tr:last-child th:first-child,th.text,td.text{text-align:left}
th[scope=row],thead th:first-child,thead td{position:sticky;left:0;background:var(--paper)}
th[scope=colgroup]{text-align:center;border-bottom:1px solid var(--line)}
thead th{white-space:normal;vertical-align:bottom}thead tr:last-child th{border-bottom:1px solid var(--ink)}
td.text{white-space:normal;min-width:8rem}tr.ruled>*{border-top:1px solid var(--ink)}
td u{text-decoration:underline dotted;text-underline-offset:.2em}

/* The white of figures takes the page's colour; in the dark, light and shade change places. */
img{display:block;max-width:100%;mix-blend-mode:multiply}
@media(prefers-color-scheme:dark){img{filter:invert(1) hue-rotate(180deg);mix-blend-mode:screen}}
.frame a{display:block;width:max-content;max-width:100%;cursor:zoom-in}.frame .close{display:none}
.frame:target{position:fixed;inset:0;z-index:1;margin:0;padding:3rem 1rem 1rem;overflow:auto;
background:var(--paper)}
.frame:target a{max-width:none;cursor:auto}.frame:target img{max-width:none;width:auto}
.frame:target .close{display:block;position:fixed;top:.6rem;right:1rem;padding:.2rem .8rem;
background:var(--box);border:1px solid var(--line);border-radius:.3rem;cursor:pointer}
@media(max-width:44rem){th[scope=row]{white-space:normal;min-width:6.5rem;max-width:9rem}
ul{padding-left:1.2rem}dl{grid-template-columns:minmax(0,1fr);gap:0}dd{margin-bottom:.5rem}
.frame a,.frame img{max-width:none}}
@media print{:root{--ink:#000;--paper:#fff;--soft:#444;--line:#aaa;--note:#eee;--box:#fff}
body{max-width:none;font-size:10pt}nav{display:none}figure,tr,li{break-inside:avoid}
.table,.frame{overflow:visible;background:none}img{filter:none}
table{font-size:7pt}th,td{padding:.1rem .3rem;white-space:normal}}
"""
