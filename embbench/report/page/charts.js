// Figures over entries: heatmap, boxes, ranks, shares, progress.

const CIVIDIS = ["#00224e", "#123570", "#3b496c", "#575d6d", "#707173", "#8a8678", "#a59c74", "#c3b369", "#e1cc55", "#fee838"];
const DARK_STEPS = 5; // of the scale, that need light text
const MOST_ROWS = 40;

/** Points of the board: one per configuration, fold and context; without the ceiling's own. */
function boardPoints(state, roles = ["method", "random", "oracle"]) {
  const { metric, ...where } = boardOf(state);
  return select("points", where).filter((row) => roles.includes(row.role) && finite(row[metric]));
}

function modalities() {
  const names = select("leaderboard").filter((row) => ["method", "random", "oracle"].includes(row.role)).map(modality);
  return unique(names).sort();
}

function heatmap(host, state) {
  const rows = select("leaderboard", boardOf(state)).filter((row) => row.role === "method" || row.role === "random");
  const withProgress = rows.some((row) => finite(row.progress));
  const value = state.value === "progress" && withProgress ? "progress" : "mean";
  const known = rows.filter((row) => finite(row[value]));
  if (!known.length) return host.replaceChildren(empty("No embedding was crossed with a head on this board, or nothing was scored."));
  const sign = value === "progress" ? 1 : better(state.metric);
  const able = known.filter((row) => !dagger(row));
  const place = (part) => Math.max(-Infinity, ...part.filter((row) => !dagger(row)).map((r) => sign * r[value]));
  const order = (by) => [...groups(known, by)].map(([name, part]) => [name, place(part)]).sort((a, b) => (a[1] === b[1] ? 0 : b[1] - a[1])).map(([name]) => name);
  const [names, heads] = [order(vectors), order((row) => row.head)];
  const full = new Map(known.map((row) => [vectors(row), vectors(row, (name) => name)]));
  const at = new Map(known.map((row) => [JSON.stringify([vectors(row), row.head]), row]));
  const sizes = able.map((row) => sign * row[value]).sort((a, b) => a - b);
  const [low, high] = [Math.max(quantile(sizes, 0.05), robust(sizes).low), sizes[sizes.length - 1]];
  const places = decimals(rows, "mean", "low", "high");
  const text = (row) => (value === "progress" ? percent(row.progress) : show(row.mean, places));
  const cell = (row) => {
    if (!row || !finite(row[value])) return el("td", {}, "–");
    if (dagger(row)) return el("td", { class: "hatched", title: `${whole(row)}: ${text(row)}. ${unranked(row)}` }, `${dagger(row)} ${text(row)}`);
    const share = high > low ? Math.min(1, Math.max(0, (sign * row[value] - low) / (high - low))) : 1;
    const step = Math.round(share * (CIVIDIS.length - 1));
    const best = sign * row[value] === high;
    const made = el("td", { class: `${step < DARK_STEPS ? "dark" : "light"}${best ? " top1" : ""}`, title: `${whole(row)}: ${text(row)}` }, best ? `★ ${text(row)}` : text(row));
    made.style.backgroundColor = CIVIDIS[step];
    return made;
  };
  const switchTo = (name, label) => el("button", { type: "button", "aria-pressed": String(value === name), on: { click: () => { state.value = name; remember(state); redraw(["heatmap"]); } } }, label);
  host.replaceChildren(
    withProgress ? el("div", { class: "bar" }, switchTo("mean", "Score"), switchTo("progress", "Progress")) : el("p", { class: "hint" }, "Progress is not available on this board."),
    el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Heatmap, scrolls sideways" }, el("table", { class: "heat" },
      el("caption", {}, `${value === "progress" ? "Progress" : state.metric}: brighter is better`),
      el("thead", {}, el("tr", {}, el("td"), heads.map((name) => el("th", { scope: "col" }, name)))),
      el("tbody", {}, names.map((name) => el("tr", {}, el("th", { scope: "row", title: full.get(name) }, name), heads.map((head) => cell(at.get(JSON.stringify([name, head]))))))))),
    able.length < known.length ? el("p", { class: "hint" }, `Hatched: ${DAGGERS}`) : "");
}

