// Shows what Python cut and escaped; knows nothing of tokens. Every span of `pieces` is one; a newline has a br after it.

const FRAME = `
  <textarea rows="3" spellcheck="false" aria-label="Text to cut into pieces" placeholder="Type a text"></textarea>
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

function render({ model, el }) {
  el.classList.add("persimmon-pieces");
  el.dataset.lmSuppressShortcuts = "true"; // what is typed here is no command for JupyterLab
  el.innerHTML = FRAME;
  const part = (name) => el.querySelector(name);
  const [area, box, pieces] = [part("textarea"), part("input"), part(".pieces")];
  const set = (name, value) => (model.set(name, value), model.save_changes());
  const all = () => [...pieces.querySelectorAll(":scope > .piece")];
  const show = (name, apply) => {
    const update = () => apply(model.get(name));
    model.on(`change:${name}`, update);
    update();
  };

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

  // Pieces `start` to `end` are now these; a view that missed a version asks for the whole.
  let version = -1;
  model.on("msg:custom", (message) => {
    if (message.base !== -1 && message.base !== version) return model.send({ type: "whole" });
    const spans = all();
    const end = message.end < 0 ? spans.length : message.end;
    const after = spans[end] ?? null;
    for (const piece of spans.slice(message.start, end)) {
      if (piece.nextSibling?.nodeName === "BR") piece.nextSibling.remove();
      piece.remove();
    }
    const made = document.createElement("template");
    made.innerHTML = message.spans.join("");
    for (const piece of made.content.querySelectorAll(".piece")) {
      piece.setAttribute("role", "button");
      piece.tabIndex = -1;
    }
    pieces.insertBefore(made.content, after);
    version = message.version;
    mark();
  });
  model.send({ type: "whole" });

  const at = (piece) => all().indexOf(piece);
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
      const index = at(piece) + STEPS[event.key];
      choose(all()[Math.max(0, Math.min(index, all().length - 1))]);
    } else if (event.key === "Enter" || event.key === " ") choose(piece);
    else if (event.key === "Escape") set("chosen", -1);
    else return;
    event.preventDefault();
    event.stopPropagation();
  });

  let resting;
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
