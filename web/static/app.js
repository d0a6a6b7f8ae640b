// What pages need beyond htmx: charts of time series, a key to the search field, text to copy. Everything works without it.
"use strict";

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function drawChart(place) {
  const data = JSON.parse(document.getElementById(place.dataset.chart).textContent);
  const labels = JSON.parse(place.dataset.labels);
  const names = JSON.parse(place.dataset.series);
  const strokes = [colour("--deny"), colour("--critical"), colour("--high")];
  const dashes = [[], [6, 4], [2, 3]]; // colour is never the only signal
  const axis = { stroke: colour("--muted"), grid: { stroke: colour("--line"), width: 1 } };
  const options = {
    width: place.clientWidth,
    height: 220,
    scales: { y: { range: (plot, low, high) => [0, Math.max(1, high * 1.1)] } },
    axes: [axis, axis],
    series: [
      { value: "{YYYY}-{MM}-{DD}" },
      ...names.map((name, i) => ({ label: labels[i], stroke: strokes[i], width: 2, dash: dashes[i], points: { show: data.x.length < 3 } })),
    ],
  };
  const plot = new uPlot(options, [data.x, ...names.map((name) => data[name])], place);
  new ResizeObserver(() => plot.setSize({ width: place.clientWidth, height: 220 })).observe(place);
}

document.addEventListener("DOMContentLoaded", () => {
  // On a narrow screen the menu and the tabs scroll sideways: show the current item.
  document.querySelectorAll(".nav [aria-current], .tabs [aria-current]").forEach((item) => {
    const list = item.closest("ul");
    list.scrollLeft = item.offsetLeft - list.offsetLeft - 40; // scrollIntoView would move the page as well
  });
  if (window.uPlot) document.querySelectorAll("[data-chart]").forEach(drawChart);
  document.querySelectorAll("form[hx-get]").forEach(askForWhatWasTypedEarly);
});

// A person can type before htmx listens, and a browser can bring back what was typed: the list must answer it too.
function askForWhatWasTypedEarly(form) {
  const chosen = [...form.elements].some((field) => {
    if (field.type === "hidden" || field.type === "fieldset" || !field.name) return false;
    if (field.type === "checkbox" || field.type === "radio") return field.checked !== field.defaultChecked;
    if (field.options) return ![...field.options].every((option) => !option.defaultSelected || option.selected);
    return field.value !== field.defaultValue;
  });
  if (chosen) setTimeout(() => form.dispatchEvent(new Event("change")));
}

document.addEventListener("keydown", (event) => {
  if (event.key !== "/" || event.ctrlKey || event.metaKey || event.target.closest("input, textarea, select")) return;
  const search = document.querySelector("main input[type=search], main .filters input[type=text]");
  if (search) {
    event.preventDefault();
    search.focus();
  }
});

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  await navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent);
  button.textContent = "Copied";
});

// A problem's place in the editor: the caret goes there.
document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-line]");
  const text = document.getElementById("text");
  if (!button || !text) return;
  const lines = text.value.split("\n");
  const line = Math.min(Number(button.dataset.line), lines.length);
  const start = lines.slice(0, line - 1).reduce((sum, each) => sum + each.length + 1, 0);
  text.focus();
  text.setSelectionRange(start + Number(button.dataset.column) - 1, start + lines[line - 1].length);
});
