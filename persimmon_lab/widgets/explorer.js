// What the explorers of a text have in common. Python puts this in front of each one's own script, and the two make one
// module. Text reaches the page as text only; HTML comes escaped from Python.

const BLUE = [30, 136, 200];
const STRONGEST = 0.72; // opacity: text on it stays readable in both themes
const PATIENCE = 400; // ms without a key until a changed text is read
const FORGOTTEN = 3000; // ms until an unanswered question is asked again
const KEPT = 2000; // answers

const rgba = ([red, green, blue], opacity) => `rgba(${red}, ${green}, ${blue}, ${opacity})`;
const clamp = (value, most) => Math.max(0, Math.min(value, most));
const make = (name, attributes = {}, text = "") => {
  const element = Object.assign(document.createElement(name), { textContent: text });
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
};

// Builds the frame, and gives ways to its parts and to the traits that are shared with Python.
function framed({ model, el }, name, frame) {
  el.classList.add("persimmon-explorer", name);
  el.setAttribute("data-lm-suppress-shortcuts", "true");
  el.addEventListener("keydown", (event) => event.stopPropagation()); // JupyterLab's shortcuts are not meant
  el.innerHTML = frame;
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
  return { part, get, set, show };
}

// Radio buttons for a trait. Returns what shows the trait's present value.
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

// The text box and the error below it. A changed text is read when the typing stops; until then, and while there is an
// error, what is drawn is of another text, and stale.
function textBox({ part, get, set, show }, draw) {
  const box = part("textarea");
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
    begin(text) {
      drawn = text;
      if (document.activeElement !== box || get("text") === text) box.value = get("text");
    },
    markStale: () => part(".panes").classList.toggle("stale", box.value !== drawn || get("error") !== ""),
  };
}

// Questions about one reading of a text, and their answers. In each slot one question at a time is on its way, since a
// pointer crosses much that nobody looks at; whoever draws when the answer comes asks the latest that is lacking.
function questions(model, slot) {
  let reading = -1;
  const answers = new Map();
  const asked = new Map(); // when a slot's question was asked that has no answer yet
  const tell = (message) => model.send({ reading, ...message }); // Python hears no more of a reading that is over
  return {
    tell,
    begin(content) {
      reading = content.reading;
      answers.clear();
      asked.clear();
    },
    // An answer, or null where it is still to come.
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
    // Keeps what `made` makes of an answer. False where there is nothing new to draw.
    take(content, made = () => content) {
      if (content.reading !== reading) return false;
      asked.delete(slot(content.type, content.key));
      if (content.failed) return false;
      if (answers.size > KEPT) answers.clear();
      answers.set(content.key, made());
      return true;
    },
  };
}

