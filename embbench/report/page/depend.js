// Scatters: what a score depends on, and entries in each context.

/** Scatter of series: [{label, points: [{x, y, text}]}]. */
function drawScatter(host, series, xlabel, ylabel, { log = false, lines = false, identity = false, names = [] } = {}) {
  const width = room(host);
  const [left, top, bottom] = [52, 22, 250];
  const all = series.flatMap((s) => s.points);
  const x = scale(identity ? all.flatMap((p) => [p.x, p.y]) : all.map((p) => p.x), left, width - 12, { log, wanted: width < 500 ? 4 : 6 });
  const reach = robust(all.map((p) => p.y));
  const y = scale(identity ? all.flatMap((p) => [p.x, p.y]) : [reach.low, reach.high], bottom, top, { log: log && identity, clamp: !identity });
  const svg = canvas(width, bottom + 40, `${ylabel} against ${xlabel}`);
  axisBelow(svg, x, top, bottom, xlabel);
  axisLeft(svg, y, left, width - 12, reach.cut && !identity ? `${ylabel} (values far outside at the edge)` : ylabel);
  if (identity) svg.append(draw("line", { class: "axis dash0", x1: x.at(log ? 10 ** x.low : x.low), y1: y.at(log ? 10 ** x.low : x.low), x2: x.at(log ? 10 ** x.high : x.high), y2: y.at(log ? 10 ** x.high : x.high) }));
  const colours = palette(series.map((s) => s.label));
  const marks = [];
  for (const s of series) {
    const known = s.points.filter((p) => finite(x.at(p.x)) && finite(y.at(p.y)));
    if (lines) {
      const means = [...groups(known, (p) => p.x)].map(([at, part]) => [at, mean(part.map((p) => p.y))]).sort((a, b) => a[0] - b[0]);
      if (means.length > 1) svg.append(draw("path", { class: `${colours.colour(s.label)} whisker`, d: `M${means.map(([a, b]) => `${x.at(a).toFixed(1)},${y.at(b).toFixed(1)}`).join("L")}` }));
    }
    svg.append(draw("path", { class: `${s.kind || colours.colour(s.label)} dot`, d: known.map((p) => mark(s.shape || colours.shape(s.label), x.at(p.x), y.at(p.y), s.size || 3)).join("") }));
    marks.push(...known.map((p) => ({ x: x.at(p.x), y: y.at(p.y), text: p.text })));
  }
  const placed = [];
  for (const p of names) {
    const [px, py] = [x.at(p.x), y.at(p.y)];
    if (!finite(px) || !finite(py) || placed.some(([a, b]) => Math.abs(a - px) < 62 && Math.abs(b - py) < 12)) continue;
    placed.push([px, py]);
    svg.append(draw("text", { class: "small", x: px > width - 80 ? px - 6 : px + 6, y: py - 4, "text-anchor": px > width - 80 ? "end" : "start" }, p.name));
  }
  return interactive(svg, marks);
}

function scatterFigure(host, title, series, xlabel, ylabel, why, more = {}) {
  const frame = el("figure", {}, el("figcaption", {}, el("b", {}, title)));
  host.append(frame);
  const known = series.map((s) => ({ ...s, points: s.points.filter((p) => finite(p.x) && finite(p.y)) })).filter((s) => s.points.length);
  if (!known.length) { frame.append(empty(why)); return; }
  const colours = palette(known.map((s) => s.label));
  frame.append(drawScatter(frame, known, xlabel, ylabel, more));
  if (known.length > 1) frame.append(legend(known.map((s) => ({ kind: s.kind || colours.colour(s.label), shape: s.shape || colours.shape(s.label), label: s.label }))));
}

