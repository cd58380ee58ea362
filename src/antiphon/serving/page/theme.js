// A classic script, so that a page whose colours were chosen is never first painted in the others.
try {
  const chosen = localStorage.getItem("antiphon.theme");
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
} catch {
  // Storage is not allowed here; the page follows the system.
}
