// The two charts. Labels are our own words and times: plotly reads labels as markup, so what events say stays out.

import { Problem } from "./api.js";
import { indexOf } from "./tables.js";
import * as text from "./text.js";

let loading = null;
const CONFIG = { displayModeBar: false, responsive: true, showTips: false, scrollZoom: false };

export async function draw(panel, zoom) {
  const Plotly = await library();
  const index = indexOf(panel);
  const column = (name) => panel.rows.map((row) => row[index[name]]);
  const times = column("time").map(text.local);
  const step = panel.step_seconds * 1000;
  const accent = colour("--accent");
  const failed = colour("--failed");
  const events = column("events");
  const errors = column("errors");
  const middle = times.map((time) => text.local(new Date(time).getTime() + step / 2));

  const bars = (name, y, color) => ({
    type: "bar", name, x: middle, y, marker: { color, line: { width: 0 } }, width: step * 0.86,
    hovertemplate: `%{y:,} ${name}<extra></extra>`,
  });
  await react("rate", Plotly, [
    bars("succeeded", events.map((all, place) => all - errors[place]), accent),
    bars("failed", errors, failed),
  ], { ...layout(times, step), barmode: "stack" }, panel, zoom);

  const line = (name, key, dash, opacity) => ({
    type: "scatter", mode: panel.rows.length > 1 ? "lines+markers" : "markers", name, x: middle, y: column(key), opacity, connectgaps: false,
    line: { color: accent, width: 2, dash }, marker: { size: 3.5, color: accent },
    hovertemplate: `${name} %{y:,.0f} ms<extra></extra>`,
  });
  await react("latency", Plotly, [
    line("p99", "p99_ms", "dot", 0.75), line("p95", "p95_ms", "dash", 0.9), line("p50", "p50_ms", "solid", 1),
  ], layout(times, step), panel, zoom);
}

export function describe(panel) {
  const index = indexOf(panel);
  const total = panel.rows.reduce((sum, row) => sum + row[index.events], 0);
  const failed = panel.rows.reduce((sum, row) => sum + row[index.errors], 0);
  const highest = Math.max(0, ...panel.rows.map((row) => row[index.p99_ms] ?? 0));
  const span = panel.rows.length ? `${text.minute(panel.rows[0][index.time])} to ${text.minute(panel.rows.at(-1)[index.time])}` : "";
  return {
    rate: `Chart of events over time, ${span}: ${text.plural(total, "event")}, ${text.share(failed, total)} failed. A table follows.`,
    latency: `Chart of latency percentiles over time, ${span}: the highest p99 is ${text.latency(highest)} milliseconds. A table follows.`,
  };
}

async function react(id, Plotly, data, layout, panel, zoom) {
  const element = document.getElementById(id);
  const isFirst = !element.classList.contains("js-plotly-plot");
  await Plotly.react(element, data, layout, CONFIG);
  element.panel = panel;
  if (!isFirst) return;
  element.on("plotly_click", ({ points }) => {
    const index = indexOf(element.panel);
    const start = new Date(element.panel.rows[points[0].pointIndex][index.time]).getTime();
    zoom(start, start + element.panel.step_seconds * 1000);
  });
  element.on("plotly_relayout", (change) => {
    const from = change["xaxis.range[0]"];
    const to = change["xaxis.range[1]"];
    if (from && to) zoom(new Date(from.replace(" ", "T")).getTime(), new Date(to.replace(" ", "T")).getTime());
  });
}

function layout(times, step) {
  const quiet = colour("--quiet");
  const axis = { gridcolor: colour("--line"), zerolinecolor: colour("--line"), linecolor: colour("--line"), tickcolor: colour("--line"), automargin: true };
  return {
    margin: { l: 8, r: 8, t: 6, b: 8 },
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: getComputedStyle(document.body).fontFamily, size: 11, color: quiet },
    xaxis: {
      ...axis, type: "date", showgrid: false, fixedrange: false, nticks: 7,
      range: times.length ? [times[0], text.local(new Date(times.at(-1)).getTime() + step)] : undefined,
    },
    yaxis: { ...axis, rangemode: "tozero", fixedrange: true, nticks: 5, tickformat: ",~s" },
    hovermode: "x unified", dragmode: "zoom", bargap: 0,
    hoverlabel: { bgcolor: colour("--panel"), bordercolor: colour("--line"), font: { color: colour("--text"), size: 12 } },
    legend: { orientation: "h", x: 0, y: 1.14, yanchor: "top", itemclick: false, itemdoubleclick: false, font: { size: 11 } },
    showlegend: true,
  };
}

// A colour as plotly reads it: `light-dark()` is for style sheets.
function colour(name) {
  const probe = document.getElementById("updated");
  const before = probe.style.color;
  probe.style.color = `var(${name})`;
  const found = getComputedStyle(probe).color;
  probe.style.color = before;
  return found;
}

// It is large. The browser fetches it from the start, and runs it only when all figures stand there.
function library() {
  loading ??= new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = document.getElementById("plotly").href;
    script.addEventListener("load", () => resolve(window.Plotly));
    script.addEventListener("error", () => {
      loading = null;
      reject(new Problem("The charts could not be loaded. The tables below them show the same."));
    });
    document.head.append(script);
  });
  return loading;
}
