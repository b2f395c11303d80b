// No key that is pressed inside a widget is meant for the notebook around it, where x and d d delete the cell. Python
// puts this in front of every widget's own script. JupyterLab hears a key twice: its shortcuts hear it before the widget
// does, unless an element on the way says `data-lm-suppress-shortcuts`; and the notebook when it comes up to it, and
// then takes the focus.

/**
 * A widget's model, as anywidget hands it to `render`.
 * @typedef {object} Model
 * @property {(trait: string) => any} get
 * @property {(trait: string, value: any) => void} set
 * @property {() => void} save_changes
 * @property {(content: object) => void} send
 * @property {(event: string, listener: (...given: any[]) => void) => void} on
 */

/** The class of an element inside which keys stay. */
const KEEPS_KEYS = "persimmon-widget";

/**
 * Sees to it that the widget around the target keeps this key and all that follow.
 * @param {KeyboardEvent} event
 */
function keepKeys({ target }) {
  const widget = target instanceof Element && target.closest(`.${KEEPS_KEYS}`);
  if (!widget || widget.hasAttribute("data-lm-suppress-shortcuts")) return;
  widget.setAttribute("data-lm-suppress-shortcuts", "true");
  widget.addEventListener("keydown", (event) => event.stopPropagation());
}

/**
 * Says so where the kernel of a widget was restarted or is gone, until it is heard of again.
 * @param {Model} model
 * @param {() => Element | null} widget  where it is said, on top
 */
function sayWhenGone(model, widget) {
  const word = document.createElement("div");
  word.setAttribute("role", "alert");
  word.style.cssText = "border-left: 3px solid var(--jp-warn-color1, #b26a00); padding: 2px 10px; margin: 4px 0";
  word.textContent = "The kernel of this widget is gone: what it shows stays as it is. Run its cell again.";
  model.on("comm_live_update", () => widget()?.prepend(word));
  for (const event of ["change", "msg:custom"]) model.on(event, () => word.remove());
}

// Once a page, before anybody else hears of the key: so what stands in a box of ipywidgets, which has no script of ours,
// is kept as well.
if (!("persimmonKeepsKeys" in window)) {
  Object.assign(window, { persimmonKeepsKeys: true });
  window.addEventListener("keydown", keepKeys, true);
}

