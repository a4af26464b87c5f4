// The panels: what the API answers, as tables and figures.

import { askJson } from "./api.js";
import * as charts from "./charts.js";
import { button, element, facts, fill, FIGURES, filterButton, indexOf, withShare } from "./tables.js";
import * as text from "./text.js";
import { addFilters, show } from "./view.js";

export function summary(panel, view) {
  const index = indexOf(panel);
  const row = panel.rows[0];
  const events = row[index.events];
  const errors = row[index.errors];
  const failed = button(text.share(errors, events), () => addFilters({ error: "*" }), { title: "Show only errors", focus: "errors" });
  const tile = (name, value, unit, isFailed) =>
    element("div", { class: isFailed ? "failed" : false }, element("dt", {}, name),
      element("dd", {}, value, unit ? element("small", {}, unit) : ""));
  document.getElementById("tiles").replaceChildren(
    tile("Events", text.compact(events)),
    tile("Errors", events ? failed : text.share(errors, events), errors ? text.compact(errors) : "", errors > 0),
    tile("p50", text.latency(row[index.p50_ms]), "ms"),
    tile("p95", text.latency(row[index.p95_ms]), "ms"),
    tile("p99", text.latency(row[index.p99_ms]), "ms"),
  );
  document.getElementById("nothing").hidden = events > 0;
  return { events, errors, isFiltered: Object.keys(view.filters).length > 0 || view.since !== "all" };
}

export async function timeline(panel) {
  const index = indexOf(panel);
  const zoomTo = (row) => {
    const start = new Date(row[index.time]).getTime();
    zoom(start, start + panel.step_seconds * 1000);
  };
  const interval = text.duration(panel.step_seconds).replace(/^1 /, "");
  document.getElementById("rate-title").textContent = `Events per ${interval}`;
  const occupied = panel.rows.filter((row) => row[index.events] > 0).reverse();
  const time = (focus) => ({
    head: "Time", kind: "time",
    cell: (row) => button(text.minute(row[index.time]), () => zoomTo(row), { title: "Show only this interval", focus: focus + row[index.time] }),
  });
  const [events, errors, ...percentiles] = FIGURES(index);
  fill(document.getElementById("rate-table"), [time("rate"), events, errors], occupied, { empty: "No events." });
  fill(document.getElementById("latency-table"), [time("latency"), ...percentiles], occupied, { empty: "No events." });
  const words = charts.describe(panel);
  document.getElementById("rate").setAttribute("aria-label", words.rate);
  document.getElementById("latency").setAttribute("aria-label", words.latency);
  await charts.draw(panel, zoom);
}

export function zoom(from, to) {
  const iso = (millis) => new Date(Math.round(millis / 60_000) * 60_000).toISOString().replace(".000", "");
  if (to - from < 60_000) to = from + 60_000;
  show({ since: iso(from), until: iso(to) });
}

function grouped(id, names, empty) {
  return (panel) => {
    const index = indexOf(panel);
    const most = Math.max(1, ...panel.rows.map((row) => row[index.events]));
    const columns = names.map(([head, column, dimension], place) => ({
      head, kind: "name",
      cell: (row) => {
        const label = filterButton(row[index[column]], { [dimension]: row[index[column]] ?? "" }, addFilters);
        return place ? label : withShare(label, row[index.events] / most);
      },
    }));
    fill(document.getElementById(id), [...columns, ...FIGURES(index)], panel.rows, { empty });
  };
}

export const operations = grouped("operations", [["Operation", "operation_type", "operation"], ["Statement", "statement_type", "statement_type"]], "No operations.");
export const drivers = grouped("drivers", [["Driver", "driver_name", "driver"], ["Version", "driver_version", "version"]], "No drivers.");
export const hosts = grouped("hosts", [["Host", "host", "host"]], "No hosts.");

export function errors(panel) {
  const index = indexOf(panel);
  const most = Math.max(1, ...panel.rows.map((row) => row[index.events]));
  fill(document.getElementById("errors"), [
    { head: "Class", kind: "name", cell: (row) => withShare(filterButton(row[index.error_name], { error: row[index.error_name] }, addFilters), row[index.events] / most, true) },
    { head: "Events", kind: "number", cell: (row) => text.count(row[index.events]) },
    { head: "Last", kind: "time", cell: (row) => text.minute(row[index.last]) },
  ], panel.rows, { empty: "No errors." });
}