/** Box statistics of values. */
function boxOf(values) {
  const v = [...values].sort((a, b) => a - b);
  const [q1, median, q3] = [0.25, 0.5, 0.75].map((q) => quantile(v, q));
  const reach = 1.5 * (q3 - q1);
  return { q1, median, q3, low: v.find((x) => x >= q1 - reach), high: [...v].reverse().find((x) => x <= q3 + reach), n: v.length };
}

/** Horizontal boxes, one row per label: [{label, group, points: [{value, text}], apart}]. */
function drawBoxes(host, rows, colours, label, { lines = [], band = null, description }) {
  const width = room(host);
  const left = gutter(rows.map((row) => row.label), width, 0.34, 32);
  const shorts = fitted(rows.map((row) => row.label), left - 26);
  const step = 30;
  const [top, bottom] = [10, 10 + rows.length * step];
  const everything = [...rows.flatMap((r) => r.points.map((p) => p.value)), ...lines.map((l) => l.value), ...(band ? [band.low, band.high] : [])];
  const reach = robust(everything);
  const x = scale([reach.low, reach.high], left, width - 14, { margin: 0.03, wanted: width < 500 ? 4 : 7, clamp: true });
  const svg = canvas(width, bottom + (reach.cut ? 52 : 40), description);
  axisBelow(svg, x, top, bottom, label);
  if (reach.cut) svg.append(draw("text", { class: "small", x: width - 14, y: bottom + 45, "text-anchor": "end" }, "values far outside are drawn at the edge"));
  if (band) {
    const [a, b] = [x.at(band.low), x.at(band.high)];
    svg.append(draw("rect", { class: "band", x: a, y: top, width: Math.max(1, b - a), height: bottom - top }));
    svg.append(draw("line", { class: "ceiling", x1: x.at(band.middle), x2: x.at(band.middle), y1: top, y2: bottom }));
  }
  for (const line of lines) svg.append(draw("line", { class: line.kind, x1: x.at(line.value), x2: x.at(line.value), y1: top, y2: bottom }));
  const marks = [];
  rows.forEach((row, i) => {
    const y = top + (i + 0.5) * step;
    const kind = colours.colour(row.group);
    const box = boxOf(row.points.map((p) => p.value));
    svg.append(sideLabel(shorts[i], row.title || row.label, left - 24, y + 4));
    svg.append(draw("path", { class: kind, d: mark(colours.shape(row.group), left - 12, y, 4.5) }));
    svg.append(draw("line", { class: `${kind} whisker`, x1: x.at(box.low), x2: x.at(box.high), y1: y, y2: y }));
    svg.append(draw("rect", { class: `${kind} bodyfill${row.apart ? " hollow" : ""}`, x: x.at(box.q1), y: y - 9, width: Math.max(1, x.at(box.q3) - x.at(box.q1)), height: 18 }));
    svg.append(draw("line", { class: kind, x1: x.at(box.median), x2: x.at(box.median), y1: y - 9, y2: y + 9, "stroke-width": 3 }));
    row.points.forEach((p, j) => {
      const jitter = (((j * 7919) % 13) / 13 - 0.5) * 14;
      const spot = { x: x.at(p.value), y: y + jitter, text: p.text };
      if (row.points.length <= 400) svg.append(draw("circle", { class: `${kind} dot`, cx: spot.x.toFixed(1), cy: spot.y.toFixed(1), r: 1.7 }));
      marks.push(spot);
    });
  });
  return interactive(svg, marks);
}

