// Elements, scales, marks and tips. Texts become text nodes, never HTML.

const SVG = "http://www.w3.org/2000/svg";

function build(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name === "on") for (const [event, run] of Object.entries(value)) node.addEventListener(event, run);
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}
const el = (tag, attributes, ...children) => build(document.createElement(tag), attributes, children);
const draw = (tag, attributes, ...children) => build(document.createElementNS(SVG, tag), attributes, children);
const empty = (why) => el("p", { class: "empty" }, why);

const COLOURS = 8;
const SHAPES = ["circle", "square", "triangle", "diamond", "cross", "star", "down", "bar"];

/** Path of a mark around (x, y); the shape says what the colour says. */
function mark(shape, x, y, r) {
  const f = (value) => value.toFixed(2);
  const line = (points) => `M${points.map(([a, b]) => `${f(x + a * r)},${f(y + b * r)}`).join("L")}Z`;
  if (shape === "square") return line([[-0.9, -0.9], [0.9, -0.9], [0.9, 0.9], [-0.9, 0.9]]);
  if (shape === "triangle") return line([[0, -1.15], [1.1, 0.85], [-1.1, 0.85]]);
  if (shape === "down") return line([[0, 1.15], [1.1, -0.85], [-1.1, -0.85]]);
  if (shape === "diamond") return line([[0, -1.25], [1.25, 0], [0, 1.25], [-1.25, 0]]);
  if (shape === "bar") return line([[-1.2, -0.5], [1.2, -0.5], [1.2, 0.5], [-1.2, 0.5]]);
  const w = 0.4;
  const plus = [[-w, -1.2], [w, -1.2], [w, -w], [1.2, -w], [1.2, w], [w, w], [w, 1.2], [-w, 1.2], [-w, w], [-1.2, w], [-1.2, -w], [-w, -w]];
  if (shape === "cross") return line(plus);
  if (shape === "star") return line(plus.map(([a, b]) => [(a - b) * 0.72, (a + b) * 0.72]));
  return `M${f(x - r)},${f(y)}a${f(r)},${f(r)} 0 1,0 ${f(2 * r)},0a${f(r)},${f(r)} 0 1,0 ${f(-2 * r)},0Z`;
}

/** A colour class and a shape for each label, by its place in the list. */
function palette(labels) {
  const at = new Map(labels.map((label, i) => [label, i]));
  const code = (label) => at.get(label) ?? 7;
  return {
    colour: (label) => `k${code(label) % COLOURS}`,
    shape: (label) => SHAPES[(code(label) + Math.floor(code(label) / COLOURS)) % SHAPES.length],
  };
}

/** Round numbers that span a range. */
function ticks(low, high, wanted = 5) {
  const raw = (high - low) / Math.max(1, wanted);
  if (!(raw > 0)) return [low];
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map((m) => m * power).find((s) => s >= raw * 0.999);
  const out = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) out.push(Number((i * step).toPrecision(12)));
  return out;
}

/** Round numbers between 10^low and 10^high: decades, else 1 2 5 of them, else evenly spread; at least two. */
function logTicks(low, high, wanted = 5) {
  const inside = (v) => v > 0 && Math.log10(v) >= low - 1e-9 && Math.log10(v) <= high + 1e-9;
  const of = (steps) => {
    const out = [];
    for (let p = Math.floor(low); p <= Math.ceil(high); p++) out.push(...steps.map((m) => Number((m * 10 ** p).toPrecision(3))).filter(inside));
    return out;
  };
  const [fine, decades] = [of([1, 2, 5]), of([1])];
  if (fine.length >= 3 && fine.length <= wanted + 2) return fine;
  if (decades.length >= 2 && decades.length <= wanted + 2) return decades;
  if (decades.length > wanted + 2) return decades.filter((_, i) => i % Math.ceil(decades.length / wanted) === 0);
  const linear = ticks(10 ** low, 10 ** high, wanted).filter(inside);
  return linear.length >= 2 ? linear : [10 ** low, 10 ** high];
}

