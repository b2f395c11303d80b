// The attention explorer: draws what Python computed, pictures of heads as bytes and rows of attention as float32. Asks
// for what it lacks, keeps what it has, and knows nothing of models. Its four views stand in front of it in one module.

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
      <div class="scroll"><div class="names"><canvas aria-hidden="true"></canvas></div><div class="grid" role="radiogroup" aria-label="Heads: arrow keys choose one">
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

const CHOICES = ["layer", "head", "token", "other", "view", "direction", "threshold", "order"]; // traits

/** @param {{model: Model, el: HTMLElement}} widget */
function render({ model, el }) {
  const view = framed({ model, el }, "persimmon-attention", FRAME);
  const { part, get, set } = view;
  const { begin: beginAsking, need, take, tell } = questions(model, (type) => type);

  /** @type {Page} */
  const page = {
    ...view,
    el,
    reading: null,
    preview: null,
    need,
    take,
    tell,
    shown: () => page.preview ?? get("token"),
    head: () => ({ layer: get("layer"), head: get("head") }),
    look(token) {
      page.preview = token;
      text.draw();
      matrix.draw();
    },
    draw,
  };
  const heads = headsView(page);
  const text = textView(page);
  const matrix = matrixView(page);
  const views = [heads, text, matrix, detailsView(page)];
  const answering = { heads, row: text, head: matrix };

  model.on("msg:custom", (/** @type {Content} */ content, /** @type {DataView[]} */ buffers) => {
    const data = buffers.map(
      ({ buffer, byteOffset, byteLength }) =>
        /** @type {ArrayBuffer} */ (buffer.slice(byteOffset, byteOffset + byteLength)),
    );
    if (content.type !== "whole") answering[content.type].answer(content, data);
    else if (!content.failed) begin(content, data);
  });

  /** @param {Content} content @param {ArrayBuffer[]} data */
  function begin(content, data) {
    beginAsking(content);
    page.preview = null;
    box.begin(content.text);
    page.reading = null; // nothing is drawn until all views have the new one
    for (const { begin } of views) begin?.(content, data);
    page.reading = content;
    draw();
  }

  function draw() {
    if (!page.reading) return;
    box.markStale();
    updateViews();
    updateDirections();
    slider.value = get("threshold");
    part("output").textContent = `${get("threshold")} %`;
    select.value = get("order");
    for (const view of views) view.draw();
  }

  const slider = part(".threshold input");
  const select = part("select");
  const updateViews = radios(part(".view"), VIEWS, view, "view");
  const updateDirections = radios(part(".direction"), DIRECTIONS, view, "direction");
  slider.addEventListener("input", () => set({ threshold: Number(slider.value) }));
  for (const name of get("orders")) select.append(make("option", { value: name }, name));
  select.addEventListener("change", () => set({ order: select.value }));

  const box = textBox(view, draw);
  for (const name of CHOICES) model.on(`change:${name}`, draw);
  const observer = new ResizeObserver(draw); // what was drawn while the page was hidden has no size
  observer.observe(part(".lines"));
  // What is written on canvases has the colour of the theme in which it was drawn. JupyterLab hides its page while it
  // changes the theme, where all has the size 0: a frame later it stands again, or the observer above will hear of it.
  const theme = new MutationObserver(() => requestAnimationFrame(draw));
  theme.observe(document.body, { attributeFilter: ["data-jp-theme-name", "data-jp-theme-light"] });
  model.send({ type: "whole" });
  return () => {
    observer.disconnect();
    theme.disconnect();
  };
}

export default { render };
