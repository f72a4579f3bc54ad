
// Parallel coordinates: an axis for each setting and result, brushed by pointer or keyboard.
(function () {
  const svg = document.getElementById("parallel");
  if (!svg) return;
  const axes = data.parallel.axes, runs = data.parallel.runs;
  const STEP = Math.max(110, Math.min(190, 1200 / axes.length)), TOP = 46, LENGTH = 240, LEFT = 70, NONE = TOP + LENGTH + 22;
  const width = LEFT + STEP * (axes.length - 1) + 90;
  svg.setAttribute("width", width);
  svg.setAttribute("height", NONE + 16);
  function shape(name, attributes, parent) {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const key in attributes) made.setAttribute(key, attributes[key]);
    (parent || svg).append(made);
    return made;
  }
  function written(text, limit) { return text.length > limit ? text.slice(0, limit - 1) + "…" : text; }
  const x = (i) => LEFT + STEP * i;
  const y = (place) => place === null ? NONE : TOP + LENGTH * (1 - place);
  const lines = runs.map(function (run) {
    const line = shape("path", { class: "run", stroke: run.colour, d: "M" + run.at.map((place, i) => x(i) + "," + y(place)).join("L") });
    shape("title", {}, line).textContent = run.key + ": " + axes.map((axis, i) => axis.name + " " + run.text[i]).join(", ");
    line.addEventListener("click", function () { show(run.key); document.getElementById("samples").scrollIntoView(); });
    return line;
  });
  const brushOf = (axis) => {
    const own = state.brushes[axis.name];
    return Array.isArray(own) && own.length === 2 && own.every((end) => typeof end === "number") ? own : null;
  };
  const shown = axes.map(function (axis, i) {
    shape("line", { class: "axis", x1: x(i), x2: x(i), y1: y(1), y2: y(0) });
    const title = shape("text", { x: x(i), y: 16, "text-anchor": "middle", "font-weight": 600 });
    title.textContent = written(axis.name, Math.floor(STEP / 7.5));
    shape("title", {}, title).textContent = axis.name;
    for (const [place, text] of axis.ticks) {
      shape("text", { x: x(i) - 12, y: y(place) + 4, "text-anchor": "end" }).textContent = written(text, 12);
    }
    if (runs.some((run) => run.at[i] === null)) shape("text", { x: x(i) - 12, y: NONE + 4, "text-anchor": "end" }).textContent = "not set";
    const box = shape("rect", { class: "brush", x: x(i) - 9, width: 18, y: y(1), height: 0 });
    const hit = shape("rect", { class: "hit", x: x(i) - 20, width: 40, y: y(1) - 8, height: LENGTH + 16 });
    drag(hit, axis);
    const handles = [0, 1].map((end) => handle(axis, i, end));
    return { box, handles };
  });
  function drag(hit, axis, end) { // a handle moves its own end, the axis makes a new stretch
    let from = null, began = 0;
    const place = (event) => Math.min(1, Math.max(0, 1 - (event.clientY - svg.getBoundingClientRect().top - TOP) / LENGTH));
    hit.addEventListener("pointerdown", function (event) { from = end === undefined ? place(event) : (brushOf(axis) || [0, 1])[1 - end]; began = event.clientY; hit.setPointerCapture(event.pointerId); event.preventDefault(); hit.focus(); });
    hit.addEventListener("pointermove", function (event) {
      if (from === null || Math.abs(event.clientY - began) < 4) return;
      state.brushes[axis.name] = [Math.min(from, place(event)), Math.max(from, place(event))];
      update(false);
    });
    hit.addEventListener("pointerup", function (event) {
      if (end === undefined && from !== null && Math.abs(event.clientY - began) < 4) delete state.brushes[axis.name];
      from = null;
      update(true);
    });
    hit.addEventListener("pointercancel", function () { from = null; update(true); });
  }
  function handle(axis, i, end) {
    const made = shape("rect", { class: "handle", role: "slider", tabindex: 0, x: x(i) - 10, width: 20, height: 7, rx: 2, "aria-orientation": "vertical",
      "aria-label": (end ? "highest " : "lowest ") + axis.name, "aria-valuemin": 0, "aria-valuemax": 100 });
    const places = [...new Set(runs.map((run) => run.at[i]).filter((place) => place !== null))].sort((a, b) => a - b);
    drag(made, axis, end);
    made.addEventListener("keydown", function (event) {
      const own = (brushOf(axis) || [0, 1]).slice(), at = own[end];
      if (event.key === "Escape") delete state.brushes[axis.name];
      else {
        const moved = { ArrowUp: places.find((place) => place > at + 1e-9), ArrowDown: places.filter((place) => place < at - 1e-9).pop(), Home: 0, End: 1 };
        if (!(event.key in moved)) return;
        own[end] = moved[event.key] === undefined ? at : moved[event.key];
        if (own[0] > own[1]) own[1 - end] = own[end];
        state.brushes[axis.name] = own;
      }
      event.preventDefault();
      update(true);
    });
    return made;
  }
  function nearest(i, place) { // the text of the value there, for a screen reader
    let best = null;
    for (const run of runs) {
      if (run.at[i] !== null && (best === null || Math.abs(run.at[i] - place) < Math.abs(best.at[i] - place))) best = run;
    }
    return best ? best.text[i] : "";
  }
  function update(whole) {
    const brushed = axes.map(brushOf);
    const inside = runs.filter((run) => brushed.every((own, i) => !own || (run.at[i] !== null && run.at[i] >= own[0] - 1e-9 && run.at[i] <= own[1] + 1e-9)));
    const kept = new Set(inside);
    lines.forEach((line, i) => line.classList.toggle("out", !kept.has(runs[i])));
    shown.forEach(function (parts, i) {
      const [low, high] = brushed[i] || [0, 1];
      parts.box.setAttribute("y", y(high));
      parts.box.setAttribute("height", brushed[i] ? y(low) - y(high) : 0);
      [low, high].forEach(function (place, end) {
        parts.handles[end].setAttribute("y", y(place) - (end ? 7 : 0));
        parts.handles[end].setAttribute("aria-valuenow", Math.round(100 * place));
        parts.handles[end].setAttribute("aria-valuetext", nearest(i, place));
      });
    });
    const any = brushed.some(Boolean), names = inside.slice(0, 6).map((run) => run.run).join(", ");
    const more = data.parallel.more ? " (" + data.parallel.more + " further runs are in the figure alone)" : "";
    document.getElementById("brushed").textContent = (any ? inside.length + " of " + runs.length + " runs" + (inside.length ? ": " + names + (inside.length > 6 ? " ..." : "") : "") : "All " + runs.length + " runs") + more;
    if (whole) {
      chosenRuns = any ? new Set(inside.map((run) => run.run)) : null;
      keep();
      draw();
    }
  }
  document.getElementById("clear").addEventListener("click", function () { state.brushes = {}; update(true); });
  update(Object.keys(state.brushes).length > 0);
})();
