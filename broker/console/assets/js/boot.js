// Sets the chosen theme before anything is painted. The rest of it is in theme.js.
try {
  const chosen = localStorage.getItem("fleetline.theme");
  if (chosen === "dark" || chosen === "light") document.documentElement.dataset.theme = chosen;
} catch {
  // Storage may be forbidden: then the system's theme it is.
}
