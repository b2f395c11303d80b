// The lens explorer: draws a window on the logit lens, of which only columns that can be seen exist. Asks Python for the
// columns and cells that it lacks, keeps what it has, and knows nothing of models. Stands behind explorer.js in one
// module.

/**
 * A place in the lens.
 * @typedef {{stream: number, position: number}} Cell
 */

const FRAME = `
  <label class="ask"><span class="caption">text</span><textarea rows="2" spellcheck="false"></textarea></label>
  <div class="error" role="alert"></div>
  <div class="tools">
    <div class="choice after" role="radiogroup" aria-label="Where in a layer the residual stream is read"></div>
    <span class="caption legend">shade: probability of the best token <i class="shade"></i>
      <i class="frame">frame</i> it is the token that follows</span>
  </div>
  <div class="panes">
    <section class="grid">
      <div class="names" aria-hidden="true"></div>
      <div class="scroll"><div class="strip" role="group" aria-label="Best tokens by layer and position: arrow keys
        show a cell, Enter keeps it"></div></div>
    </section>
    <section class="chosen"><div class="details" role="region" aria-live="polite" aria-label="The chosen cell"></div>
    </section>
  </div>
  <p class="remark hint"><span class="window"></span> · Hover or arrow keys look, click or Enter keeps a cell. Home and
    End go to the text's ends.</p>`;

const PLACES = { attention: "after attention", mlp: "after MLP" };
const NARROWEST = 54; // CSS pixels of a column
const WIDEST = 92;
const SIGNS = { " ": "␣", "▁": "␣", "\n": "↵", "<0x0A>": "↵", "\t": "⇥", "<0x09>": "⇥" };

/** @param {number} rows */
const rowHeight = (rows) => (rows > 20 ? "20px" : rows > 10 ? "27px" : "34px");
/** @param {string} piece */
const visible = (piece) => piece.replace(/[ ▁\n\t]|<0x0[9A]>/g, (hidden) => SIGNS[hidden]);

/** A piece with its signs faint, so that words stand out. @param {Element} element @param {string} piece */
function write(element, piece) {
  const parts = visible(piece).split(/([␣↵⇥])/).filter(Boolean);
  element.replaceChildren(...parts.map((part) => (/[␣↵⇥]/.test(part) ? make("span", { class: "sign" }, part) : part)));
}

