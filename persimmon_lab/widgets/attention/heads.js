// The first view: every head small, in the order of layers or of a score, and buttons for the marked ones.

const ROOM = 330; // CSS pixels that the heads have side by side; beyond it they scroll
const CAPTIONED = 40; // that a head with its number and score needs
const SMALLEST = 20;
const LARGEST_HEAD = 46;

/** @param {Page} page @returns {AttentionView} */
function headsView(page) {
  const { part, get, set, need, take } = page;
  const grid = part(".grid");
  const scroll = part(".heads .scroll");
  let columns = 1;
  let revealed = ""; // the head and the order for which the scroll bars were moved
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
    columns = byLayer ? heads : Math.min(heads, Math.floor(ROOM / CAPTIONED));
    const rows = Math.ceil((layers * heads) / columns);
    const cell = clamp(Math.floor(ROOM / columns) - SMALLEST, LARGEST_HEAD - SMALLEST) + SMALLEST;
    const caption = byLayer ? 0 : 22;
    const strip = 5;
    const height = cell + strip + caption;
    const edge = byLayer ? 16 : 0; // room for the numbers of layers and heads
    const context = prepared(part(".grid canvas"), edge + columns * cell, edge + rows * height);
    grid.style.width = `${edge + columns * cell}px`;
    grid.style.height = `${edge + rows * height}px`;
    ranked.forEach((index, rank) => {
      const x = edge + (rank % columns) * cell;
      const y = edge + Math.floor(rank / columns) * height;
      const weak = !byLayer && found && found.unit === "%" && found.scores[index] < get("threshold") / 100;
      drawPicture(context, index, x, y, cell - 6, strip, found, weak);
      place(index, `left:${x}px;top:${y}px;width:${cell}px;height:${height}px`, found, weak);
    });
    const chosen = get("layer") * heads + get("head");
    rove(buttons, buttons[chosen]);
    reveal(buttons[chosen], `${ranked.indexOf(chosen)} ${get("order")}`);
    drawNames(byLayer ? edge : 0, cell, height);
    const seen = get("direction") === "from" ? "where the chosen token looks" : "who looks at the chosen token";
    part(".meaning").textContent = byLayer ? `Below each head: ${seen}` : (found?.meaning ?? "");
  }

  /** Scrolls to the chosen head, once for each choice. @param {HTMLElement} button @param {string} choice */
  function reveal({ offsetLeft, offsetTop, offsetWidth, offsetHeight }, choice) {
    const { clientWidth, clientHeight, scrollLeft, scrollTop } = scroll;
    if (revealed === choice || !clientWidth) return;
    revealed = choice;
    const isSeen =
      offsetLeft >= scrollLeft &&
      offsetTop >= scrollTop &&
      offsetLeft + offsetWidth <= scrollLeft + clientWidth &&
      offsetTop + offsetHeight <= scrollTop + clientHeight;
    if (isSeen) return;
    scroll.scrollLeft = offsetLeft + (offsetWidth - clientWidth) / 2;
    scroll.scrollTop = offsetTop + (offsetHeight - clientHeight) / 2;
  }

  /**
   * The numbers of layers and heads at the edges of what is seen, wherever it is scrolled to.
   * @param {number} edge  none where it is 0
   * @param {number} cell @param {number} height
   */
  function drawNames(edge, cell, height) {
    const { layers, heads } = /** @type {Content} */ (page.reading);
    const width = Math.min(scroll.clientWidth, grid.offsetWidth);
    const tall = Math.min(scroll.clientHeight, grid.offsetHeight);
    const context = prepared(part(".names canvas"), edge && width, edge && tall);
    scroll.onscroll = () => drawNames(edge, cell, height);
    if (!edge) return;
    context.fillStyle = ground(scroll);
    context.fillRect(0, 0, width, edge);
    context.fillRect(0, 0, edge, tall);
    context.fillStyle = getComputedStyle(page.el).color;
    context.font = "10px sans-serif";
    context.textAlign = "center";
    context.globalAlpha = MUTED;
    for (let head = 0; head < heads; head += 1) {
      const x = edge + (head + 0.5) * cell - scroll.scrollLeft;
      if (x > edge) context.fillText(String(head), x, 11);
    }
    for (let layer = 0; layer < layers; layer += 1) {
      const y = edge + layer * height + cell / 2 + 3 - scroll.scrollTop;
      if (y > edge + 3) context.fillText(String(layer), 7, y);
    }
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
    const short = value.replace(" bits", ""); // which stands below, once for all
    button.firstChild.textContent = get("order") === "layer" ? "" : `${layer}·${head}\n${short}`;
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
    const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns };
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
