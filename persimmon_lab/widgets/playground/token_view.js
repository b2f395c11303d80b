// The text of the playground: shows what Python rendered and escaped, and knows nothing of probabilities. Every child of
// `text` is one token. Stands behind keys.js in one module.

const FRAME = `
  <div class="panes">
    <div class="page"><span class="prompt"></span><span class="text" role="group"
      aria-label="Generated tokens: arrow keys move, Enter shows the alternatives"></span><div class="error"
      role="alert"></div></div>
    <div class="side"><button type="button" class="scale jupyter-button" aria-pressed="false">log scale</button><div
      class="details" role="region" aria-live="polite" aria-label="The chosen token"></div>
    </div>
  </div>
  <div class="key"></div>
  <details class="code"><summary>Code that writes this text</summary><button type="button"
    class="copy jupyter-button">Copy</button><pre></pre></details>`;

const STEPS = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity };

/** @param {{model: Model, el: HTMLElement}} widget */
function render({ model, el }) {
  el.classList.add(KEEPS_KEYS, "persimmon-tokens");
  el.innerHTML = FRAME;
  /** @param {string} selector @returns {any} */
  const part = (selector) => el.querySelector(selector);
  const panes = part(".panes");
  const page = part(".page");
  const text = part(".text");

  /** @returns {any[]} rows of the table beside the text */
  const alternatives = () => [...el.querySelectorAll("tr[data-token]")];
  /** @param {string} name @param {(value: any) => void} apply */
  const show = (name, apply) => {
    const update = () => apply(model.get(name));
    model.on(`change:${name}`, update);
    update();
  };
  const follow = () => (page.scrollTop = page.scrollHeight);
  show("prompt", (html) => {
    part(".prompt").innerHTML = html;
    follow();
  });
  const details = part(".details");
  show("details", (html) => {
    const focused = alternatives().indexOf(document.activeElement);
    details.innerHTML = html;
    for (const [index, row] of alternatives().entries()) {
      row.setAttribute("role", "button");
      row.setAttribute("aria-label", `Go on with ${row.cells[1].innerText}, ${row.cells[3].innerText}`);
      row.title = "Go on with this token: a new branch";
      row.tabIndex = index === Math.max(focused, 0) ? 0 : -1;
    }
    if (focused >= 0) alternatives()[focused]?.focus();
    part(".scale").hidden = html === "";
  });
  show("log", (log) => part(".scale").setAttribute("aria-pressed", log));
  show("legend", (html) => (part(".key").innerHTML = html));
  show("error", (message) => (part(".error").textContent = message));
  show("stale", (stale) => panes.classList.toggle("stale", stale));
  show("code", (code) => (part("pre").textContent = code));

  // Everything from token `start` on is now this; a view that missed something asks for the whole.
  model.on("msg:custom", (/** @type {{start: number, html: string}} */ { start, html }) => {
    if (start > text.children.length) return model.send({ type: "whole" });
    const atEnd = start === 0 || page.scrollHeight - page.scrollTop - page.clientHeight < 40;
    while (text.children.length > start) text.lastElementChild.remove();
    text.insertAdjacentHTML("beforeend", html);
    for (const token of [...text.children].slice(start)) {
      token.setAttribute("role", "button");
      token.tabIndex = token === text.firstElementChild ? 0 : -1;
    }
    mark();
    if (atEnd) follow();
  });
  // What is known of tokens besides their text: the chosen one, those where branches leave, those a reader put in.
  function mark() {
    const [chosen, forks, forced] = ["chosen", "forks", "forced"].map((name) => model.get(name));
    [...text.children].forEach((token, index) => {
      token.toggleAttribute("aria-pressed", index === chosen);
      if (index === chosen) token.setAttribute("aria-pressed", "true");
      token.classList.toggle("fork", forks.includes(index));
      token.classList.toggle("forced", forced.includes(index));
    });
  }
  for (const name of ["chosen", "forks", "forced"]) model.on(`change:${name}`, mark);
  model.send({ type: "whole" });

  /** @param {Element | null} token */
  const choose = (token) => {
    model.send({ type: "choose", index: [...text.children].indexOf(token) });
  };
  /** @param {HTMLElement} token */
  const focus = (token) => {
    text.querySelector("[tabindex='0']")?.setAttribute("tabindex", -1);
    token.tabIndex = 0;
    token.focus();
  };
  text.addEventListener("click", ({ target }) => {
    const token = target.closest(".token");
    if (token) focus(token), choose(token);
  });
  text.addEventListener("keydown", (event) => {
    const tokens = [...text.children];
    const token = event.target.closest(".token");
    if (event.key in STEPS) {
      const index = tokens.indexOf(token) + STEPS[event.key];
      focus(tokens[Math.max(0, Math.min(index, tokens.length - 1))]);
    } else if (event.key === "Enter" || event.key === " ") choose(token);
    else if (event.key === "Escape") choose(null);
    else return;
    event.preventDefault();
    event.stopPropagation();
  });

  /** @param {HTMLElement} row */
  const take = (row) => {
    const about = row.closest("[data-about]")?.getAttribute("data-about");
    model.send({ type: "take", about, token: Number(row.dataset.token) });
  };
  details.addEventListener("click", ({ target }) => {
    const row = target.closest("tr[data-token]");
    if (row) take(row);
  });
  details.addEventListener("keydown", (event) => {
    const row = event.target.closest("tr[data-token]");
    if (!row) return;
    const step = { ArrowUp: -1, ArrowDown: 1, Home: -Infinity, End: Infinity }[event.key];
    if (step) {
      const rows = alternatives();
      row.tabIndex = -1;
      const next = rows[Math.max(0, Math.min(rows.indexOf(row) + step, rows.length - 1))];
      next.tabIndex = 0;
      next.focus();
    } else if (event.key === "Enter" || event.key === " ") take(row);
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
  part(".scale").addEventListener("click", () => model.send({ type: "scale" }));

  part(".copy").addEventListener("click", async ({ target }) => {
    try {
      await navigator.clipboard.writeText(model.get("code"));
      target.textContent = "Copied";
    } catch {
      // No clipboard on a page that did not come over https or from this machine: leave the rest to the reader's keys.
      getSelection()?.selectAllChildren(part("pre"));
      target.textContent = "Selected";
    }
    setTimeout(() => (target.textContent = "Copy"), 2000);
  });
}

export default { render };