/** @param {{model: Model, el: HTMLElement}} widget */
function render({ model, el }) {
  const view = framed({ model, el }, "persimmon-lens", FRAME);
  const { part, get, set } = view;
  const [scroll, strip] = [".scroll", ".strip"].map(part);

  /** @type {any} */
  let reading = null;
  /** @type {Cell | null} under the pointer or the focus */
  let preview = null;
  let width = NARROWEST;
  /** @type {Map<number, any>} the elements of a position */
  const columns = new Map();
  // Cells one at a time: a pointer crosses many.
  const { begin: beginAsking, need, take } = questions(model, (type, key) => (type === "cell" ? type : key));
  model.on("msg:custom", (/** @type {Content} */ content) => {
    if (content.type === "whole") return content.failed || begin(content);
    if (take(content)) draw();
  });

  /** @param {Content} content */
  function begin(content) {
    const focused = letGo(strip); // while the columns of the text before are still whole
    reading = content;
    preview = null;
    beginAsking(content);
    columns.clear();
    strip.replaceChildren();
    el.style.setProperty("--row", rowHeight(reading.streams.length));
    el.style.setProperty("--count", reading.streams.length + 2);
    const names = ["follows", ...[...reading.streams].reverse(), "read"];
    part(".names").replaceChildren(...names.map((name) => make("div", {}, name)));
    box.begin(content.text);
    measure();
    reveal(get("position"));
    draw();
    if (focused) focus(kept());
  }

  function measure() {
    const [room, count] = [scroll.clientWidth, reading.tokens.length];
    const fitting = Math.max(1, Math.floor(room / NARROWEST));
    width = count <= fitting ? Math.min(WIDEST, room / count) : room / fitting;
    strip.style.width = `${width * count}px`;
    for (const [position, column] of columns) place(column, position);
  }
  /** @param {any} column @param {number} position */
  const place = (column, position) => {
    column.style.left = `${position * width}px`;
    column.style.width = `${width}px`;
  };

  /** Scrolls as little as needed for a position to be seen whole, with its neighbour where there is room. */
  function reveal(position) {
    const [left, right] = [(position - 1) * width, (position + 2) * width];
    if (left < scroll.scrollLeft) scroll.scrollLeft = left;
    else if (right > scroll.scrollLeft + scroll.clientWidth) scroll.scrollLeft = right - scroll.clientWidth;
  }

  /** @returns {Cell} */
  const kept = () => ({
    stream: clamp(get("stream"), reading.streams.length - 1),
    position: clamp(get("position"), reading.tokens.length - 1),
  });
  /** @returns {Cell} */
  const shown = () => preview ?? kept();

  function draw() {
    if (!reading) return;
    box.markStale();
    updatePlaces();
    drawColumns();
    const { stream, position } = shown();
    const cell = need("cell", { after: get("after"), stream, position });
    const details = part(".details");
    if (cell && details.shown !== cell) {
      details.innerHTML = cell.html;
      details.shown = cell;
    }
    details.classList.toggle("late", !cell);
    [...part(".names").children].forEach((name, row) =>
      name.classList.toggle("here", row === reading.streams.length - stream),
    );
  }

  function drawColumns() {
    const first = clamp(Math.floor(scroll.scrollLeft / width) - 1, reading.tokens.length - 1);
    const last = clamp(Math.ceil((scroll.scrollLeft + scroll.clientWidth) / width), reading.tokens.length - 1);
    for (const [position, column] of columns) {
      if ((position >= first && position <= last) || column.contains(document.activeElement)) continue;
      column.remove();
      columns.delete(position);
    }
    for (let position = first; position <= last; position += 1)
      if (!columns.has(position)) columns.set(position, makeColumn(position));
    for (const [position, column] of columns) fill(column, position);
    const [left, right] = [scroll.scrollLeft / width, (scroll.scrollLeft + scroll.clientWidth) / width];
    const [from, to] = [Math.ceil(left - 0.1), Math.floor(right + 0.1) - 1]; // those that are seen whole
    const count = reading.tokens.length;
    const end = clamp(Math.max(from, to), count - 1);
    const span = from < end ? `Tokens ${from} … ${end}` : `Token ${end}`;
    part(".window").textContent = `${span} of ${count}`;
  }

  /** @param {number} position */
  function makeColumn(position) {
    const column = make("div", { class: "column" });
    place(column, position);
    const following = make("div", { class: "following" });
    if (position + 1 < reading.tokens.length) write(following, reading.tokens[position + 1]);
    const cells = reading.streams.map((_, stream) =>
      Object.assign(make("div", { class: "cell", role: "button", tabindex: -1 }), { at: { stream, position } }),
    );
    const read = make("div", { class: "read", title: visible(reading.tokens[position]) });
    const name = make("span");
    write(name, reading.tokens[position]);
    read.append(name, make("small", {}, String(position)));
    column.append(following, ...[...cells].reverse(), read);
    // In the order of the text, whichever came first, for whoever reads the page without seeing it.
    const next = [...columns.keys()].filter((other) => other > position);
    strip.insertBefore(column, next.length ? columns.get(Math.min(...next)) : null);
    return Object.assign(column, { cells });
  }

  /** @param {any} column @param {number} position */
  function fill(column, position) {
    const first = Math.floor(position / reading.chunk) * reading.chunk;
    const answer = need("window", { after: get("after"), first });
    const [look, keep] = [shown(), kept()];
    column.classList.toggle("here", position === look.position);
    column.cells.forEach((cell, stream) => {
      const [piece, share, follows] = answer ? answer.cells[stream][position - first] : ["", 0, 0];
      const key = answer ? `${piece} ${share} ${follows}` : "";
      if (cell.key !== key) {
        cell.key = key;
        write(cell, piece);
        cell.style.backgroundColor = rgba(BLUE, (STRONGEST * share).toFixed(3));
        cell.classList.toggle("follows", Boolean(follows));
        const name = `${reading.streams[stream]}, token ${position}`;
        const percent = share === null ? "" : ` ${(100 * share).toFixed(1)} %`;
        const said = `: ${visible(piece)}${percent}${follows ? ", which follows" : ""}`;
        cell.setAttribute("aria-label", answer ? name + said : name);
      }
      const is = (there) => there.stream === stream && there.position === position;
      cell.classList.toggle("looked", is(look));
      cell.classList.toggle("chosen", is(keep));
      cell.setAttribute("aria-pressed", is(keep));
      cell.tabIndex = is(look) ? 0 : -1;
    });
  }

  /** @param {any} event @returns {Cell | undefined} */
  const at = (event) => event.target.closest?.(".cell")?.at;
  /** @param {Cell | null} there */
  const look = (there) => {
    preview = there;
    draw();
  };
  /** @param {Cell} there */
  const keep = (there) => {
    preview = null;
    set(there);
    draw();
  };
  /** @param {Cell} there */
  const focus = ({ stream, position }) => columns.get(position)?.cells[stream].focus({ preventScroll: true });
  // Cells that scroll under a pointer at rest are not looked at.
  let pointer = "";
  const moved = ({ clientX, clientY }) => pointer !== (pointer = `${clientX} ${clientY}`);
  /** @param {Cell} one @param {Cell} other */
  const same = (one, other) => one.stream === other.stream && one.position === other.position;
  strip.addEventListener("pointermove", (event) => {
    const there = at(event);
    if (moved(event) && there && !same(there, shown())) look(there);
  });
  strip.addEventListener("pointerleave", (event) => moved(event) && look(null));
  strip.addEventListener("click", (event) => {
    const there = at(event);
    if (!there) return;
    keep(there);
    focus(there);
  });
  strip.addEventListener("focusout", (event) => strip.contains(event.relatedTarget) || look(null));
  strip.addEventListener("keydown", (event) => {
    const there = at(event);
    if (!there) return;
    const { stream, position } = there;
    const page = Math.max(1, Math.floor(scroll.clientWidth / width) - 1);
    const moves = {
      ArrowLeft: [stream, position - 1],
      ArrowRight: [stream, position + 1],
      ArrowUp: [stream + 1, position],
      ArrowDown: [stream - 1, position],
      PageUp: [stream, position - page],
      PageDown: [stream, position + page],
      Home: [stream, 0],
      End: [stream, Infinity],
    };
    if (event.key in moves) {
      const [row, column] = moves[event.key];
      preview = { stream: clamp(row, reading.streams.length - 1), position: clamp(column, reading.tokens.length - 1) };
      reveal(preview.position);
      const next = preview;
      draw();
      focus(next);
    } else if (event.key === "Enter" || event.key === " ") keep(there);
    else if (event.key === "Escape") {
      reveal(kept().position);
      look(null);
      focus(kept());
    } else return;
    event.preventDefault();
    event.stopPropagation();
  });
  scroll.addEventListener("scroll", () => draw());

  const updatePlaces = radios(part(".after"), PLACES, view, "after");
  const box = textBox(view, draw);
  for (const name of ["stream", "after"]) model.on(`change:${name}`, draw);
  model.on("change:position", () => {
    if (reading) reveal(kept().position);
    draw();
  });
  const observer = new ResizeObserver(() => {
    if (!reading) return;
    measure();
    draw();
  });
  observer.observe(scroll);
  model.send({ type: "whole" });
  return () => observer.disconnect();
}

export default { render };
