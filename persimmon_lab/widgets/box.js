// A widget that shows nothing: with it, a box of ipywidgets brings keys.js to the page.

export default { render() {} };
