// The second view: the text, each token tinted by what the chosen one sees of it, with arcs for the strong links. Hover
// and arrow keys show, click and Enter keep, Shift sets the other end.

const MOST_LINKS = 60;

/** @param {Page} page @returns {AttentionView} */
function textView(page) {
  const { part, get, set, need, take } = page;
  const text = part(".text");
  /** @type {any[]} one a token, with its `index` */
  let spans = [];

  /** @param {Content} content */
  function begin({ tokens }) {
    const focused = letGo(text);
    text.replaceChildren();
    text.dir = getComputedStyle(part("textarea")).direction; // tokens are boxes, and say nothing of it themselves
    spans = tokens.map(([label, begins, ends], index) => {
      const span = make("span", { class: begins ? "token word" : "token", role: "button", tabindex: -1 }, label);
      text.append(span);
      if (ends) text.append(make("br"));
      return Object.assign(span, { index });
    });
    if (focused) spans[clamp(get("token"), spans.length - 1)].focus({ preventScroll: true });
  }

  /** @param {Content} content @param {ArrayBuffer[]} data */
  function answer(content, data) {
    const [values, attention] = data.map((bytes) => new Float32Array(bytes));
    if (take(content, () => ({ ...content, values, attention: attention ?? values }))) draw();
  }

  function draw() {
    if (!page.reading || !spans.length) return;
    const token = page.shown();
    const direction = get("direction");
    const row = need("row", { ...page.head(), view: get("view"), token, direction });
    rove(spans, spans[Math.min(token, spans.length - 1)]);
    if (!row) return;
    const isPattern = row.view === "pattern";
    const scale = isPattern ? 1 : row.limit || 1;
    const cut = get("threshold") / 100;
    /** @type {[number, number][]} index and strength */
    const links = [];
    spans.forEach((span, index) => {
      const visible = direction === "from" ? index <= token : index >= token;
      const share = visible ? row.values[index] / scale : 0;
      const size = isPattern ? Math.sqrt(share) : Math.abs(share);
      const colour = size < 0.02 ? "" : rgba(share < 0 ? VERMILLION : BLUE, (STRONGEST * Math.min(1, size)).toFixed(3));
      if (span.style.backgroundColor !== colour) span.style.backgroundColor = colour;
      const value = isPattern ? told(share, "%") : told(row.values[index]);
      // Links are those of the attention in every view; a view of scores shows what they are made of.
      if (visible && row.attention[index] > 0 && row.attention[index] >= cut) {
        links.push([index, share]);
        span.dataset.share = isPattern ? Math.round(100 * share) : told(row.values[index], "", 1);
      } else delete span.dataset.share;
      span.classList.toggle("negative", visible && share < 0);
      span.classList.toggle("chosen", index === token);
      span.classList.toggle("other", index === get("other"));
      span.classList.toggle("hidden", !visible);
      span.setAttribute("aria-pressed", index === get("token"));
      const name = page.reading?.tokens[index][0];
      span.setAttribute("aria-label", `${name}, token ${index}${visible ? `: ${value}` : ""}`);
    });
    drawLinks(token, links, direction);
  }

  /** @param {number} token @param {[number, number][]} links @param {string} direction */
  function drawLinks(token, links, direction) {
    const context = prepared(part(".page canvas"), text.offsetWidth, text.offsetHeight);
    const middle = (span) => span.offsetLeft + span.offsetWidth / 2;
    links.sort((one, other) => Math.abs(one[1]) - Math.abs(other[1]));
    for (const [index, share] of links.slice(-MOST_LINKS)) {
      if (index === token) continue;
      const size = Math.min(1, Math.abs(share));
      const [looks, seen] = (direction === "from" ? [token, index] : [index, token]).map((end) => spans[end]);
      const [x, y] = [middle(looks), looks.offsetTop];
      const [toX, toY] = [middle(seen), seen.offsetTop];
      const lift = y === toY ? Math.min(40, 10 + Math.abs(x - toX) / 8) : 22;
      context.strokeStyle = context.fillStyle = rgba(share < 0 ? VERMILLION : BLUE, 0.25 + 0.65 * size);
      context.lineWidth = 1 + 3 * size;
      context.beginPath();
      context.moveTo(x, y);
      context.bezierCurveTo(x, y - lift, toX, toY - lift, toX, toY - 1);
      context.stroke();
      context.beginPath();
      context.arc(toX, toY - 1, 2 + 2 * size, 0, 7);
      context.fill();
    }
  }

  /** @param {number} index @param {boolean} isOther  it becomes the other end of the link */
  function keep(index, isOther) {
    page.preview = null;
    if (isOther) set({ other: index });
    else set({ token: index });
    page.draw();
  }

  /** @param {Event} event @returns {any} the token that it is about */
  const at = (event) => event.target instanceof Element && event.target.closest(".token");
  text.addEventListener("pointerover", (event) => at(event) && page.look(at(event).index));
  text.addEventListener("pointerleave", () => page.look(null));
  text.addEventListener("click", (event) => {
    if (!at(event)) return;
    keep(at(event).index, event.shiftKey);
    at(event).focus({ preventScroll: true });
  });
  text.addEventListener("focusout", (event) => text.contains(event.relatedTarget) || page.look(null));

  /** The token of the line above or below that stands closest. @param {any} span @param {number} step */
  function inLine(span, step) {
    const lines = [...new Set(spans.map(({ offsetTop }) => offsetTop))].sort((one, other) => one - other);
    const top = lines[lines.indexOf(span.offsetTop) + step];
    const middle = span.offsetLeft + span.offsetWidth / 2;
    const distance = ({ offsetLeft, offsetWidth }) => Math.abs(offsetLeft + offsetWidth / 2 - middle);
    const there = spans.filter(({ offsetTop }) => offsetTop === top);
    return there.length ? there.reduce((best, next) => (distance(next) < distance(best) ? next : best)) : span;
  }

  text.addEventListener("keydown", (event) => {
    const span = at(event);
    if (!span) return;
    const onward = text.dir === "rtl" ? -1 : 1;
    const go = (index) => spans[clamp(index, spans.length - 1)];
    const moves = {
      ArrowLeft: () => go(span.index - onward),
      ArrowRight: () => go(span.index + onward),
      ArrowUp: () => inLine(span, -1),
      ArrowDown: () => inLine(span, 1),
      Home: () => go(0),
      End: () => go(Infinity),
    };
    if (event.key in moves) {
      const next = moves[event.key]();
      page.look(next.index);
      rove(spans, next);
      next.focus();
    } else if (event.key === "Enter" || event.key === " ") keep(span.index, event.shiftKey);
    else if (event.key === "Escape") page.look(null);
    else return;
    event.preventDefault();
    event.stopPropagation();
  });

  return { begin, answer, draw };
}
