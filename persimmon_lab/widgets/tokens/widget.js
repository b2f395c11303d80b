// The token inspector: shows what Python cut and escaped, and knows nothing of tokens. Every span of `pieces` is one; a
// newline has a br after it. Stands behind keys.js in one module.

/**
 * Pieces `start` to `end` (-1: all after it) of version `base` (-1: of any) become these.
 * @typedef {{base: number, version: number, start: number, end: number, spans: string[]}} Change
 */

const FRAME = `
  <textarea rows="3" dir="auto" spellcheck="false" aria-label="Text to cut into pieces" placeholder="Type a text"></textarea>
  <div class="bar"><label><input type="checkbox"> read special tokens such as <code>|ENDOFTEXT|</code></label>
    <span class="counts" role="status" aria-label="Counts"></span></div>
  <div class="error" role="alert"></div>
  <div class="panes">
    <div class="page"><div class="pieces" role="group"
      aria-label="Pieces: arrow keys move from one to the next, Escape lets go"></div></div>
    <div class="details" role="region" aria-live="polite" aria-label="The chosen piece"></div>
  </div>`;

const STEPS = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -1, ArrowDown: 1, Home: -Infinity, End: Infinity };
const AFTER_TYPING = 80; // milliseconds
const AFTER_RESTING = 60; // of the mouse on a piece

/** @param {{model: Model, el: HTMLElement}} widget */
function render({ model, el }) {
  el.classList.add(KEEPS_KEYS, "persimmon-pieces");
  el.innerHTML = FRAME;
  sayWhenGone(model, () => el);
  /** @param {string} selector @returns {any} */
  const part = (selector) => el.querySelector(selector);
  const [area, box, pieces] = [part("textarea"), part("input"), part(".pieces")];
  /** @param {string} name @param {any} value */
  const set = (name, value) => (model.set(name, value), model.save_changes());
  /** @returns {HTMLElement[]} */
  const all = () => [...pieces.querySelectorAll(":scope > .piece")];
  /** @param {string} name @param {(value: any) => void} apply */
  const show = (name, apply) => {
    const update = () => apply(model.get(name));
    model.on(`change:${name}`, update);
    update();
  };

  /** @type {string | undefined} */
  let sent; // what was typed here comes back; only what others wrote is news
  let typing;
  show("text", (text) => text !== sent && (area.value = sent = text));
  area.addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(() => set("text", (sent = area.value)), AFTER_TYPING);
  });
  show("parse_special", (on) => (box.checked = on));
  box.addEventListener("change", () => set("parse_special", box.checked));
  show("counts", (html) => (part(".counts").innerHTML = html));
  show("error", (message) => (part(".error").textContent = message));
  show("details", (html) => (part(".details").innerHTML = html));

  const mark = () => {
    const [shown, [from, to]] = [model.get("shown"), model.get("together")];
    for (const old of pieces.querySelectorAll(".together")) old.classList.remove("together");
    const spans = all();
    for (const piece of spans.slice(from, to)) piece.classList.add("together");
    pieces.querySelector("[aria-pressed]")?.removeAttribute("aria-pressed");
    spans[shown]?.setAttribute("aria-pressed", "true");
    if (pieces.querySelector("[tabindex='0']")) return;
    const first = spans[Math.max(shown, 0)] ?? spans[0];
    if (first) first.tabIndex = 0;
  };
  model.on("change:shown", mark);
  model.on("change:together", mark);

  let version = -1; // a view that missed one asks for the whole
  model.on("msg:custom", (/** @type {Change} */ message) => {
    if (message.base !== -1 && message.base !== version) return model.send({ type: "whole" });
    const spans = all();
    const end = message.end < 0 ? spans.length : message.end;
    const after = spans[end] ?? null;
    for (const piece of spans.slice(message.start, end)) {
      if (piece.nextSibling?.nodeName === "BR") piece.nextSibling.remove();
      piece.remove();
    }
    const template = document.createElement("template");
    template.innerHTML = message.spans.join("");
    for (const piece of template.content.querySelectorAll(".piece")) {
      piece.setAttribute("role", "button");
      piece.setAttribute("tabindex", "-1");
    }
    pieces.insertBefore(template.content, after);
    pieces.dir = getComputedStyle(area).direction; // pieces are boxes, and say nothing of it themselves
    version = message.version;
    mark();
  });
  model.send({ type: "whole" });

  /** @param {HTMLElement} piece */
  const at = (piece) => all().indexOf(piece);
  /** @param {HTMLElement} piece */
  const choose = (piece) => {
    pieces.querySelector("[tabindex='0']")?.setAttribute("tabindex", -1);
    piece.tabIndex = 0;
    piece.focus();
    clearTimeout(resting);
    model.set("looked_at", -1);
    set("chosen", at(piece));
  };
  pieces.addEventListener("click", ({ target }) => {
    const piece = target.closest(".piece");
    if (piece) choose(piece);
  });
  pieces.addEventListener("keydown", (event) => {
    const piece = event.target.closest(".piece");
    if (event.key in STEPS) {
      const onward = pieces.dir === "rtl" && /Left|Right/.test(event.key) ? -1 : 1;
      const index = at(piece) + onward * STEPS[event.key];
      choose(all()[Math.max(0, Math.min(index, all().length - 1))]);
    } else if (event.key === "Enter" || event.key === " ") choose(piece);
    else if (event.key === "Escape") set("chosen", -1);
    else return;
    event.preventDefault();
    event.stopPropagation();
  });

  let resting;
  /** @param {number} index */
  const look = (index) => {
    clearTimeout(resting);
    resting = setTimeout(() => index !== model.get("looked_at") && set("looked_at", index), AFTER_RESTING);
  };
  pieces.addEventListener("pointerover", ({ target }) => {
    const piece = target.closest(".piece");
    if (piece) look(at(piece));
  });
  pieces.addEventListener("pointerleave", () => look(-1));
  return () => (clearTimeout(typing), clearTimeout(resting));
}

export default { render };
