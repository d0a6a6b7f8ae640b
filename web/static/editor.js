// The policy editor: CodeMirror in place of the textarea, which stays the form's field. Without this file the textarea works.
"use strict";

const cm = globalThis.CodeMirror;

// Where a position is in the document, by indentation and brackets, as the schema's path: keys, and "[]" for list items.
// The syntax tree has no node for what is not typed yet, and that is where completion is asked for.
function placeAt(doc, pos) {
  const line = doc.lineAt(pos);
  const before = line.text.slice(0, pos - line.from);
  const path = [];
  const head = /^( *(?:- +)*)/.exec(before)[1];
  let column = head.length;
  const climb = (text, limit) => {
    // The dashes of a line, right to left: each is an item of a list.
    let at = limit;
    for (let i = Math.min(text.length, limit) - 1; i >= 0; i -= 1) {
      if (text[i] === "-") { path.unshift("[]"); at = i; }
    }
    return at;
  };
  column = climb(head, column);
  for (let number = line.number - 1; number > 0 && column >= 0; number -= 1) {
    const text = doc.line(number).text;
    const found = /^( *(?:- +)*)(?:"([^"]*)"|'([^']*)'|([^\s#:{}[\],&*!|>%@`][^:#]*?))\s*:(?:\s|$)/.exec(text);
    if (!found) continue;
    const own = found[1].length;
    const dash = found[1].indexOf("-");
    const list = path[0] === "[]";
    if (own < column || (list && own === column && dash < 0)) {
      path.unshift(found[2] ?? found[3] ?? found[4]);
      column = climb(found[1], own);
      if (column === 0 && dash < 0) break;
    } else if (dash >= 0 && own === column && own > 0) {
      column = climb(found[1], own); // an earlier key of the same item
    }
  }
  // On the line itself: a key and its value, and what is open in braces and brackets.
  const rest = before.slice(head.length);
  const stack = [];
  let key = null, word = "", quote = "";
  for (let i = 0; i < rest.length; i += 1) {
    const c = rest[i];
    if (quote) { if (c === quote) quote = ""; else word += c; continue; }
    if (c === '"' || c === "'") { quote = c; continue; }
    if (c === "#" && (i === 0 || rest[i - 1] === " ")) return null;
    if (c === ":" && (i + 1 === rest.length || rest[i + 1] === " ") && key === null) { key = word.trim(); word = ""; }
    else if (c === "{" || c === "[") { stack.push({ open: c, key }); if (key !== null) path.push(key); if (c === "[") path.push("[]"); key = null; word = ""; }
    else if ((c === "}" || c === "]") && stack.length) { const last = stack.pop(); if (c === "]") path.pop(); if (last.key !== null) path.pop(); key = null; word = ""; }
    else if (c === ",") { key = null; word = ""; }
    else word += c;
  }
  const list = stack.length ? stack[stack.length - 1].open === "[" : /- *$/.test(head);
  const value = key !== null || list;
  if (key !== null) path.push(key);
  return { path, value, item: list && key === null, typed: word.trimStart() };
}

function resolved(root, schema) {
  while (schema?.$ref) schema = { ...root.$defs[schema.$ref.split("/").pop()], ...schema, $ref: undefined };
  return schema;
}

function options(root, schema) {
  const own = resolved(root, schema);
  return own?.anyOf ? [own, ...own.anyOf.map((each) => ({ ...resolved(root, each), description: each.description ?? own.description }))] : own ? [own] : [];
}

function schemaAt(root, path) {
  let found = [root];
  for (const step of path) {
    const next = [];
    for (const each of found.flatMap((one) => options(root, one))) {
      if (step === "[]" && each.items) next.push(each.items);
      else if (each.properties?.[step]) next.push(each.properties[step]);
    }
    found = next;
  }
  return found.flatMap((one) => options(root, one));
}

