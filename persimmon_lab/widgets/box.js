// A widget that shows nothing: with it, a box of ipywidgets brings keys.js to the page, and its pictures a text.

/** @param {{model: Model, el: HTMLElement}} widget */
function render({ model, el }) {
  const around = () => el.closest(`.${KEEPS_KEYS}`);
  sayWhenGone(model, around);
  const describe = () => {
    for (const picture of around()?.querySelectorAll("img") ?? []) picture.alt = model.get("alt");
  };
  model.on("change:alt", describe);
  setTimeout(describe); // once this stands where it is shown
}

export default { render };
