// Single predictions, predicted cells, and the tables below the figures.

const labelOf = (part) => `${part.condition} · ${part.context || ""} · ${[signOf(part), entry(part)].filter(Boolean).join(" ")}${part.fold ? ` · ${part.fold}` : ""}`;

/** The dagger of a shown prediction's entry on its board. */
function signOf(part) {
  const where = Object.fromEntries(BOARD.filter((name) => part[name]).map((name) => [name, part[name]]));
  return daggers({ ...where, metric: state.metric, subset: "all" }).get(entry(part)) ?? "";
}

/** A select over parts of the details of this dataset; the part that is chosen. */
function chooser(host, state, list, key, name) {
  const here = list.filter((part) => part.dataset === state.dataset && (!part.split || part.split === state.split) && (!part.genes || part.genes === state.genes));
  if (!here.length) return [null, null];
  if (state[key] >= here.length) state[key] = 0;
  const id = `choose-${key}`;
  const box = el("select", { id, on: { change: (event) => { state[key] = Number(event.target.value); redraw([name]); document.getElementById(id).focus(); } } },
    here.map((part, i) => el("option", { value: i, selected: i === state[key] }, labelOf(part))));
  const step = (by, label) => el("button", { type: "button", "aria-label": label, on: { click: () => { state[key] = (state[key] + by + here.length) % here.length; redraw([name]); } } }, by < 0 ? "◀" : "▶");
  return [here[state[key]], el("div", { class: "bar" }, el("label", {}, "Condition ", box), step(-1, "Previous condition"), step(1, "Next condition"))];
}

function predictions(host, state) {
  const [part, bar] = chooser(host, state, DATA.details.examples, "example", "predictions");
  if (!part) return host.replaceChildren(empty("No single predictions were exported for this dataset and split."));
  const top = part.top ?? 10;
  const points = part.names.map((name, i) => ({ x: part.true[i], y: part.predicted[i], name, text: `${name}\nobserved ${show(part.true[i])}, predicted ${show(part.predicted[i])}` }));
  const series = [
    { label: `${Math.min(top, points.length)} largest observed effects`, kind: "k1", shape: "diamond", size: 3.6, points: points.slice(0, top) },
    { label: "other genes (sample)", kind: "k0", shape: "circle", size: 2.4, points: points.slice(top) },
  ];
  const facts = [
    ...Object.entries(part.scores || {}).map(([name, value]) => `${name} ${show(value)}`),
    finite(part.effect_norm) ? `effect norm ${show(part.effect_norm)}` : "", finite(part.n_cells) ? `${show(part.n_cells)} cells` : "",
  ].filter(Boolean);
  const grid = el("div", { class: "pair" });
  host.replaceChildren(bar, facts.length ? el("p", { class: "hint" }, facts.join(" · ")) : "", grid);
  const unit = part.unit ? ` (${part.unit})` : "";
  scatterFigure(grid, "Predicted against observed", series, `observed effect${unit}`, `predicted effect${unit}`, "This prediction holds no values.", { identity: true, names: points.slice(0, Math.min(top, 12)) });
  const frame = el("figure", {}, el("figcaption", {}, el("b", {}, "Made of these training perturbations")));
  grid.append(frame);
  const near = (part.neighbours || []).slice(0, 12);
  if (!near.length) return frame.append(empty("This head is not a weighted sum of training perturbations, or its weights were not exported."));
  const bars = near.map(([name, weight]) => ({ label: name, value: weight, kind: weight < 0 ? "k1" : "k0", text: `${name}: weight ${show(weight)}` }));
  frame.append(drawBars(frame, bars, "Weight", { description: "Neighbours behind the prediction" }));
  if (part.neighbours.length > near.length) frame.append(el("p", { class: "hint" }, `The first ${near.length} of ${part.neighbours.length}.`));
}

