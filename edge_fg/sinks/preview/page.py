"""The page that shows the images."""

from __future__ import annotations

import html

from edge_fg.printing import printable

STYLE = """
:root { color-scheme: dark; font: 15px/1.45 system-ui, sans-serif; }
body { margin: 0; background: #111; color: #eee; }
header { display: flex; flex-wrap: wrap; gap: .3rem 1.2rem; align-items: baseline;
         padding: .7rem 1rem; background: #1b1b1b; }
h1 { font-size: 1rem; margin: 0; }
main { display: grid; gap: 1rem; padding: 1rem;
       grid-template-columns: repeat(auto-fit, minmax(min(100%, 30rem), 1fr)); }
figure { margin: 0; background: #1b1b1b; border-radius: 6px; overflow: hidden; }
img { display: block; width: 100%; max-height: 80vh; object-fit: contain; min-height: 8rem;
      background: #000; }
figcaption { padding: .5rem .8rem; overflow-wrap: anywhere; }
.state { color: #aaa; }
.bad { color: #ff9d6b; }
"""

SCRIPT = """
"use strict";
const text = (id, words, bad) => {
  const element = document.getElementById(id);
  element.textContent = words;
  element.className = bad ? "state bad" : "state";
};
const seconds = (value) => value < 10 ? value.toFixed(1) : value.toFixed(0);
let lost = false;
async function refresh() {
  try {
    const signal = AbortSignal.timeout(4000);
    const answer = await fetch("stats.json", {cache: "no-store", signal});
    const stats = await answer.json();
    const rate = stats.pipeline ? stats.pipeline.rate.toFixed(1) + " answers/s" : "";
    text("total", [rate, stats.viewers + (stats.viewers === 1 ? " viewer" : " viewers")]
      .filter(Boolean).join(", "), false);
    stats.sources.forEach((source, number) => {
      const age = source.age_s;
      const words = age === null ? "no frame yet" : "latest frame " + seconds(age) + " s ago";
      text("state" + number, [source.state, words].filter(Boolean).join(", "),
           age === null || age > 3);
    });
    if (lost) {
      lost = false;
      for (const image of document.images) image.src = image.dataset.stream + "&" + Date.now();
    }
  } catch (error) {
    lost = true;
    text("total", "the program does not answer", true);
  }
  setTimeout(refresh, 1000);
}
refresh();
"""


def index_page(names: tuple[str, ...]) -> str:
    """Return the page that shows these sources."""
    figures = "\n".join(
        f'<figure><img src="stream.mjpg?source={i}" data-stream="stream.mjpg?source={i}" '
        f'alt="live image of {name}">\n'
        f'<figcaption>{name}<br><span class="state" id="state{i}">waiting</span>'
        f' <a href="snapshot.jpg?source={i}">image</a></figcaption></figure>'
        for i, name in enumerate(html.escape(printable(one)) for one in names)
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>edge-fg</title>
<link rel="stylesheet" href="preview.css">
</head>
<body>
<header><h1>edge-fg</h1><span class="state" id="total">connecting</span></header>
<main>
{figures}
</main>
<script src="preview.js"></script>
</body>
</html>
"""
