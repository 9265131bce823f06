"use strict";

// Sorting: a button in each header of a table. Without scripts headers are plain text and all rows are there.

const LEADING = /^\[?\s*([+\-\u2212]?\d+(?:\.\d+)?(?:e[+-]?\d+)?)(?![\w.])/i;

function numberIn(text) {
  const found = LEADING.exec(text);
  return found ? parseFloat(found[1].replace("\u2212", "-")) : NaN;
}

function sortedRows(rows, column, descending) {
  const texts = new Map(rows.map((row) => [row, row.cells[column].textContent.trim()]));
  const missing = (row) => texts.get(row) === "" || texts.get(row) === "n/a";
  const known = rows.filter((row) => !missing(row));
  const numeric = isNumeric(rows, column);
  const sign = descending ? -1 : 1;
  known.sort((one, other) => {
    const [first, second] = [texts.get(one), texts.get(other)];
    return sign * (numeric ? numberIn(first) - numberIn(second) : first.localeCompare(second, "en"));
  });
  return [...known, ...rows.filter(missing)];
}

function isNumeric(rows, column) {
  const texts = rows.map((row) => row.cells[column].textContent.trim()).filter((text) => text && text !== "n/a");
  return texts.length > 0 && !texts.some((text) => Number.isNaN(numberIn(text)));
}

function enhance(table) {
  const body = table.tBodies[0];
  const original = [...body.rows];
  const headers = [...table.tHead.rows[0].cells];
  headers.forEach((header, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.title = "Sort; the third click brings back the first order";
    button.textContent = header.textContent.trim();
    header.replaceChildren(button);
    // Numbers begin with the highest, names with the first.
    const turns = isNumeric(original, column) ? ["descending", "ascending"] : ["ascending", "descending"];
    button.addEventListener("click", () => {
      const next = [...turns, null][turns.indexOf(header.getAttribute("aria-sort")) + 1];
      headers.forEach((other) => other.removeAttribute("aria-sort"));
      if (next) header.setAttribute("aria-sort", next);
      body.append(...(next ? sortedRows(original, column, next === "descending") : original));
    });
  });
}

function addOpenAll(group) {
  const parts = [...group.querySelectorAll("details")];
  const button = document.createElement("button");
  button.type = "button";
  button.className = "all";
  const name = () => { button.textContent = parts.every((part) => part.open) ? "Close all" : "Open all"; };
  button.addEventListener("click", () => {
    const open = !parts.every((part) => part.open);
    parts.forEach((part) => { part.open = open; });
    name();
  });
  parts.forEach((part) => part.addEventListener("toggle", name));
  name();
  group.prepend(button);
}

document.querySelectorAll("table.sortable").forEach(enhance);
document.querySelectorAll(".foldable").forEach(addOpenAll);
