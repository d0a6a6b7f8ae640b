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
  const widths = [3, 2, 2];
  const dashes = [[], [8, 4], [2, 4]]; // colour is never the only signal
  const borders = ["solid", "dashed", "dotted"]; // of the keys in the legend, as the lines
  // Images and findings differ by orders of magnitude: each has an axis of its own.
  const scales = JSON.parse(place.dataset.scales);
  const axis = { stroke: colour("--muted"), grid: { stroke: colour("--line"), width: 1 } };
  const incrs = [1, 2, 5].flatMap((n) => [...Array(10).keys()].map((k) => n * 10 ** k)).sort((a, b) => a - b); // no half images
  const range = (plot, low, high) => [0, Math.max(1, high * 1.1)];
  const options = {
    width: place.clientWidth,
    height: 240,
    scales: { images: { range }, findings: { range } },
    axes: [
      // The dates of every other page: 9/4 is September to some and April to others.
      { ...axis, values: [[86400, "{YYYY}-{MM}-{DD}", null, null, null, null, null, null, 1]], space: 90 },
      { ...axis, incrs, scale: "images", label: "images", size: 60, labelSize: 20 },
      { ...axis, incrs, scale: "findings", side: 1, label: "findings", grid: { show: false }, size: 60, labelSize: 20 },
    ],
    legend: { markers: { width: 3, stroke: (u, i) => strokes[i - 1], dash: (u, i) => borders[i - 1] || "solid" } },
    series: [
      { label: "day", value: "{YYYY}-{MM}-{DD}" },
      ...names.map((name, i) => ({
        label: labels[i], scale: scales[i], stroke: strokes[i], width: widths[i], dash: dashes[i], points: { show: data.x.length < 3 },
      })),
    ],
  };
  place.replaceChildren();
  const plot = new uPlot(options, [data.x, ...names.map((name) => data[name])], place);
  return plot;
}

// A chart is drawn with the colours of the moment: paper is white, whatever the screen is, so it is drawn anew.
function drawCharts() {
  document.querySelectorAll("[data-chart]").forEach((place) => {
    let plot = drawChart(place);
    new ResizeObserver(() => plot.setSize({ width: place.clientWidth, height: 240 })).observe(place);
    const again = () => { plot.destroy(); plot = drawChart(place); };
    matchMedia("print").addEventListener("change", again);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
  });
}

document.addEventListener("DOMContentLoaded", () => {
  // On a narrow screen the menu and the tabs scroll sideways: show the current item.
  document.querySelectorAll(".nav [aria-current], .tabs [aria-current]").forEach((item) => {
    const list = item.closest("ul");
    list.scrollLeft = item.offsetLeft - list.offsetLeft - 40; // scrollIntoView would move the page as well
  });
  if (window.uPlot) drawCharts();
  breakNames(document.querySelector("main"));
  // A list that is loaded again, or a part of it.
  new MutationObserver((changes) => changes.forEach((change) => change.addedNodes.forEach((node) => {
    if (node.nodeType === Node.ELEMENT_NODE && node.localName !== "wbr") breakNames(node);
  }))).observe(document.querySelector("main"), { childList: true, subtree: true });
  showProblemAtItsField();
  document.querySelectorAll("form[hx-get]").forEach(askForWhatWasTypedEarly);
  if (location.hash === "#search") document.querySelector("main input[type=search]")?.focus();
});

// A long name breaks after its parts, before a browser breaks it inside of a word: Chromium does not break after a slash.
// Text that is selected and copied stays the same.
function breakNames(root) {
  const names = document.createTreeWalker(root, NodeFilter.SHOW_TEXT, (node) =>
    node.length > 20 && /\S[/@]\S/.test(node.data) && !node.parentElement.closest("pre, textarea, option, script, .cm-editor")
      ? NodeFilter.FILTER_ACCEPT : NodeFilter.FILTER_REJECT);
  const found = [];
  while (names.nextNode()) found.push(names.currentNode);
  found.forEach((node) => node.replaceWith(...node.data.split(/(?<=[^\s/][/@])(?=[^\s/])/).flatMap((part, i) =>
    i ? [document.createElement("wbr"), part] : [part])));
}

// A refused form says what is wrong at the top of the page. On a long page the field is out of sight: go there, and say
// it there as well. Screen readers have the message already: it is an alert, and describes the field.
function showProblemAtItsField() {
  const field = document.querySelector('[aria-invalid="true"]');
  const problems = [...document.querySelectorAll("#problems li")].map((item) => item.textContent);
  if (!field || !problems.length || field.closest(".cm-editor")) return;
  const note = document.createElement("p");
  note.className = "wrong-field";
  note.setAttribute("aria-hidden", "true");
  note.textContent = problems.join(" ");
  field.after(note);
  field.closest("details")?.setAttribute("open", "");
  field.focus();
}

// The server does not read a form that is too large, so it could not give back what was typed: stop before it is sent.
document.addEventListener("submit", (event) => {
  const form = event.target, most = Number(document.body.dataset.most);
  if (form.method !== "post" || !most) return;
  form.querySelector(".too-large")?.remove();
  const sent = new URLSearchParams(new FormData(form, event.submitter)).toString();
  const size = sent.length + 3 * (sent.match(/%0A/g)?.length ?? 0); // a browser sends a line break as two characters
  if (size <= most) return;
  event.preventDefault();
  const note = document.createElement("p");
  note.className = "wrong-field too-large";
  note.setAttribute("role", "alert");
  note.textContent = `This form has ${(size / 1048576).toFixed(1)} MiB, and at most ${most / 1048576} MiB can be sent. Nothing was sent. Shorten the longest text, and submit it again.`;
  (event.submitter ?? form.lastElementChild).before(note);
  note.scrollIntoView({ block: "center" });
});

// A person can type before htmx listens, and a browser can bring back what was typed: the list must answer it too.
function askForWhatWasTypedEarly(form) {
  const chosen = [...form.elements].some((field) => {
    if (field.type === "hidden" || field.type === "fieldset" || !field.name) return false;
    if (field.type === "checkbox" || field.type === "radio") return field.checked !== field.defaultChecked;
    if (field.options) return ![...field.options].every((option) => !option.defaultSelected || option.selected);
    return field.value !== field.defaultValue;
  });
  if (chosen) setTimeout(() => form.dispatchEvent(new Event("input")));
}

document.addEventListener("keydown", (event) => {
  if (event.key !== "/" || event.ctrlKey || event.metaKey || event.target.closest("input, textarea, select")) return;
  // A page without a search of its own, and one whose search is folded away, lead to the search of images.
  const search = document.querySelector("main input[type=search]");
  event.preventDefault();
  search?.closest("details")?.setAttribute("open", "");
  if (search) search.focus();
  else location.assign(document.body.dataset.search);
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
