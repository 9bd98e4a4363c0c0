// The leaderboard: sorted by any column, filtered by text and by kind of entry.

const KINDS = { method: "Methods", baseline: "Baselines", permuted: "Permutations", oracle: "Oracles" };
const kindOf = (row) => (row.role === "random" ? "baseline" : row.role in KINDS ? row.role : "method");
const sorting = { column: "rank", reversed: false }; // a column is sorted with the best first, unless reversed
const kinds = new Set(["method", "baseline", "oracle"]);

function interval(row, low, high, places) {
  if (!finite(row[low]) || !finite(row[high])) return null;
  return el("span", { class: "interval" }, ` [${show(row[low], places)}, ${show(row[high], places)}]`);
}

function verdict(text) {
  if (text === "yes") return el("span", { class: "yes" }, " ✓ better");
  return text === "no" ? " no" : null;
}

/** A score with its interval on the span of the board: ceiling and floor as ticks. */
function spark(row, x) {
  const svg = draw("svg", { class: "spark", viewBox: "0 0 112 14", "aria-hidden": "true" });
  svg.append(draw("line", { class: "rule", x1: 0, x2: 112, y1: 7, y2: 7 }));
  for (const [name, kind] of [["ceiling", "ceiling"], ["floor", "floor"]]) {
    if (finite(row[name])) svg.append(draw("line", { class: kind, x1: x.at(row[name]), x2: x.at(row[name]), y1: 1, y2: 13 }));
  }
  if (finite(row.low) && finite(row.high)) {
    svg.append(draw("line", { class: "k0 whisker", x1: x.at(row.low), x2: x.at(row.high), y1: 7, y2: 7 }));
  }
  if (finite(row.mean)) svg.append(draw("circle", { class: "k0", cx: x.at(row.mean), cy: 7, r: 3 }));
  return svg;
}

function unranked(row) {
  if (row.role === "permuted" || row.role === "oracle") return "Permutations and oracles are never ranked";
  if (row.complete === 0) return "Incomplete: not every planned run has a result";
  return row.enough_coverage === 0 ? "Covers too few conditions to be ranked" : "Not ranked";
}

/** Whether the largest value of a column is the best. */
function largestFirst(column) {
  if (column.key === "mean" || column.key === "ceiling" || column.key === "floor") return better(currentMetric()) > 0;
  return ["progress", "coverage", "pairs_better", "n_conditions"].includes(column.key) || column.key.startsWith("vs_");
}
const falling = (column) => largestFirst(column) !== sorting.reversed;

/** Flags with what they mean on hover. */
function flagged(row) {
  if (!row.flags) return "";
  return el("span", { class: "flag" }, "⚑ ", row.flags.split("; ").map((word, i) => [i ? "; " : "", el("abbr", { title: DATA.details.flags[word] || null }, word)]));
}

