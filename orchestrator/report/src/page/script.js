// What the page does beyond HTML: the job behind a mark, tables in another order, tiles in the order of the tab key.
(() => {
  'use strict';
  const { fields, jobs, metrics } = JSON.parse(document.getElementById('data').textContent);
  const main = document.querySelector('main');
  const card = document.getElementById('card');
  const NEAR = 16; // pixels from a mark within which it is meant
  let shown = null, pinned = null;

  const element = (tag, text, className) => {
    const made = document.createElement(tag);
    if (text !== undefined) made.textContent = text;
    if (className) made.className = className;
    return made;
  };

  // Marks a job in every figure and table, and shows it on the card; null: none.
  function show(job, metric) {
    if (job !== shown) {
      main.querySelectorAll('.j.on').forEach(mark => mark.classList.remove('on'));
      if (job !== null) main.querySelectorAll(`.j[data-j~="${job}"]`).forEach(mark => mark.classList.add('on'));
      main.classList.toggle('marking', job !== null);
      shown = job;
    }
    card.hidden = job === null;
    if (job === null) return;
    card.replaceChildren();
    card.classList.toggle('pinned', pinned !== null);
    if (pinned !== null) {
      const close = element('button', '✕');
      close.setAttribute('aria-label', 'Unpin');
      close.onclick = () => pin(null);
      card.append(close);
    }
    const value = metric !== null && metrics[metric] && metrics[metric][1][job];
    if (value) card.append(element('p', `${metrics[metric][0]}: ${value}`));
    const list = element('dl');
    fields.forEach((field, place) => {
      const text = jobs[job][place];
      if (text) list.append(element('dt', field), element('dd', text));
    });
    card.append(list);
  }

  function pin(job, metric) {
    pinned = job === null ? null : { job, metric };
    show(job, metric ?? null);
  }

  const metricOf = node => {
    const owner = node.closest('[data-m]');
    return owner ? Number(owner.dataset.m) : null;
  };
  const jobOf = mark => Number(mark.dataset.j.split(' ')[0]);
  const marksOf = svg => [...svg.querySelectorAll('.j[data-j]:not([data-j=""])')];

  // The mark that the pointer means: the one under it, or the nearest.
  function meant(event, reach) {
    const under = event.target.closest('.j[data-j]:not([data-j=""])');
    if (under) return under;
    const svg = event.target.closest('svg');
    if (!svg) return null;
    let best = null, least = reach;
    for (const mark of marksOf(svg)) {
      const box = (mark.lastElementChild ?? mark).getBoundingClientRect();
      const away = Math.hypot(box.x + box.width / 2 - event.clientX, box.y + box.height / 2 - event.clientY);
      if (away < least && box.width < 60) [best, least] = [mark, away];
    }
    return best;
  }

  let waiting = null;
  main.addEventListener('pointermove', event => {
    if (pinned) return;
    if (waiting === null) requestAnimationFrame(() => {
      const mark = meant(waiting, NEAR);
      show(mark ? jobOf(mark) : null, mark ? metricOf(mark) : null);
      waiting = null;
    });
    waiting = event;
  });
  main.addEventListener('pointerleave', () => pinned || show(null, null));
  main.addEventListener('click', event => {
    // A click on a small multiple opens it, unless it is right on a mark.
    const mark = meant(event, event.target.closest('summary') ? 0 : NEAR);
    if (mark && !event.target.closest('a, button')) {
      event.preventDefault();
      pin(pinned && pinned.job === jobOf(mark) ? null : jobOf(mark), metricOf(mark));
    } else if (pinned && event.target.closest('svg')) {
      pin(null);
    }
  });

  // Keyboard: one stop a figure, arrows go from mark to mark by their place on the x axis.
  main.querySelectorAll('figure svg').forEach(svg => {
    if (marksOf(svg).length === 0) return;
    svg.setAttribute('tabindex', '0');
    svg.setAttribute('aria-label', `${svg.querySelector('title').textContent}. Arrow keys go from job to job, Enter pins one.`);
  });
  main.addEventListener('keydown', event => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    const owner = event.target.closest('svg, summary');
    const svg = owner && (owner.matches('svg') ? owner : owner.querySelector('svg'));
    if (event.key === 'Enter' && event.target.matches('svg') && shown !== null) pin(shown, metricOf(event.target));
    if (!step || !svg) return;
    const left = mark => mark.getBoundingClientRect().x;
    const marks = marksOf(svg).sort((a, b) => left(a) - left(b));
    if (marks.length === 0) return;
    event.preventDefault();
    const at = marks.findIndex(mark => jobOf(mark) === shown);
    const next = at < 0 ? (step > 0 ? 0 : marks.length - 1) : (at + step + marks.length) % marks.length;
    pinned = null;
    show(jobOf(marks[next]), metricOf(svg));
  });
  document.addEventListener('keydown', event => event.key === 'Escape' && pin(null));
  main.addEventListener('focusout', () => pinned || show(null, null));

  // Tables: by any column, and those rows that hold some words.
  const powers = { k: 1e3, M: 1e6, B: 1e9, T: 1e12 };
  const plain = text => text.replace(/[⁰¹²³⁴-⁹⁻]/g, c => '⁰¹²³⁴⁵⁶⁷⁸⁹⁻'.indexOf(c) === 10 ? '-' : '⁰¹²³⁴⁵⁶⁷⁸⁹'.indexOf(c));
  function number(text) {
    const found = /^([−-]?[\d.]+)(?: × 10([⁻⁰¹²³⁴-⁹]+)|([kMBT])\b|e([−-]?\d+))?/.exec(text.trim());
    if (!found) return NaN;
    const value = Number(found[1].replace('−', '-'));
    if (found[2]) return value * 10 ** Number(plain(found[2]));
    if (found[4]) return value * 10 ** Number(found[4].replace('−', '-'));
    return found[3] ? value * powers[found[3]] : value;
  }
  function sort(table, column, way) {
    const body = table.tBodies[0];
    const text = row => row.cells[column]?.textContent ?? '';
    const rows = [...body.rows];
    const numeric = rows.some(row => !isNaN(number(text(row)))) && table.tHead.rows[0].cells[column].classList.contains('n');
    const compare = numeric
      ? (a, b) => { const [x, y] = [number(text(a)), number(text(b))]; return isNaN(x) ? (isNaN(y) ? 0 : 1) : isNaN(y) ? -1 : way * (x - y); }
      : (a, b) => way * text(a).localeCompare(text(b), undefined, { numeric: true });
    body.append(...rows.sort(compare));
  }
  main.querySelectorAll('table').forEach(table => {
    const rows = [...table.tBodies[0].rows];
    if (rows.length < 3) return;
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      const button = element('button');
      button.append(...head.childNodes);
      head.append(button);
      button.onclick = () => {
        const way = head.getAttribute('aria-sort') === 'ascending' ? -1 : 1;
        heads.forEach(other => other.removeAttribute('aria-sort'));
        head.setAttribute('aria-sort', way > 0 ? 'ascending' : 'descending');
        sort(table, column, way);
      };
    });
    if (rows.length < 8) return;
    const filter = element('label', 'Rows with ', 'filter');
    const input = element('input');
    const count = element('span');
    input.type = 'search';
    count.setAttribute('aria-live', 'polite');
    input.oninput = () => {
      const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      let left = 0;
      for (const row of rows) {
        const text = row.textContent.toLowerCase();
        row.hidden = !words.every(word => text.includes(word));
        if (!row.hidden) left += 1;
      }
      count.textContent = words.length ? `${left} of ${rows.length}` : '';
    };
    filter.append(input, count);
    table.parentElement.before(filter);
  });

  // Tiles: what the style sheet orders is put in order, so that the tab key follows.
  const tiles = document.querySelector('.tiles');
  document.querySelectorAll('input[name=order]').forEach(radio => radio.addEventListener('change', () => {
    const rank = tile => Number(tile.style.getPropertyValue(`--${radio.value}`));
    tiles.append(...[...tiles.children].sort((a, b) => rank(a) - rank(b)));
  }));

  // A link to a tile opens it.
  const open = () => {
    const target = location.hash && document.getElementById(location.hash.slice(1));
    if (target && target.matches('details')) {
      target.open = true;
      target.scrollIntoView();
    }
  };
  addEventListener('hashchange', open);
  open();
})();
