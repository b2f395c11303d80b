// What the explorers of a text have in common. Python puts this in front of each one's own script, and they make one
// module. Text reaches the page as text only; HTML comes escaped from Python.

/**
 * Ways to the parts of the page and to the traits that are shared with Python.
 * @typedef {object} View
 * @property {(selector: string) => any} part
 * @property {(trait: string) => any} get
 * @property {(changes: object) => void} set
 * @property {(trait: string, apply: (value: any) => void) => void} show  calls now, and at every change
 */
/**
 * How a text was read, or an answer about it: whatever a kind of explorer sends with these.
 * @typedef {{type: string, key?: string, reading: number, text: string, failed?: boolean} & Record<string, any>} Content
 */

const BLUE = [30, 136, 200];
const STRONGEST = 0.72; // opacity: text on it stays readable in both themes
const MUTED = 0.8; // opacity of text that stands back; with less its contrast would fall below 4.5
const PATIENCE = 400; // ms without a key until a changed text is read
const FORGOTTEN = 3000; // ms until an unanswered question is asked again
const KEPT = 2000; // answers

/** @param {number[]} colour @param {number | string} opacity */
const rgba = ([red, green, blue], opacity) => `rgba(${red}, ${green}, ${blue}, ${opacity})`;
/** @param {number} value @param {number} most */
const clamp = (value, most) => Math.max(0, Math.min(value, most));
/**
 * @param {string} name
 * @param {Record<string, any>} attributes
 * @returns {any} an element
 */
const make = (name, attributes = {}, text = "") => {
  const element = Object.assign(document.createElement(name), { textContent: text });
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
};

/**
 * Builds the frame.
 * @param {{model: Model, el: HTMLElement}} widget
 * @param {string} name  the class of this kind of explorer
 * @param {string} frame
 * @returns {View}
 */
function framed({ model, el }, name, frame) {
  el.classList.add(KEEPS_KEYS, "persimmon-explorer", name);
  el.innerHTML = frame;
  const warning = make("div", { class: "warning", role: "status" });
  el.querySelector(".error")?.after(warning);
  sayWhenGone(model, () => el);
  const part = (selector) => el.querySelector(selector);
  const get = (trait) => model.get(trait);
  const set = (changes) => {
    for (const [trait, value] of Object.entries(changes)) model.set(trait, value);
    model.save_changes();
  };
  const show = (trait, apply) => {
    const update = () => apply(get(trait));
    model.on(`change:${trait}`, update);
    update();
  };
  show("warning", (message) => (warning.textContent = message));
  return { part, get, set, show };
}

/**
 * Takes the focus out of an element whose content is about to be replaced, and says whether it was there. Removing what
 * has the focus fires `focusout` in the middle of the replacing, and whoever draws then draws what is half there.
 * @param {Element} container
 */
function letGo(container) {
  const focused = document.activeElement;
  if (!(focused instanceof HTMLElement) || !container.contains(focused)) return false;
  focused.blur();
  return true;
}

/**
 * Radio buttons for a trait. Returns what shows the trait's present value.
 * @param {Element} parent
 * @param {Record<string, string>} options  what is shown of each value
 * @param {View} view
 * @param {string} trait
 */
function radios(parent, options, { get, set }, trait) {
  const name = `persimmon-${trait}-${Math.random()}`; // a group reaches across the page, also to other explorers
  for (const [value, text] of Object.entries(options)) {
    const label = make("label");
    const input = make("input", { type: "radio", name, value });
    input.addEventListener("change", () => set({ [trait]: value }));
    label.append(input, make("span", {}, text));
    parent.append(label);
  }
  return () => {
    for (const input of parent.querySelectorAll("input")) input.checked = input.value === get(trait);
  };
}

/**
 * The text box and the error below it. A changed text is read when the typing stops; until then, and while there is an
 * error, what is drawn is of another text, and stale.
 * @param {View} view
 * @param {() => void} draw
 */
function textBox({ part, get, set, show }, draw) {
  const box = part("textarea");
  box.dir = "auto";
  let drawn = "";
  let waiting;
  const submit = () => {
    clearTimeout(waiting);
    if (box.value !== get("text")) set({ text: box.value });
  };
  box.addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(submit, PATIENCE);
    draw();
  });
  box.addEventListener("change", submit);
  show("error", (message) => {
    part(".error").textContent = message;
    draw();
  });
  show("text", (value) => {
    if (document.activeElement !== box) box.value = value;
  });
  return {
    /** @param {string} text  that is drawn from now on */
    begin(text) {
      drawn = text;
      if (document.activeElement !== box || get("text") === text) box.value = get("text");
    },
    markStale: () => part(".panes").classList.toggle("stale", box.value !== drawn || get("error") !== ""),
  };
}

/**
 * Questions about one reading of a text, and their answers. In each slot one question at a time is on its way, since a
 * pointer crosses much that nobody looks at; whoever draws when the answer comes asks the latest that is lacking.
 * @param {Model} model
 * @param {(type: string, key: string) => string} slot
 */
function questions(model, slot) {
  let reading = -1;
  const answers = new Map();
  const asked = new Map(); // when a slot's question was asked that has no answer yet
  /** @param {object} message  Python hears no more of a reading that is over. */
  const tell = (message) => model.send({ reading, ...message });
  return {
    tell,
    /** @param {Content} content */
    begin(content) {
      reading = content.reading;
      answers.clear();
      asked.clear();
    },
    /**
     * An answer, or null where it is still to come.
     * @param {string} type
     * @param {object} question
     * @returns {any}
     */
    need(type, question) {
      const key = JSON.stringify([type, reading, question]);
      if (answers.has(key)) return answers.get(key);
      const place = slot(type, key);
      if (reading >= 0 && !(performance.now() - asked.get(place) < FORGOTTEN)) {
        asked.set(place, performance.now());
        tell({ type, key, ...question });
      }
      return null;
    },
    /**
     * Keeps what `make` makes of an answer. False where there is nothing new to draw.
     * @param {Content} content
     * @param {() => any} make
     */
    take(content, make = () => content) {
      if (content.reading !== reading) return false;
      asked.delete(slot(content.type, content.key ?? ""));
      if (content.failed) return false;
      if (answers.size > KEPT) answers.clear();
      answers.set(content.key, make());
      return true;
    },
  };
}