/** Columns that have something to say on this board: {key, label, value for sorting, cell}; `minor` ones are not printed. */
function columnsOf(rows) {
  const places = decimals(rows, "mean", "low", "high");
  const reach = robust(rows.filter((r) => !dagger(r)).flatMap((r) => [r.mean, r.low, r.high, r.ceiling, r.floor]));
  const x = scale([reach.low, reach.high], 4, 108, { margin: 0, clamp: true });
  const has = (key) => rows.some((row) => (typeof row[key] === "string" ? row[key] !== "" && row[key] !== "–" : finite(row[key])));
  const compared = (name, label) => {
    const digits = decimals(rows, `vs_${name}`, `vs_${name}_low`, `vs_${name}_high`);
    const sign = (v) => (v > 0 ? "+" : "") + show(v, digits);
    return {
      key: `vs_${name}`, label, numeric: true, wraps: true, present: has(`vs_${name}`), title: "Paired difference; positive is better",
      cell: (row) => finite(row[`vs_${name}`])
        ? [sign(row[`vs_${name}`]), verdict(row[`beats_${name}`]), interval(row, `vs_${name}_low`, `vs_${name}_high`, digits)] : "",
    };
  };
  const all = [
    { key: "embedding", label: "Embedding", text: vectors, present: true, cell: (row) => vectors(row) },
    { key: "head", label: "Head", text: (row) => row.head, present: true, cell: (row) => row.head },
    {
      key: "rank", label: "Rank", numeric: true, present: true,
      cell: (row) => [finite(row.rank) ? show(row.rank) : el("span", { title: unranked(row) }, dagger(row) || "–"), row.best === 1 ? el("span", { title: "not told apart from the best" }, " ★") : null],
    },
    { key: "mean", label: "Score", numeric: true, left: true, present: true, cell: (row) => el("span", { class: "score" }, el("span", {}, show(row.mean, places), interval(row, "low", "high", places)), finite(row.mean) ? spark(row, x) : null) },
    {
      key: "progress", label: "Progress", numeric: true, present: has("progress") || has("progress_note"),
      title: "Share of the way from the floor (best baseline) to the ceiling",
      cell: (row) => finite(row.progress) ? [percent(row.progress), finite(row.progress_low) ? el("span", { class: "interval" }, ` [${percent(row.progress_low)}, ${percent(row.progress_high)}]`) : null] : row.progress_note || "",
    },
    { key: "flags", label: "Flags", text: (row) => row.flags, present: has("flags"), cell: flagged },
    { key: "coverage", label: "Coverage", numeric: true, present: rows.some((r) => r.coverage < 1), title: "Share of conditions predicted from an own vector", cell: (row) => percent(row.coverage) },
    compared("permuted", "vs permuted"),
    compared("context_mean", "vs context mean"),
    { key: "pairs_better", label: "Pairs won", numeric: true, present: rows.some((r) => r.pairs > 0), title: "Paired tests with a declared difference: better, worse, of how many", cell: (row) => row.pairs > 0 ? `${row.pairs_better} − ${row.pairs_worse} / ${row.pairs}`.replace("−", "·") : "" },
    { key: "ceiling", label: "Ceiling", numeric: true, minor: true, present: has("ceiling"), cell: (row) => show(row.ceiling, places) },
    { key: "floor", label: "Floor", numeric: true, minor: true, present: has("floor"), cell: (row) => finite(row.floor) ? `${show(row.floor, places)} ${row.floor_name || ""}` : "" },
    { key: "information", label: "Information", text: (row) => told(row, "information"), minor: true, present: rows.some((r) => told(r, "information")), cell: (row) => told(row, "information") },
    { key: "modality", label: "Modality", text: (row) => told(row, "modality"), minor: true, present: rows.some((r) => told(r, "modality")), cell: (row) => told(row, "modality") },
    { key: "complexity", label: "Kind of head", minor: true, text: (row) => row.complexity, present: has("complexity"), cell: (row) => row.complexity },
    { key: "query_controls", label: "Query controls", minor: true, text: (row) => row.query_controls, present: has("query_controls"), cell: (row) => row.query_controls },
    { key: "dim", label: "Dimension", numeric: true, minor: true, number: (row) => parseFloat(row.dim), present: has("dim"), cell: (row) => String(finite(row.dim) ? show(row.dim) : row.dim ?? "") },
    { key: "n_conditions", label: "Conditions", numeric: true, minor: true, present: has("n_conditions"), cell: (row) => show(row.n_conditions) },
    { key: "undefined", label: "Undefined", numeric: true, minor: true, present: rows.some((r) => r.undefined > 0), cell: (row) => show(row.undefined) },
    { key: "fallback", label: "Fallback", minor: true, text: (row) => row.fallback, present: rows.some((r) => r.coverage < 1) && has("fallback"), cell: (row) => row.fallback },
  ];
  return all.filter((column) => column.present);
}