export function slowest(panel) {
  const index = indexOf(panel);
  fill(document.getElementById("slowest"), [
    { head: "ms", kind: "number", cell: (row) => text.latency(row[index.operation_latency_ms]) },
    { head: "Operation", kind: "name", cell: (row) => openButton(row, index, row[index.operation_type] ?? "not stated", "slowest") },
    { head: "Driver", kind: "name", cell: (row) => driverOf(row, index) },
    { head: "Time", kind: "time", cell: (row) => text.minute(row[index.time]) },
  ], panel.rows, { empty: "No latencies." });
}

export function newest(panel) {
  const index = indexOf(panel);
  const filter = (column, dimension) => (row) => filterButton(row[index[column]], { [dimension]: row[index[column]] ?? "" }, addFilters);
  fill(document.getElementById("newest"), [
    { head: "Time", kind: "time", cell: (row) => openButton(row, index, text.second(row[index.time]), "newest") },
    { head: "Operation", kind: "name", cell: filter("operation_type", "operation") },
    { head: "Driver", kind: "name", cell: (row) => driverOf(row, index) },
    { head: "Host", kind: "name", cell: filter("host", "host") },
    { head: "ms", kind: "number", cell: (row) => text.latency(row[index.operation_latency_ms]) },
    { head: "Error", kind: "name", failed: (row) => row[index.error_name] != null, cell: (row) => row[index.error_name] ? filterButton(row[index.error_name], { error: row[index.error_name] }, addFilters) : "" },
  ], panel.rows, { empty: "No events.", key: (row) => row[index.event_id] ?? row[index.time] });
}

function driverOf(row, index) {
  const [driver, version] = [row[index.driver_name], row[index.driver_version]];
  return filterButton(driver && [driver, version].filter(Boolean).join(" "), { driver: driver ?? "", version: version ?? "" }, addFilters);
}

function openButton(row, index, label, place) {
  const id = row[index.event_id];
  if (!id) return label;
  return button(label, () => openEvent(id, row[index.time]), { title: "Show this event", focus: `${place} ${id}` });
}

async function openEvent(id, time) {
  const around = new Date(time).getTime();
  const event = await askJson("/api/event", {
    id, since: new Date(Math.max(0, around - 60_000)).toISOString(), until: new Date(around + 60_000).toISOString(),
  });
  const { log, ...rest } = event;
  facts(document.getElementById("event-facts"), Object.entries(rest).filter(([, value]) => value != null).map(([name, value]) => [name, String(value), name === "error_name"]));
  document.getElementById("event-log").textContent = pretty(log);
  const dialog = document.getElementById("event");
  if (!dialog.open) dialog.showModal();
}

function pretty(log) {
  try {
    return JSON.stringify(JSON.parse(log), null, 2);
  } catch {
    return log ?? "";
  }
}

export function status(answer) {
  const store = answer.store ?? {};
  const problems = store.problems ?? [];
  const health = document.getElementById("health");
  health.hidden = false;
  health.textContent = problems.length ? "Not well" : "Collecting";
  health.classList.toggle("ill", problems.length > 0);
  const entries = [
    ["Folder", store.path],
    ["Size", store.bytes == null ? null : text.bytes(store.bytes)],
    ["Room left", store.free_bytes == null ? null : text.bytes(store.free_bytes)],
    ["In the journal", store.journal_bytes == null ? null : text.bytes(store.journal_bytes)],
    ["Taken since the start", store.events == null ? null : text.plural(store.events, "event")],
    ["Sent twice, kept once", store.duplicates ? text.plural(store.duplicates, "event") : null],
    ["Newest commit", store.newest_commit_age_seconds == null ? null : `${text.duration(store.newest_commit_age_seconds)} ago`],
    ["Running since", answer.started_at ? text.minute(answer.started_at) : null],
    ...problems.map((problem) => ["Problem", problem, true]),
  ];
  facts(document.getElementById("store"), entries.filter(([, value]) => value != null));
  counted("refused", answer.refused, "Reason", "Nothing was refused.");
  counted("unknown", answer.unknown_fields, "Field", "All fields are known.");
  if (answer.version) document.getElementById("version").textContent = `adbc-telemetry ${answer.version}`;
}

function counted(id, values, head, empty) {
  const rows = Object.entries(values ?? {}).sort((one, other) => other[1] - one[1]);
  fill(document.getElementById(id), [
    { head, kind: "name", cell: ([name]) => name },
    { head: "Events", kind: "number", cell: ([, number]) => text.count(number) },
  ], rows, { empty });
}
