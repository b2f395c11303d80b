"""How well text can be read on a page: the contrast of every piece of it with what is painted behind."""

ENOUGH = 4.5  # of text, says WCAG 2.2 in 1.4.3

LOW = """([selector, enough]) => {
    const numbers = (colour) => {
        const [red, green, blue, opacity = 1] = colour.match(/[\\d.]+/g).map(Number);
        return { colour: [red, green, blue], opacity };
    };
    const mix = (opacity, top, below) => top.map((value, i) => opacity * value + (1 - opacity) * below[i]);
    const over = (css, below) => {
        const { colour, opacity } = numbers(css);
        return mix(opacity, colour, below);
    };
    // An element is painted on what is below it, and then all of it shines through as far as its opacity says.
    const painted = ([element, ...inner], below, ink) => {
        const style = getComputedStyle(element);
        const ground = over(style.backgroundColor, below);
        const seen = inner.length ? painted(inner, ground, ink) : { text: over(ink, ground), ground };
        const opacity = Number(style.opacity);
        return { text: mix(opacity, seen.text, below), ground: mix(opacity, seen.ground, below) };
    };
    const luminance = (colour) => {
        const [red, green, blue] = colour.map((value) => {
            const share = value / 255;
            return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
        });
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
    };
    const found = { texts: 0, low: [] };
    for (const root of document.querySelectorAll(selector)) {
        const walker = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
        for (let node = walker.nextNode(); node; node = walker.nextNode()) {
            const element = node.parentElement;
            if (!node.data.trim() || element.closest(":disabled, option, style")) continue;
            if (!element.checkVisibility({ opacityProperty: true, visibilityProperty: true })) continue;
            const chain = [];
            for (let each = element; each; each = each.parentElement) chain.unshift(each);
            const style = getComputedStyle(element);
            let ink = style.color;
            if (element instanceof SVGElement) {
                const { colour, opacity } = numbers(style.fill);
                ink = `rgba(${colour}, ${opacity * Number(style.fillOpacity)})`;
            }
            const { text, ground } = painted(chain, [255, 255, 255], ink);
            const [dark, light] = [luminance(text), luminance(ground)].sort((one, other) => one - other);
            const contrast = (light + 0.05) / (dark + 0.05);
            found.texts += 1;
            if (contrast < enough) {
                const where = `${element.parentElement.className}/${element.className?.baseVal ?? element.className}`;
                found.low.push(`${node.data.trim().slice(0, 20)} ${contrast.toFixed(2)} ${where}`);
            }
        }
    }
    return found;
}"""


def low_contrast(page, selector):
    """How many texts were looked at in these elements, and those with too little contrast, with where they stand."""
    found = page.evaluate(LOW, [selector, ENOUGH])
    return found["texts"], sorted(set(found["low"]))
