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
        const number = Number.parseFloat(text.replace("−", "-"));
        return Number.isNaN(number) ? text : number;
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
document.addEventListener("pointerover", (event) => {
  const mark = event.target.closest?.("[data-told]");
  told.hidden = !mark;
  if (!mark) return;
  told.textContent = mark.dataset.told;
  const box = mark.getBoundingClientRect();
  told.style.left = `${Math.min(box.right + 6, window.innerWidth - 260)}px`;
  told.style.top = `${box.bottom + 4}px`;
});
