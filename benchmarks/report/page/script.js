"use strict";
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const descending = head.getAttribute("aria-sort") !== "descending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", descending ? "descending" : "ascending");
      const value = (row) => {
        const cell = row.cells[column];
        const text = cell.dataset.value ?? cell.textContent;
        const number = Number.parseFloat(text.replace("−", "-").replace(/^< /, "").replaceAll(",", ""));
        return Number.isNaN(number) ? text : number * (text.endsWith(" M") ? 1e6 : 1);
      };
      const sign = descending ? -1 : 1;
      const known = (row) => !["–", ""].includes(row.cells[column].dataset.value ?? row.cells[column].textContent);
      const body = table.tBodies[0];
      // What does not exist stays below, whichever way the others are sorted.
      const rows = [...body.rows].sort((a, b) => {
        if (known(a) !== known(b)) return known(a) ? -1 : 1;
        const [x, y] = [value(a), value(b)];
        return sign * (typeof x === "number" && typeof y === "number" ? x - y : String(x).localeCompare(String(y)));
      });
      body.append(...rows);
    });
  });
}
for (const box of document.querySelectorAll("input[data-toggles]")) {
  box.addEventListener("change", () => {
    for (const mark of document.querySelectorAll(`[data-row="${box.dataset.toggles}"]`)) mark.classList.toggle("off", !box.checked);
  });
}
const told = document.createElement("div");
told.id = "told";
told.hidden = true;
told.setAttribute("role", "status");
document.body.append(told);
const tell = (mark) => {
  told.hidden = !mark;
  if (!mark) return;
  told.textContent = mark.dataset.told;
  const box = mark.getBoundingClientRect();
  told.style.left = `${Math.max(Math.min(box.right + 6, window.innerWidth - 400), 4)}px`;
  told.style.top = `${Math.min(box.bottom + 4, window.innerHeight - 40)}px`;
};
document.addEventListener("pointerover", (event) => tell(event.target.closest?.("[data-told]")));
// With the keyboard: arrows go from mark to mark of the chart that has the focus.
for (const plot of document.querySelectorAll("svg.plot")) {
  let at = -1;
  plot.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (event.key === "Escape") tell(null);
    const marks = [...plot.querySelectorAll("[data-told]:not(.off)")];
    if (!step || !marks.length) return;
    event.preventDefault();
    at = (Math.max(at, step > 0 ? -1 : 0) + step + marks.length) % marks.length;
    tell(marks[at]);
  });
  plot.addEventListener("blur", () => tell(null));
}
