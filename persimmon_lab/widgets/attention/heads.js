// The first view: every head small, in the order of layers or of a score, and buttons for the marked ones.

/** @param {Page} page @returns {AttentionView} */
function headsView(page) {
  const { part, get, set, need, take } = page;
  const grid = part(".grid");
  /** @type {any[]} one a head, with its `place` */
  let buttons = [];
  /** @type {number[]} heads in the order in which they stand */
  let ranked = [];
  /** @type {HTMLCanvasElement | null} */
  let thumbnails = null;

  /** @param {Content} content @param {ArrayBuffer[]} data */
  function begin({ layers, heads, size }, [bytes]) {
    thumbnails = picture(new Int8Array(bytes), size, layers * heads * size);
    if (buttons.length === layers * heads && buttons.at(-1).place.layer === layers - 1) return;
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

  /** @param {Content} content @param {ArrayBuffer[]} data */
  function answer(content, [scores, bytes]) {
    const strips = new Int8Array(bytes);
    const rows = buttons.length;
    const scored = () => ({
      ...content,
      scores: new Float32Array(scores),
      strips: picture(strips, strips.length / rows, rows),
    });
    if (take(content, scored)) draw();
  }

  /** @param {any} found  the scores of the order, or null */
  function rank(found) {
    const inLayers = buttons.map((_, index) => index);
    if (get("order") === "layer") ranked = inLayers;
    else if (found) {
      const { scores, lowest_first } = found;
      const sign = lowest_first ? 1 : -1;
      ranked = inLayers.sort((one, other) => sign * (scores[one] - scores[other]) || one - other);
    } else if (ranked.length !== buttons.length) ranked = inLayers;
  }

  function draw() {
    if (!page.reading) return;
    const found = need("heads", {
      token: get("token"),
      other: get("other"),
      direction: get("direction"),
      order: get("order"),
    });
    rank(found);
    const { layers, heads } = page.reading;
    const byLayer = get("order") === "layer";
    const cell = Math.max(20, Math.min(46, Math.floor(330 / heads)));
    const caption = byLayer ? 0 : 22;
    const strip = 5;
    const height = cell + strip + caption;
    const edge = byLayer ? 16 : 0; // room for the numbers of layers and heads
    const context = prepared(part(".grid canvas"), edge + heads * cell, edge + layers * height);
    grid.style.width = `${edge + heads * cell}px`;
    grid.style.height = `${edge + layers * height}px`;
    context.fillStyle = getComputedStyle(page.el).color;
    context.font = "10px sans-serif";
    if (byLayer) {
      context.globalAlpha = 0.65;
      context.textAlign = "center";
      for (let head = 0; head < heads; head += 1) context.fillText(String(head), edge + (head + 0.5) * cell, 11);
      for (let layer = 0; layer < layers; layer += 1)
        context.fillText(String(layer), 7, edge + layer * height + cell / 2 + 3);
      context.globalAlpha = 1;
    }
    ranked.forEach((index, rank) => {
      const x = edge + (rank % heads) * cell;
      const y = edge + Math.floor(rank / heads) * height;
      const weak = !byLayer && found && found.unit === "%" && found.scores[index] < get("threshold") / 100;
      drawPicture(context, index, x, y, cell - 6, strip, found, weak);
      place(index, `left:${x}px;top:${y}px;width:${cell}px;height:${height}px`, found, weak);
    });
    const chosen = get("layer") * heads + get("head");
    rove(buttons, buttons[chosen]);
    const seen = get("direction") === "from" ? "where the chosen token looks" : "who looks at the chosen token";
    part(".meaning").textContent = byLayer ? `Below each head: ${seen}` : (found?.meaning ?? "");
  }

  /**
   * A head's pattern, and below it the strip of what the chosen token sees there.
   * @param {CanvasRenderingContext2D} context
   * @param {number} index @param {number} x @param {number} y @param {number} inner @param {number} strip
   * @param {any} found @param {boolean} weak
   */
  function drawPicture(context, index, x, y, inner, strip, found, weak) {
    const { size } = /** @type {Content} */ (page.reading);
    context.globalAlpha = weak ? 0.3 : 1;
    context.fillStyle = "rgba(128, 128, 128, 0.1)";
    context.fillRect(x + 3, y + 3, inner, inner);
    if (thumbnails) context.drawImage(thumbnails, 0, index * size, size, size, x + 3, y + 3, inner, inner);
    if (!found) return;
    context.fillRect(x + 3, y + 4 + inner, inner, strip - 1);
    const { strips } = found;
    context.drawImage(strips, 0, index, strips.width, 1, x + 3, y + 4 + inner, inner, strip - 1);
  }

  /**
   * A head's button, where its picture is.
   * @param {number} index @param {string} style @param {any} found @param {boolean} weak
   */
  function place(index, style, found, weak) {
    const button = buttons[index];
    const { layer, head } = button.place;
    const mark = get("marks")[`${layer},${head}`];
    const chosen = layer === get("layer") && head === get("head");
    const value = found ? told(found.scores[index], found.unit) : "";
    if (button.getAttribute("style") !== style) button.setAttribute("style", style);
    button.className = `${mark ? "marked" : ""} ${chosen ? "chosen" : ""} ${weak ? "weak" : ""}`;
    button.firstChild.textContent = get("order") === "layer" ? "" : `${layer}·${head}\n${value}`;
    button.setAttribute("aria-checked", chosen);
    const name = `layer ${layer} head ${head}${mark ? `, ${mark}` : ""}${found ? `: ${value}` : ""}`;
    button.setAttribute("aria-label", name);
    button.title = name;
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

  grid.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
    const { heads } = /** @type {Content} */ (page.reading);
    const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -heads, ArrowDown: heads };
    const rank = ranked.indexOf(buttons.indexOf(/** @type {Element} */ (event.target).closest("button")));
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
  page.show("marks", () => {
    drawMarks();
    draw();
  });

  return { begin, answer, draw };
}
