// Draws what Python computed: pictures of heads as bytes, rows of attention as float32. Asks for what it lacks, keeps
// what it has, and knows nothing of models. Stands behind explorer.js in one module.

const FRAME = `
  <label class="ask"><span class="caption">text</span><textarea rows="2" spellcheck="false"></textarea></label>
  <div class="error" role="alert"></div>
  <div class="tools">
    <div class="choice view" role="radiogroup" aria-label="What is shown"></div>
    <div class="choice direction" role="radiogroup" aria-label="Direction"></div>
    <label class="caption threshold">links from <input type="range" min="0" max="100" step="1"><output></output></label>
    <label class="caption order">heads by <select></select></label>
  </div>
  <div class="panes">
    <section class="heads">
      <div class="scroll"><div class="grid" role="radiogroup" aria-label="Heads: arrow keys choose one">
        <canvas aria-hidden="true"></canvas></div></div>
      <p class="remark meaning"></p>
      <div class="marks"></div>
    </section>
    <section class="page"><div class="lines">
      <canvas aria-hidden="true"></canvas>
      <div class="text" role="group"
        aria-label="Tokens: arrow keys show what each looks at, Enter keeps one, Shift and Enter sets the other end"></div>
    </div></section>
    <section class="matrix"><canvas role="img"></canvas><p class="remark told"></p></section>
    <section class="chosen"><div class="details" role="region" aria-live="polite" aria-label="The chosen token"></div>
      <p class="remark hint">Hover or arrow keys look, click or Enter keeps a token; with Shift, it becomes the other
        end of the link.</p></section>
  </div>`;

const VIEWS = { pattern: "attention", score: "score", rotated: "rotated part", passed: "passed part" };
const DIRECTIONS = { from: "where it looks", to: "who looks at it" };
const VERMILLION = [213, 94, 0];
const MATRIX = 250; // CSS pixels

// Bytes from -127 to 127 as a picture: blue above zero, vermillion below, see-through where there is nothing.
function picture(bytes, width, height) {
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  const context = canvas.getContext("2d");
  const image = context.createImageData(width, height);
  bytes.forEach((value, index) => {
    const opacity = Math.min(255, 2 * Math.abs(value));
    image.data.set([...(value < 0 ? VERMILLION : BLUE), opacity], 4 * index);
  });
  context.putImageData(image, 0, 0);
  return canvas;
}

// A canvas of so many CSS pixels, sharp on every screen and empty.
function prepared(canvas, width, height) {
  const ratio = window.devicePixelRatio || 1;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  const context = canvas.getContext("2d");
  context.scale(ratio, ratio);
  context.imageSmoothingEnabled = false;
  return context;
}

const shortened = (name) => (name.length > 8 ? `${name.slice(0, 7)}…` : name);

// One focusable thing of many: the others are reached by arrow keys.
function rove(items, next) {
  for (const item of items) if (item.tabIndex === 0 && item !== next) item.tabIndex = -1;
  next.tabIndex = 0;
}

