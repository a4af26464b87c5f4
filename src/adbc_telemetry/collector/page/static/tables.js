// Tables. What events say goes into the document as text only.

import * as text from "./text.js";

export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "onclick") made.addEventListener("click", value);
    else if (value !== false && value != null) made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children);
  return made;
}

// columns: {head, cell(row) -> node or text, kind: "number" | "time" | "name" | undefined}
export function fill(table, columns, rows, { empty, key, caption } = {}) {
  const known = new Set([...table.querySelectorAll("tr[data-key]")].map((row) => row.dataset.key));
  const focused = table.contains(document.activeElement) ? document.activeElement.dataset.focus : null;
  if (!rows.length) {
    table.replaceChildren(element("tbody", {}, element("tr", {}, element("td", { class: "empty" }, empty))));
    return;
  }
  const heads = columns.map(({ head, kind }) =>
    element("th", { scope: "col", class: kind === "number" ? "number" : false }, head));
  const body = rows.map((row) => {
    const made = element("tr", {}, ...columns.map((column) => {
      const cell = element("td", { class: column.kind ?? false });
      const content = column.cell(row);
      if (column.failed?.(row)) cell.classList.add("failed");
      cell.append(content);
      return cell;
    }));
    if (key) {
      made.dataset.key = key(row);
      if (known.size && !known.has(made.dataset.key)) made.classList.add("new");
    }
    return made;
  });
  const parts = [element("thead", {}, element("tr", {}, ...heads)), element("tbody", {}, ...body)];
  if (caption) parts.unshift(element("caption", { class: "unseen" }, caption));
  table.replaceChildren(...parts);
  // A refresh does not take the keyboard's place away.
  if (focused) table.querySelector(`[data-focus="${CSS.escape(focused)}"]`)?.focus();
}

export function button(label, action, { title, focus } = {}) {
  const made = element("button", { type: "button", title, onclick: action }, label);
  if (focus) made.dataset.focus = focus;
  return made;
}

// A value that, when it is clicked, becomes a filter. Empty stands for events that do not say.
export function filterButton(value, dimensions, apply) {
  const stated = value != null && value !== "";
  const label = stated ? value : element("span", { class: "unstated" }, "not stated");
  return button(label, () => apply(dimensions), { title: "Show only these", focus: JSON.stringify(dimensions) });
}

export function withShare(label, part, failed = false) {
  const bar = element("span", { class: failed ? "share failed" : "share" });
  bar.style.width = `${Math.max(0, Math.min(1, part || 0)) * 100}%`;
  return element("span", {}, label, bar);
}

export function facts(list, entries) {
  list.replaceChildren(...entries.flatMap(([name, value, failed]) => [
    element("dt", {}, name), element("dd", { class: failed ? "failed" : false }, value),
  ]));
}

// From this share of errors on, a row is marked: some statements always fail.
const NOTABLE = 0.05;

export const FIGURES = (index) => [
  { head: "Events", kind: "number", cell: (row) => text.count(row[index.events]) },
  { head: "Errors", kind: "number", cell: (row) => text.share(row[index.errors], row[index.events]), failed: (row) => row[index.errors] > NOTABLE * row[index.events] },
  { head: "p50 ms", kind: "number", cell: (row) => text.latency(row[index.p50_ms]) },
  { head: "p95 ms", kind: "number", cell: (row) => text.latency(row[index.p95_ms]) },
  { head: "p99 ms", kind: "number", cell: (row) => text.latency(row[index.p99_ms]) },
];

export function indexOf(panel) {
  return Object.fromEntries(panel.columns.map((name, place) => [name, place]));
}
