// The leaderboard: sorted by any column, filtered by text and by kind of entry.

const KINDS = { method: "Methods", baseline: "Baselines", permuted: "Permutations", oracle: "Oracles" };
const kindOf = (row) => (row.role === "random" ? "baseline" : row.role in KINDS ? row.role : "method");
const sorting = { column: "rank", down: false };
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

/** Columns that have something to say on this board: {key, label, value for sorting, cell}. */
function columnsOf(rows) {
  const places = decimals(rows, "mean", "low", "high");
  const x = scale(rows.flatMap((r) => [r.mean, r.low, r.high, r.ceiling, r.floor]), 4, 108, { margin: 0 });
  const has = (key) => rows.some((row) => (typeof row[key] === "string" ? row[key] !== "" && row[key] !== "–" : finite(row[key])));
  const compared = (name, label) => {
    const digits = decimals(rows, `vs_${name}`, `vs_${name}_low`, `vs_${name}_high`);
    const sign = (v) => (v > 0 ? "+" : "") + show(v, digits);
    return {
      key: `vs_${name}`, label, numeric: true, present: has(`vs_${name}`), title: "Paired difference; positive is better",
      cell: (row) => finite(row[`vs_${name}`])
        ? [sign(row[`vs_${name}`]), verdict(row[`beats_${name}`]), interval(row, `vs_${name}_low`, `vs_${name}_high`, digits)] : "",
    };
  };
  const all = [
    { key: "embedding", label: "Embedding", text: vectors, present: true, cell: vectors },
    { key: "head", label: "Head", text: (row) => row.head, present: true, cell: (row) => row.head },
    {
      key: "rank", label: "Rank", numeric: true, present: true,
      cell: (row) => [finite(row.rank) ? show(row.rank) : el("span", { title: unranked(row) }, "–"), row.best === 1 ? el("span", { title: "not told apart from the best" }, " ★") : null],
    },
    { key: "mean", label: "Score", numeric: true, left: true, present: true, cell: (row) => el("span", { class: "score" }, el("span", {}, show(row.mean, places), interval(row, "low", "high", places)), finite(row.mean) ? spark(row, x) : null) },
    {
      key: "progress", label: "Progress", numeric: true, present: has("progress") || has("progress_note"),
      title: "Share of the way from the floor (best baseline) to the ceiling",
      cell: (row) => finite(row.progress) ? [percent(row.progress), finite(row.progress_low) ? el("span", { class: "interval" }, ` [${percent(row.progress_low)}, ${percent(row.progress_high)}]`) : null] : row.progress_note || "",
    },
    { key: "flags", label: "Flags", text: (row) => row.flags, present: has("flags"), cell: (row) => row.flags ? el("span", { class: "flag" }, `⚑ ${row.flags}`) : "" },
    { key: "coverage", label: "Coverage", numeric: true, present: rows.some((r) => r.coverage < 1), title: "Share of conditions predicted from an own vector", cell: (row) => percent(row.coverage) },
    compared("permuted", "vs permuted"),
    compared("context_mean", "vs context mean"),
    { key: "pairs_better", label: "Pairs won", numeric: true, present: rows.some((r) => r.pairs > 0), title: "Paired tests with a declared difference: better, worse, of how many", cell: (row) => row.pairs > 0 ? `${row.pairs_better} − ${row.pairs_worse} / ${row.pairs}`.replace("−", "·") : "" },
    { key: "ceiling", label: "Ceiling", numeric: true, present: has("ceiling"), cell: (row) => show(row.ceiling, places) },
    { key: "floor", label: "Floor", numeric: true, present: has("floor"), cell: (row) => finite(row.floor) ? `${show(row.floor, places)} ${row.floor_name || ""}` : "" },
    { key: "information", label: "Information", text: (row) => told(row, "information"), present: rows.some((r) => told(r, "information")), cell: (row) => told(row, "information") },
    { key: "modality", label: "Modality", text: (row) => told(row, "modality"), present: rows.some((r) => told(r, "modality")), cell: (row) => told(row, "modality") },
    { key: "complexity", label: "Kind of head", text: (row) => row.complexity, present: has("complexity"), cell: (row) => row.complexity },
    { key: "query_controls", label: "Query controls", text: (row) => row.query_controls, present: has("query_controls"), cell: (row) => row.query_controls },
    { key: "dim", label: "Dimension", numeric: true, number: (row) => parseFloat(row.dim), present: has("dim"), cell: (row) => String(finite(row.dim) ? show(row.dim) : row.dim ?? "") },
    { key: "n_conditions", label: "Conditions", numeric: true, present: has("n_conditions"), cell: (row) => show(row.n_conditions) },
    { key: "undefined", label: "Undefined", numeric: true, present: rows.some((r) => r.undefined > 0), cell: (row) => show(row.undefined) },
    { key: "fallback", label: "Fallback", text: (row) => row.fallback, present: rows.some((r) => r.coverage < 1) && has("fallback"), cell: (row) => row.fallback },
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
  const text = [vectors(row), row.head, told(row, "information"), told(row, "modality"), row.flags, row.role, row.complexity].join(" ").toLowerCase();
  return words.every((word) => text.includes(word));
}

function leaderboard(host, state) {
  const rows = select("leaderboard", boardOf(state));
  if (!rows.length) return host.replaceChildren(empty(`Nothing was scored by ${state.metric} on ${state.dataset}, ${state.split}.`));
  const columns = columnsOf(rows);
  const body = el("tbody");
  const count = el("span", { class: "hint", role: "status" });
  const head = el("tr");
  const fill = () => {
    const words = state.filter.toLowerCase().split(/\s+/).filter(Boolean);
    const column = columns.find((c) => c.key === sorting.column) || columns.find((c) => c.key === "rank");
    const kept = rows.filter((row) => kinds.has(kindOf(row)) && matches(row, words));
    body.replaceChildren(...sorted(kept, column, sorting.down).map((row) => line(row, columns)));
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
    ]),
    footnotes(state, rows));
}

