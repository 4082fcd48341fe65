"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const page = JSON.parse(byId("data").textContent);
  const [map, shapes, overlay, bar, here] = ["map", "shapes", "overlay", "bar", "here"].map(byId);
  const [frameWidth, frameHeight] = page.frame;

  // The map: a view of the frame, in its units; everything is placed by shares of the view, so that print and resize need no script.
  const aspect = Math.min(Math.max(frameWidth / frameHeight, 0.6), 2.2);
  const fitted = Math.max(frameWidth, frameHeight * aspect);
  let view = null;
  map.style.aspectRatio = String(aspect);

  function look(centreX, centreY, width) {
    width = Math.min(Math.max(width, Math.min(10, fitted)), fitted);
    const height = width / aspect;
    const within = (centre, span, size) => (span >= size ? size / 2 : Math.min(Math.max(centre, span / 2), size - span / 2));
    view = { x: within(centreX, width, frameWidth) - width / 2, y: within(centreY, height, frameHeight) - height / 2, width, height };
    for (const layer of map.querySelectorAll(".layer")) {
      layer.style.left = `${(-100 * view.x) / width}%`;
      layer.style.top = `${(-100 * view.y) / height}%`;
      layer.style.width = `${(100 * frameWidth) / width}%`;
      layer.style.height = `${(100 * frameHeight) / height}%`;
      layer.classList.toggle("fine", map.clientWidth > 1.5 * width);
    }
    shapes.setAttribute("viewBox", `${view.x} ${view.y} ${width} ${height}`);
    const limit = (width * page.unit_m) / 4, power = 10 ** Math.floor(Math.log10(limit));
    const length = [5, 2, 1].find((factor) => factor * power <= limit) * power;
    bar.style.width = `${(100 * length) / (width * page.unit_m)}%`;
    bar.dataset.length = length >= 1000 ? `${length / 1000} km` : `${Number(length.toPrecision(1))} m`;
  }
  const centre = () => [view.x + view.width / 2, view.y + view.height / 2];
  const zoom = (factor) => (factor ? look(...centre(), view.width * factor) : look(frameWidth / 2, frameHeight / 2, fitted));
  function at(event) {
    const box = shapes.getBoundingClientRect();
    return [view.x + ((event.clientX - box.left) / box.width) * view.width, view.y + ((event.clientY - box.top) / box.height) * view.height];
  }

  let drag = null;
  map.addEventListener("pointerdown", (event) => {
    if (event.button === 0 && !event.target.closest("button")) drag = { start: [event.clientX, event.clientY], centre: centre(), moved: false };
  });
  map.addEventListener("pointermove", (event) => {
    tell(...at(event));
    if (!drag) return;
    const [x, y] = [event.clientX - drag.start[0], event.clientY - drag.start[1]];
    if (!drag.moved && Math.hypot(x, y) < 5) return;
    if (!drag.moved) map.setPointerCapture(event.pointerId);
    drag.moved = true;
    map.classList.add("dragged");
    const units = view.width / map.clientWidth;
    look(drag.centre[0] - x * units, drag.centre[1] - y * units, view.width);
  });
  for (const kind of ["pointerup", "pointercancel"]) {
    map.addEventListener(kind, (event) => {
      map.classList.remove("dragged");
      const moved = !drag || drag.moved;
      drag = null;
      if (kind === "pointerup" && !moved) select(event.target.dataset.at === undefined ? null : Number(event.target.dataset.at), { reveal: true });
    });
  }
  map.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && document.activeElement !== map) return; // the page scrolls unless the map is meant
    event.preventDefault();
    const factor = event.deltaY > 0 ? 1.25 : 0.8, [x, y] = at(event), [middleX, middleY] = centre();
    look(x + (middleX - x) * factor, y + (middleY - y) * factor, view.width * factor);
  }, { passive: false });
  map.addEventListener("keydown", (event) => {
    const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }, zooms = { "+": 0.5, "=": 0.5, "-": 2, 0: 0 };
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key in steps) {
      const [x, y] = centre(), [right, down] = steps[event.key];
      look(x + (right * view.width) / 8, y + (down * view.height) / 8, view.width);
    } else if (event.key in zooms) zoom(zooms[event.key]);
    else if (event.key === "Escape") select(null);
    else return;
    event.preventDefault();
  });
  for (const button of document.querySelectorAll("[data-zoom]")) button.addEventListener("click", () => zoom(Number(button.dataset.zoom)));

  // The probability: a grey picture, coloured here so that the slider needs no other one.
  const colours = page.colours.match(/../g).map((part) => parseInt(part, 16));
  const source = byId("probability"), threshold = byId("threshold"), opacity = byId("opacity");
  let values = null, waiting = false;
  function colour(value, from, target, offset) {
    if (value < from || value > 254) return;
    const at = 3 * Math.round((value / 254) * 255);
    target.set([colours[at], colours[at + 1], colours[at + 2], 255], offset);
  }
  function paint() {
    waiting = false;
    const from = Number(threshold.value) * 254, table = new Uint8ClampedArray(4 * 256);
    for (let value = 0; value < 256; value += 1) colour(value, from, table, 4 * value);
    byId("threshold-value").textContent = Number(threshold.value).toFixed(2);
    byId("opacity-value").textContent = `${Math.round(opacity.value * 100)} %`;
    overlay.style.opacity = opacity.value;
    byId("ramp").getContext("2d").putImageData(new ImageData(table.slice(0, 4 * 255), 255, 1), 0, 0);
    if (!values) return;
    const words = new Uint32Array(table.buffer), picture = new ImageData(overlay.width, overlay.height), target = new Uint32Array(picture.data.buffer);
    for (let place = 0; place < values.length; place += 1) target[place] = words[values[place]];
    overlay.getContext("2d").putImageData(picture, 0, 0);
  }
  function repaint() {
    if (!waiting) requestAnimationFrame(paint);
    waiting = true;
  }
  threshold.value = String(page.threshold);
  threshold.addEventListener("input", repaint);
  opacity.addEventListener("input", repaint);
  source.decode().then(() => {
    [overlay.width, overlay.height] = [source.naturalWidth, source.naturalHeight];
    const scratch = document.createElement("canvas");
    [scratch.width, scratch.height] = [overlay.width, overlay.height];
    const context = scratch.getContext("2d", { willReadFrequently: true });
    context.drawImage(source, 0, 0);
    const pixels = context.getImageData(0, 0, scratch.width, scratch.height).data;
    values = Uint8Array.from({ length: pixels.length / 4 }, (_, place) => pixels[4 * place]);
    paint();
    document.documentElement.dataset.ready = "yes";
  });
  function tell(x, y) {
    if (!values || x < 0 || y < 0 || x >= frameWidth || y >= frameHeight) return;
    const [left, bottom, right, top] = page.bounds, digits = page.unit_m < 0.1 ? 2 : page.unit_m < 1 ? 1 : 0;
    const column = Math.floor((x / frameWidth) * overlay.width), row = Math.floor((y / frameHeight) * overlay.height);
    const value = values[row * overlay.width + column];
    const place = [left + (x / frameWidth) * (right - left), top - (y / frameHeight) * (top - bottom)].map((number) => number.toFixed(digits));
    here.textContent = `x ${place[0]}, y ${place[1]}: ${value > 254 ? "no data" : `probability ${(value / 254).toFixed(2)}`}`;
  }

  for (const choice of document.getElementsByName("background")) {
    const show = () => {
      const picture = byId(`picture-${choice.value}`);
      for (const other of map.querySelectorAll("img.layer")) other.hidden = other !== picture;
    };
    choice.addEventListener("change", show);
    if (choice.checked) show();
  }

  // Landslides: outlines and rows that select each other.
  const { units = [], rows = [], paths = [], boxes = [] } = page.landslides ?? {};
  const body = byId("rows");
  const outline = (path) => {
    const shape = document.createElementNS("http://www.w3.org/2000/svg", "path");
    shape.setAttribute("d", path);
    return shape;
  };
  const casing = outline(""); // dark, so that the selected outline shows on light ground too
  casing.id = "casing";
  const drawn = paths.map((path, number) => {
    const shape = outline(path);
    shape.dataset.at = String(number);
    return shape;
  });
  shapes.append(...drawn);
  const written = rows.map((row, number) => {
    const line = document.createElement("tr");
    for (const [column, value] of row.entries()) {
      const cell = line.insertCell();
      cell.textContent = text(value, units[column]);
      cell.title = value === null ? "" : String(value);
    }
    line.dataset.at = String(number);
    line.tabIndex = number ? -1 : 0;
    line.setAttribute("aria-selected", "false");
    return line;
  });
  let selected = null;

  function text(value, unit) {
    if (value === null) return "–";
    if (typeof value !== "number") return String(value);
    const short = Math.abs(value) >= 1000 ? Math.round(value) : Number(value.toPrecision(4));
    return unit ? short.toLocaleString("en", { maximumFractionDigits: 12 }) : String(short); // identifiers and coordinates stay as they are
  }
  function mark(number, on) {
    if (number === null) return;
    drawn[number].classList.toggle("selected", on);
    written[number].setAttribute("aria-selected", String(on));
  }
  function reach(line) {
    for (const other of written) other.tabIndex = other === line ? 0 : -1; // one stop for the Tab key, arrows move within
  }
  function select(number, { zoomed = false, reveal = false } = {}) {
    mark(selected, false);
    selected = number;
    mark(number, true);
    casing.setAttribute("d", number === null ? "" : paths[number]);
    if (number === null) return;
    shapes.append(casing, drawn[number]); // drawn last, above their neighbours
    reach(written[number]);
    if (reveal) written[number].scrollIntoView({ block: "nearest" });
    if (zoomed) {
      const [left, top, right, bottom] = boxes[number];
      look((left + right) / 2, (top + bottom) / 2, Math.max(right - left, (bottom - top) * aspect, 20) * 2);
    }
  }
  body?.append(...written);
  body?.addEventListener("click", (event) => {
    const line = event.target.closest("tr");
    if (line) select(Number(line.dataset.at), { zoomed: true });
  });
  body?.addEventListener("keydown", (event) => {
    const line = event.target.closest("tr");
    const to = { ArrowDown: line?.nextElementSibling, ArrowUp: line?.previousElementSibling, Home: body.firstElementChild, End: body.lastElementChild };
    if (event.key in to) {
      if (to[event.key]) reach(to[event.key]);
      to[event.key]?.focus();
    } else if (event.key === "Enter" || event.key === " ") select(Number(line.dataset.at), { zoomed: true });
    else if (event.key === "Escape") select(null);
    else return;
    event.preventDefault();
  });
  for (const [column, button] of document.querySelectorAll("#table-pane thead button").entries()) {
    button.addEventListener("click", () => {
      const head = button.closest("th"), down = head.getAttribute("aria-sort") === "ascending";
      for (const other of head.parentElement.children) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const value = (line) => rows[Number(line.dataset.at)][column], sign = down ? -1 : 1;
      const order = (one, other) => (typeof one === "string" ? one.localeCompare(other) : one - other);
      const sorted = written.toSorted((one, other) => {
        const [a, b] = [value(one), value(other)];
        return a === null || b === null ? (a === null) - (b === null) : sign * order(a, b); // empty ones last, either way
      });
      body.replaceChildren(...sorted);
    });
  }
  byId("outlines")?.addEventListener("change", (event) => shapes.classList.toggle("off", !event.target.checked));

  look(frameWidth / 2, frameHeight / 2, fitted);
  paint();
})();