function dependence(host, state) {
  const { metric } = state;
  const { subset, metric: unused, ...where } = boardOf(state);
  const single = select("conditions", where).filter((row) => finite(row[metric]));
  const cut = (row) => ({ y: row[metric], text: `${row.condition}, ${row.context}\n${entry(row)}: ${show(row[metric])}` });
  const series = (key) => [...groups(single, entry)].map(([label, part]) => ({ label, points: part.map((row) => ({ x: row[key], ...cut(row) })) }));
  const signs = daggers(boardOf(state));
  const points = boardPoints(state, ["method", "random"]).filter((row) => !signs.get(entry(row)));
  const by = (group, key) => [...groups(points.filter((row) => row[key] > 0), group)].slice(0, 8)
    .map(([label, part]) => ({ label, points: part.map((row) => ({ x: row[key], y: row[metric], text: `${entry(row)}\n${row.fold}, ${row.context}\n${show(row[metric])} at ${show(row[key])}` })) }));
  const grid = el("div", { class: "pair" });
  host.replaceChildren(grid);
  scatterFigure(grid, "Effect norm", series("effect_norm"), "norm of the observed effect", metric, "Effect norms were not exported for this dataset.", { log: true });
  scatterFigure(grid, "Cells per condition", series("n_cells"), "cells of the condition", metric, "This dataset has no numbers of cells per condition.", { log: true });
  const neighbours = points.filter((row) => /(^|_)knn|nearest/.test(row.head));
  const ks = [...groups(neighbours.filter((row) => row.k > 0), vectors)].slice(0, 8).map(([label, part]) => ({ label, points: part.map((row) => ({ x: row.k, y: row[metric], text: `${entry(row)}\n${row.fold}, ${row.context}: ${show(row[metric])} at k = ${show(row.k)}` })) }));
  scatterFigure(grid, "Neighbours k (kNN)", ks, "k, given or chosen", metric, "No kNN head with a known k on this board.", { log: true, lines: true });
  scatterFigure(grid, "Dimension", by((row) => row.head, "dim"), "dimension after features", metric, "No embedding dimension is known here.", { log: true });
  scatterFigure(grid, "Training conditions", by((row) => row.head, "n_train"), "training conditions of the fold", metric, "Numbers of training conditions are not known here.");
}

function contexts(host, state) {
  const { subset, ...where } = boardOf(state);
  const board = select("leaderboard", { ...where, subset: "all" }).filter((row) => finite(row.mean) && !dagger(row) && ["method", "baseline", "random"].includes(row.role));
  const order = board.slice().sort((a, b) => (finite(a.rank) ? a.rank : 1e9) - (finite(b.rank) ? b.rank : 1e9)).slice(0, 8).map(entry);
  const rows = select("by_context", where).filter((row) => order.includes(entry(row)) && finite(row.mean));
  const each = [...groups(rows, (row) => row.context)];
  if (!each.length) return host.replaceChildren(empty("No scores per context were exported for this board."));
  const grid = el("div", { class: "grid" });
  host.replaceChildren(el("p", { class: "hint" }, `The first ${order.length} entries of the leaderboard${subset === "all" ? "" : ", all conditions"}.`), grid);
  const colours = palette(order);
  const span = rows.flatMap((row) => [row.mean, row.low, row.high, row.ceiling]);
  for (const [name, part] of each.slice(0, state.contexts)) {
    const frame = el("figure", {}, el("figcaption", {}, el("b", {}, name)));
    grid.append(frame);
    const width = Math.max(260, frame.clientWidth || 340);
    const bottom = 8 + order.length * 22;
    const left = gutter(order, width, 0.46);
    const shorts = fitted(order, left - 10);
    const x = scale(span, left, width - 12, { wanted: 3 });
    const svg = canvas(width, bottom + 38, `${state.metric} in ${name}`);
    axisBelow(svg, x, 8, bottom, state.metric);
    if (finite(part[0].ceiling)) svg.append(draw("line", { class: "ceiling", x1: x.at(part[0].ceiling), x2: x.at(part[0].ceiling), y1: 8, y2: bottom }));
    const marks = [];
    order.forEach((label, i) => {
      const row = part.find((one) => entry(one) === label);
      const y = 8 + (i + 0.5) * 22;
      svg.append(sideLabel(shorts[i], label, left - 8, y + 4, { class: "small" }));
      if (!row) return;
      if (finite(row.low)) svg.append(draw("line", { class: `${colours.colour(label)} whisker`, x1: x.at(row.low), x2: x.at(row.high), y1: y, y2: y }));
      svg.append(draw("path", { class: colours.colour(label), d: mark(colours.shape(label), x.at(row.mean), y, 4) }));
      marks.push({ x: x.at(row.mean), y, text: `${label}\n${show(row.mean)}${finite(row.low) ? ` [${show(row.low)}, ${show(row.high)}]` : ""}` });
    });
    frame.append(interactive(svg, marks));
  }
  if (each.length > state.contexts) {
    host.append(el("button", { type: "button", on: { click: () => { state.contexts = each.length; redraw(["contexts"]); } } }, `Show all ${each.length} contexts`));
  }
}
