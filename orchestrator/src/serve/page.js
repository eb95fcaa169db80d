// Keeps an open page up to date. Without it all pages work, as of when they were loaded.
"use strict";
(() => {
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];

  for (const button of all("button.copy")) {
    button.hidden = false;
    button.addEventListener("click", async () => {
      const code = button.closest("details").querySelector("pre");
      try {
        await navigator.clipboard.writeText(code.textContent);
        button.textContent = "Copied";
      } catch {
        // Without https the clipboard is closed: what is selected can be copied by hand.
        getSelection().selectAllChildren(code);
        button.textContent = "Selected: copy it";
      }
    });
  }

  for (const form of all("form.auto")) {
    form.querySelector("button").hidden = true;
    form.addEventListener("change", () => form.requestSubmit());
  }

  // The grid is one stop of the Tab key; arrows move inside it.
  const grid = document.getElementById("grid");
  const cells = grid ? all("a.c", grid) : [];
  const cellOf = new Map(cells.map((cell) => [cell.getAttribute("href").slice("/job/".length), cell]));
  cells.forEach((cell, index) => (cell.tabIndex = index ? -1 : 0));
  const move = (from, key) => {
    const at = from.getBoundingClientRect();
    const x = at.x + at.width / 2, y = at.y + at.height / 2;
    const [dx, dy] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[key];
    let best = null, least = Infinity;
    for (const cell of cells) {
      const to = cell.getBoundingClientRect();
      const tx = to.x + to.width / 2 - x, ty = to.y + to.height / 2 - y;
      const ahead = tx * dx + ty * dy, aside = Math.abs(tx * dy) + Math.abs(ty * dx);
      const cost = ahead + 3 * aside;
      if (ahead > 1 && cost < least) [best, least] = [cell, cost];
    }
    return best;
  };
  if (grid) grid.addEventListener("keydown", (event) => {
    if (!event.key.startsWith("Arrow") || !event.target.matches("a.c")) return;
    event.preventDefault();
    const next = move(event.target, event.key);
    if (next) {
      event.target.tabIndex = -1;
      next.tabIndex = 0;
      next.focus();
    }
  });

  const four = (value) => Number(value.toPrecision(4)).toString();
  const paint = (changed) => {
    for (const { key, state, value, title } of changed) {
      const cell = cellOf.get(key);
      if (!cell) continue;
      if (cell.className.split(" ")[1] !== state) cell.className = "c " + state;
      cell.title = title;
      if (value === null) delete cell.dataset.v;
      else cell.dataset.v = value;
    }
    const values = cells.filter((cell) => cell.dataset.v !== undefined).map((cell) => Number(cell.dataset.v));
    const [low, high] = values.reduce(([low, high], v) => [Math.min(low, v), Math.max(high, v)], [Infinity, -Infinity]);
    if (low > high) return;
    for (const [id, value] of [["low", low], ["high", high]]) {
      const end = document.getElementById(id);
      if (end) end.textContent = four(value);
    }
    for (const cell of cells) {
      if (cell.dataset.v === undefined) continue;
      const shade = high > low ? Math.min(9, Math.floor(((cell.dataset.v - low) / (high - low)) * 10)) : 5;
      const name = "c " + cell.className.split(" ")[1] + " q" + shade;
      if (cell.className !== name) cell.className = name;
    }
  };

  const live = document.body.dataset.live;
  const status = document.getElementById("live");
  if (!live || !status) return;
  const say = (words, good) => {
    status.textContent = words;
    status.className = good ? "good" : "bad";
  };
  const source = new EventSource(live);
  let lost = false;
  source.addEventListener("open", () => {
    // What happened meanwhile is not sent again.
    if (lost) location.reload();
  });
  source.addEventListener("error", () => {
    lost = true;
    say("the server is away: trying again", false);
  });
  source.addEventListener("seen", () => say("live", true));
  source.addEventListener("trouble", (event) => say(JSON.parse(event.data), false));
  source.addEventListener("part", (event) => {
    const { id, html } = JSON.parse(event.data);
    const part = document.getElementById(id);
    if (!part) return;
    const focused = part.contains(document.activeElement) ? document.activeElement.id : "";
    // What was opened stays open, and what was scrolled to its end stays there.
    const opened = all("details", part).map((details) => details.open);
    const scrolled = all("pre", part).map((pre) => [pre.scrollTop, pre.scrollHeight - pre.scrollTop - pre.clientHeight < 4]);
    part.innerHTML = html;
    all("details", part).forEach((details, index) => (details.open = opened[index] ?? details.open));
    all("pre", part).forEach((pre, index) => {
      const [top, atEnd] = scrolled[index] ?? [0, true];
      pre.scrollTop = atEnd ? pre.scrollHeight : top;
    });
    if (focused) document.getElementById(focused)?.focus();
  });
  // Laws are drawn again where results have come in; the server knows whether there is anything new.
  let results = null;
  const redraw = () => {
    for (const image of all("img.fresh")) {
      const address = new URL(image.src);
      address.searchParams.set("at", Date.now());
      image.src = address;
    }
  };
  source.addEventListener("cells", (event) => {
    paint(JSON.parse(event.data));
    const now = cells.filter((cell) => cell.dataset.v !== undefined).length;
    if (results !== null && now !== results) redraw();
    results = now;
  });
})();
