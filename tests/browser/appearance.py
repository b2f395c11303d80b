"""How an explorer stands in a notebook: in a page of every width, and in JupyterLab's light and dark theme."""


def in_theme(jupyter, theme):
    jupyter.command("apputils:change-theme", theme=f"JupyterLab {theme}")
    is_light = str(theme == "Light").lower()
    jupyter.page.wait_for_function(f"document.body.dataset.jpThemeLight === '{is_light}'")
    jupyter.page.wait_for_function("document.querySelector('#jupyterlab-splash') === null")


def picture(jupyter, explorer, name):
    """A screenshot of the explorer with a little of what is around it."""
    jupyter.page.mouse.move(5, 5)
    jupyter.page.evaluate("document.fonts.ready.then(() => new Promise(requestAnimationFrame))")
    around = explorer.bounding_box()
    edges = {
        "x": around["x"] - 8,
        "y": around["y"] - 6,
        "width": around["width"] + 16,
        "height": around["height"] + 12,
    }
    jupyter.screenshot(name, clip=edges)


def nothing_sticks_out(jupyter, explorer):
    # Waits, as JupyterLab lays out its panels a little after the window has changed.
    fits = """(explorer) => {
        const inside = explorer.getBoundingClientRect();
        return [...explorer.querySelectorAll("section")].every((part) => {
            const box = part.getBoundingClientRect();
            const within = box.left >= inside.left && box.right <= inside.right + 1;
            return within && part.scrollWidth - part.clientWidth <= 1;
        });
    }"""
    jupyter.page.wait_for_function(fits, arg=explorer.element_handle())


def stands_in_every_page(jupyter, explorer, name, in_the_dark=lambda: None):
    """Nothing of the explorer is cut in a page of any width; leaves NAME.png and, after `in_the_dark`, NAME-dark.png.

    The theme is a setting of the server, which other tests use too: it is light before and after.
    """
    page = jupyter.page
    page.evaluate("document.activeElement.blur()")
    in_theme(jupyter, "Light")
    for width in (500, 700, 1000):
        page.set_viewport_size({"width": width + 400, "height": 1000})
        nothing_sticks_out(jupyter, explorer)
    page.set_viewport_size({"width": 1280, "height": 900})
    jupyter.command("application:toggle-left-area")
    page.wait_for_function("explorer => explorer.clientWidth > 1000", arg=explorer.element_handle())
    nothing_sticks_out(jupyter, explorer)
    picture(jupyter, explorer, name)
    try:
        in_theme(jupyter, "Dark")
        in_the_dark()
        picture(jupyter, explorer, f"{name}-dark")
    finally:
        in_theme(jupyter, "Light")
