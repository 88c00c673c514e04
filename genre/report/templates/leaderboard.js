// Sort tables by a click on a column heading, and filter them by a search box. The page is readable without it.
"use strict";

const key = (cell) => {
  const text = cell.dataset.value ?? cell.textContent.trim();
  const value = text === "" ? NaN : Number(text);
  return Number.isNaN(value) ? text.toLowerCase() : value;
};

// Numbers come before text, and unknown values last in both directions.
const compare = (a, b, sign) => {
  if (a === "" || b === "") return (a === "") - (b === "");
  if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1;
  return sign * (typeof a === "number" ? a - b : a.localeCompare(b));
};

const sortBy = (table, heading) => {
  const index = heading.cellIndex;
  const first = heading.dataset.first ?? "ascending";
  const other = first === "ascending" ? "descending" : "ascending";
  const order = heading.getAttribute("aria-sort") === first ? other : first;
  for (const cell of table.tHead.rows[0].cells) cell.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", order);
  const sign = order === "ascending" ? 1 : -1;
  const rows = [...table.tBodies[0].rows];
  rows.sort((a, b) => compare(key(a.cells[index]), key(b.cells[index]), sign));
  table.tBodies[0].append(...rows);
};

for (const table of document.querySelectorAll("table[data-sortable]")) {
  for (const heading of table.tHead.rows[0].cells) {
    if (!("sort" in heading.dataset)) continue;
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    button.addEventListener("click", () => sortBy(table, heading));
    heading.append(button);
  }
}

for (const box of document.querySelectorAll("[data-filter]")) {
  const rows = [...document.getElementById(box.dataset.filter).tBodies[0].rows];
  const input = box.querySelector("input");
  const status = box.querySelector("output");
  box.hidden = false;
  input.addEventListener("input", () => {
    const words = input.value.toLowerCase().split(/\s+/);
    for (const row of rows) row.hidden = !words.every((word) => row.textContent.toLowerCase().includes(word));
    const shown = rows.filter((row) => !row.hidden).length;
    status.textContent = input.value ? `${shown} of ${rows.length}` : "";
  });
}