/** Smallest and largest value within ten interquartile ranges of the quartiles: a diverged entry hides no other. */
function robust(values) {
  const v = values.filter(finite).sort((a, b) => a - b);
  const [low, high] = [quantile(v, 0.25), quantile(v, 0.75)];
  const kept = v.filter((x) => low === high || (x >= low - 10 * (high - low) && x <= high + 10 * (high - low)));
  return { low: kept[0], high: kept[kept.length - 1], cut: kept.length < v.length };
}

/** A linear or logarithmic scale from data to pixels, with a margin around the data and its ticks. */
function scale(values, from, to, { log = false, margin = 0.05, wanted = 5, clamp = false } = {}) {
  const known = values.filter((v) => finite(v) && (!log || v > 0)).map((v) => (log ? Math.log10(v) : v));
  let [low, high] = known.length ? known.reduce(([a, b], v) => [Math.min(a, v), Math.max(b, v)], [Infinity, -Infinity]) : [0, 1];
  const room = (high - low) * margin || Math.abs(high) * 0.1 || 0.5;
  [low, high] = [low - room, high + room];
  const bounded = (v) => (clamp && finite(v) ? Math.min(high, Math.max(low, v)) : v);
  const at = (v) => from + (bounded(log ? Math.log10(v) : v) - low) / (high - low) * (to - from);
  let marks = ticks(low, high, wanted).map((v) => (log ? 10 ** v : v));
  if (log) marks = logTicks(low, high, wanted);
  return { at, ticks: marks, low, high };
}

/** Width that a figure may take. */
const room = (host) => Math.max(260, Math.min(1180, Math.floor(host.clientWidth || 680)));

/** An empty svg with a described role. */
function canvas(width, height, description) {
  return draw("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": description });
}

/** Axis below a plot with rules through it. */
function axisBelow(svg, x, top, bottom, label, { format = show } = {}) {
  for (const value of x.ticks) {
    svg.append(draw("line", { class: "rule", x1: x.at(value), x2: x.at(value), y1: top, y2: bottom }));
    svg.append(draw("text", { class: "tick", x: x.at(value), y: bottom + 15, "text-anchor": "middle" }, format(value)));
  }
  const middle = (x.at(x.ticks[0] ?? 0) + x.at(x.ticks[x.ticks.length - 1] ?? 0)) / 2;
  const half = label.length * 3.5; // a long label moves left rather than over the edge
  const at = Math.max(half, Math.min(middle, svg.viewBox.baseVal.width - half));
  svg.append(draw("text", { x: at, y: bottom + 31, "text-anchor": "middle" }, label));
}

function axisLeft(svg, y, left, right, label, { format = show } = {}) {
  for (const value of y.ticks) {
    svg.append(draw("line", { class: "rule", x1: left, x2: right, y1: y.at(value), y2: y.at(value) }));
    svg.append(draw("text", { class: "tick", x: left - 5, y: y.at(value) + 4, "text-anchor": "end" }, format(value)));
  }
  svg.append(draw("text", { x: left - 2, y: 12, "text-anchor": "start" }, label));
}

const LETTER = 7.1; // pixels of a typical one

/** A text of at most `most` letters, cut in its middle; what follows the last × (the head) stays whole. */
function cutMiddle(text, most) {
  if (text.length <= most) return text;
  const at = text.lastIndexOf(" × ");
  const tail = at < 0 ? "" : text.slice(at);
  const room = most - tail.length - 1;
  if (at >= 0 && room < 3) return `…${tail}`;
  const front = at < 0 ? text : text.slice(0, at);
  const end = Math.ceil(room / 2);
  return `${front.slice(0, room - end)}…${front.slice(front.length - end)}${tail}`;
}

/** Texts cut to a width in pixels, those of one figure all different. */
function fitted(texts, width) {
  const most = Math.max(4, Math.floor(width / LETTER));
  const used = new Map();
  return texts.map((text) => {
    const short = cutMiddle(text, most);
    const owner = used.get(short);
    if (owner === undefined || owner === text) { used.set(short, text); return short; }
    let n = 2;
    while (used.has(`${n}: ${cutMiddle(text, most - 3)}`)) n += 1;
    used.set(`${n}: ${cutMiddle(text, most - 3)}`, text);
    return `${n}: ${cutMiddle(text, most - 3)}`;
  });
}