function header(column, active, fill) {
  const order = active ? (sorting.down ? "descending" : "ascending") : "none";
  const sort = () => {
    sorting.down = active ? !sorting.down : column.key === "progress" || column.key.startsWith("vs_") || column.key === "pairs_better"
      || (column.key === "mean" && better(currentMetric()) > 0);
    sorting.column = column.key;
    fill();
    document.querySelector(`.board button[data-key="${column.key}"]`).focus();
  };
  return el("th", { scope: "col", "aria-sort": order, class: column.numeric && !column.left ? "num" : "name", title: column.title },
    el("button", { type: "button", "data-key": column.key, on: { click: sort } }, column.label, active ? (sorting.down ? " ▼" : " ▲") : ""));
}

function line(row, columns) {
  const apart = row.complete === 0 || row.role === "oracle" || row.role === "permuted";
  return el("tr", { class: [row.best === 1 ? "best" : "", apart ? "apart" : ""].join(" ").trim() || null, "data-entry": entry(row) },
    columns.map((column, i) => el(i ? "td" : "th", { scope: i ? null : "row", class: column.numeric && !column.left ? "num" : i ? "name" : null, title: i ? null : vectors(row) }, column.cell(row))));
}

function caption(state, rows) {
  const facts = DATA.metrics[state.metric] || {};
  const span = finite(facts.lower) || finite(facts.upper) ? `, range ${finite(facts.lower) ? show(facts.lower) : "−∞"} to ${finite(facts.upper) ? show(facts.upper) : "∞"}` : "";
  return `${state.metric}: ${facts.best === "low" ? "lower" : "higher"} is better${span}${facts.unit ? `, unit: ${facts.unit}` : ""}. `
    + `${state.dataset} · ${state.split} · genes ${state.genes} · ${state.subset} conditions; intervals over ${unique(rows.map((r) => r.unit)).join(", ")}.`;
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
    rows.some((row) => row.enough_coverage === 0) ? "Entries that cover too few conditions are listed without a rank: their scores mix predictions with the fallback." : "",
    rows.some((row) => row.complete === 0) ? "Entries in italics without a rank are incomplete, permutations or oracles; they are never ranked." : "",
    family.length ? `Verdicts: Holm over ${family.join(" or ")} comparisons of the board.` : "",
    "★ not told apart from the best. Rank – : not ranked.",
  ];
  return el("p", { class: "note" }, lines.filter(Boolean).join(" "));
}

/** What a reader asks first: who leads, by how much, and whether that means something. */
function winner(host, state) {
  const rows = select("leaderboard", boardOf(state));
  const ranked = rows.filter((row) => finite(row.rank)).sort((a, b) => a.rank - b.rank);
  if (!ranked.length) {
    host.textContent = rows.length ? `No complete, ranked entry by ${state.metric} on ${state.dataset}.` : `Nothing was scored by ${state.metric} on ${state.dataset}.`;
    return;
  }
  const [first] = ranked;
  const places = decimals(rows, "mean", "low", "high");
  const told = rows.filter((row) => row.best === 1).length;
  const words = [
    ` leads by ${state.metric} on ${state.dataset}: ${show(first.mean, places)}`,
    finite(first.low) ? ` [${show(first.low, places)}, ${show(first.high, places)}]` : "",
    finite(first.ceiling) ? `, ceiling ${show(first.ceiling, places)}` : ", ceiling not available",
    finite(first.progress) ? `, progress ${percent(first.progress)}` : "",
    told > 1 ? `. ${told} entries are not told apart from the best (★).` : told === 1 ? ". It is told apart from all others (★)." : ". Too few independent units to declare a best entry.",
  ];
  host.replaceChildren(el("b", {}, entry(first)), words.join(""));
}