function cells(host, state) {
  const [part, bar] = chooser(host, state, DATA.details.populations, "population", "cells");
  if (!part) return host.replaceChildren(empty("No head on this dataset predicts populations of cells, or they were not exported."));
  const cloud = (label, key, kind, shape) => ({ label, kind, shape, size: 2.4, points: (part[key] || []).map(([x, y]) => ({ x, y, text: `${label}\n${show(x)}, ${show(y)}` })) });
  const share = (i) => (part.explained && finite(part.explained[i]) ? ` (${percent(part.explained[i])} of variance)` : "");
  const grid = el("div", { class: "pair" });
  host.replaceChildren(bar, grid);
  const clouds = [cloud("control cells", "control", "dim", "circle"), cloud("real cells", "real", "k0", "circle"), cloud("predicted cells", "predicted", "k1", "triangle")];
  scatterFigure(grid, `Cells in ${part.space || "the first two components"}`, clouds, `component 1${share(0)}`, `component 2${share(1)}`, "No cell coordinates were exported.");
  const top = new Set(part.top || []);
  for (const [what, unit] of [["mean", "mean expression"], ["variance", "variance of expression"]]) {
    const [x, y] = [part[`${what}_true`] || [], part[`${what}_predicted`] || []];
    const points = x.map((value, i) => ({ x: value, y: y[i], name: part.names[i], text: `${part.names[i]}${top.has(part.names[i]) ? " (top DE gene)" : ""}\nreal ${show(value)}, predicted ${show(y[i])}` }));
    const named = points.filter((p) => top.has(p.name));
    scatterFigure(grid, `Gene ${what}s`, [
      { label: "other genes", kind: "k0", shape: "circle", size: 2.2, points: points.filter((p) => !top.has(p.name)) },
      { label: "top DE genes", kind: "k1", shape: "diamond", size: 3.8, points: named },
    ], `${unit}, real cells`, `${unit}, predicted cells`, `Gene ${what}s were not exported.`, { identity: true, names: named });
  }
}

/** Composite scores of published challenges, with the means they are made of. */
function composites(host, state) {
  const { metric, subset, ...where } = boardOf(state);
  const rows = select("composites", where);
  if (!rows.length) return host.replaceChildren(empty("No composite has all its parts on this board."));
  const skip = new Set(["composite", "role", "score", "complete", ...BOARD, ...COORDINATES, ...OTHER]);
  host.replaceChildren(...[...groups(rows, (row) => row.composite)].map(([name, part]) => {
    const made = Object.keys(part[0]).filter((key) => !skip.has(key) && part.some((row) => finite(row[key])));
    const signs = made.map((key) => daggers({ ...where, metric: key, subset: "all" }));
    const sign = (row) => signs.map((one) => one.get(entry(row))).find(Boolean) || "";
    const places = ["score", ...made].map((key) => decimals(part, key));
    const lines = part.map((row) => [named(row), row.head, row.role === "method" ? "" : row.role, `${sign(row)} ${show(row.score, places[0])}`.trim(), ...made.map((key, i) => show(row[key], places[i + 1]))]);
    return el("div", {}, el("h3", {}, name),
      plainTable(["Embedding", "Head", "Role", "Score", ...made.map((key) => `${key} ${better(key) < 0 ? "↓" : "↑"}`)], lines, `Composite score ${name}`),
      part.some(sign) ? el("p", { class: "hint" }, DAGGERS) : "");
  }));
}

/** The vectors of an entry with their full name on hover. */
const named = (row) => el("span", { title: vectors(row, (name) => name) }, vectors(row));

/** A plain table: headers and rows of texts; numbers right-aligned. */
function plainTable(headers, rows, label) {
  const numeric = headers.map((_, i) => rows.length > 0 && rows.every((row) => row[i] === "" || /^[−+-]?[\d.,e−+-]+( %)?$/.test(String(row[i]))));
  return el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": label }, el("table", {},
    el("thead", {}, el("tr", {}, headers.map((name, i) => el("th", { scope: "col", class: numeric[i] ? "num" : null }, name)))),
    el("tbody", {}, rows.map((row) => el("tr", {}, row.map((value, i) => el("td", { class: numeric[i] ? "num" : String(value).length > 40 ? "long" : null }, value)))))));
}

function pairs(host, state) {
  const rows = select("pairwise", boardOf(state));
  const lines = rows.map((row) => [row.kind || "", relabelled(row.shared || ""), relabelled(`${row.first} – ${row.second}`), show(row.difference), finite(row.low) ? `[${show(row.low)}, ${show(row.high)}]` : "", show(row.p_holm), row.better]);
  const headers = ["Pair of", "Shared", "Pair", "Difference", "95 % interval", "p (Holm)", "Better"];
  const most = 10;
  host.replaceChildren(
    rows.length ? plainTable(headers, lines.slice(0, most), "Declared differences")
      : empty(DATA.tables.pairwise ? "No pair on this board is told apart (or another subset of conditions is shown)." : "Paired tests were not part of this report."),
    rows.length > most ? el("details", {}, el("summary", {}, `${rows.length - most} more`), plainTable(headers, lines.slice(most), "More declared differences")) : "",
    el("p", { class: "hint" }, [rows.length ? "Difference: positive where the first is better. " : "", DATA.notes.join(" ")].join("")));
}

