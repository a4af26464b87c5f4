// The page: asks for the panels, again and again, and turns clicks into views.

import { address, askJson, download, hasToken, Problem } from "./api.js";
import * as panels from "./panels.js";
import { element } from "./tables.js";
import * as text from "./text.js";
import * as views from "./view.js";
import * as welcome from "./welcome.js";

const LIVE_SECONDS = 2;
// In the order of asking, which is that of answering; the charts come last, since their library takes longest.
const ASKED = ["newest", "summary", "operations", "drivers", "hosts", "errors", "timeline", "slowest"];
const DRAWN = ["operations", "drivers", "hosts", "errors", "newest", "slowest", "timeline"];
const $ = (id) => document.getElementById(id);

let isLive = true;
let asked = null;
let timers = [];

async function load({ announce = false } = {}) {
  asked?.abort();
  const mine = (asked = new AbortController());
  const view = views.current();
  const parameters = views.parameters(view);
  const options = { signal: mine.signal };
  const figures = $("figures");
  figures.setAttribute("aria-busy", "true");
  try {
    const answers = Object.fromEntries(ASKED.map((name) => [name, askJson(`/api/${name}`, parameters, options)]));
    const status = askJson("/api/status", {}, options);
    for (const answer of [...Object.values(answers), status]) answer.catch(() => {}); // each is awaited below
    const { events, isFiltered } = panels.summary(await answers.summary, view);
    const isEmpty = events === 0 && (!isFiltered || (await isStoreEmpty(options)));
    $("welcome").hidden = !isEmpty;
    figures.hidden = isEmpty;
    if (isEmpty && !$("curl").textContent) welcome.write();
    for (const name of DRAWN) {
      const panel = await answers[name];
      if (mine.signal.aborted) return;
      if (!isEmpty) await panels[name](panel);
    }
    panels.status(await status);
    complain(null);
    $("updated").textContent = `Updated ${text.clock()}`;
    if (announce) $("announcement").textContent = `${text.plural(events, "event")} shown.`;
  } catch (error) {
    if (error.name === "AbortError") return;
    complain(error);
  }
  if (asked === mine) {
    figures.setAttribute("aria-busy", "false");
    plan();
  }
}

async function isStoreEmpty(options) {
  const all = await askJson("/api/summary", {}, options);
  return all.rows[0][all.columns.indexOf("events")] === 0;
}

async function loadNewest() {
  if (document.hidden || !isLive || $("figures").hidden) return;
  const looked = location.search;
  try {
    const panel = await askJson("/api/newest", views.parameters());
    if (location.search === looked) panels.newest(panel); // else it answers an earlier view
  } catch (error) {
    complain(error);
  }
}

function complain(error) {
  const box = $("problem");
  box.hidden = error === null;
  if (error === null) return;
  if (!(error instanceof Problem)) console.error(error);
  const sentence = error instanceof Problem ? error.message : "The page met an error of its own. Reload it.";
  if (box.firstChild?.textContent === sentence) return;
  const again = element("button", { type: "button", onclick: () => load() }, "Try again");
  box.replaceChildren(element("span", {}, sentence), again);
}

// Only what is seen is refreshed, and only once the last answer is there.
function plan() {
  timers.forEach(clearTimeout);
  timers = [];
  const { refresh, until } = views.current();
  if (!refresh || (until && new Date(until) < new Date())) return; // the past stays as it is
  const seconds = $("welcome").hidden ? refresh : Math.min(refresh, LIVE_SECONDS);
  timers.push(setTimeout(() => (document.hidden ? plan() : load()), seconds * 1000));
  const live = async () => {
    await loadNewest();
    timers.push(setTimeout(live, LIVE_SECONDS * 1000));
  };
  if (refresh > LIVE_SECONDS) timers.push(setTimeout(live, LIVE_SECONDS * 1000));
}