/** Values of each label as box rows, best median first; oracles and what is not ranked last. */
function boxRows(points, sign, value, text, { by = vectors, marked = () => "" } = {}) {
  const rows = [...groups(points, (row) => [marked(row), by(row)].filter(Boolean).join(" "))].map(([label, part]) => ({
    label, title: by === vectors ? vectors(part[0], (name) => name) : whole(part[0]), group: modality(part[0]), apart: part[0].role === "oracle" || marked(part[0]) !== "",
    points: part.map((row) => ({ value: value(row), text: text(row) })),
  }));
  const middle = (row) => sign * boxOf(row.points.map((p) => p.value)).median;
  return rows.sort((a, b) => a.apart - b.apart || middle(b) - middle(a));
}

function tooMany(rows) {
  return rows.length > MOST_ROWS ? el("p", { class: "hint" }, `The first ${MOST_ROWS} of ${rows.length}; the rest are in the leaderboard.`) : null;
}

function boxes(host, state) {
  const all = boardPoints(state);
  const heads = unique(all.map((row) => row.head)).sort();
  const points = heads.includes(state.head) ? all.filter((row) => row.head === state.head) : all;
  if (!points.length) return host.replaceChildren(empty("No method has scores on this board."));
  const { metric } = state;
  const text = (row) => `${entry(row)}\n${row.fold}, ${row.context}: ${show(row[metric])}`;
  const board = select("leaderboard", boardOf(state));
  const signs = daggers(boardOf(state));
  const marked = (row) => (row.role === "oracle" ? "" : signs.get(entry(row)) ?? "");
  const rows = boxRows(points, better(metric), (row) => row[metric], text, { marked });
  const lines = board.filter((row) => row.role === "baseline" && bare(row) && finite(row.mean)).slice(0, 5)
    .map((row, i) => ({ kind: `floor dash${i % 5}`, value: row.mean, label: `${row.head} ${show(row.mean)}` }));
  const ceilings = boardPoints(state, ["ceiling"]).map((row) => row[metric]).sort((a, b) => a - b);
  const band = ceilings.length ? { low: quantile(ceilings, 0.1), middle: mean(ceilings), high: quantile(ceilings, 0.9) } : null;
  const names = modalities();
  const colours = palette(names);
  const seen = names.filter((name) => rows.some((row) => row.group === name));
  const pick = el("select", { id: "boxhead", on: { change: (event) => { state.head = event.target.value; redraw(["boxes"]); document.getElementById("boxhead").focus(); } } },
    el("option", { value: "" }, "all heads"), heads.map((head) => el("option", { value: head, selected: head === state.head }, head)));
  host.replaceChildren(
    el("div", { class: "bar" }, el("label", {}, "Head ", pick)),
    drawBoxes(host, rows.slice(0, MOST_ROWS), colours, `${metric} (${better(metric) < 0 ? "lower" : "higher"} is better)`, { lines, band, description: `Box plots of ${metric} by embedding` }),
    legend([
      ...seen.map((name) => ({ kind: colours.colour(name), shape: colours.shape(name), label: name === "none" ? "no embedding" : name })),
      ...lines.map((line) => ({ line: line.kind, label: line.label })),
      ...(band ? [{ band: true, label: `ceiling, middle 80 %` }, { line: "ceiling", label: `mean ceiling ${show(band.middle)}` }] : []),
    ]),
    points.some(marked) ? el("p", { class: "hint" }, DAGGERS) : "", band ? "" : el("p", { class: "hint" }, "No ceiling is available here."), tooMany(rows) ?? "");
}