function coverage(host) {
  const rows = select("leaderboard", { subset: "all" }).filter((row) => !bare(row) && !["permuted", "oracle"].includes(row.role) && finite(row.coverage));
  const screens = unique(rows.map((row) => row.dataset));
  const names = [...groups(rows, vectors)];
  if (!names.length) return host.replaceChildren(empty("No entry of this report uses an embedding."));
  const share = (part, dataset) => {
    const values = part.filter((row) => row.dataset === dataset).map((row) => row.coverage);
    return values.length ? percent(Math.min(...values)) : "";
  };
  host.replaceChildren(plainTable(["Embedding", "Information", "Modality", "Dated", ...screens.map(screen)],
    names.map(([, part]) => [named(part[0]), told(part[0], "information"), told(part[0], "modality"), told(part[0], "dated"), ...screens.map((dataset) => share(part, dataset))]), "Coverage by embedding and dataset"));
}

function problems(host) {
  const rows = select("problems");
  if (!rows.length) return host.replaceChildren(el("p", {}, "None: every planned run has a result."));
  const count = (row) => (finite(row.runs) ? show(row.runs) : "1");
  host.replaceChildren(plainTable(["Status", "Runs", "Dataset", "Split", "Entry", "Folds", "Reason"],
    rows.map((row) => [row.status, count(row), screen(row.dataset), row.split, entry(row), row.folds || "", row.reason || ""]), "Failed and skipped runs"));
}

function cost(host, state) {
  const { metric, subset, ...where } = boardOf(state);
  const rows = select("timings", where).filter((row) => row.role !== "permuted").sort((a, b) => b.cpu_seconds - a.cpu_seconds);
  const chosen = groups(select("chosen", where), entry);
  if (!rows.length) return host.replaceChildren(empty("No timings were exported."));
  const values = (row) => [...groups(chosen.get(entry(row)) || [], (one) => one.parameter)]
    .map(([name, part]) => `${name}: ${part.sort((a, b) => b.runs - a.runs).slice(0, 4).map((one) => `${one.value} (${show(one.runs)})`).join(", ")}`).join("; ");
  host.replaceChildren(el("details", {}, el("summary", {}, `${rows.length} entries, ${show(sum(rows.map((row) => row.cpu_seconds).filter(finite)))} CPU seconds`),
    plainTable(["Entry", "CPU s", "per run", "Trials", "Chosen (runs)"], rows.map((row) => [entry(row), show(row.cpu_seconds), show(row.cpu_seconds_per_run), show(row.trials), values(row)]), "Cost by entry")));
}

/** Any nested value as text, lists and definition lists. */
function nested(value) {
  if (value === null || value === undefined) return "–";
  if (Array.isArray(value) && value.every((one) => typeof one !== "object" && String(one).length <= 60)) return value.join(", ") || "–";
  if (Array.isArray(value)) return value.length ? el("ul", {}, value.map((one) => el("li", {}, nested(one)))) : "–";
  if (typeof value === "object") return el("dl", {}, Object.entries(value).map(([key, one]) => [el("dt", {}, key), el("dd", {}, nested(one))]));
  return String(value);
}

function provenance(host) {
  const ceilings = select("ceilings");
  const known = (value) => value !== null && value !== undefined && value !== "" && !(typeof value === "object" && !Object.keys(value).length);
  const facts = Object.entries(DATA.datasets).map(([name, all]) => [name, Object.fromEntries(Object.entries(all).filter(([, value]) => known(value)))]);
  const definitions = Object.entries(DATA.metrics).map(([name, facts]) => [
    name, facts.best === "low" ? "lower" : "higher", `${finite(facts.lower) ? show(facts.lower) : "−∞"} to ${finite(facts.upper) ? show(facts.upper) : "∞"}`, facts.unit || "", facts.level || "", facts.formula || "", facts.source || "",
  ]);
  host.replaceChildren(
    Object.keys(DATA.provenance).length ? nested(DATA.provenance) : empty("No versions, hashes, seeds or commands were handed over."),
    el("h3", {}, "Metrics"), plainTable(["Metric", "Better", "Range", "Unit", "Level", "Definition", "Source"], definitions, "Metric definitions"),
    el("h3", {}, "Ceilings"), ceilings.length ? plainTable(["Dataset", "Split", "Genes", "Metric", "Variant", "Mean", "Bias", "Conditions", "From"],
      ceilings.map((row) => [el("span", { title: row.dataset }, screen(row.dataset)), row.split || "", row.genes, row.metric, row.variant || "", show(row.value), show(row.bias), show(row.conditions), row.note || ""]), "Ceilings") : empty("No ceiling is available."),
    el("h3", {}, "Datasets"), nested(Object.fromEntries(facts)));
}
