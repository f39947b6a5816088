const W = JSON.parse(document.getElementById('words').textContent), body = document.getElementById('rows'), charts = document.getElementById('charts');
const LOOKS = ['var(--one)', 'var(--two)', 'var(--good)', 'var(--bad)', 'currentColor'], DASHES = ['', '6 3', '2 3', '8 3 2 3', '1 2'];
// What is chosen stands in the address, so that a comparison can be kept as a bookmark.
let runs = [], chosen = location.hash.slice(1).split(',').map(decodeURIComponent).filter(n => n), drawn = '';
const make = (tag, text, attributes = {}) => { const e = document.createElement(tag);
  if (text != null) e.textContent = text; for (const [k, v] of Object.entries(attributes)) e.setAttribute(k, v); return e; };
const svg = (tag, attributes, text) => { const e = document.createElementNS('http://www.w3.org/2000/svg', tag); for (const [k, v] of Object.entries(attributes)) e.setAttribute(k, v); if (text != null) e.textContent = text; return e; };
const time = s => s == null ? '' : s < 60 ? s.toFixed(1) + ' s' : s < 3600 ? (s / 60).toFixed(1) + ' min' : (s / 3600).toFixed(1) + ' h';
const result = r => r.value == null ? '' : `${r.metric} ${r.value.toFixed(4)}` + (r.low == null || r.high == null ? '' : ` [${r.low.toFixed(4)}, ${r.high.toFixed(4)}]`);
function table() {
  const wanted = document.getElementById('filter').value.toLowerCase();
  const shown = runs.filter(r => [r.name, r.task, r.data, r.model].join(' ').toLowerCase().includes(wanted));
  document.getElementById('count').textContent = `${shown.length} ${W.of} ${runs.length}`;
  const rows = shown.map(r => {
    const row = make('tr', null, chosen.includes(r.name) ? {class: 'chosen'} : {});
    const box = make('input', null, {type: 'checkbox', 'aria-label': r.name, id: 'c-' + r.name});
    box.checked = chosen.includes(r.name);
    box.addEventListener('change', () => { chosen = box.checked ? [...chosen, r.name] : chosen.filter(n => n !== r.name); history.replaceState(null, '', '#' + chosen.map(encodeURIComponent).join(',')); table(); draw(); });
    const cell = make('td'); cell.append(box); row.append(cell);
    const name = make('td'), label = make('label', r.name, {for: 'c-' + r.name}); name.append(label); row.append(name);
    row.append(make('td', r.task), make('td', r.data), make('td', r.model), make('td', result(r), {class: 'r'}), make('td', time(r.seconds), {class: 'r'}), make('td', r.problem ? `${W[r.status]}: ${r.problem}` : W[r.status], {class: r.status}));
    const last = make('td'); if (r.complete) last.append(make('a', W.report, {href: '/report/' + encodeURIComponent(r.name)})); row.append(last);
    return row;
  });
  const held = document.activeElement && document.activeElement.id;
  body.replaceChildren(...rows);
  if (held && held.startsWith('c-')) document.getElementById(held)?.focus();
  document.getElementById('none').hidden = runs.length > 0;
}
function chart(title, lines) {
  const figure = make('figure'), all = lines.flatMap(l => l.points), xs = all.map(p => p[0]), ys = all.map(p => p[1]);
  const low = Math.min(...ys), high = Math.max(...ys), right = Math.max(...xs), left = Math.min(...xs, right);
  const x = v => 52 + 320 * (right > left ? (v - left) / (right - left) : .5), y = v => 190 - (170 - 13 * lines.length) * (high > low ? (v - low) / (high - low) : .5);
  const picture = svg('svg', {viewBox: '0 0 390 220', class: 'curve', role: 'img', 'aria-label': title});
  picture.append(svg('line', {x1: 52, x2: 372, y1: 190, y2: 190, stroke: 'currentColor', 'stroke-opacity': .4}));
  for (const v of [low, high]) picture.append(svg('text', {x: 48, y: y(v) + 4, 'text-anchor': 'end'}, v.toPrecision(3)));
  for (const v of new Set([left, right])) picture.append(svg('text', {x: x(v), y: 206, 'text-anchor': 'middle'}, v));
  lines.forEach((l, i) => {
    const points = l.points.map(p => x(p[0]).toFixed(1) + ',' + y(p[1]).toFixed(1)).join(' ');
    const line = svg(l.points.length > 1 ? 'polyline' : 'circle', l.points.length > 1 ? {points, fill: 'none', stroke: LOOKS[i % 5], 'stroke-width': 1.8, 'stroke-dasharray': DASHES[i % 5]} : {cx: x(l.points[0][0]), cy: y(l.points[0][1]), r: 3, fill: LOOKS[i % 5]});
    line.append(svg('title', {}, l.name)); picture.append(line);
    picture.append(svg('text', {x: 56, y: 14 + 13 * i, style: 'fill:' + LOOKS[i % 5]}, l.name));
  });
  figure.append(make('figcaption', title), picture); return figure;
}
async function draw() {
  const found = (await Promise.all(chosen.map(n => fetch('/api/runs/' + encodeURIComponent(n)).then(r => r.ok ? r.json() : null)))).filter(run => run);
  const key = JSON.stringify(found); if (key === drawn) return; drawn = key;
  const byName = new Map();
  for (const run of found) for (const stage of run.stages) for (const [name, points] of Object.entries(stage.curves)) {
    const title = stage.stage + ': ' + name; if (!byName.has(title)) byName.set(title, []); byName.get(title).push({name: run.name, points});
  }
  const parts = [...byName].map(([title, lines]) => chart(title, lines));
  charts.replaceChildren(...parts);
  const plans = found.flatMap(run => run.plan.filter(p => p.predicted != null).map(p => `${run.name} ${p.stage}: ${time(p.predicted)} → ${time(p.took)}`));
  document.getElementById('plan').replaceChildren(...(plans.length ? [make('h3', W.plan), ...plans.map(p => make('p', p))] : []), ...found.flatMap(run => run.problems.map(p => make('p', `${run.name}: ${p}`))));
  const diff = document.getElementById('diff'); diff.replaceChildren();
  if (chosen.length === 2) {
    const answer = await fetch(`/api/diff?a=${encodeURIComponent(chosen[0])}&b=${encodeURIComponent(chosen[1])}`).then(r => r.json()), text = answer.diff || answer.problems.join('\n');
    diff.append(make('h3', W.diff), make(text ? 'pre' : 'p', text || W.same));
  }
}
async function look() {
  try { const found = await fetch('/api/runs').then(r => r.json()); if (JSON.stringify(found) !== JSON.stringify(runs)) { runs = found; table(); } if (chosen.length) await draw(); } catch (error) { /* the server has ended: what is shown stays */ }
  setTimeout(look, 2000);
}
document.getElementById('filter').addEventListener('input', table);
look();
