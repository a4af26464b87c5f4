// What is looked at: a range of time, filters and how often to refresh. It stands in the address.

export const DIMENSIONS = {
  operation: "operation",
  statement_type: "statement",
  driver: "driver",
  version: "version",
  host: "host",
  error: "error",
};
const DEFAULTS = { since: "24h", until: null, refresh: 15 };
const REFRESH = [0, 5, 15, 60];

export function current() {
  const query = new URLSearchParams(location.search);
  const filters = {};
  for (const name of Object.keys(DIMENSIONS)) if (query.has(name)) filters[name] = query.get(name);
  const refresh = Number(query.get("refresh") ?? DEFAULTS.refresh);
  return {
    since: query.get("since") ?? DEFAULTS.since,
    until: query.get("until"),
    refresh: REFRESH.includes(refresh) ? refresh : DEFAULTS.refresh,
    filters,
  };
}

export function show(changes) {
  const view = { ...current(), ...changes };
  const query = new URLSearchParams();
  if (view.since !== DEFAULTS.since || view.until) query.set("since", view.since);
  if (view.until) query.set("until", view.until);
  if (view.refresh !== DEFAULTS.refresh) query.set("refresh", view.refresh);
  for (const [name, value] of Object.entries(view.filters)) query.set(name, value);
  const text = query.toString();
  const target = text ? `?${text}` : location.pathname;
  if (text !== location.search.slice(1)) history.pushState(null, "", target);
  dispatchEvent(new Event("view"));
}

export function addFilters(filters) {
  show({ filters: { ...current().filters, ...filters } });
}

export function removeFilter(name) {
  const { [name]: _, ...filters } = current().filters;
  show({ filters });
}

// The parameters of a question to the API.
export function parameters(view = current()) {
  const found = { ...view.filters };
  if (view.since !== "all") found.since = view.since;
  if (view.until) found.until = view.until;
  return found;
}
