// Inside Airflow: the colours are Airflow's, and links to Airflow's own pages open there, not in this frame.
"use strict";

function surroundings() {
  try {
    return window.parent !== window && window.parent.document ? window.parent : null; // of the same origin alone
  } catch {
    return null;
  }
}

const around = surroundings();

function followTheme(root) {
  const apply = () => {
    document.documentElement.dataset.theme = root.classList.contains("dark") ? "dark" : "light";
  };
  new MutationObserver(apply).observe(root, { attributes: true, attributeFilter: ["class"] });
  apply();
}

if (around) {
  followTheme(around.document.documentElement);
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[data-airflow]");
    if (!link) return;
    event.preventDefault();
    const opened = around.document.createElement("a");
    opened.href = link.href;
    if (event.ctrlKey || event.metaKey || event.shiftKey) opened.target = "_blank";
    opened.rel = "noopener";
    opened.click();
  });
}