/** Rows in the order of a column; rows without a value last, ties by the table's own order. */
function sorted(rows, column, down) {
  const value = (row) => (column.number ? column.number(row) : row[column.key]);
  return rows.map((row, i) => [row, i]).sort(([a, i], [b, j]) => {
    if (!column.numeric) {
      const order = String(column.text(a) || "").localeCompare(String(column.text(b) || ""));
      return (down ? -order : order) || i - j;
    }
    const [x, y] = [value(a), value(b)];
    if (!finite(x) || !finite(y)) return finite(x) - finite(y) ? finite(y) - finite(x) : i - j;
    return (down ? y - x : x - y) || i - j;
  }).map(([row]) => row);
}

function matches(row, words) {
  const text = [vectors(row), vectors(row, (name) => name), row.head, told(row, "information"), told(row, "modality"), row.flags, row.role, row.complexity].join(" ").toLowerCase();
  return words.every((word) => text.includes(word));
}

function leaderboard(host, state) {
  const rows = select("leaderboard", boardOf(state));
  if (!rows.length) return host.replaceChildren(empty(`Nothing was scored by ${state.metric} on ${screen(state.dataset)}, ${state.split}.`));
  const columns = columnsOf(rows);
  const body = el("tbody");
  const count = el("span", { class: "hint", role: "status" });
  const head = el("tr");
  const fill = () => {
    const words = state.filter.toLowerCase().split(/\s+/).filter(Boolean);
    const column = columns.find((c) => c.key === sorting.column) || columns.find((c) => c.key === "rank");
    const kept = rows.filter((row) => kinds.has(kindOf(row)) && matches(row, words));
    body.replaceChildren(...sorted(kept, column, falling(column)).map((row) => line(row, columns)));
    count.textContent = `${kept.length} of ${rows.length} entries`;
    head.replaceChildren(...columns.map((c) => header(c, c === column, fill)));
  };
  const filter = el("input", { type: "search", id: "filter", placeholder: "embedding, head, information …", value: state.filter, on: { input: (event) => { state.filter = event.target.value; remember(state); fill(); } } });
  const boxes = Object.entries(KINDS).filter(([kind]) => rows.some((row) => kindOf(row) === kind)).map(([kind, label]) =>
    el("label", {}, el("input", { type: "checkbox", checked: kinds.has(kind), value: kind, on: { change: (event) => { kinds[event.target.checked ? "add" : "delete"](kind); fill(); } } }), label));
  fill();
  host.replaceChildren(
    el("p", { class: "note", id: "board-caption" }, caption(state, rows)),
    el("div", { class: "bar" }, el("label", { for: "filter" }, "Filter"), filter, boxes, count),
    el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Leaderboard, scrolls sideways" },
      el("table", { class: "board", "aria-describedby": "board-caption" }, el("thead", {}, head), body)),
    legend([
      { kind: "k0", label: "score with 95 % interval" }, { line: "ceiling", label: "ceiling" }, { line: "floor", label: "floor (best baseline)" },
    ], "sparks"),
    ...footnotes(state, rows));
}

function header(column, active, fill) {
  const order = active ? (falling(column) ? "descending" : "ascending") : "none";
  const sort = () => {
    sorting.reversed = active && !sorting.reversed;
    sorting.column = column.key;
    fill();
    document.querySelector(`.board button[data-key="${column.key}"]`).focus();
  };
  return el("th", { scope: "col", "aria-sort": order, class: cellClass(column), title: column.title },
    el("button", { type: "button", "data-key": column.key, on: { click: sort } }, column.label, active ? (falling(column) ? " ▼" : " ▲") : ""));
}

const cellClass = (column, named = true) => [column.numeric && !column.left ? "num" : named ? "name" : "", column.minor ? "minor" : ""].join(" ").trim() || null;

function line(row, columns) {
  const apart = row.complete === 0 || row.role === "oracle" || row.role === "permuted";
  return el("tr", { class: [row.best === 1 ? "best" : "", apart ? "apart" : ""].join(" ").trim() || null, "data-entry": whole(row) },
    columns.map((column, i) => el(i ? "td" : "th", { scope: i ? null : "row", class: cellClass(column, i > 0), title: i ? null : vectors(row, (name) => name) }, column.cell(row))));
}

