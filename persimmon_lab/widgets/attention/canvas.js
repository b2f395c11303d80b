// What the views of the attention explorer draw with.

/**
 * The page as its views share it: besides the ways to parts and traits, what is looked at now.
 * @typedef {View & {
 *   el: HTMLElement,
 *   reading: Content | null,
 *   preview: number | null,
 *   need: (type: string, question: object) => any,
 *   take: (content: Content, make: () => any) => boolean,
 *   tell: (message: object) => void,
 *   shown: () => number,
 *   head: () => {layer: number, head: number},
 *   look: (token: number | null) => void,
 *   draw: () => void,
 * }} Page  `preview` is the token under the pointer or the focus
 */
/**
 * One of the views: what it does when a text was read, when an answer of its kind comes, and to show the present state.
 * `data` are the bytes that came with the content.
 * @typedef {object} AttentionView
 * @property {(content: Content, data: ArrayBuffer[]) => void} [begin]
 * @property {(content: Content, data: ArrayBuffer[]) => void} [answer]
 * @property {() => void} draw
 */

const VIEWS = { pattern: "attention", score: "score", rotated: "rotated part", passed: "passed part" };
const DIRECTIONS = { from: "where it looks", to: "who looks at it" };
const LARGEST = 16384; // pixels that every browser gives a canvas
const VERMILLION = [213, 94, 0];

/**
 * Bytes from -127 to 127 as a picture: blue above zero, vermillion below, see-through where there is nothing.
 * @param {Int8Array} bytes
 * @param {number} width
 * @param {number} height
 */
function picture(bytes, width, height) {
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  const image = context.createImageData(width, height);
  bytes.forEach((value, index) => {
    const opacity = Math.min(255, 2 * Math.abs(value));
    image.data.set([...(value < 0 ? VERMILLION : BLUE), opacity], 4 * index);
  });
  context.putImageData(image, 0, 0);
  return canvas;
}

/** The colour behind an element. @param {Element | null} element @returns {string} */
function ground(element) {
  const colour = element ? getComputedStyle(element).backgroundColor : "Canvas";
  return /^rgba\(.*, 0\)$|^transparent$/.test(colour) ? ground(element?.parentElement ?? null) : colour;
}

/**
 * A canvas of so many CSS pixels, sharp on every screen and empty.
 * @param {HTMLCanvasElement} canvas
 * @param {number} width
 * @param {number} height
 */
function prepared(canvas, width, height) {
  const ratio = Math.min(window.devicePixelRatio || 1, LARGEST / Math.max(width, height, 1));
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  context.scale(ratio, ratio);
  context.imageSmoothingEnabled = false;
  return context;
}

/**
 * A number of the reading as a reader sees it.
 * @param {number} value
 * @param {string} unit  "%", "bits", or none for a score
 */
function told(value, unit = "", digits = 2) {
  if (unit === "%") return `${(100 * value).toFixed(1)} %`;
  if (unit === "bits") return `${value.toFixed(2)} bits`;
  return `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(digits)}`;
}

/**
 * One focusable thing of many: the others are reached by arrow keys.
 * @param {HTMLElement[]} items
 * @param {HTMLElement} next
 */
function rove(items, next) {
  for (const item of items) if (item.tabIndex === 0 && item !== next) item.tabIndex = -1;
  next.tabIndex = 0;
}