function ranks(host, state) {
  const { subset, ...where } = boardOf(state);
  const ranked = select("rank_boxes", { ...where, subset: "all" }).filter((row) => finite(row.rank));
  const parts = [];
  if (unique(ranked.map(entry)).length > 1) {
    const rows = boxRows(ranked, -1, (row) => row.rank, (row) => `${entry(row)}\n${row.fold}, ${row.context}: rank ${show(row.rank)}`, { by: entry });
    const description = "Box plots of ranks by entry";
    parts.push(drawBoxes(host, rows.slice(0, MOST_ROWS), palette(modalities()), `Rank among ${rows.length} (1 = best)`, { description }), tooMany(rows) ?? "");
    if (subset !== "all") parts.push(el("p", { class: "hint" }, "Ranks are of all conditions."));
  } else parts.push(empty("Ranks need at least two complete methods that cover enough conditions."));
  parts.push(critical(host, state));
  host.replaceChildren(...parts);
}

/** Critical-difference diagrams over independent screens, where the report computed them. */
function critical(host, state) {
  const { metric, subset, split, genes } = boardOf(state);
  const rows = select("ranks", { metric, subset, split, genes }).filter((row) => finite(row.mean_rank) && finite(row.critical_difference));
  if (!rows.length) return el("p", { class: "hint" }, "A critical-difference diagram needs at least six independent screens.");
  const figures = [...groups(rows, (row) => row.by || "entry")].map(([by, part]) => criticalBy(host, by, part));
  return el("div", {}, figures);
}

function criticalBy(host, by, rows) {
  const width = room(host);
  const ordered = rows.sort((a, b) => a.mean_rank - b.mean_rank).slice(0, MOST_ROWS);
  const names = ordered.map((row) => relabelled(row.entry));
  const left = gutter(names, width, 0.4);
  const shorts = fitted(names, left - 10);
  const bars = new Map();
  ordered.forEach((row, i) => String(row.groups || "").split("; ").filter(Boolean).forEach((one) => bars.set(one, [...(bars.get(one) || []), i])));
  const bottom = 40 + ordered.length * 22;
  const cd = ordered[0].critical_difference;
  const x = scale([1, ordered[0].mean_rank + cd, ...ordered.map((row) => row.mean_rank)], left, width - 20 - bars.size * 8);
  const svg = canvas(width, bottom + 40, `Critical-difference diagram by ${by}`);
  axisBelow(svg, x, 30, bottom, `Mean rank over ${ordered[0].n_screens} screens (1 = best)`);
  svg.append(draw("line", { class: "ink", x1: x.at(ordered[0].mean_rank), x2: x.at(ordered[0].mean_rank + cd), y1: 22, y2: 22, "stroke-width": 3 }));
  svg.append(draw("text", { x: x.at(ordered[0].mean_rank), y: 14 }, `critical difference ${show(cd)}`));
  const marks = ordered.map((row, i) => ({ x: x.at(row.mean_rank), y: 41 + i * 22, text: `${row.entry}: mean rank ${show(row.mean_rank)}` }));
  ordered.forEach((row, i) => {
    svg.append(sideLabel(shorts[i], row.entry, left - 8, marks[i].y + 4));
    svg.append(draw("circle", { class: "k0", cx: marks[i].x, cy: marks[i].y, r: 5 }));
  });
  [...bars.values()].filter((members) => members.length > 1).forEach((members, i) => {
    const at = width - 14 - i * 8;
    svg.append(draw("line", { class: "ink", x1: at, x2: at, y1: marks[members[0]].y - 6, y2: marks[members[members.length - 1]].y + 6, "stroke-width": 4 }));
  });
  return el("figure", {}, el("figcaption", {}, el("b", {}, `By ${by}`), " · thick lines join entries that are not told apart (Nemenyi)."), interactive(svg, marks));
}

