// State, sections and events: one place where everything is drawn from what the controls say.

const state = { dataset: "", split: "", genes: "", metric: "", subset: "all", filter: "", value: "score", head: "", example: 0, population: 0, contexts: 6 };
const currentMetric = () => state.metric;
const boardOf = (s) => ({ dataset: s.dataset, split: s.split, genes: s.genes, metric: s.metric, subset: s.subset });

const SECTIONS = [
  ["leaderboard", "Leaderboard", "Every configuration on this board. Click a header to sort.", leaderboard],
  ["heatmap", "Embedding × head", "Mean score (or progress) of each pair; the outlined cell is the best that is ranked.", heatmap],
  ["boxes", "Scores by embedding", "Each box holds one value per fold, context and head: median, quartiles, whiskers to the furthest value within 1.5 interquartile ranges. The band spans the middle 80 % of the ceiling over the same folds and contexts; dashed lines are baselines.", boxes],
  ["ranks", "Ranks", "Descriptive: ranked methods within each fold and context. Folds share training data, so boxes are no test.", ranks],
  ["decomposition", "Embedding or head?", "Shares of the variance of progress over the stated panel of entries.", decomposition],
  ["progress", "Progress by dataset", "Share of the way from the floor (best baseline) to the ceiling, best methods of every board, same metric.", progress],
  ["dependence", "What a score depends on", "Single conditions of the best methods beside the context mean, and fold × context means against settings.", dependence],
  ["contexts", "Contexts", "The ranked entries in each context, with 95 % intervals over its perturbations and the ceiling there.", contexts],
  ["predictions", "Single predictions", "Predicted against observed effect, gene by gene, and the training perturbations a prediction is made of.", predictions],
  ["cells", "Predicted cells", "Populations that a head predicts beside the real cells of the same condition.", cells],
  ...(DATA.tables.composites ? [["composites", "Composite scores", "Scores of published challenges (Virtual Cell Challenge), best first: means of their parts measured against a baseline's. All conditions.", composites]] : []),
  ["pairs", "Declared differences", "Paired permutation tests with Holm's correction: only pairs with a declared difference.", pairs],
  ["coverage", "Coverage", "Share of conditions that each embedding has vectors for; the rest got the fallback.", coverage],
  ["problems", "Failed and skipped runs", "", problems],
  ["cost", "Cost and chosen values", "CPU seconds with selection, and the values that the inner folds chose.", cost],
  ["provenance", "Provenance", "What made these numbers, and what they mean.", provenance],
];

/** Options of a select; the one kept if it is still there, else the first. */
function options(name, values, labels = {}) {
  const box = document.getElementById(name);
  if (!values.includes(state[name])) state[name] = values[0] ?? "";
  box.replaceChildren(...values.map((value) => el("option", { value, selected: value === state[name], title: value }, labels[value] ?? value)));
  box.value = state[name];
  box.closest("label").hidden = values.length < 2 && (name === "genes" || name === "subset");
}

function fillControls() {
  const board = select("leaderboard");
  const of = (name, where) => unique(board.filter((row) => Object.entries(where).every(([key, value]) => row[key] === value)).map((row) => row[name]));
  options("dataset", of("dataset", {}), DATA.labels.datasets);
  options("split", of("split", { dataset: state.dataset }));
  options("genes", of("genes", { dataset: state.dataset, split: state.split }));
  const where = { dataset: state.dataset, split: state.split, genes: state.genes };
  const arrows = Object.fromEntries(Object.keys(DATA.metrics).map((name) => [name, `${name} ${better(name) < 0 ? "↓" : "↑"}`]));
  const scored = new Set(of("metric", where));
  options("metric", [...Object.keys(DATA.metrics).filter((name) => scored.has(name)), ...[...scored].filter((name) => !(name in DATA.metrics))], arrows);
  options("subset", of("subset", { ...where, metric: state.metric }));
}

/** The state in the address, so that a view can be sent to somebody who has the file. */
function remember(s) {
  const kept = ["dataset", "split", "genes", "metric", "subset", "filter", "value"].filter((key) => s[key]);
  history.replaceState(null, "", `#${new URLSearchParams(kept.map((key) => [key, s[key]]))}`);
}

function recall() {
  for (const [key, value] of new URLSearchParams(location.hash.slice(1))) if (key in state && typeof state[key] === "string") state[key] = value;
}

function redraw(names) {
  hideTip();
  for (const [name, , , render] of SECTIONS) {
    if (names && !names.includes(name)) continue;
    render(document.getElementById(`${name}-body`), state);
  }
}

function update() {
  fillControls();
  remember(state);
  winner(document.getElementById("winner"), state);
  redraw();
}

function summary() {
  const counts = Object.values(DATA.counts);
  const total = (name) => sum(counts.map((count) => count[name] || 0));
  const words = ["done", "failed", "skipped", "pending"].filter((name) => name === "done" || total(name)).map((name) => `${total(name)} ${name}`);
  const n = Object.keys(DATA.datasets).length;
  return `${n} dataset${n === 1 ? "" : "s"} · runs: ${words.join(", ")} · ${Object.keys(DATA.metrics).length} metrics`;
}

function themes() {
  const button = document.getElementById("theme");
  const order = ["system", "light", "dark"];
  let at = 0;
  button.addEventListener("click", () => {
    at = (at + 1) % order.length;
    if (order[at] === "system") document.documentElement.removeAttribute("data-theme");
    else document.documentElement.dataset.theme = order[at];
    button.textContent = `Theme: ${order[at]}`;
  });
}

function start() {
  recall();
  document.getElementById("summary").textContent = summary();
  document.getElementById("main").append(...SECTIONS.map(([name, title, note]) =>
    el("section", { id: name, "aria-labelledby": `${name}-title` },
      el("h2", { id: `${name}-title` }, title), note ? el("p", { class: "note" }, note) : null, el("div", { id: `${name}-body` }))));
  document.querySelector("#contents ul").append(...SECTIONS.map(([name, title]) =>
    el("li", {}, el("a", { href: `#${name}`, on: { click: (event) => { event.preventDefault(); const place = document.getElementById(name); place.setAttribute("tabindex", "-1"); place.focus({ preventScroll: true }); place.scrollIntoView(); } } }, title))));
  for (const name of ["dataset", "split", "genes", "metric", "subset"]) {
    document.getElementById(name).addEventListener("change", (event) => { state[name] = event.target.value; update(); });
  }
  document.getElementById("controls").addEventListener("submit", (event) => event.preventDefault());
  themes();
  update();
  let waiting = 0;
  let width = window.innerWidth;
  window.addEventListener("resize", () => {
    if (window.innerWidth === width) return;
    width = window.innerWidth;
    clearTimeout(waiting);
    waiting = setTimeout(() => redraw(SECTIONS.map(([name]) => name).filter((name) => name !== "leaderboard")), 150);
  });
}

start();
