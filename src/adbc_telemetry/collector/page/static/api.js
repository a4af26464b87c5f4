// Questions to the collector, with its token if it wants one.

const KEY = "adbc-telemetry-token";
let asking = null;

export class Problem extends Error {}

export function hasToken() {
  return sessionStorage.getItem(KEY) !== null;
}

export function address(path, parameters) {
  const query = new URLSearchParams(parameters).toString();
  return query ? `${path}?${query}` : path;
}

export async function ask(path, parameters = {}, { signal, accept = "application/json" } = {}) {
  for (;;) {
    const token = sessionStorage.getItem(KEY);
    const headers = { Accept: accept };
    if (token !== null) headers.Authorization = `Bearer ${token}`;
    let answer;
    try {
      answer = await fetch(address(path, parameters), { headers, signal, cache: "no-store", credentials: "omit" });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Problem("The collector does not answer. It may be stopped; this page tries again.");
    }
    if (answer.status === 401) {
      // Another question may have brought a newer token meanwhile.
      if (token === sessionStorage.getItem(KEY)) await askForToken(token !== null);
      continue;
    }
    if (!answer.ok) throw new Problem(await sentenceOf(answer));
    return answer;
  }
}

export async function askJson(path, parameters, options) {
  return (await ask(path, parameters, options)).json();
}

// A link cannot carry a token, so a file that needs one is fetched and handed over.
export async function download(path, parameters, name, accept) {
  const answer = await ask(path, parameters, { accept });
  const link = document.createElement("a");
  link.href = URL.createObjectURL(await answer.blob());
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

async function sentenceOf(answer) {
  try {
    const { error } = await answer.json();
    if (typeof error === "string") return error;
  } catch {
    // Not the collector's own words; a proxy's perhaps.
  }
  return `The collector answers with status ${answer.status}.`;
}

function askForToken(wasWrong) {
  asking ??= new Promise((resolve) => {
    const dialog = document.getElementById("login");
    const input = document.getElementById("token");
    document.getElementById("login-problem").textContent = wasWrong
      ? "This is not its token. Try another one."
      : "It is kept until this tab is closed.";
    input.value = "";
    dialog.addEventListener("cancel", (event) => event.preventDefault());
    document.getElementById("login-form").onsubmit = (event) => {
      event.preventDefault();
      sessionStorage.setItem(KEY, input.value.trim());
      dialog.close();
      asking = null;
      resolve();
    };
    dialog.showModal();
  });
  return asking;
}