/** Horizontal bars with intervals: [{label, value, low, high, kind, text}]. */
function drawBars(host, bars, label, { format = show, description, lines = [] }) {
  const width = room(host);
  const left = gutter(bars.map((bar) => bar.label), width, 0.4);
  const shorts = fitted(bars.map((bar) => bar.label), left - 10);
  const step = 26;
  const bottom = 8 + bars.length * step;
  const x = scale([0, ...bars.flatMap((b) => [b.value, b.low, b.high]), ...lines], left, width - 56, { margin: 0.02, wanted: width < 500 ? 3 : 6 });
  const svg = canvas(width, bottom + 40, description);
  axisBelow(svg, x, 8, bottom, label, { format });
  for (const at of lines) svg.append(draw("line", { class: "axis", x1: x.at(at), x2: x.at(at), y1: 8, y2: bottom }));
  svg.append(draw("line", { class: "axis", x1: x.at(0), x2: x.at(0), y1: 8, y2: bottom }));
  const marks = bars.map((bar, i) => {
    const y = 8 + (i + 0.5) * step;
    svg.append(sideLabel(shorts[i], bar.title || bar.label, left - 8, y + 4));
    const [a, b] = [x.at(Math.min(0, bar.value)), x.at(Math.max(0, bar.value))];
    svg.append(draw("rect", { class: `${bar.kind} bodyfill${bar.apart ? " hollow" : ""}`, x: a, y: y - 8, width: Math.max(1, b - a), height: 16 }));
    if (finite(bar.low) && finite(bar.high)) svg.append(draw("path", { class: "axis", d: `M${x.at(bar.low)},${y - 4}v8m0,-4H${x.at(bar.high)}m0,-4v8` }));
    const end = Math.max(b, finite(bar.high) ? x.at(bar.high) : b);
    svg.append(draw("text", { class: "small", x: end + 6, y: y + 4 }, format(bar.value)));
    return { x: x.at(bar.value), y, text: bar.text };
  });
  return interactive(svg, marks);
}

const PARTS = ["embedding", "head", "interaction"];

/** Shares of one board, or of all datasets together. */
function sharesOf(host, row, title) {
  const parts = PARTS.filter((name) => row && finite(row[name]));
  if (title) host.append(el("h3", {}, title));
  if (!parts.length) {
    host.append(empty(`No decomposition here: ${(row && row.note) || "it needs at least two embeddings crossed with at least two heads, all complete"}.`));
    return;
  }
  const span = (name, low, high) => (finite(row[name + low]) ? ` [${percent(row[name + low])}, ${percent(row[name + high])}]` : "");
  const range = (name) => `${percent(row[`${name}_min`])} to ${percent(row[`${name}_max`])}`;
  const ranges = parts.filter((name) => finite(row[`${name}_min`]));
  const bars = parts.map((name, i) => ({
    label: name, value: row[name], low: row[`${name}_low`], high: row[`${name}_high`], kind: `k${i}`,
    text: `${name}: ${percent(row[name])}${span(name, "_low", "_high")}${ranges.includes(name) ? `\nwithout one level: ${range(name)}` : ""}`,
  }));
  host.append(
    row.answer ? el("p", {}, "Which is larger: ", el("b", {}, row.answer), finite(row.embedding_minus_head) ? ` (embedding − head ${percent(row.embedding_minus_head)}${span("embedding_minus_head", "_low", "_high")}).` : ".") : "",
    drawBars(host, bars, "Share of the variance of progress", { format: percent, description: "Shares of variance with intervals" }),
    el("p", { class: "note" }, [
      row.embeddings ? `Panel: embeddings ${relabelled(row.embeddings)}; heads ${row.heads}.` : "", row.left_out ? `Left out: ${relabelled(row.left_out)}.` : "",
      ranges.length ? `Leaving one level out: ${ranges.map((name) => `${name} ${range(name)}`).join(", ")}.` : "", row.note || "",
    ].filter(Boolean).join(" ")));
}