function valuesOf(schemas) {
  return schemas.flatMap((each) => {
    if (each.enum) return each.enum.map((value, i) => ({ label: String(value), detail: each.enumDescriptions?.[i], type: "enum" }));
    if (each.const !== undefined) return [{ label: String(each.const), type: "constant" }];
    if (each.type === "boolean") return ["true", "false"].map((label) => ({ label, type: "keyword" }));
    return (each.examples ?? []).map((value) => ({ label: String(value), type: "text" }));
  });
}

function unique(items) {
  return [...new Map(items.map((each) => [each.label, each])).values()];
}

function completions(root) {
  return (context) => {
    const place = placeAt(context.state.doc, context.pos);
    if (!place) return null;
    const word = context.matchBefore(/[\w./-]*/);
    if (word.from === word.to && !context.explicit) return null;
    const schemas = schemaAt(root, place.path);
    let found = valuesOf(place.value ? schemas : []);
    if (place.value && !place.item) found = [...found, ...valuesOf(schemaAt(root, [...place.path, "[]"]))];
    if (!place.value || (place.item && !found.length)) {
      found = schemas.flatMap((each) => Object.entries(each.properties ?? {})).map(([label, each]) => ({
        label, apply: `${label}: `, info: resolved(root, each).description, type: "property",
      }));
    }
    return found.length ? { from: word.from, options: unique(found), validFor: /^[\w./-]*$/ } : null;
  };
}