function showControls() {
  const view = views.current();
  const range = $("range");
  const isListed = !view.until && [...range.options].some((option) => option.value === view.since && option.value !== "custom");
  range.value = isListed ? view.since : "custom";
  $("custom").hidden = isListed;
  if (!isListed) {
    $("from").value = asInput(view.since);
    $("to").value = asInput(view.until);
  }
  $("refresh").value = String(view.refresh);
  const chips = Object.entries(view.filters).map(([name, value]) => {
    const label = value === "" ? "not stated" : value === "*" && name === "error" ? "any" : value;
    return element("button", {
      type: "button", class: "chip", "aria-label": `Remove the filter ${views.DIMENSIONS[name]}: ${label}`,
      onclick: () => { views.removeFilter(name); $("main").focus(); },
    }, element("strong", {}, views.DIMENSIONS[name]), label);
  });
  if (chips.length > 1) chips.push(element("button", { type: "button", onclick: () => { views.show({ filters: {} }); $("main").focus(); } }, "Clear all"));
  $("filters").replaceChildren(...chips);
  $("filters").hidden = chips.length === 0;
  for (const panel of document.querySelectorAll("[data-panel]")) linkExports(panel, view);
}

function asInput(moment) {
  const date = new Date(moment ?? "");
  return Number.isNaN(date.getTime()) ? "" : text.local(date).slice(0, 16);
}

function linkExports(panel, view) {
  const place = panel.querySelector(".exports");
  if (!place) return;
  const name = panel.dataset.panel;
  const parameters = name === "status" ? {} : views.parameters(view);
  const title = panel.querySelector("h2").textContent;
  place.replaceChildren(...["csv", "json"].map((format) => {
    const link = element("a", {
      href: address(`/api/${name}`, { ...parameters, format }), "aria-label": `${title} as ${format.toUpperCase()}`,
      target: format === "json" ? "_blank" : false, rel: "noopener",
      onclick: (event) => {
        if (!hasToken()) return;
        event.preventDefault();
        download(`/api/${name}`, { ...parameters, format }, `${name}.${format}`, format === "csv" ? "text/csv" : "application/json").catch(complain);
      },
    }, format.toUpperCase());
    return link;
  }));
}

async function copy(value, control) {
  const label = control.dataset.label ?? control.textContent;
  control.dataset.label = label;
  try {
    await navigator.clipboard.writeText(value);
    control.textContent = "Copied";
  } catch {
    control.textContent = "Select it and copy";
  }
  $("announcement").textContent = control.textContent;
  setTimeout(() => { control.textContent = label; }, 2000);
}

function showTheme() {
  const theme = document.documentElement.dataset.theme ?? "system";
  $("theme").textContent = `Theme: ${theme}`;
}

function nextTheme() {
  const root = document.documentElement;
  const order = ["system", "light", "dark"];
  const next = order[(order.indexOf(root.dataset.theme ?? "system") + 1) % order.length];
  if (next === "system") delete root.dataset.theme;
  else root.dataset.theme = next;
  try {
    localStorage.setItem("adbc-telemetry-theme", next);
  } catch {
    // Storage is turned off: the choice holds until the page is left.
  }
  showTheme();
  load();
}

$("range").addEventListener("change", (event) => {
  const value = event.target.value;
  if (value !== "custom") {
    views.show({ since: value, until: null });
    return;
  }
  $("custom").hidden = false;
  $("to").value = asInput(Date.now());
  $("from").value = asInput(Date.now() - 3_600_000);
  $("from").focus();
});
$("custom").addEventListener("submit", (event) => {
  event.preventDefault();
  const [from, to] = [new Date($("from").value), new Date($("to").value)];
  if (from < to) panels.zoom(from.getTime(), to.getTime());
  else complain(new Problem("The range is empty. Give a time to begin with that is before its end."));
});
$("refresh").addEventListener("change", (event) => views.show({ refresh: Number(event.target.value) }));
$("reload").addEventListener("click", () => load({ announce: true }));
$("share").addEventListener("click", (event) => copy(location.href, event.currentTarget));
$("theme").addEventListener("click", nextTheme);
$("everything").addEventListener("click", () => views.show({ since: "all", until: null, filters: {} }));
$("live").addEventListener("click", (event) => {
  isLive = !isLive;
  event.currentTarget.setAttribute("aria-pressed", String(isLive));
  loadNewest();
});
$("event-close").addEventListener("click", () => $("event").close());
for (const control of document.querySelectorAll("[data-copy]")) {
  control.addEventListener("click", () => copy($(control.dataset.copy).textContent, control));
}
addEventListener("unhandledrejection", (event) => {
  event.preventDefault();
  complain(event.reason);
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => load());
addEventListener("visibilitychange", () => { if (!document.hidden && views.current().refresh) load(); });
const viewChanged = () => { showControls(); load({ announce: true }); };
addEventListener("view", viewChanged);
addEventListener("popstate", viewChanged);

showTheme();
showControls();
load();