/** The best simple head against the best complex one, with what each was allowed to try. */
function choiceOf(choice) {
  const side = (kind) => `${choice[`${kind}_head`]} on ${called(choice[`${kind}_embedding`])}${choice[`${kind}_settings`] ? ` (${choice[`${kind}_settings`]})` : ""}`;
  const trials = ["simple", "complex"].map((kind) => `${kind} ${finite(choice[`${kind}_trials`]) ? show(choice[`${kind}_trials`]) : "unknown"}${finite(choice[`${kind}_budget`]) ? ` of a budget of ${show(choice[`${kind}_budget`])}` : ""}`).join(", ");
  const budgets = { yes: " Both had the same budget.", no: " The budgets differ: the side with more settings to try had more chances." }[choice.same_budget] || "";
  return el("p", {}, "Best simple against best complex head, chosen on inner scores: ", el("b", {}, side("simple")), " against ", el("b", {}, side("complex")),
    `; difference ${show(choice.difference)}${finite(choice.low) ? ` [${show(choice.low)}, ${show(choice.high)}]` : ""} (positive: simple is better), better: ${choice.better}. Selection trials of a run: ${trials}.${budgets}`);
}

function decomposition(host, state) {
  const { dataset, ...rest } = boardOf(state);
  const [row] = select("decomposition", boardOf(state));
  const [pooled] = select("decomposition", { ...rest, dataset: POOLED });
  host.replaceChildren();
  sharesOf(host, row, pooled ? screen(dataset) : "");
  if (pooled) sharesOf(host, pooled, "All datasets together");
  select("choice", boardOf(state)).forEach((choice) => host.append(choiceOf(choice)));
  const information = select("by_information", boardOf(state));
  if (!information.length) return;
  host.append(el("h3", {}, "By what the vectors may know"), plainTable(["Information", "Entries", "Beat own permutation", "Mean score", "Best score", "Best progress", "Best entry"],
    information.map((one) => [one.information || "none", show(one.configurations), finite(one.judged) ? `${show(one.beat_permuted)} of ${show(one.judged)}` : "", show(one.mean_score), show(one.best_score), percent(one.best_progress), one.best_embedding ? `${called(one.best_embedding)} × ${one.best_head}` : ""]), "Scores by information"));
}

function progress(host, state) {
  const rows = select("leaderboard", { metric: state.metric, subset: state.subset }).filter((row) => row.role === "method" || row.role === "random");
  const boards = [...groups(rows, (row) => JSON.stringify(BOARD.map((c) => row[c]))).values()];
  const colours = palette(modalities());
  const figures = boards.map((part) => {
    const title = el("figcaption", {}, el("b", { title: part[0].dataset }, screen(part[0].dataset)), ` · ${part[0].split}${part[0].genes === "all" ? "" : ` · genes ${part[0].genes}`}`);
    const best = (rows, most) => rows.filter((row) => finite(row.progress)).sort((a, b) => b.progress - a.progress).slice(0, most);
    const known = [...best(part.filter((row) => !dagger(row)), 8), ...best(part.filter(dagger), 2)];
    const frame = el("figure", {}, title);
    return { frame, known, note: unique(part.map((row) => row.progress_note)).filter(Boolean).join("; ") };
  });
  host.replaceChildren(el("div", { class: "pair" }, figures.map((f) => f.frame)));
  for (const { frame, known, note } of figures) {
    if (!known.length) frame.append(empty(`Progress is not available: ${note || "no ceiling, or no floor, for this metric here"}.`));
    else {
      const bars = known.map((row) => ({ label: [dagger(row), entry(row)].filter(Boolean).join(" "), title: whole(row), apart: dagger(row) !== "", value: row.progress, low: row.progress_low, high: row.progress_high, kind: colours.colour(modality(row)),
        text: `${entry(row)} (${modality(row)})\n${percent(row.progress)}${finite(row.progress_low) ? ` [${percent(row.progress_low)}, ${percent(row.progress_high)}]` : ""}` }));
      frame.append(drawBars(frame, bars, "Progress (0 = floor, 100 % = ceiling)", { format: percent, description: "Progress by entry", lines: [1] }));
      if (known.some(dagger)) frame.append(el("p", { class: "hint" }, DAGGERS));
    }
  }
  if (!figures.length) host.replaceChildren(empty("No method was scored by this metric."));
}
