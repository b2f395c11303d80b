// The branches of a text: shows what Python rendered and escaped, and says what a reader asks for. Stands behind keys.js
// in one module.

const FRAME = `
  <div class="head"><span class="title">Branches</span><span class="hint">Enter goes there · F2 names · Delete
    removes</span><span class="space"></span><button type="button" class="jupyter-button" data-ask="json" title="The
    whole tree, to be opened again">Save JSON</button><button type="button" class="jupyter-button" data-ask="python"
    title="Code that writes every branch again">Save Python</button><button type="button" class="jupyter-button open"
    title="A tree that was saved as JSON">Open…</button><input type="file" accept=".json" hidden></div>
  <div class="list"></div>`;

/** @param {{model: Model, el: HTMLElement}} widget */
function render({ model, el }) {
  el.classList.add(KEEPS_KEYS, "persimmon-branches");
  el.innerHTML = FRAME;
  /** @param {string} selector @returns {any} */
  const part = (selector) => el.querySelector(selector);
  const list = part(".list");
  /** @returns {HTMLElement[]} */
  const rows = () => [...list.querySelectorAll("[data-number]")];
  /** @param {string} type @param {HTMLElement | null} [row] @param {string} [text] */
  const ask = (type, row, text) => model.send({ type, number: Number(row?.dataset.number ?? 0), text });

  const update = () => {
    /** @type {HTMLElement | null | undefined} */
    const focused = document.activeElement?.closest("[data-number]");
    const number = focused && list.contains(focused) ? focused.dataset.number : null;
    list.innerHTML = model.get("html");
    el.hidden = rows().length === 0;
    for (const row of rows()) {
      row.tabIndex = row.getAttribute("aria-selected") === "true" ? 0 : -1;
      const name = document.createElement("button");
      const remove = document.createElement("button");
      Object.assign(name, { textContent: "✎", title: "Name this branch (F2)", className: "tool", tabIndex: -1 });
      Object.assign(remove, { textContent: "✕", title: "Remove it and what grew from it (Delete)", className: "tool", tabIndex: -1 });
      name.addEventListener("click", () => rename(row));
      remove.addEventListener("click", () => ask("remove", row));
      row.append(name, remove);
    }
    if (number !== null) (rows().find((row) => row.dataset.number === number) ?? rows()[0])?.focus();
  };
  model.on("change:html", update);
  update();

  /** Puts an input in the place of a branch's words until Enter or Escape. @param {HTMLElement} row */
  function rename(row) {
    const input = document.createElement("input");
    Object.assign(input, { className: "name", placeholder: "a name, then Enter" });
    input.setAttribute("aria-label", "Name of the branch");
    const words = /** @type {Element} */ (row.querySelector(".words"));
    let over = false; // leaving the page takes the focus away, which would end it once more
    /** @param {boolean} keep */
    const end = (keep) => {
      if (over) return;
      over = true;
      input.replaceWith(words);
      row.focus();
      if (keep) ask("rename", row, input.value);
    };
    input.addEventListener("keydown", (event) => {
      event.stopPropagation();
      if (event.key === "Enter" || event.key === "Escape") end(event.key === "Enter");
    });
    input.addEventListener("blur", () => end(false));
    input.value = words.querySelector("b")?.textContent ?? "";
    words.replaceWith(input);
    input.focus();
  }

  list.addEventListener("click", ({ target }) => {
    const row = target.closest("[data-number]");
    if (row && !target.closest("button, input")) ask("select", row);
  });
  list.addEventListener("keydown", (event) => {
    const row = event.target.closest("[data-number]");
    const step = { ArrowUp: -1, ArrowDown: 1, Home: -Infinity, End: Infinity }[event.key];
    if (step) {
      const all = rows();
      const next = all[Math.max(0, Math.min(all.indexOf(row) + step, all.length - 1))];
      row.tabIndex = -1;
      next.tabIndex = 0;
      next.focus();
    } else if (event.key === "Enter" || event.key === " ") ask("select", row);
    else if (event.key === "F2") rename(row);
    else if (event.key === "Delete") ask("remove", row);
    else return;
    event.preventDefault();
    event.stopPropagation();
  });

  for (const what of ["json", "python"]) part(`[data-ask=${what}]`).addEventListener("click", () => ask(what));
  part(".open").addEventListener("click", () => part("input[type=file]").click());
  part("input[type=file]").addEventListener("change", async ({ target }) => {
    if (target.files.length) ask("open", null, await target.files[0].text());
    target.value = "";
  });
  model.on("msg:custom", (/** @type {{file: string, text: string}} */ { file, text }) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type: "text/plain" }));
    link.download = file;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  });
}

export default { render };
