// The fourth view: the chosen token's strongest links in numbers, as Python wrote and escaped them.

/** @param {Page} page @returns {AttentionView} */
function detailsView({ part, show }) {
  show("details", (html) => (part(".details").innerHTML = html));
  return { draw() {} };
}