function helpAt(root) {
  return (view, pos) => {
    const line = view.state.doc.lineAt(pos);
    const at = pos - line.from;
    const words = [...line.text.matchAll(/[\w./-]+/g)].filter((m) => m.index <= at && at < m.index + m[0].length);
    if (!words.length || /#/.test(line.text.slice(0, at))) return null;
    const [word, from] = [words[0][0], words[0].index];
    const isKey = /^\s*:(\s|$)/.test(line.text.slice(from + word.length));
    const place = placeAt(view.state.doc, line.from + from);
    if (!place) return null;
    let text = "";
    if (isKey) {
      text = schemaAt(root, [...place.path, word]).map((each) => each.description).find(Boolean) ?? "";
    } else {
      const listed = valuesOf([...schemaAt(root, place.path), ...schemaAt(root, [...place.path, "[]"])]);
      text = listed.find((each) => each.label === word)?.detail ?? "";
    }
    if (!text) return null;
    return {
      pos: line.from + from, end: line.from + from + word.length, above: true,
      create: () => {
        const dom = document.createElement("div");
        dom.className = "cm-help";
        const name = document.createElement("strong");
        name.textContent = word;
        dom.append(name, ` ${text}`);
        return { dom };
      },
    };
  };
}

const colours = () => cm.HighlightStyle.define([
  { tag: cm.tags.definition(cm.tags.propertyName), color: "var(--link)" },
  { tag: cm.tags.propertyName, color: "var(--link)" },
  { tag: [cm.tags.string, cm.tags.special(cm.tags.string)], color: "var(--allow)" },
  { tag: cm.tags.content, color: "var(--text)" },
  { tag: [cm.tags.comment, cm.tags.lineComment], color: "var(--muted)", fontStyle: "italic" },
  { tag: [cm.tags.keyword, cm.tags.bool, cm.tags.number], color: "var(--critical)" },
  { tag: [cm.tags.punctuation, cm.tags.separator, cm.tags.squareBracket, cm.tags.brace], color: "var(--muted)" },
]);

const look = {
  "&": { border: "1px solid var(--line-strong)", borderRadius: "8px", background: "var(--surface)", color: "var(--text)", fontSize: ".86rem" },
  "&.cm-focused": { outline: "3px solid var(--focus)", outlineOffset: "1px" },
  ".cm-scroller": { fontFamily: "var(--mono)", lineHeight: "1.5", minHeight: "24rem", maxHeight: "70vh" },
  ".cm-content": { caretColor: "var(--text)" },
  ".cm-cursor": { borderLeftColor: "var(--text)" },
  ".cm-gutters": { background: "var(--sunken)", color: "var(--muted)", borderRight: "1px solid var(--line)", borderRadius: "8px 0 0 8px" },
  ".cm-activeLine, .cm-activeLineGutter": { background: "color-mix(in srgb, var(--link) 8%, transparent)" },
  "&.cm-focused > .cm-scroller > .cm-selectionLayer .cm-selectionBackground, .cm-selectionBackground": { background: "color-mix(in srgb, var(--link) 28%, transparent)" },
  ".cm-tooltip": { background: "var(--surface)", color: "var(--text)", border: "1px solid var(--line-strong)", borderRadius: "8px", maxWidth: "26rem" },
  ".cm-tooltip.cm-completionInfo": { padding: ".4rem .6rem" },
  ".cm-tooltip-autocomplete ul li[aria-selected]": { background: "var(--link)", color: "var(--surface)" },
  ".cm-completionDetail": { color: "inherit", opacity: ".75", fontStyle: "normal" },
  ".cm-panels": { background: "var(--sunken)", color: "var(--text)" },
  ".cm-diagnostic": { fontFamily: "var(--sans)" },
  ".cm-help": { padding: ".4rem .6rem", fontFamily: "var(--sans)" },
};

async function schemaOf(place) {
  try {
    const answer = await fetch(place.dataset.schema, { headers: { Accept: "application/json" } });
    return answer.ok ? await answer.json() : {};
  } catch {
    return {}; // the editor works without help
  }
}

async function start(text) {
  const schema = await schemaOf(text);
  const problems = document.getElementById("problems");
  const view = new cm.EditorView({
    doc: text.value,
    extensions: [
      cm.EditorView.cspNonce.of(text.dataset.nonce),
      cm.EditorView.theme(look),
      cm.EditorView.contentAttributes.of({ tabindex: "0", "aria-label": "Policy (YAML)", "aria-describedby": "problems editor-help" }),
      cm.EditorView.lineWrapping,
      cm.lineNumbers(), cm.lintGutter(), cm.history(), cm.drawSelection(), cm.highlightActiveLine(), cm.highlightActiveLineGutter(),
      cm.bracketMatching(), cm.closeBrackets(), cm.indentUnit.of("  "), cm.yaml(), cm.syntaxHighlighting(colours()),
      cm.autocompletion({ override: [completions(schema)] }), cm.hoverTooltip(helpAt(schema)),
      // Tab leaves the editor, as everywhere in a form.
      cm.keymap.of([...cm.closeBracketsKeymap, ...cm.defaultKeymap, ...cm.searchKeymap, ...cm.historyKeymap, ...cm.completionKeymap, ...cm.lintKeymap]),
      cm.EditorView.updateListener.of((update) => {
        if (!update.docChanged) return;
        text.value = update.state.doc.toString();
        text.dispatchEvent(new Event("input", { bubbles: true })); // validates, as typing in the textarea does
      }),
    ],
  });
  text.before(view.dom);
  text.hidden = true;
  document.querySelector(`label[for="${text.id}"]`)?.addEventListener("click", () => view.focus());

  const positionOf = (line, column) => {
    const at = view.state.doc.line(Math.max(1, Math.min(line, view.state.doc.lines)));
    return [Math.min(at.from + Math.max(0, column - 1), at.to), at.to];
  };
  const mark = () => {
    const found = [...problems.querySelectorAll("[data-line]")].map((button) => {
      const [from, to] = positionOf(Number(button.dataset.line), Number(button.dataset.column));
      return { from, to, severity: "error", message: button.parentElement.textContent.replace(button.textContent, "").trim() };
    });
    view.dispatch(cm.setDiagnostics(view.state, found.sort((a, b) => a.from - b.from)));
  };
  new MutationObserver(mark).observe(problems, { childList: true, subtree: true });
  mark();
  problems.addEventListener("click", (event) => {
    const button = event.target.closest("[data-line]");
    if (!button) return;
    const [from] = positionOf(Number(button.dataset.line), Number(button.dataset.column));
    view.dispatch({ selection: { anchor: from }, effects: cm.EditorView.scrollIntoView(from, { y: "center" }) });
    view.focus();
  });
}

document.addEventListener("DOMContentLoaded", () => {
  const text = document.querySelector("textarea[data-schema]");
  if (cm && text) start(text);
});
