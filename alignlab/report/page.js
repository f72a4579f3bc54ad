"use strict";
// The chart, the completions, and what of both is kept in the address, so that a reload changes nothing.
const data = JSON.parse(document.getElementById("data").textContent);
const chart = document.getElementById("chart"), log = document.getElementById("log"), share = document.getElementById("share");
const narrow = window.matchMedia("(max-width: 640px)").matches;
const state = { log: false, share: false, paused: false, key: "", hidden: [], brushes: {} };
try {
  Object.assign(state, JSON.parse(decodeURIComponent(location.hash.slice(1) || "{}")));
} catch (error) { /* another page's address */ }
if (!Array.isArray(state.hidden)) state.hidden = [];
if (!state.brushes || typeof state.brushes !== "object") state.brushes = {};
let chosenRuns = null; // a set of runs, once axes are brushed

function keep() {
  history.replaceState(null, "", "#" + encodeURIComponent(JSON.stringify(state)));
}
function element(name, text, kind) {
  const made = document.createElement(name);
  made.textContent = text;
  if (kind) made.className = kind;
  return made;
}
function draw() {
  const on = share && state.share;
  const traces = (on ? data.share_traces : data.traces).map(function (trace) {
    const own = Object.assign({}, trace, { visible: state.hidden.includes(trace.legendgroup) ? "legendonly" : true });
    if (chosenRuns && trace.customdata) {
      own.selectedpoints = [...trace.customdata.keys()].filter((i) => chosenRuns.has(trace.customdata[i].slice(0, trace.customdata[i].lastIndexOf(", step "))));
      own.unselected = { marker: { opacity: 0.06 } };
    }
    return own;
  });
  const suffix = state.log ? "_log" : "";
  Plotly.react(chart, traces, {
    margin: { l: 60, r: 15, t: 10, b: 55 }, hovermode: "closest", hoverlabel: { bgcolor: "#fff", font: { color: "#1a1a1a" } }, font: { family: "system-ui, sans-serif", size: narrow ? 12 : 14 },
    xaxis: {
      title: { text: "KL(policy ‖ reference), nats per completion" }, type: state.log ? "log" : "linear", range: data["x" + suffix].slice(),
      tickvals: data["ticks" + suffix], ticktext: data["tick_texts" + suffix], zeroline: false
    },
    yaxis: { title: { text: on ? "share of the optimum's gain" : data.reward_label }, range: (on ? data.y_share : data.y).slice(), zeroline: false },
    shapes: on ? [{ type: "line", xref: "paper", x0: 0, x1: 1, y0: 1, y1: 1, line: { width: 1.5 } }] : [],
    legend: narrow ? { orientation: "h", y: -0.2 } : { x: 1.01, y: 0.92 }
  }, { responsive: true, displaylogo: false, displayModeBar: !narrow, modeBarButtonsToRemove: ["select2d", "lasso2d"] });
}
function toggle(button, name) {
  button.setAttribute("aria-pressed", String(Boolean(state[name])));
  button.addEventListener("click", function () {
    state[name] = !state[name];
    button.setAttribute("aria-pressed", String(state[name]));
    keep();
    draw();
  });
}
function show(key) {
  const panel = document.getElementById("samples");
  panel.replaceChildren(element("h2", "What " + key + " writes"));
  state.key = key;
  keep();
  const samples = data.samples[key];
  if (!samples) { panel.append(element("p", "No completions of this checkpoint were kept.", "quiet")); return; }
  for (const sample of samples) {
    panel.append(element("p", data.prompts[sample.prompt].text, "prompt"));
    const pair = element("div", "", "pair"), own = element("div", ""), other = element("div", "");
    own.append(element("strong", "policy, reward " + sample.reward), element("p", sample.text));
    const reference = data.prompts[sample.prompt].reference;
    other.append(element("strong", reference ? "reference, reward " + reference.reward : "reference"), element("p", reference ? reference.text : "not kept"));
    pair.append(own, other);
    panel.append(pair);
  }
}
toggle(log, "log");
if (share) toggle(share, "share");
draw();
if (typeof state.key === "string" && state.key) show(state.key);
chart.on("plotly_click", function (event) {
  const point = event.points.find(function (p) { return p.customdata !== undefined; });
  if (point) show(point.customdata);
});
chart.on("plotly_restyle", function () { // a name in the legend was chosen
  state.hidden = [...new Set(chart.data.filter((trace) => trace.visible === "legendonly").map((trace) => trace.legendgroup))];
  keep();
});
for (const button of document.querySelectorAll("button[data-key]")) {
  button.addEventListener("click", function () { show(button.dataset.key); document.getElementById("samples").scrollIntoView(); });
}
const live = document.getElementById("live");
if (live) {
  toggle(document.getElementById("pause"), "paused");
  setInterval(function () { if (!state.paused) location.reload(); }, 1000 * Number(live.dataset.seconds));
}