function caption(state, rows) {
  const facts = DATA.metrics[state.metric] || {};
  const span = finite(facts.lower) || finite(facts.upper) ? `, range ${finite(facts.lower) ? show(facts.lower) : "−∞"} to ${finite(facts.upper) ? show(facts.upper) : "∞"}` : "";
  return `${state.metric}: ${facts.best === "low" ? "lower" : "higher"} is better${span}${facts.unit ? `, unit: ${facts.unit}` : ""}. `
    + `${screen(state.dataset)} · ${state.split} · genes ${state.genes} · ${state.subset} conditions; intervals over ${unique(rows.map((r) => r.unit)).join(", ")}.${candidates(rows, facts)}`;
}

/** What else a value depends on. */
function candidates(rows, facts) {
  if (facts.level !== "set") return "";
  const said = unique(rows.map((row) => row.candidates)).filter(Boolean).map(String);
  if (said.length) return ` Candidates: ${said.join(", ")} conditions, the own one included; a value depends on those of its fold and context.`;
  return " A value depends on the conditions of its fold and context.";
}

function footnotes(state, rows) {
  const facts = DATA.datasets[state.dataset] || {};
  const notes = unique(rows.map((row) => row.ceiling_note)).filter(Boolean);
  const family = unique(rows.map((row) => row.verdicts)).filter((n) => n > 0);
  const lines = [
    notes.length ? `Ceiling: ${notes.join("; ")}.` : "",
    facts.controls === "shared" ? "CONTROLS SHARED between training and test effects: correlations are inflated." : "",
    facts.simulated ? "SIMULATED screen." : "",
    facts.footer ? `${facts.footer.replace(/\.$/, "")}.` : "",
    (facts.undefined || {})[state.metric] ? `Not scored: ${facts.undefined[state.metric]}.` : "",
    rows.some((row) => dagger(row) === "‡") ? "‡ covers too few conditions of its own: listed, not ranked, its score mixes predictions with the fallback." : "",
    rows.some((row) => dagger(row) === "†") ? "† incomplete: not every planned run has a result." : "",
    family.length ? `Verdicts: Holm over ${family.join(" or ")} comparisons of the board.` : "",
    "★ not told apart from the best. Italics, rank – : permutations and oracles, never ranked.",
  ];
  const words = unique(rows.flatMap((row) => (row.flags || "").split("; "))).filter(Boolean).sort();
  return [
    el("p", { class: "note" }, lines.filter(Boolean).join(" ")),
    words.length ? el("dl", { class: "flags" }, words.map((word) => [el("dt", {}, "⚑ ", word), el("dd", {}, DATA.details.flags[word] || "no explanation was handed over")])) : "",
  ];
}

/** What a reader asks first: who leads, by how much, and whether that means something. */
function winner(host, state) {
  const rows = select("leaderboard", boardOf(state));
  const ranked = rows.filter((row) => finite(row.rank)).sort((a, b) => a.rank - b.rank);
  if (!ranked.length) {
    host.textContent = rows.length ? `No complete, ranked entry by ${state.metric} on ${screen(state.dataset)}.` : `Nothing was scored by ${state.metric} on ${screen(state.dataset)}.`;
    return;
  }
  const [first] = ranked;
  const places = decimals(rows, "mean", "low", "high");
  const told = rows.filter((row) => row.best === 1).length;
  const words = [
    ` leads by ${state.metric} on ${screen(state.dataset)}: ${show(first.mean, places)}`,
    finite(first.low) ? ` [${show(first.low, places)}, ${show(first.high, places)}]` : "",
    finite(first.ceiling) ? `, ceiling ${show(first.ceiling, places)}` : ", ceiling not available",
    finite(first.progress) ? `, progress ${percent(first.progress)}` : "",
    ranked.length === 1 ? ". It is the only ranked entry, so there is nothing to tell it apart from." : told > 1 ? `. ${told} entries are not told apart from the best (★).` : told === 1 ? ". It is told apart from all other ranked entries (★)." : ". Too few independent units to declare a best entry.",
  ];
  host.replaceChildren(el("b", { title: whole(first) }, entry(first)), words.join(""));
}
