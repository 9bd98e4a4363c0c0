// The data block: packed columns, selections, and words for numbers.

const DATA = JSON.parse(document.getElementById("data").textContent);
const COORDINATES = ["head", "embedding", "context_embedding"];
const OTHER = ["combine", "features", "scope", "target", "graph", "select", "samples", "strict_context", "protocol"];
const BOARD = ["dataset", "split", "genes"];
const unpacked = new Map();

/** The values of one packed column: texts by their level, else numbers with NaN where there is none. */
function unpack(column) {
  const out = [];
  for (const part of column.data.split(",")) {
    const [token, times] = part.split("*");
    const value = column.levels ? column.levels[Number(token)] : token === "" ? NaN : Number(token);
    for (let i = Number(times || 1); i > 0; i--) out.push(value);
  }
  return out;
}

/** A table as {rows, columns: name -> values}; an absent table has no rows. */
function table(name) {
  if (!unpacked.has(name)) {
    const stored = DATA.tables[name] || { rows: 0, columns: {} };
    const columns = {};
    if (stored.rows) for (const [key, column] of Object.entries(stored.columns)) columns[key] = unpack(column);
    unpacked.set(name, { rows: stored.rows, columns });
  }
  return unpacked.get(name);
}

/** Rows of a table, as objects, that agree with every key of `where` that is a column of it. */
function select(name, where = {}) {
  const { rows, columns } = table(name);
  const tests = Object.entries(where).filter(([key]) => key in columns);
  const names = Object.keys(columns);
  const out = [];
  for (let i = 0; i < rows; i++) {
    if (!tests.every(([key, value]) => columns[key][i] === value)) continue;
    out.push(Object.fromEntries(names.map((key) => [key, columns[key][i]])));
  }
  return out;
}

const unique = (values) => [...new Set(values)];
const finite = (value) => typeof value === "number" && Number.isFinite(value);
const sum = (values) => values.reduce((a, b) => a + b, 0);
const mean = (values) => (values.length ? sum(values) / values.length : NaN);

/** Quantile of sorted values, linear between order statistics. */
function quantile(sorted, q) {
  if (!sorted.length) return NaN;
  const at = (sorted.length - 1) * q;
  const low = Math.floor(at);
  return sorted[low] + (at - low) * ((sorted[low + 1] ?? sorted[low]) - sorted[low]);
}

/** Rows grouped by a function, in order of appearance. */
function groups(rows, by) {
  const out = new Map();
  for (const row of rows) {
    const key = by(row);
    if (!out.has(key)) out.set(key, []);
    out.get(key).push(row);
  }
  return out;
}

/** Which of the rarer coordinates tell entries of this report apart. */
const VARYING = OTHER.filter((name) => unique(table("leaderboard").columns[name] || []).length > 1);

const POOLED = "all datasets"; // of the decomposition
const called = (name) => DATA.labels.embeddings[name] ?? name;
const screen = (name) => DATA.labels.datasets[name] ?? name;

/** A text with the short labels of the long names that stand in it. */
function relabelled(text) {
  const long = Object.entries({ ...DATA.labels.embeddings, ...DATA.labels.datasets }).sort((a, b) => b[0].length - a[0].length);
  return long.reduce((out, [name, label]) => out.split(name).join(label), String(text ?? ""));
}

const OF_VECTORS = new Set(["combine", "features", "scope", "graph"]); // say nothing where there are none

/** The vectors of an entry: embedding, context embedding, and what else tells it apart. */
function vectors(row, name = called) {
  const names = [row.embedding, row.context_embedding].filter((one) => one && one !== "none").map(name);
  const more = VARYING.filter((key) => names.length || !OF_VECTORS.has(key)).map((key) => [key, row[key]]).filter(([, value]) => value && value !== "none").map(([key, value]) => (key === "features" ? value : `${key}=${value}`));
  return [names.join(" / ") || "no embedding", ...more].join(" · ");
}
const joined = (names, head) => (names.startsWith("no embedding") ? head + names.slice(12) : `${names} × ${head}`);
const bare = (row) => [row.embedding, row.context_embedding].every((name) => !name || name === "none");
const entry = (row) => joined(vectors(row), row.head);
const whole = (row) => joined(vectors(row, (name) => name), row.head);

/** Why an entry of the leaderboard is not ranked: † incomplete, ‡ too few conditions of its own, "" where it may be. */
const dagger = (row) => (row.complete === 0 ? "†" : row.enough_coverage === 0 ? "‡" : "");
const DAGGERS = "† incomplete, ‡ covers too few conditions of its own: shown, never ranked or called best.";

/** Entry -> dagger, of one board. */
const daggers = (where) => new Map(select("leaderboard", where).map((row) => [entry(row), dagger(row)]));

/** What is known of the embedding of a row: modality and information ("" where nobody said). */
function told(row, what) {
  if (row[what]) return row[what];
  for (const name of [row.embedding, row.context_embedding]) {
    if (name && name !== "none") return (DATA.embeddings[name] || {})[what] || "";
  }
  return "";
}
const modality = (row) => told(row, "modality") || (bare(row) ? "none" : "not said");

const better = (metric) => ((DATA.metrics[metric] || {}).best === "low" ? -1 : 1);

/** A number with a fixed number of decimals, or three significant digits; "" where there is none. */
function show(value, decimals) {
  if (!finite(value)) return "";
  if (decimals !== undefined && Math.abs(value) >= 1e6) return value.toExponential(2).replace("-", "−").replace("e+", "e");
  if (decimals !== undefined) return value.toFixed(decimals).replace(/^-(0(\.0*)?)$/, "$1").replace("-", "−");
  if (value !== 0 && (Math.abs(value) >= 1e6 || Math.abs(value) < 1e-4)) return value.toExponential(1).replace("-", "−");
  return String(Number(value.toPrecision(3))).replace("-", "−");
}
const percent = (value) => (finite(value) ? `${Math.round(100 * value)} %`.replace("-", "−") : "");

/** Decimals that show two digits of the typical half interval, or three digits of the values without intervals. */
function decimals(rows, value, low, high) {
  const widths = rows.map((row) => (row[high] - row[low]) / 2).filter((width) => width > 0).sort((a, b) => a - b);
  const sizes = rows.map((row) => Math.abs(row[value])).filter((size) => size > 0).sort((a, b) => a - b);
  const typical = widths.length ? quantile(widths, 0.5) : quantile(sizes, 0.5) / 10;
  return typical > 0 ? Math.min(4, Math.max(1, 1 - Math.floor(Math.log10(typical)))) : 3;
}
