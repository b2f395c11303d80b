// The third view: the chosen head large, a row for each looking token.

const MATRIX = 250; // CSS pixels

/** @param {string} name */
const shortened = (name) => (name.length > 8 ? `${name.slice(0, 7)}…` : name);

/** @param {Page} page @returns {AttentionView} */
function matrixView(page) {
  const { part, get, need, take, tell } = page;
  const canvas = part(".matrix canvas");
  /** @type {{edge: number, cell: number, size: number, block: number} | null} of what is drawn */
  let geometry = null;

  /** @param {Content} content @param {ArrayBuffer[]} data */
  function answer(content, [bytes]) {
    const { size } = content;
    if (take(content, () => ({ ...content, picture: picture(new Int8Array(bytes), size, size) }))) draw();
  }

  function draw() {
    if (!page.reading) return;
    const found = need("head", { ...page.head(), view: get("view") });
    if (!found) return;
    const { size, block } = found;
    const labelled = block === 1 && size <= 32;
    const edge = labelled ? 62 : 4;
    const cell = MATRIX / size;
    geometry = { edge, cell, size, block };
    canvas.dataset.geometry = JSON.stringify(geometry); // for who looks at the page from outside
    const context = prepared(canvas, MATRIX + edge, MATRIX + edge);
    context.fillStyle = "rgba(128, 128, 128, 0.08)";
    context.fillRect(edge, 0, MATRIX, MATRIX);
    context.drawImage(found.picture, edge, 0, MATRIX, MATRIX);
    const token = Math.floor(page.shown() / block);
    const other = Math.floor(get("other") / block);
    const from = get("direction") === "from";
    const [query, key] = from ? [token, other] : [other, token];
    context.strokeStyle = context.fillStyle = getComputedStyle(page.el).color;
    context.lineWidth = 1.2;
    if (from) context.strokeRect(edge, query * cell, MATRIX, Math.max(cell, 2));
    else context.strokeRect(edge + key * cell, 0, Math.max(cell, 2), MATRIX);
    if (labelled) drawLabels(context, edge, cell, query, key);
    const { layer, head } = page.head();
    const name = `${VIEWS[get("view")]} of layer ${layer} head ${head}`;
    canvas.setAttribute("aria-label", `${name}: a row for each looking token`);
    const blocks = block === 1 ? "" : `, ${block} tokens a cell`;
    const colours = get("view") === "pattern" ? "" : `; blue +, orange −, full at ±${found.limit.toFixed(1)}`;
    part(".told").textContent = `row looks at column${blocks}${colours}`;
  }

  /**
   * The tokens beside the rows and below the columns, those of `query` and `key` stronger.
   * @param {CanvasRenderingContext2D} context
   * @param {number} edge @param {number} cell @param {number} query @param {number} key
   */
  function drawLabels(context, edge, cell, query, key) {
    context.font = `${Math.min(10, cell)}px monospace`;
    context.textBaseline = "middle";
    context.textAlign = "right";
    /** @type {Content} */ (page.reading).tokens.forEach(([name], index) => {
      context.globalAlpha = index === query ? 1 : MUTED;
      context.fillText(shortened(name), edge - 4, (index + 0.5) * cell);
      context.save();
      context.globalAlpha = index === key ? 1 : MUTED;
      context.translate(edge + (index + 0.5) * cell, MATRIX + 4);
      context.rotate(-Math.PI / 2);
      context.fillText(shortened(name), 0, 0);
      context.restore();
    });
  }

  /** The first query and key of the block under the pointer, or null. @param {MouseEvent} event */
  function at({ offsetX, offsetY }) {
    if (!geometry) return null;
    const { edge, cell, size, block } = geometry;
    const column = Math.floor((offsetX - edge) / cell);
    const row = Math.floor(offsetY / cell);
    const inside = column >= 0 && row >= column && row < size;
    return inside ? { query: row * block, key: column * block, block } : null;
  }
  canvas.addEventListener("click", (event) => {
    const there = at(event);
    if (there) tell({ type: "pick", ...page.head(), view: get("view"), ...there });
  });
  canvas.addEventListener("pointermove", (event) => {
    const there = at(event);
    if (!there) return;
    const name = (index) => `${page.reading?.tokens[index][0]} (${index})`;
    part(".told").textContent = `${name(there.query)} → ${name(there.key)}${there.block > 1 ? " …" : ""}`;
  });

  return { answer, draw };
}
