// Runs before the page is drawn, so that a theme that was chosen does not flash.
(() => {
  try {
    const chosen = localStorage.getItem("adbc-telemetry-theme");
    if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
  } catch {
    // Storage is turned off: the system's theme it is.
  }
})();