/** Pixels that labels beside a plot need: at most a share of the width, but never less than a head. */
function gutter(texts, width, share, extra = 10) {
  const heads = Math.max(0, ...texts.map((text) => (text.lastIndexOf(" × ") < 0 ? Math.min(text.length, 16) : text.length - text.lastIndexOf(" × ") + Math.min(14, text.lastIndexOf(" × ")))));
  const all = Math.max(0, ...texts.map((text) => text.length));
  return Math.min(0.64 * width, Math.max(Math.min(all * LETTER + extra, share * width), heads * LETTER + extra));
}

/** A label beside a plot: its cut form, whole in its title. */
const sideLabel = (short, text, x, y, attributes = {}) => draw("text", { x, y, "text-anchor": "end", ...attributes }, short, draw("title", {}, text));

const tip = document.getElementById("tip");
function showTip(text, x, y) {
  tip.textContent = text;
  tip.hidden = false;
  const box = tip.getBoundingClientRect();
  tip.style.left = `${Math.max(4, Math.min(x + 12, window.innerWidth - box.width - 4))}px`;
  tip.style.top = `${y - box.height - 10 > 0 ? y - box.height - 10 : y + 14}px`;
}
const hideTip = () => { tip.hidden = true; };

/** Tips for marks [{x, y, text}]: the nearest one under the pointer, or step by step with the arrow keys. */
function interactive(svg, marks, description) {
  if (!marks.length) return svg;
  const ring = draw("circle", { class: "focus", r: 6, visibility: "hidden" });
  let at = -1;
  const place = (i, spoken) => {
    at = (i + marks.length) % marks.length;
    ring.setAttribute("cx", marks[at].x);
    ring.setAttribute("cy", marks[at].y);
    ring.setAttribute("visibility", "visible");
    const box = svg.getBoundingClientRect();
    const zoom = box.width / svg.viewBox.baseVal.width;
    showTip(marks[at].text, box.left + marks[at].x * zoom, box.top + marks[at].y * zoom);
    if (spoken) document.getElementById("spoken").textContent = marks[at].text;
  };
  const leave = () => { ring.setAttribute("visibility", "hidden"); hideTip(); };
  const near = (event) => {
    const box = svg.getBoundingClientRect();
    const zoom = box.width / svg.viewBox.baseVal.width;
    const [x, y] = [(event.clientX - box.left) / zoom, (event.clientY - box.top) / zoom];
    let [best, least] = [-1, 22 ** 2];
    marks.forEach((m, i) => {
      const distance = (m.x - x) ** 2 + (m.y - y) ** 2;
      if (distance < least) [best, least] = [i, distance];
    });
    if (best < 0) leave();
    else place(best, false);
  };
  svg.addEventListener("pointermove", near);
  svg.addEventListener("pointerdown", near);
  svg.addEventListener("pointerleave", leave);
  svg.addEventListener("blur", leave);
  svg.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (event.key === "Escape") leave();
    if (!step) return;
    event.preventDefault();
    place(at < 0 ? 0 : at + step, true);
  });
  svg.setAttribute("tabindex", "0");
  svg.setAttribute("aria-roledescription", "figure, arrow keys step through its points");
  if (description) svg.setAttribute("aria-label", description);
  svg.append(ring);
  return svg;
}

/** A list of marks and what they mean: {kind: colour class, shape | line | band, label}. */
function legend(items, more = "") {
  return el("ul", { class: `legend ${more}`.trim() }, items.map((item) => {
    const svg = draw("svg", { viewBox: "0 0 26 12", "aria-hidden": "true" });
    if (item.line) svg.append(draw("line", { class: item.line, x1: 1, x2: 25, y1: 6, y2: 6 }));
    else if (item.band) svg.append(draw("rect", { class: "band", x: 1, y: 1, width: 24, height: 10 }));
    else svg.append(draw("path", { class: item.kind, d: mark(item.shape || "circle", 13, 6, 4.5) }));
    return el("li", {}, svg, item.label);
  }));
}