function render({ model, el }) {
  const view = framed({ model, el }, "persimmon-attention", FRAME);
  const { part, get, set, show } = view;
  const [grid, text, page] = [".grid", ".text", ".lines"].map(part);
  const [slider, select] = [".threshold input", "select"].map(part);

  let reading = null;
  let [buttons, spans, ranked] = [[], [], []];
  let [thumbnails, preview] = [null, null];

  const { begin: beginAsking, need, take, tell } = questions(model, (type) => type);
  const head = () => ({ layer: get("layer"), head: get("head") });
  const shown = () => preview ?? get("token");
  const needRow = () =>
    need("row", { ...head(), view: get("view"), token: shown(), direction: get("direction") });
  const needHead = () => need("head", { ...head(), view: get("view") });
  const needHeads = () =>
    need("heads", { token: get("token"), other: get("other"), direction: get("direction"), order: get("order") });

  model.on("msg:custom", (content, buffers) => {
    const data = buffers.map(({ buffer, byteOffset, byteLength }) => buffer.slice(byteOffset, byteOffset + byteLength));
    const { type, size } = content;
    if (type === "whole") return content.failed || begin(content, new Int8Array(data[0]));
    if (type === "row") {
      const [values, attention] = data.map((each) => new Float32Array(each));
      if (take(content, () => ({ ...content, values, attention: attention ?? values }))) drawText();
    } else if (type === "head") {
      if (take(content, () => ({ ...content, picture: picture(new Int8Array(data[0]), size, size) }))) drawMatrix();
    } else if (take(content, () => ({ ...content, ...scored(...data) }))) drawHeads();
  });
  function scored(scores, bytes) {
    const [strips, rows] = [new Int8Array(bytes), buttons.length];
    return { scores: new Float32Array(scores), strips: picture(strips, strips.length / rows, rows) };
  }

  function begin(content, bytes) {
    const same = reading?.layers === content.layers && reading.heads === content.heads;
    reading = content;
    preview = null;
    beginAsking(content);
    const { layers, heads, size } = content;
    thumbnails = picture(bytes, size, layers * heads * size);
    if (!same) {
      buttons.forEach((button) => button.remove());
      buttons = [];
      for (let index = 0; index < layers * heads; index += 1) {
        const place = { layer: Math.floor(index / heads), head: index % heads };
        const button = make("button", { type: "button", role: "radio", tabindex: -1 });
        button.append(make("span"));
        button.addEventListener("click", () => set(place));
        buttons.push(Object.assign(button, { place }));
        grid.append(button);
      }
      ranked = [];
    }
    text.replaceChildren();
    spans = content.tokens.map(([label, begins, ends], index) => {
      const span = make("span", { class: begins ? "token word" : "token", role: "button", tabindex: -1 }, label);
      text.append(span);
      if (ends) text.append(make("br"));
      return Object.assign(span, { index });
    });
    box.begin(content.text);
    draw();
  }

  // What is drawn, from the outside in.
  function draw() {
    if (!reading) return;
    box.markStale();
    updateViews();
    updateDirections();
    slider.value = get("threshold");
    part("output").textContent = `${get("threshold")} %`;
    select.value = get("order");
    drawHeads();
    drawText();
    drawMatrix();
  }

  function drawHeads() {
    const answer = needHeads();
    const { layers, heads, size } = reading;
    const chosen = get("layer") * heads + get("head");
    const byLayer = get("order") === "layer";
    const scores = answer?.scores;
    if (answer && !byLayer) {
      const sign = answer.lowest_first ? 1 : -1;
      ranked = buttons.map((_, index) => index).sort((one, other) => sign * (scores[one] - scores[other]) || one - other);
    } else if (byLayer || ranked.length !== buttons.length) ranked = buttons.map((_, index) => index);
    const columns = heads;
    const cell = Math.max(20, Math.min(46, Math.floor(330 / columns)));
    const [caption, strip] = [byLayer ? 0 : 22, 5];
    const height = cell + strip + caption;
    const edge = byLayer ? 16 : 0; // room for the numbers of layers and heads
    const context = prepared(part(".grid canvas"), edge + columns * cell, edge + layers * height);
    grid.style.width = `${edge + columns * cell}px`;
    grid.style.height = `${edge + layers * height}px`;
    context.fillStyle = getComputedStyle(el).color;
    context.font = "10px sans-serif";
    if (byLayer) {
      context.globalAlpha = 0.65;
      context.textAlign = "center";
      for (let column = 0; column < columns; column += 1) context.fillText(column, edge + (column + 0.5) * cell, 11);
      for (let layer = 0; layer < layers; layer += 1) context.fillText(layer, 7, edge + layer * height + cell / 2 + 3);
      context.globalAlpha = 1;
    }
    const inner = cell - 6;
    const cut = get("threshold") / 100;
    ranked.forEach((index, rank) => {
      const [x, y] = [edge + (rank % columns) * cell, edge + Math.floor(rank / columns) * height];
      const button = buttons[index];
      const { layer, head } = button.place;
      const mark = get("marks")[`${layer},${head}`];
      const weak = !byLayer && answer && answer.unit === "%" && scores[index] < cut;
      context.globalAlpha = weak ? 0.3 : 1;
      context.fillStyle = "rgba(128, 128, 128, 0.1)";
      context.fillRect(x + 3, y + 3, inner, inner);
      context.drawImage(thumbnails, 0, index * size, size, size, x + 3, y + 3, inner, inner);
      if (answer) {
        context.fillRect(x + 3, y + 4 + inner, inner, strip - 1);
        const { strips } = answer;
        context.drawImage(strips, 0, index, strips.width, 1, x + 3, y + 4 + inner, inner, strip - 1);
      }
      const value = answer ? told(scores[index], answer.unit) : "";
      const place = `left:${x}px;top:${y}px;width:${cell}px;height:${height}px`;
      if (button.getAttribute("style") !== place) button.setAttribute("style", place);
      button.className = `${mark ? "marked" : ""} ${index === chosen ? "chosen" : ""} ${weak ? "weak" : ""}`;
      button.firstChild.textContent = byLayer ? "" : `${layer}·${head}\n${value}`;
      button.setAttribute("aria-checked", index === chosen);
      const name = `layer ${layer} head ${head}${mark ? `, ${mark}` : ""}${answer ? `: ${value}` : ""}`;
      button.setAttribute("aria-label", name);
      button.title = name;
    });
    rove(buttons, buttons[chosen]);
    const seen = get("direction") === "from" ? "where the chosen token looks" : "who looks at the chosen token";
    part(".meaning").textContent = byLayer ? `Below each head: ${seen}` : (answer?.meaning ?? "");
  }

  function drawMarks() {
    const marks = Object.entries(get("marks")).map(([place, name]) => {
      const [layer, head] = place.split(",").map(Number);
      const button = make("button", { type: "button" }, `${layer}·${head} ${name}`);
      button.addEventListener("click", () => set({ layer, head }));
      return button;
    });
    part(".marks").replaceChildren(...marks);
  }

  const told = (value, unit, digits = 2) => {
    if (unit === "%") return `${(100 * value).toFixed(1)} %`;
    if (unit === "bits") return `${value.toFixed(2)} bits`;
    return `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(digits)}`;
  };

  function drawText() {
    const row = needRow();
    const [token, other, direction] = [shown(), get("other"), get("direction")];
    rove(spans, spans[Math.min(token, spans.length - 1)]);
    if (!row) return;
    const scale = row.view === "pattern" ? 1 : row.limit || 1;
    const isPattern = row.view === "pattern";
    const links = [];
    const cut = get("threshold") / 100;
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
      span.classList.toggle("other", index === other);
      span.classList.toggle("hidden", !visible);
      span.setAttribute("aria-pressed", index === get("token"));
      span.setAttribute("aria-label", `${reading.tokens[index][0]}, token ${index}${visible ? `: ${value}` : ""}`);
    });
    drawLinks(token, links, direction);
  }

  function drawLinks(token, links, direction) {
    const context = prepared(part(".page canvas"), text.offsetWidth, text.offsetHeight);
    const middle = (span) => span.offsetLeft + span.offsetWidth / 2;
    links.sort((one, other) => Math.abs(one[1]) - Math.abs(other[1]));
    for (const [index, share] of links.slice(-60)) {
      if (index === token) continue;
      const size = Math.min(1, Math.abs(share));
      const [looks, seen] = (direction === "from" ? [token, index] : [index, token]).map((each) => spans[each]);
      const [x, y, toX, toY] = [middle(looks), looks.offsetTop, middle(seen), seen.offsetTop];
      context.strokeStyle = context.fillStyle = rgba(share < 0 ? VERMILLION : BLUE, 0.25 + 0.65 * size);
      context.lineWidth = 1 + 3 * size;
      context.beginPath();
      context.moveTo(x, y);
      if (y === toY) {
        const lift = Math.min(40, 10 + Math.abs(x - toX) / 8);
        context.bezierCurveTo(x, y - lift, toX, y - lift, toX, toY - 1);
      } else {
        const lift = 22;
        context.bezierCurveTo(x, y - lift, toX, toY - lift, toX, toY - 1);
      }
      context.stroke();
      context.beginPath();
      context.arc(toX, toY - 1, 2 + 2 * size, 0, 7);
      context.fill();
    }
  }

  function drawMatrix() {
    const answer = needHead();
    const canvas = part(".matrix canvas");
    if (!answer) return;
    const { size, block } = answer;
    const labelled = block === 1 && size <= 32;
    const edge = labelled ? 62 : 4;
    const cell = MATRIX / size;
    const context = prepared(canvas, MATRIX + edge, MATRIX + edge);
    context.fillStyle = "rgba(128, 128, 128, 0.08)";
    context.fillRect(edge, 0, MATRIX, MATRIX);
    context.drawImage(answer.picture, edge, 0, MATRIX, MATRIX);
    const [token, other] = [Math.floor(shown() / block), Math.floor(get("other") / block)];
    const [query, key] = get("direction") === "from" ? [token, other] : [other, token];
    context.strokeStyle = context.fillStyle = getComputedStyle(el).color;
    context.lineWidth = 1.2;
    if (get("direction") === "from") context.strokeRect(edge, query * cell, MATRIX, Math.max(cell, 2));
    else context.strokeRect(edge + key * cell, 0, Math.max(cell, 2), MATRIX);
    if (labelled) {
      context.font = `${Math.min(10, cell)}px monospace`;
      context.textBaseline = "middle";
      for (let index = 0; index < size; index += 1) {
        const name = shortened(reading.tokens[index][0]);
        context.globalAlpha = index === query ? 1 : 0.65;
        context.textAlign = "right";
        context.fillText(name, edge - 4, (index + 0.5) * cell);
        context.save();
        context.globalAlpha = index === key ? 1 : 0.65;
        context.translate(edge + (index + 0.5) * cell, MATRIX + 4);
        context.rotate(-Math.PI / 2);
        context.fillText(name, 0, 0);
        context.restore();
      }
    }
    canvas.geometry = { edge, cell, size, block };
    const name = `layer ${get("layer")} head ${get("head")}`;
    canvas.setAttribute("aria-label", `${VIEWS[get("view")]} of ${name}: a row for each looking token`);
    const blocks = block === 1 ? "" : `, ${block} tokens a cell`;
    const colours = get("view") === "pattern" ? "" : `; blue +, orange −, full at ±${answer.limit.toFixed(1)}`;
    part(".told").textContent = `row looks at column${blocks}${colours}`;
  }

  const place = (event) => {
    const { geometry } = event.currentTarget;
    if (!geometry) return null;
    const { edge, cell, size, block } = geometry;
    const [column, row] = [(event.offsetX - edge) / cell, event.offsetY / cell].map(Math.floor);
    const inside = column >= 0 && row >= column && row < size;
    return inside ? { query: row * block, key: column * block, block } : null;
  };
  part(".matrix canvas").addEventListener("click", (event) => {
    const there = place(event);
    if (there) tell({ type: "pick", ...head(), view: get("view"), ...there });
  });
  part(".matrix canvas").addEventListener("pointermove", (event) => {
    const there = place(event);
    if (!there) return;
    const name = (index) => `${reading.tokens[index][0]} (${index})`;
    part(".told").textContent = `${name(there.query)} → ${name(there.key)}${there.block > 1 ? " …" : ""}`;
  });

  // Tokens: hover and arrow keys show, click and Enter keep, Shift sets the other end.
  const look = (index) => {
    preview = index;
    drawText();
    drawMatrix();
  };
  const keep = (index, other) => {
    preview = null;
    if (other) set({ other: index });
    else set({ token: index });
    draw();
  };
  const at = (event) => event.target.closest?.(".token");
  text.addEventListener("pointerover", (event) => at(event) && look(at(event).index));
  text.addEventListener("pointerleave", () => look(null));
  text.addEventListener("click", (event) => {
    if (!at(event)) return;
    keep(at(event).index, event.shiftKey);
    at(event).focus({ preventScroll: true });
  });
  text.addEventListener("focusout", (event) => text.contains(event.relatedTarget) || look(null));
  const inLine = (span, step) => {
    // The token of the line above or below that stands closest.
    const lines = [...new Set(spans.map((each) => each.offsetTop))].sort((one, other) => one - other);
    const top = lines[lines.indexOf(span.offsetTop) + step];
    const distance = (each) => Math.abs(each.offsetLeft + each.offsetWidth / 2 - span.offsetLeft - span.offsetWidth / 2);
    const there = spans.filter((each) => each.offsetTop === top);
    return there.length ? there.reduce((best, each) => (distance(each) < distance(best) ? each : best)) : span;
  };
  text.addEventListener("keydown", (event) => {
    const span = at(event);
    if (!span) return;
    const go = (index) => spans[clamp(index, spans.length - 1)];
    const moves = {
      ArrowLeft: () => go(span.index - 1),
      ArrowRight: () => go(span.index + 1),
      ArrowUp: () => inLine(span, -1),
      ArrowDown: () => inLine(span, 1),
      Home: () => go(0),
      End: () => go(Infinity),
    };
    if (event.key in moves) {
      const next = moves[event.key]();
      look(next.index);
      rove(spans, next);
      next.focus();
    } else if (event.key === "Enter" || event.key === " ") keep(span.index, event.shiftKey);
    else if (event.key === "Escape") look(null);
    else return;
    event.preventDefault();
    event.stopPropagation();
  });

  grid.addEventListener("keydown", (event) => {
    const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -reading.heads, ArrowDown: reading.heads };
    const rank = ranked.indexOf(buttons.indexOf(event.target.closest("button")));
    if (rank < 0 || !(event.key in steps || event.key === "Home" || event.key === "End")) return;
    const wanted = event.key === "Home" ? 0 : event.key === "End" ? ranked.length - 1 : rank + steps[event.key];
    const button = buttons[ranked[wanted]];
    if (button) {
      set(button.place);
      button.focus();
    }
    event.preventDefault();
    event.stopPropagation();
  });

  const updateViews = radios(part(".view"), VIEWS, view, "view");
  const updateDirections = radios(part(".direction"), DIRECTIONS, view, "direction");
  slider.addEventListener("input", () => set({ threshold: Number(slider.value) }));
  for (const name of get("orders")) select.append(make("option", { value: name }, name));
  select.addEventListener("change", () => set({ order: select.value }));

  const box = textBox(view, draw);
  show("details", (html) => (part(".details").innerHTML = html));
  for (const name of ["layer", "head", "token", "other", "view", "direction", "threshold", "order"])
    model.on(`change:${name}`, draw);
  show("marks", () => {
    drawMarks();
    draw();
  });
  const observer = new ResizeObserver(() => reading && drawText());
  observer.observe(page);
  // What is written on canvases has the colour of the theme in which it was drawn.
  const theme = new MutationObserver(draw);
  theme.observe(document.body, { attributeFilter: ["data-jp-theme-name", "data-jp-theme-light"] });
  model.send({ type: "whole" });
  return () => {
    observer.disconnect();
    theme.disconnect();
  };
}

export default { render };
